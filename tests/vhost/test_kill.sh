#!/usr/bin/env bash
# test_kill.sh SHARD-BENCH JSON-CHECK SHARD-CTL SERVE CACHE...: a server of ours is killed under load and
# started again, some times over. The guest sees a pause: no error, no wrong byte.
. "$(dirname "$0")/../tools/lib.sh"
bench=$1 check=$2 ctl=$3 serve=$4
shift 4
rounds=5 socket=$work/socket server=

# start CACHE: a new server, on the store that is there.
start() {
  : > "$work/said"
  "$serve" "$work/store" "volume=v,socket=$socket,size=67108864,queues=2,cache=$1" \
    < "$work/nothing" > "$work/said" 2> "$work/server" &
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
mkfifo "$work/nothing"
exec 9<> "$work/nothing" # the server's input: open, and empty

# What was not flushed survives in memory only.
has_memory() { [ "$(stat -f -c %T /dev/shm)" = tmpfs ] && [ "$(df --output=avail /dev/shm | tail -1)" -ge 65536 ]; }

for cache in "$@"; do
  if [ "$cache" = back ] && ! has_memory; then
    echo "left out: cache=back: /dev/shm is no tmpfs with 64 MiB"
    continue
  fi
  rm -rf "$work/store"
  mkdir "$work/store"
  expect 0 "$ctl" format "$work/store" --size=256M --shards=2 --prealloc=sparse || finish
  start "$cache"
  wait_ready
  "$bench" --engine=vhost --socket="$socket" --rw=randrw --create --verify --size=16m --queues=2 \
    --iodepth=32 --batch=8 --runtime=4 --reconnect=30 --output-format=json \
    > "$work/json" 2> "$work/err" &
  client=$!
  for ((round = 0; round < rounds; round++)); do
    sleep 0.4
    unserve
    start "$cache"
    wait_ready
  done
  status=0
  wait "$client" || status=$?
  client=
  checks=$((checks + 2))
  [ $status -eq 0 ] || complain "cache=$cache: exit status $status: $(head -3 "$work/err")"
  "$check" "$work/json" jobs/0/total_err=0 jobs/0/error=0 'vhost/checked>4095' 'vhost/reconnects>1' ||
    complain "cache=$cache: JSON"
  unserve
  expect 0 "$ctl" flush "$work/store" # takes over what the last one has left in memory
  expect 0 "$ctl" check "$work/store"
done
finish
