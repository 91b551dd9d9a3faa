#!/usr/bin/env bash
# test_bench_volume.sh SHARD-BENCH JSON-CHECK SHARD-CTL: every load and workload of --engine=volume
# runs, does something, fails nothing and says so. No speed is asserted.
. "$(dirname "$0")/lib.sh"
bench=$1 check=$2 ctl=$3
here=$work/store
quick="--engine=volume --runtime=0.1 --output-format=json"

# runs SIDE OPTIONS...: and did some requests on that side without an error.
runs() {
  local side=$1
  shift
  # shellcheck disable=SC2086 # a list of options
  expect 0 "$bench" $quick "$@" || return
  cp "$work/out" "$work/json"
  answers "jobs/0/$side/total_ios>0" "jobs/0/$side/iops>0" jobs/0/total_err=0 jobs/0/error=0 \
    'jobs/0/device_ios_per_op>0' environment/kernel
}
# works WORKLOAD OPTIONS...: it runs, and its figures are in $work/json.
works() {
  local workload=$1
  shift
  # shellcheck disable=SC2086 # a list of options
  expect 0 "$bench" $quick --workload="$workload" "$@" || return
  cp "$work/out" "$work/json"
  answers "workload=$workload" error=0 environment/kernel
}
answers() {
  checks=$((checks + 1))
  "$check" "$work/json" "$@" || complain "JSON: $*"
}

# In memory: every load, on the cores and from threads.
memory="--store=mem:96M:2"
for where in core client; do
  for rw in randread read randwrite write; do
    side='read'
    case $rw in *write) side='write' ;; esac
    runs $side $memory --where=$where --rw=$rw --verify
    answers jobs/0/device_ios_per_op=1
  done
  runs read $memory --where=$where --rw=randrw --rwmixread=30 --verify
  answers 'jobs/0/write/total_ios>0'
done
runs read $memory --where=client --numjobs=3 --iodepth=8 --rw=randread --volumes=5 --volume-size=4M --bs=16k
runs read $memory --rw=randread --stripe=64k --bs=256k --iodepth=8 --verify
runs write $memory --rw=randwrite --bs=512 --verify
runs read $memory --rw=randread --clones=3 --chain=5 --volume-size=8M --verify
runs write $memory --rw=randwrite --clones=2 --volume-size=8M --iodepth=16 --verify
runs write $memory --first-writes --verify
runs write $memory --first-writes --where=client --numjobs=2 --iodepth=16

# On the disk; the second run takes what the first has made.
runs read --store="$here" --create --size=96M --shards=2 --device=pool --volume-size=8M --rw=randread \
  --clones=2 --chain=3 --verify
runs read --store="$here" --device=pool --volume-size=8M --rw=read --clones=1 --chain=3 --verify
expect 2 "$bench" --engine=volume --store="$here" --volume-size=4M --rw=randread --runtime=0.1
said --volume-size
expect 2 "$bench" --engine=volume --store="$here" --volume-size=4G --volumes=7 --rw=randread
said --volume-size --volumes=7
# Data that somebody else has changed is noticed, and only by --verify.
runs read --store="$here" --create --force --size=96M --shards=1 --device=pool --volume-size=1M --rw=randread
head -c 1M /dev/urandom > "$work/other"
expect 0 "$ctl" volume rm "$here" bench-0
expect 0 "$ctl" volume import "$here" bench-0 "$work/other"
expect 1 "$bench" $quick --store="$here" --device=pool --volume-size=1M --rw=randread --verify
said 'does not hold what was written'
runs read --store="$here" --device=pool --volume-size=1M --rw=randread

# Reserved: mapped, but nothing is written.
runs read --store="$here" --create --force --size=96M --shards=1 --device=pool --reserve --rw=randread
expect 0 "$bench" --engine=volume --runtime=0.1 --store="$here" --device=pool --reserve --rw=randread
printed 'no data of theirs is on disk' 'device I/Os    1.0000'
runs read --store="$here" --create --force --size=96M --device=null --rw=randread
answers environment/engine=null

# Against the raw loop, where io_uring works.
if "$bench" --store="$work/probe" --create --size=64M --shards=1 --device=uring --rw=randread \
  --runtime=0.01 > /dev/null 2>&1; then
  rm -rf "$here"
  runs read --store="$here" --create --size=64M --shards=1 --rw=randread --control --runtime=0.3
  answers 'control/ratio/median>0' 'control/ratio/pairs>7'
  runs write --store="$here" --rw=randwrite --control --runtime=0.3
  runs write --store="$here" --create --force --size=128M --shards=1 --first-writes --control \
    --runtime=0.3
  answers 'control/ratio/median>0' 'jobs/0/device_ios_per_op>0.99'
fi

# Workloads.
works limits $memory --runtime=0.2 --volume-size=4M
answers 'figures/10000_iops>0' 'figures/500_mb_s>0' 'figures/worst_error_percent>0'
works neighbour $memory --runtime=0.2 --volume-size=4M
answers 'figures/p99_ratio>0' 'figures/rate_of_the_other>0'
works clone-create $memory --volume-size=32M --clones=200
answers figures/clones=200 'figures/create_p99_us>0'
rm -rf "$here"
works clone-open --store="$here" --create --size=1088M --shards=1 --device=pool --prealloc=sparse \
  --clones=300
answers figures/clones=300 'figures/open_all_s>0'
rm -rf "$here"
works map-open --store="$here" --create --size=160M --shards=2 --device=pool --prealloc=sparse \
  --volume-size=64M --stripe=1M
answers figures/mapped_gib=0.0625 'figures/open_after_kill_s>0'

# Contents.
works verify $memory --ops=8000 --iodepth=8 --numjobs=2
answers 'figures/requests>7999' figures/errors=0 'figures/races>0' 'figures/checks>0'
rm -rf "$here"
works verify --store="$here" --create --size=128M --shards=2 --device=pool --ops=2000 --iodepth=8
answers 'figures/requests>1999' figures/errors=0 figures/reopens=4
works verify --store="$here" --device=pool --ops=400 --numjobs=1 --seed=2
expect 0 "$bench" --engine=volume $memory --verify --ops=200
printed 'all data as written'

# What does not go together.
refuses() {
  expect 2 "$bench" --store=mem: "$@"
  said shard-bench
}
refuses --chain=2
refuses --rw=write
refuses --workload=limits
refuses --engine=volume --rw=put
refuses --engine=volume --rw=randwrite --reserve
refuses --engine=volume --rw=randread --first-writes
refuses --engine=volume --stripe=192k
refuses --engine=volume --workload=map-open
refuses --engine=volume --workload=limits --rw=randread
refuses --engine=volume --workload=verify --reserve
refuses --engine=volume --workload=verify --volume-size=1G
refuses --engine=volume --rw=randrw --control
finish
