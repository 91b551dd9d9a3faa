#!/usr/bin/env bash
# The server is killed under load, several times, and started again: the guest sees a pause, no
# error, and not one wrong byte. Its monitor connects again and hands over what was in flight. One
# disk writes through; of the other, striped with four queues, the driver has switched the cache
# off, which the next server must honour though nobody tells it. Optional $4: how often. $5:
# "back": both disks with their caches on; what was written and not flushed must be there as well,
# since for the guest there was no crash, and a flush that was in flight covers it.
. "$(dirname "$0")/lib.sh" "$@"
kills=${4:-5} back=${5:-}

make_store 1024 2
start_server "volume=plain,socket=$sockets/0,size=$((64 * mib)),cache=${back:-through}" \
  "volume=wide,socket=$sockets/1,size=$((96 * mib)),striped,queues=4"
start_guest 1 4 << END
back=$back
$(sed '1,/^# GUEST$/d' "$0")
END

for point in "cache off" written; do
  at "$point"
  kill_server
  start_server
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
exit 0
# GUEST
if [ -z "$back" ]; then
  check "cache on" same "$(cat /sys/block/vdb/cache_type)" "write back"
  check "switch it off" eval "echo write through > /sys/block/vdb/cache_type"
fi
at "cache off"
compare() {
  dd if=/dev/$1 of=/tmp/b bs=61440 count=96 iflag=direct && cmp /tmp/a /tmp/b
}
head -c 5898240 /dev/urandom > /tmp/a
for disk in vda vdb; do
  check "write: $disk" dd if=/tmp/a of=/dev/$disk bs=61440 oflag=direct
done
at written
for disk in vda vdb; do check "not flushed, and killed: $disk" compare $disk; done
at load

# Rounds of writing and verifying, until the host has seen enough.
load() {
  rounds=0
  until [ -e /tmp/stop ]; do
    fio_verify "$@" > /tmp/out.${1##*/} 2>&1 || { grep -v '^3;' /tmp/out.${1##*/}; return 1; }
    rounds=$((rounds + 1))
  done
  echo "GUEST: ok: $rounds rounds of $1"
}
{ read -r _ <&3; touch /tmp/stop; } &
load /dev/vda --offset=16m --size=2m --bs=8k --verify_backlog=32 &
plain=$!
load /dev/vdb --offset=16m --size=1m --numjobs=4 --offset_increment=16m &
wide=$!
check "verify: plain" wait $plain
check "verify: striped, 4 queues" wait $wide
for disk in vda vdb; do check "after: $disk" compare $disk; done
