#!/usr/bin/env bash
# test_host_upgrade.sh SHARD-HOST SHARD-CTL JSON-CHECK HOST-CLIENT SHARD-BENCH: the daemon is replaced while
# guests are at work; successors that come to nothing; what goes along besides disks.
. "$(dirname "$0")/lib.sh"
host=$1 ctl=$2 check=$3 client=$4 bench=$5
. "$(dirname "$0")/host_lib.sh"
left_out=() rounds=5 loads=()
trap 'kill -KILL $daemon ${loads[@]+"${loads[@]}"} 2> /dev/null; rm -rf "$work"; rm -rf "$dir"' EXIT

# replace: a successor takes the daemon's place.
replace() {
  local old=$daemon got=0
  mv "$work/log" "$work/log.old"
  begin "${options[@]}" --takeover || return 1
  wait "$old" || got=$?
  checks=$((checks + 2))
  [ "$got" -eq 0 ] || complain "the old one ended with $got: $(tail -3 "$work/log.old")"
  grep -q "event=handed_over pid=$daemon" "$work/log.old" || complain "the old one says nothing"
  logged "event=taken_over pid=$old"
}

# load DISK OPTIONS...: a guest at work.
load() {
  local disk=$1
  shift
  "$bench" --engine=vhost --socket="$dir/$disk.sock" --rw=randrw --verify --queues=2 --iodepth=8 \
    --output-format=json "$@" > "$work/load.$disk" 2> "$work/load.$disk.err" &
  loads+=($!)
  for ((tries = 0; tries < 1500; tries++)); do
    ask stat "$disk" --json > "$work/out" && "$check" "$work/out" disk/connected=true 2> "$work/why" && return
    sleep 0.02
  done
  complain "$disk: nobody connects: $(cat "$work/load.$disk.err")"
}

# loaded DISK QUESTION...: the load of that disk ends without an error.
loaded() {
  local disk=$1 got=0
  shift
  wait "${loads[0]}" || got=$?
  loads=("${loads[@]:1}")
  checks=$((checks + 2))
  [ "$got" -eq 0 ] || complain "$disk: the guest's load ended with $got: $(head -3 "$work/load.$disk.err")"
  "$check" "$work/load.$disk" jobs/0/total_err=0 jobs/0/error=0 'vhost/checked>0' "$@" ||
    complain "$disk: JSON"
}

# at_work DISK: this daemon serves it, by the connection that it always had; its counters go on.
declare -A seen=()
at_work() {
  ask stat "$1" --json > "$work/out"
  json "disk/reads>$((${seen[$1]:-0} - 1))"
  seen[$1]=$(sed -n 's/^ *"reads": \([0-9]*\),$/\1/p' "$work/out")
  for ((tries = 0; tries < 1500; tries++)); do
    ask stat "$1" --json > "$work/out" || break
    "$check" "$work/out" "disk/reads>${seen[$1]}" 'disk/writes>0' 2> "$work/why" && break
    "$check" "$work/out" disk/connected=true && sleep 0.02 && continue
    complain "$1 has lost its guest, or its load is over"
    return 1
  done
  json disk/connected=true disk/active=true disk/connections=1 disk/errors=0 disk/queues_active=2
}

# ---- Under load -----------------------------------------------------------------------------------
options=()
expect 0 "$ctl" format "$here" --size=256M --shards=2 --prealloc=sparse || finish
mkdir "$work/files"
truncate -s 4M "$work/files/plain"
# A guest's load has a length: as much as this build on this machine takes for what follows.
took=$(date +%s%3N)
begin
expect 0 ask ping
end 0
took=$(($(date +%s%3N) - took))
runtime=$((5000 + 40 * took))ms
options=(--file-dir="$work/files" --lock-timeout=1s --metrics=127.0.0.1:0) page=
expect 1 "$host" --store="$here" --socket-dir="$dir" "${options[@]}" --takeover
said event=takeover 'no shard-host listens there'
has_metrics() {
  command -v curl > "$work/curl" || return 1
  : > "$work/log"
  "$host" --store="$here" --socket-dir="$dir" --cores=0 "${options[@]}" 2> "$work/log" &
  daemon=$!
  while ! grep -q 'event=ready' "$work/log"; do
    kill -0 "$daemon" 2> /dev/null || return 1
    sleep 0.02
  done
}
if has_metrics; then
  page=http://127.0.0.1:$(sed -n 's/.*event=metrics port=//p' "$work/log")/metrics
else
  left_out+=("figures: curl is missing, or no figures by HTTP in this build")
  options=("${options[@]:0:2}")
  begin "${options[@]}"
fi
expect 0 ask create one 32M --attach --queues=2
expect 0 ask create two 32M --striped --block=4096 --attach --queues=2 --cache=write-through
expect 0 ask attach plain --file --read-only --serial=number --socket=odd --mode=0640
load one --runtime=$runtime
load two --runtime=$runtime
at_work one
at_work two
# Beside it a client that never stops asking: it is answered, or told to come again.
(
  until [ -e "$work/enough" ]; do
    if ask stat plain --json > "$work/beside.out" 2> "$work/beside.err"; then
      echo served
    elif grep -qE 'EAGAIN|hung up' "$work/beside.err"; then
      echo later
    else
      cat "$work/beside.err" >> "$work/beside.odd"
    fi
  done > "$work/beside"
) &
beside=$!
for ((round = 0; round < rounds; round++)); do
  replace || break
  at_work one
  at_work two
  if [ -n "$page" ]; then
    checks=$((checks + 2))
    curl -Ssf --max-time 20 "$page" > "$work/figures" || complain "no figures any more: $page"
    grep -oP '^shardring_volume_(reads|writes|cpu_seconds|latency_seconds_count)[a-z_]*\{disk="one".* \K.*' \
      "$work/figures" > "$work/counters"
    [ $round -eq 0 ] || paste "$work/counters" "$work/counters.old" | awk '$1 < $2 { exit 1 }' ||
      complain "counters go back: $(paste "$work/counters" "$work/counters.old")"
    mv "$work/counters" "$work/counters.old"
    grep -qxF 'shardring_volume_connections_total{disk="one",volume="one"} 1' "$work/figures" ||
      complain "not the connection that it was: $(grep connections_total "$work/figures")"
  fi
done
: > "$work/enough"
wait $beside
checks=$((checks + 2))
[ ! -e "$work/beside.odd" ] || complain "a client beside: $(sort "$work/beside.odd" | uniq -c)"
[ "$(grep -c served "$work/beside")" -ge $rounds ] || complain "a client beside was hardly served"
expect 0 ask list --json
json 'disks#3' disks/0/connected=true disks/1/name=plain disks/1/read_only=true \
  "disks/1/socket=$dir/odd" disks/2/cache=write-through

# ---- Successors that come to nothing, still under load --------------------------------------------
expect 0 "$ctl" format "$work/other" --size=64M --shards=2 --prealloc=sparse
expect 1 "$host" --store="$work/other" --socket-dir="$dir" --cores=0 --takeover
said event=takeover EXDEV 'another one' "$here"
expect 1 "$host" --store="$work/nowhere" --socket-dir="$dir" --cores=0 --takeover
said 'No such file'
expect 1 "$host" --store=mem:64M --socket-dir="$dir" --cores=0 --takeover
said 'not supported'
lines '{"do":"upgrade"}\n{"do":"ping"}\n'
reply 1 ok=false error=EINVAL
reply 2 ok=true
at_work one

# One that has been given all disks, and is killed before it says that it has them. Whoever is
# connected meanwhile is told to come again; whoever comes waits.
mkfifo "$work/fifo" "$work/fifo2"
"$client" lines "$control" < "$work/fifo2" > "$work/early" &
early=$!
exec 8> "$work/fifo2"
"$client" lines "$control" < "$work/fifo" > "$work/given" &
killed=$!
exec 9> "$work/fifo"
printf '{"id":1,"do":"ping"}\n' >&8
until [ -s "$work/early" ]; do sleep 0.02; done
printf '{"do":"upgrade"}\n' >&9
until [ "$(wc -c < "$work/given")" -gt 2000 ]; do sleep 0.02; done # lines, and disks
printf '{"id":2,"do":"ping"}\n' >&8
until [ "$(wc -l < "$work/early")" -ge 2 ]; do sleep 0.02; done
timeout 60 "$ctl" host --control="$control" ping > "$work/late" 2>&1 &
late=$!
kill -KILL $killed
{ wait $killed; } 2> "$work/killed"
exec 9>&- 8>&-
wait $early
cp "$work/early" "$work/out"
reply 1 id=1 ok=true
reply 2 id=2 ok=false error=EAGAIN
wait $late || complain "who came meanwhile was not served: $(cat "$work/late")"
wait_for 'what="all goes on here"'
before=$daemon
at_work one
at_work two
# And one that hangs up at once.
printf '{"do":"upgrade"}\n' | timeout 30 "$client" lines "$control" > "$work/given"
expect 0 ask ping --json
json "pid=$before"
at_work one
at_work two
loaded one vhost/reconnects=0
loaded two vhost/reconnects=0

# ---- Afterwards all is as ever --------------------------------------------------------------------
[ -z "$page" ] || expect 0 curl -sf --max-time 20 "$page"
expect 0 ask upgrade
printed "pid $daemon" --takeover "--store=$here"
checks=$((checks + 1))
[ "$(grep -o -- --takeover "$work/out" | wc -l)" -eq 1 ] || complain "the option twice"
expect 0 ask detach plain
[ ! -e "$dir/odd" ] || complain "a disk's socket is still there"
expect 0 ask drain
expect 1 ask attach one
said ESHUTDOWN
replace
expect 0 ask ping --json
json draining=true
expect 0 ask drain --off
expect 0 ask attach one --queues=2
load one --runtime=200ms
loaded one
end 0
[ ! -e "$control" ] || complain "the control socket is still there"
expect 0 "$ctl" check "$here"
printed '0 findings'

# ---- Requests that wait at a limit ----------------------------------------------------------------
# 128 of them, 10 a second: that is longer than an upgrade waits.
begin
expect 0 ask attach one --queues=2
expect 0 ask limit one --iops=10
load one --iodepth=64 --runtime=200ms
until ask stat one --json > "$work/out" && "$check" "$work/out" 'disk/limit_waits>117' 2> "$work/why"; do
  sleep 0.02
done
replace
expect 0 ask stat one --json
json disk/connected=true disk/errors=0
expect 0 ask limit one --unlimited
loaded one vhost/reconnects=0
end 0

# ---- A store that cannot be opened any more -------------------------------------------------------
# The successor has the disks and cannot go on: a guest that reconnects finds the next daemon.
begin
expect 0 ask attach one --queues=2
seen=()
load one --runtime=3s --reconnect=30s
at_work one
old=$daemon
expect 1 "$host" --store="$here" --socket-dir="$dir" --cores=4000 --takeover
said event=received event=store
wait "$old" || complain "the old one ended with $?"
begin
expect 0 ask attach one --queues=2
loaded one 'vhost/reconnects>0'
end 0

# ---- In the background, as ExecReload= starts it ---------------------------------------------------
expect 1 "$host" --store="$here" --socket-dir="$dir" --cores=0 --takeover --background
said 'no shard-host listens there'
begin
expect 0 ask attach one
expect 0 "$host" --store="$here" --socket-dir="$dir" --cores=0 --takeover --background
wait "$daemon" || complain "the old one ended with $?"
expect 0 ask ping --json
daemon=$(sed -n 's/^ *"pid": \([0-9]*\),$/\1/p' "$work/out")
expect 0 ask list --json
json disks/0/name=one
kill "$daemon"
while [ -e "$control" ]; do sleep 0.02; done

# ---- As systemd starts it -------------------------------------------------------------------------
# The control socket is systemd's: the successor gets it and leaves it where it is. Both say who the
# daemon is from now on.
: > "$work/log"
own=$dir/own
"$client" activate "$own" "$work/notes" "$host" --store="$here" --socket-dir="$dir" --cores=0 \
  2> "$work/log" &
parent=$!
daemon=$parent
wait_for 'event=ready'
control=$own
expect 0 ask attach one
"$client" hear "$work/hear" "$work/heard" &
listener=$!
until [ -S "$work/hear" ]; do sleep 0.02; done
NOTIFY_SOCKET=$work/hear begin --control="$dir/control" --takeover="$own"
wait "$parent" || complain "the old one ended with $?"
until grep -q READY "$work/heard"; do sleep 0.02; done
checks=$((checks + 3))
grep -qx "MAINPID=$daemon" "$work/heard" || complain "the new one does not say who it is"
grep -qx "MAINPID=$daemon" "$work/notes" || complain "the old one does not say who follows"
grep -q STOPPING "$work/notes" && complain "the service does not stop"
logged control=inherited
expect 0 ask list --json
json disks/0/name=one
end 0
kill "$listener"
[ -S "$own" ] || complain "a socket that is not ours was removed"
for what in ${left_out[@]+"${left_out[@]}"}; do echo "left out: $what"; done
finish
