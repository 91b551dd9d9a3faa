#!/usr/bin/env bash
# test_host.sh PLUGIN SHARD-CTL SHARD-HOST SHARD-BENCH: the plugin serves volumes of a shard-host, beside
# virtual machines: copies, verified work, extents; who may open what; the daemon is killed, replaced, or
# does not come back; nbdkit is killed.
. "$(dirname "$0")/nbd.sh" "$1" "$2"
host=$(realpath "$3") bench=$(realpath "$4")
needs nbdinfo nbdcopy qemu-img qemu-io fio
fio --enghelp | grep -qw nbd || { echo "skipped: this fio has no nbd engine"; exit 77; }
dir=$work/d daemon= others=()
trap 'crash; kill -9 $daemon ${others[@]+"${others[@]}"} 2> /dev/null; rm -rf "$work"' EXIT

# begin OPTION...: a daemon. It is there when it answers.
begin() {
  "$host" --store="$here" --socket-dir="$dir" "$@" 2>> "$work/host.log" &
  daemon=$!
  for ((tries = 0; tries < 1500; tries++)); do
    ask ping 2> /dev/null | grep -qw "pid $daemon" && return
    kill -0 "$daemon" 2> /dev/null || break
    sleep 0.02
  done
  complain "no daemon: $(tail -3 "$work/host.log")"
  finish
}
kill_host() {
  kill -9 "$daemon"
  wait "$daemon" 2> /dev/null
}
ask() { "$ctl" host "$1" --control="$dir/control" "${@:2}"; }
# over WORD...: nbdkit with the daemon's volumes.
over() { source=control=$dir/control serve "$@"; }
# disks COUNT: so many the daemon has.
disks() {
  local count
  checks=$((checks + 1))
  count=$(ask list | tail -n +2 | wc -l)
  [ "$count" = "$1" ] || complain "$count disks instead of $1: $(ask list)"
}
# written DISK: its client has done some writes with this daemon.
written() {
  ask stat "$1" --json > "$work/stat" 2> /dev/null &&
    [ "$(sed -n 's/.*"writes": \([0-9]*\).*/\1/p' "$work/stat")" -gt 20 ]
}
# until_true WORD...: within 30 s.
until_true() {
  local tries
  checks=$((checks + 1))
  for ((tries = 0; tries < 1500; tries++)); do
    "$@" && return
    sleep 0.02
  done
  complain "never true: $*: $(cat "$work/log" "$work"/bad 2> /dev/null) $(tail -3 "$work/host.log")"
  finish
}

# ---- Words for what cannot be ---------------------------------------------------------------------
mkdir "$dir"
expect 1 nbdkit -f -U "$sock" "$plugin" control="$dir/control"
said "control=$dir/control: No such file" "no shard-host listens there"
expect 1 nbdkit -U - "$plugin" control="$dir/control" store="$here" --run true && said 'exactly one of'
expect 1 nbdkit -U - "$plugin" --run true && said 'exactly one of'
expect 1 nbdkit -U - "$plugin" control="$dir/control" cores=0 --run true && said 'cores='
expect 1 nbdkit -U - "$plugin" store="$here" share=true --run true && said 'share='

volume create v --size=32M
volume create wide --size=48M --stripe=64K --block=4096
volume create vm --size=32M
volume create grown --size=8M
begin

# ---- The same as from a store ---------------------------------------------------------------------
image=$work/image
truncate -s 32M "$image"
head -c 3000000 /dev/urandom | dd of="$image" bs=4096 seek=100 conv=notrunc status=none
head -c 70000 /dev/urandom | dd of="$image" bs=1M seek=20 conv=notrunc status=none
over
expect 0 nbdinfo --list "$(uri)"
printed 'export="v"' 'export="wide"' 'export="vm"' 'volume, 33554432 bytes'
expect 0 nbdinfo "$(uri wide)"
printed 'block_size_minimum: 4096' 'export-size: 50331648' 'is_read_only: false' \
  'can_multi_conn: true' 'can_fua: true' 'can_trim: true' 'can_fast_zero: true'
expect 0 nbdcopy "$image" "$(uri v)"
expect 0 nbdcopy "$(uri v)" "$work/back" && same "$image" "$work/back"
expect 0 nbdcopy --requests=1 --connections=1 --request-size=33554432 "$(uri v)" "$work/back"
same "$image" "$work/back" # one request, of many buffers
expect 0 nbdinfo --map "$(uri v)"
awk '$3 == 0 { sum += $2 } END { exit !(sum > 3000000 && sum < 3400000) }' "$work/out" ||
  complain "extents: $(cat "$work/out")"
expect 0 qemu-img convert -n -f raw -O raw "$image" "$(uri wide)"
expect 0 nbdcopy "$(uri wide)" "$work/back"
truncate -s 32M "$work/back" && same "$image" "$work/back"
expect 0 qemu-io -f raw -c 'write -P 7 512 512' -c 'read -P 7 512 512' -c 'write -P 8 3584 9216' \
  -c 'read -P 8 3584 9216' -c 'read -P 7 512 512' "$(uri v)"
expect 0 qemu-io -f raw -c 'write -z -u 4096 8192' -c 'read -P 0 4096 8192' -c 'read -P 8 3584 512' \
  -c 'read -P 8 12288 512' "$(uri v)"
expect 0 qemu-io -d unmap -f raw -c 'write -f -P 9 1M 1M' -c 'discard 1M 512k' -c 'read -P 0 1M 512k' \
  -c 'read -P 9 1536k 512k' -c 'flush' "$(uri v)"
expect 1 nbdinfo "$(uri nothing)"
logged 'nothing: No such file or directory; shard-ctl host volumes'
expect 0 ask resize grown 16M
expect 0 nbdinfo --size "$(uri grown)" && printed 16777216

# ---- Who may open what ----------------------------------------------------------------------------
expect 0 ask attach vm
expect 1 nbdinfo "$(uri vm)"
logged 'vm: Device or resource busy; a virtual machine or another server'
stop
over -r
expect 0 nbdinfo "$(uri vm)" && printed 'is_read_only: true'
stop
over share=true
expect 0 qemu-io -f raw -c 'write -P 3 0 64k' -c 'read -P 3 0 64k' "$(uri vm)"
stop
disks 1
expect 0 ask detach vm
expect 0 ask snapshot vm then
over
expect 0 nbdinfo "$(uri then)" && printed 'is_read_only: true' 'snapshot #'
# One disk of the daemon for all clients of a volume; none is left behind.
fio_on() { exec fio --name="$1" --ioengine=nbd --uri="$(uri "$2")" --bs=4k --verify=crc32c \
  --verify_fatal=1 --rw=randwrite "${@:3}" > "$work/fio.$1" 2>&1; }
fio_on held v --size=4M --iodepth=4 --numjobs=3 --thread --loops=100000 &
others+=($!)
until_true written '#1.nbd'
disks 1
expect 1 ask attach v && said EBUSY
expect 0 ask attach v --share
expect 0 ask detach v
kill "${others[0]}"
wait "${others[0]}"
others=()
! grep -q 'error=' "$work/fio.held" || complain "fio: $(cat "$work/fio.held")"
until_true eval '[ "$(ask list | wc -l)" = 1 ]'
stop

# Who was killed leaves a disk behind; the next one takes it down.
over
fio_on lost v --size=4M --iodepth=4 --loops=100000 &
others+=($!)
until_true written '#1.nbd'
crash
wait "${others[0]}"
others=()
disks 1
over
disks 0
stop

# ---- Beside a virtual machine, and the daemon is killed ---------------------------------------------
# What was not flushed survives in memory only.
has_memory() { [ "$(stat -f -c %T /dev/shm)" = tmpfs ] && [ "$(df --output=avail /dev/shm | tail -1)" -ge 65536 ]; }
# load: fio on two volumes and a guest on a third one, one after the other, until $work/enough is there.
load() {
  rm -f "$work/enough" "$work/bad" "$work/loads"
  for name in v wide; do
    until [ -e "$work/enough" ]; do
      (fio_on "$name" "$name" --size=8M --iodepth=16) || { echo "fio $name" >> "$work/bad"; break; }
      echo "$name" >> "$work/loads"
    done &
    others+=($!)
  done
  until [ -e "$work/enough" ]; do
    "$bench" --engine=vhost --socket="$dir/vm.sock" --rw=randrw --create --verify --size=16m --iodepth=8 \
      --runtime=1 --reconnect=30 > "$work/vm.out" 2>&1 || { echo bench >> "$work/bad"; break; }
    echo vm >> "$work/loads"
  done &
  others+=($!)
}
# unload: all of them go on to their next end, without an error.
unload() {
  : > "$work/enough"
  wait "${others[@]}"
  others=()
  checks=$((checks + 4))
  [ ! -e "$work/bad" ] || complain "errors: $(cat "$work/bad"): $(tail -3 "$work"/fio.v "$work"/fio.wide "$work/vm.out")"
  for name in v wide vm; do
    grep -qx $name "$work/loads" || complain "$name: never at work"
  done
}
all_at_work() { for disk in '#1.nbd' '#2.nbd' vm; do until_true written "$disk"; done; }

if has_memory; then
  expect 0 ask attach vm
  over
  load
  for round in 1 2 3 4; do
    all_at_work
    sleep "0.$((RANDOM % 4))"
    kill_host
    [ $round != 2 ] || sleep 1
    begin
    expect 0 ask attach vm
  done
  all_at_work
  unload
  logged 'connecting again: requests go on'
  stop
else
  echo "left out: the daemon is killed under load: /dev/shm is no tmpfs with 64 MiB"
  expect 0 ask attach vm
fi

# ---- Another daemon takes over ----------------------------------------------------------------------
over
expect 0 ask attach vm --share --name=also
load
for round in 1 2; do
  all_at_work
  old=$daemon
  begin --takeover
  wait "$old" || complain "the old daemon ended with $?"
  checks=$((checks + 1)) # both disks of one volume are there
  [ "$(ask list | grep -cE ' (also|vm) vm ')" = 2 ] || complain "a disk is gone: $(ask list)"
done
all_at_work
unload
expect 0 ask detach also
checks=$((checks + 1))
! grep -q 'connecting again' "$work/log" || complain "connections were lost: $(cat "$work/log")"
stop
expect 0 ask detach vm

# ---- The daemon does not come back, then it does ----------------------------------------------------
over patience=1
fio_on gone v --size=4M --iodepth=4 --loops=100000 &
others+=($!)
until_true written '#1.nbd'
kill_host
wait "${others[0]}" && complain "fio has not seen that there is no daemon"
others=()
grep -q 'error=Input/output error\|err= *5' "$work/fio.gone" || complain "fio: $(tail -3 "$work/fio.gone")"
logged 'shard-host refused it'
expect 1 nbdinfo "$(uri v)"
logged 'shard-host does not answer'
begin
expect 0 qemu-io -f raw -c 'write -P 4 0 64k' -c 'read -P 4 0 64k' "$(uri v)"
stop
disks 0

kill "$daemon"
wait "$daemon" || complain "shard-host ended with $?"
daemon=
expect 0 "$ctl" check "$here"
finish
