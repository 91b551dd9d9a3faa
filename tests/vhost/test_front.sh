#!/usr/bin/env bash
# test_front.sh SHARD-BENCH JSON-CHECK: shard-bench --engine=vhost against a server that we did not
# write, QEMU's storage daemon: what it accepts and reads back is right, and damage is noticed.
. "$(dirname "$0")/../tools/lib.sh"
bench=$1 check=$2
socket=$work/socket file=$work/disk server=
quick="--engine=vhost --socket=$socket --runtime=0.1 --output-format=json"

command -v qemu-storage-daemon > /dev/null || {
  echo "skipped: qemu-storage-daemon is missing (package qemu-system-common)"
  exit 77
}

# serve QUEUES: the file as a disk.
serve() {
  local turns=0
  rm -f "$socket"
  qemu-storage-daemon --blockdev "driver=file,filename=$file,node-name=disk,cache.direct=on,discard=unmap" \
    --object iothread,id=thread --export "type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=$socket,writable=on,iothread=thread,num-queues=$1" \
    2> "$work/server" &
  server=$!
  until [ -S "$socket" ]; do
    turns=$((turns + 1))
    kill -0 "$server" 2> /dev/null && [ $turns -lt 1000 ] || {
      cat "$work/server" >&2
      echo "skipped: this qemu-storage-daemon does not serve vhost-user-blk"
      exit 77
    }
    sleep 0.01
  done
}
unserve() {
  [ -n "$server" ] || return 0
  kill -9 "$server" 2> /dev/null
  wait "$server" 2> /dev/null
  server=
}
trap 'unserve; rm -rf "$work"' EXIT

# runs SIDE OPTIONS...: and did some requests on that side without an error.
runs() {
  local side=$1
  shift
  # shellcheck disable=SC2086 # a list of options
  expect 0 "$bench" $quick "$@" || return
  cp "$work/out" "$work/json"
  answers "jobs/0/$side/total_ios>0" jobs/0/total_err=0 jobs/0/error=0 'vhost/kicks>0' \
    vhost/disk_bytes=33554432
}
answers() {
  checks=$((checks + 1))
  "$check" "$work/json" "$@" || complain "JSON: $*"
}

truncate -s 32M "$file"
serve 2
runs 'read' --rw=randread --iodepth=32 --batch=8
runs 'read' --rw=read --bs=64k --iodepth=4
runs 'write' --rw=randwrite --iodepth=1
runs 'sync' --rw=flush --iodepth=2
runs 'read' --rw=randread --queues=2 --iodepth=8
answers vhost/queues=2
runs 'read' --rw=randread --control-file="$file" --iodepth=8
answers 'control/ratio/median>0' 'control/raw_iops/median>0'

# Contents, of one run and of a later one; data in several descriptors.
runs 'read' --rw=randrw --create --verify --iodepth=32 --batch=8
answers 'jobs/0/write/total_ios>0' 'vhost/checked>8191'
runs 'read' --rw=randrw --create --verify --queues=2 --bs=8k --pieces=3 --iodepth=8
runs 'write' --rw=write --create --verify --bs=32k --iodepth=8
runs 'read' --rw=randread --verify --bs=4k --queues=2
answers 'vhost/checked>0'

# With less negotiated.
for without in indirect event-idx indirect,event-idx reply-ack mem-slots; do
  runs 'read' --rw=randrw --create --verify --size=16m --iodepth=16 --without=$without
done

# Packed rings, of a daemon that has them: 7.2 has none, and says so.
# shellcheck disable=SC2086
if "$bench" $quick --rw=randread --ring=packed > "$work/out" 2> "$work/err"; then
  runs 'read' --rw=randrw --create --verify --size=16m --iodepth=16 --ring=packed
else
  said 'does not offer packed rings'
fi

# Damage behind the server's back.
printf 'x' | dd of="$file" bs=1 seek=20000000 conv=notrunc status=none
# shellcheck disable=SC2086
expect 1 "$bench" $quick --rw=read --verify --iodepth=16 --runtime=60
said 'do not hold generation 1' 'does not hold what was written'

# What cannot be.
# shellcheck disable=SC2086
{
  expect 1 "$bench" $quick --rw=randread --queues=3
  said '2 queues, 3 are asked for'
  expect 2 "$bench" $quick --rw=randread --bs=4k --iodepth=2000
  expect 2 "$bench" $quick --rw=put
  said 'randrw'
  expect 2 "$bench" --engine=vhost --rw=randread
  said '--socket'
  expect 2 "$bench" --rw=randread --ring=packed
  said '--engine=vhost'
  expect 2 "$bench" $quick --rw=randread --without=flush,nothing
  said '--without'
  expect 2 "$bench" $quick --rw=randwrite --verify --control-file="$file"
}

# The server goes away while requests are in flight; this one has no in-flight file.
# shellcheck disable=SC2086
"$bench" $quick --rw=randread --runtime=60 > /dev/null 2> "$work/err" &
client=$!
sleep 0.2
unserve
status=0
wait $client || status=$?
checks=$((checks + 1))
[ $status -eq 1 ] || complain "exit status $status after the server had gone"
said 'Connection re'
# shellcheck disable=SC2086
expect 1 "$bench" $quick --rw=randread
finish
