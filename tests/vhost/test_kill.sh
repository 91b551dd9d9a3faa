#!/usr/bin/env bash
# test_kill.sh SHARD-BENCH JSON-CHECK SHARD-CTL SERVE WAY...: a server of ours is killed under load and
# started again, 5 times in each way, or as often as KILLS says. A way is a kind of cache, with packed-
# before it where the rings are packed ones, seq- where the guest writes from front to back, so that
# requests are merged. The guest sees a pause: no error, no wrong byte.
. "$(dirname "$0")/../tools/lib.sh"
bench=$1 check=$2 ctl=$3 serve=$4
shift 4
kills=${KILLS:-5} socket=$work/socket server=

# start CACHE: a new server, on the store that is there.
start() {
  : > "$work/said"
  "$serve" "$work/store" "volume=v,socket=$socket,size=67108864,queues=2,cache=$1" \
    < "$work/ask" >> "$work/said" 2> "$work/server" &
  server=$!
}
wait_ready() {
  until grep -q ready "$work/said"; do
    kill -0 "$server" 2> /dev/null || { complain "no server: $(cat "$work/server")"; finish; }
    sleep 0.01
  done
}
unserve() {
  [ -n "$server" ] || return 0
  kill -9 "$server" 2> /dev/null
  wait "$server" 2> /dev/null
  server=
}
client=
trap 'unserve; [ -z "$client" ] || kill "$client" 2> /dev/null; rm -rf "$work"' EXIT
mkfifo "$work/ask"
exec 9<> "$work/ask" # the server's input: open, and empty unless something is asked

# load: a client, which ends by itself.
load() {
  rm -f "$work/json"
  "$bench" --engine=vhost --socket="$socket" --rw=$rw --create --verify --size=16m --queues=2 \
    --iodepth=32 --batch=8 --ring=$ring --runtime=$((kills < 5 ? 4 : kills * 4 / 5)) --reconnect=30 \
    --output-format=json > "$work/json" 2> "$work/err" &
  client=$!
}
loaded() { kill -0 "$client" 2> /dev/null; }
# unload N: the client has ended, without an error, and had to connect again more than N times.
unload() {
  local status=0
  wait "$client" || status=$?
  client=
  checks=$((checks + 2))
  [ $status -eq 0 ] || complain "$way: exit status $status: $(head -3 "$work/err")"
  "$check" "$work/json" jobs/0/total_err=0 jobs/0/error=0 'vhost/checked>4095' "vhost/reconnects>$1" ||
    complain "$way: JSON: $(cat "$work/json")"
}
# written: the server has done a few of this client's writes. False: the client has ended.
written() {
  local stat
  while loaded; do
    echo "stat v" >&9
    sleep 0.02
    stat=$(tail -1 "$work/said")
    [[ $stat =~ " writes="([0-9]+) ]] && ((BASH_REMATCH[1] > 20)) && return
  done
  false
}

# What was not flushed survives in memory only.
has_memory() { [ "$(stat -f -c %T /dev/shm)" = tmpfs ] && [ "$(df --output=avail /dev/shm | tail -1)" -ge 65536 ]; }

for way in "$@"; do
  cache=${way##*-} ring=split rw=randrw
  [[ $way != packed-* ]] || ring=packed
  [[ $way != seq-* ]] || rw=write
  if [ "$cache" = back ] && ! has_memory; then
    echo "left out: $way: /dev/shm is no tmpfs with 64 MiB"
    continue
  fi
  rm -rf "$work/store"
  mkdir "$work/store"
  expect 0 "$ctl" format "$work/store" --size=256M --shards=2 --prealloc=sparse || finish
  start "$cache"
  wait_ready
  killed=0 clients=0
  while [ $killed -lt "$kills" ] && [ $failures -eq 0 ]; do
    load
    before=$killed clients=$((clients + 1))
    while [ $killed -lt "$kills" ] && written; do
      sleep "0.$((RANDOM % 4))"
      loaded || break
      unserve
      killed=$((killed + 1))
      start "$cache"
      wait_ready
    done
    # The last one may have come when all was done.
    unload $((killed - before - 2))
  done
  echo "$way: killed $killed times under load, of $clients clients"
  unserve
  expect 0 "$ctl" flush "$work/store" # takes over what the last one has left in memory
  expect 0 "$ctl" check "$work/store"
done
finish
