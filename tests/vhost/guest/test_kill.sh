#!/usr/bin/env bash
# The server is killed under load, several times, and started again: the guest sees a pause, no
# error, and not one wrong byte. Its monitor connects again and hands over what was in flight. One
# disk writes through; of the other, striped with four queues, the driver has switched the cache
# off, which the next server must honour though nobody tells it. Optional $4, or KILLS: how often. $5:
# "back": both disks with their caches on; what was written and not flushed must be there as well,
# since for the guest there was no crash, and a flush that was in flight covers it. One of the two has
# packed rings, the other one split ones.
# shellcheck source=tests/vhost/guest/lib.sh
. "$(dirname "$0")/lib.sh" "$@"
kills=${KILLS:-${4:-5}} back=${5:-}
if [ -n "$back" ] && { [ "$(stat -f -c %T /dev/shm)" != tmpfs ] ||
  [ "$(df --output=avail /dev/shm | tail -1)" -lt 65536 ]; }; then
  echo "skipped: /dev/shm is no tmpfs with 64 MiB"
  exit 77
fi

make_store 1024 2
start_server "volume=plain,socket=$sockets/0,size=$((64 * mib)),cache=${back:-through}" \
  "volume=wide,socket=$sockets/1,size=$((96 * mib)),striped,queues=4"
if [ -n "$back" ]; then rings="1,packed=on 4"; else rings="1 4,packed=on"; fi
# shellcheck disable=SC2086 # a list of disks
start_guest $rings << END
back=$back
$(cat "$here/kill.guest")
END

for point in "cache off" written; do
  at "$point"
  if [ "$point$back" != "cache offback" ]; then # so that there is a server that knows
    kill_server
    start_server
  fi
  go
done
at load
go
in_flight=0
writes() { ask "stat $1" | grep -o ' writes=[0-9]*' | cut -d= -f2; }
writes_more() { (($(writes "$1") > $2)); }
for ((i = 0; i < kills; i++)); do
  # It goes on where it was, on all disks; then some time, which nobody chose well.
  for disk in plain wide; do wait_for 60 "writes of $disk before kill $i" writes_more "$disk" 20; done
  sleep "0.$((RANDOM % 10))"
  for disk in plain wide; do
    stat=$(ask "stat $disk")
    in_flight=$((in_flight + ${stat##*in_flight=}))
  done
  kill_server
  sleep "0.$((RANDOM % 4))"
  start_server
done
for disk in plain wide; do wait_for 60 "writes of $disk after all" writes_more "$disk" 20; done
go
end_guest
for disk in plain wide; do
  stat=$(ask "stat $disk")
  [[ "$stat" == *" errors=0 in_flight=0" ]] || fail "errors: $stat"
done
stop_server
echo "$kills kills, $in_flight requests in flight, $SECONDS s"
