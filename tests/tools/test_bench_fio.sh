#!/usr/bin/env bash
# test_bench_fio.sh SHARD-BENCH JSON-CHECK SHARD-CTL VHOST-DISKS: options that fio's users know do what
# they say, and what does not go together is refused by name, with a remedy. No speed is asserted.
. "$(dirname "$0")/lib.sh"
bench=$1 check=$2 ctl=$3 disks=$4
quick="--runtime=0.1 --output-format=json" memory="--store=mem:96M:2"
server=''
trap '[ -z "$server" ] || kill -9 $server 2> /dev/null; rm -rf "$work"' EXIT

answers() {
  checks=$((checks + 1))
  "$check" "$work/json" "$@" || complain "JSON: $*"
}
# runs OPTIONS...: without an error.
runs() {
  # shellcheck disable=SC2086 # a list of options
  expect 0 "$bench" $quick "$@" || return
  cp "$work/out" "$work/json"
  answers jobs/0/total_err=0 jobs/0/error=0
}
# refuses WORD OPTIONS...: with that word.
refuses() {
  local word=$1
  shift
  # shellcheck disable=SC2086
  expect 2 "$bench" $quick "$@"
  said "$word"
}
number() { sed -nE "s/.*\"$1\": ([0-9]+).*/\1/p" "$work/json" | head -"${2:-1}" | tail -1; }

# Requests of several sizes: all data right, and the mean size as asked for (28671 bytes; 6000 requests
# are within 10 % of it but for one time in 10^9; chance is the same each time).
for load in "--rw=randread --blob-size=128k" "--rw=read --blob-size=100k --where=client --numjobs=2" \
  "--engine=volume --rw=randrw" "--engine=volume --rw=write" "--engine=volume --rw=read --where=client --numjobs=3 --volumes=3 --volume-size=1M" \
  "--engine=volume --rw=randwrite --random_distribution=zipf:1.1"; do
  # shellcheck disable=SC2086
  runs $memory $load --bssplit=4k/60:64k/40 --ops=3000 --verify
  answers 'jobs/0/job options/bssplit=4k/60:64k/40'
  ios=$(($(number total_ios) + $(number total_ios 2))) bytes=$(($(number io_bytes) + $(number io_bytes 2)))
  [ "$ios" -ge 3000 ] && [ $((bytes / ios)) -gt 25800 ] && [ $((bytes / ios)) -lt 31500 ] ||
    complain "$load: $ios requests of $bytes bytes"
done
runs $memory --bssplit=8k --blob-size=64k --ops=500
bytes=$(number io_bytes)
[ $((bytes % 8192)) -eq 0 ] || complain "$bytes bytes in requests of 8 KiB"
for bad in 4k/50 4k/60:8k/60 x 4k/50,8k/50 600/100 4k/0:8k/100 128M; do
  refuses "--bssplit=$bad: not a legal value" $memory --bssplit=$bad
  said legal:
done
refuses --bs $memory --bssplit=4k --bs=8k
refuses 'splits writes as well' $memory --bssplit=4k --rw=put
refuses --first-writes $memory --bssplit=4k --engine=volume --first-writes
refuses --workload $memory --bssplit=4k --engine=volume --workload=limits
refuses at $memory --bssplit=4k/50:64k/50 --blob-size=16k

# So many requests.
runs $memory --ops=1234
answers jobs/0/read/total_ios=2468 # of each core
runs $memory --ops=1234 --where=client
answers jobs/0/read/total_ios=1234
refuses 'closed loads' $memory --ops=5 --rate_iops=5
refuses --ramp_time $memory --ops=5 --ramp_time=1

# Batches.
for batches in "--iodepth_batch_submit=4 --iodepth_batch_complete=32" "--iodepth_batch_submit=32 --iodepth_batch_complete=1" \
  "--iodepth=8 --iodepth_batch_complete=8" "--iodepth_batch_complete=128"; do
  for where in core client; do
    # shellcheck disable=SC2086
    runs $memory --where=$where $batches --ops=2000 --verify
    answers "jobs/0/job options/iodepth_batch_complete>0"
  done
done
refuses --iodepth_batch_complete=65 $memory --iodepth=64 --iodepth_batch_complete=65
said legal: --iodepth
refuses --iodepth_batch_submit=0 $memory --iodepth_batch_submit=0

# The greatest depth that keeps a latency.
runs $memory --latency_target=1000s --latency_window=5ms --iodepth=20
answers jobs/0/latency_depth=20 jobs/0/latency_target=1000000000000 jobs/0/latency_percentile=100 \
  jobs/0/latency_window=5000 'jobs/0/read/total_ios>0'
ios=$(number total_ios)
answers "jobs/0/read/clat_ns/N=$ios" # each is timed
expect 0 "$bench" $memory --runtime=0.05 --latency_target=1000s --latency_window=5ms --latency_percentile=99.9 --iodepth=4
printed 'depth          4 is the greatest up to 4'
expect 1 "$bench" $memory --runtime=0.05 --rw=get --blob-size=1M --latency_target=1us --latency_window=5ms
said --latency_target=1us 'not even one request' --latency_percentile
for bad in 0 x -5us 5h 5m; do
  refuses "--latency_target=$bad" $memory --latency_target=$bad
  said legal:
done
refuses --latency_window=x $memory --latency_target=1ms --latency_window=x
refuses --latency_percentile=0 $memory --latency_target=1ms --latency_percentile=0
refuses --latency_target $memory --latency_window=1ms
refuses --rate_iops $memory --latency_target=1ms --rate_iops=100
refuses --gtod_reduce $memory --latency_target=1ms --gtod_reduce
refuses --latency_target $memory --latency_target=1ms --rw=flush
refuses --rw=randwrite $memory --latency_target=1ms --rw=put --verify

# A steady state: with a limit that any rate keeps, and with one that none does.
runs $memory --steadystate=iops_slope:100000% --steadystate_duration=0.3 --runtime=20
answers 'jobs/0/steadystate/ss=iops_slope:100000.000000%' jobs/0/steadystate/duration=1 jobs/0/steadystate/attained=1 \
  jobs/0/steadystate/data/iops#10 jobs/0/steadystate/data/bw#10 'jobs/0/steadystate/data/iops_mean>0' \
  'jobs/0/steadystate/data/bw_mean>0' jobs/0/elapsed=0
runs $memory --where=client --steadystate=bw:0.000001 --steadystate_duration=0.2 --steadystate_ramp_time=0.1 --runtime=0.8
answers jobs/0/steadystate/attained=0 'jobs/0/steadystate/max_deviation>0'
expect 0 "$bench" $memory --steadystate=iops:100000% --steadystate_duration=0.2 --runtime=20
printed 'steady state   reached'
for bad in lat:5% iops iops:0 iops_slope:x iops:5%%; do
  refuses "--steadystate=$bad" $memory --steadystate=$bad
  said legal:
done
refuses --runtime $memory --steadystate=iops:5%
refuses --steadystate $memory --steadystate_duration=2
refuses --control --store="$work/store" --steadystate=iops:5% --steadystate_duration=0.01 --control

# Groups.
runs $memory --group_reporting=0 --where=client --numjobs=3
answers 'jobs#3' 'jobs/2/read/total_ios>0' 'jobs/2/read/clat_ns/N>0' jobs/2/jobname=randread
runs $memory --group_reporting --where=client --numjobs=3
answers 'jobs#1'
expect 0 "$bench" $memory --runtime=0.1 --group_reporting=0
printed 'core 0 ' 'core 1 '
printf '[global]\nstore=mem:64M\nruntime=50ms\nwhere=client\n[a]\nnumjobs=2\ngroup_reporting=0\n[b]\nnumjobs=2\n' > "$work/jobs"
expect 0 "$bench" "$work/jobs" --output-format=json
cp "$work/out" "$work/json"
answers 'jobs#3' jobs/0/jobname=a jobs/1/jobname=a jobs/2/jobname=b 'jobs/1/read/total_ios>0'
refuses --group_reporting=0 --store="$work/store" --engine=raw --group_reporting=0

# CPUs.
runs $memory --cpus_allowed=0
answers environment/cores=1 'jobs/0/job options/cpus_allowed=0'
refuses 'use one of them' $memory --cpus_allowed=0 --cores=0,
refuses --cpus_allowed=x $memory --cpus_allowed=x
expect 2 "$bench" $quick $memory --cpus_allowed=4000

# What the kernel has registered, or polls.
refuses --device=uring $memory --fixedbufs
refuses --device=uring --store="$work/store" --device=pool --registerfiles
refuses --device=pool $memory --fixedbufs=0
refuses 'poll queues' $memory --hipri
if "$bench" --store="$work/store" --create --size=64M --shards=1 --device=uring --runtime=0.01 > /dev/null 2> "$work/err"; then
  # The limit of locked memory decides.
  # shellcheck disable=SC2086
  if "$bench" $quick --store="$work/store" --fixedbufs --registerfiles > "$work/json" 2> "$work/err"; then
    answers environment/buffers_registered=true environment/files_registered=true
  else
    said 'ulimit -l'
  fi
  runs --store="$work/store" --engine=raw --bssplit=512/50:4k/50 --iodepth_batch_complete=3
  bytes=$(number io_bytes) ios=$(number total_ios)
  [ $((bytes / ios)) -lt 4096 ] && [ $((bytes / ios)) -gt 512 ] || complain "raw: $ios requests of $bytes bytes"
  # This device may or may not have poll queues.
  # shellcheck disable=SC2086
  "$bench" $quick --store="$work/store" --engine=raw --hipri > "$work/out" 2> "$work/err" || said --hipri nvme.poll_queues
fi

# Checks of contents by fio's word.
runs $memory --verify=crc32c
answers 'jobs/0/job options/verify=true'
refuses --verify=md5 $memory --verify=md5
said crc32c

# A virtual disk: an open load, rows of queues.
mkfifo "$work/ask"
exec 9<> "$work/ask"
mkdir "$work/v"
expect 0 "$ctl" format "$work/v" --size=96M --shards=1 --prealloc=sparse
"$disks" "$work/v" "volume=v,socket=$work/socket,size=16777216,queues=2" < "$work/ask" > "$work/said" 2> "$work/server" &
server=$!
until grep -q ready "$work/said"; do
  kill -0 "$server" 2> /dev/null || { complain "no server: $(cat "$work/server")"; finish; }
  sleep 0.05
done
vhost="--engine=vhost --socket=$work/socket --queues=2 --iodepth=8"
# shellcheck disable=SC2086
{
  runs $vhost --rw=randread --rate_iops=1000 --runtime=0.2 --group_reporting=0
  answers 'jobs#2' 'jobs/1/read/total_ios>0'
  for job in 0 1; do
    n=$(sed -nE 's/.*"total_ios": ([0-9]+).*/\1/p' "$work/json" | awk "NR == 4 * $job + 1")
    unsent=$(sed -nE 's/.*"due_but_unsent": ([0-9]+).*/\1/p' "$work/json" | awk "NR == $job + 1")
    [ $((n + unsent)) -eq 200 ] || complain "queue $job: $n and $unsent requests in 0.2 s at 1000 a second"
    answers "jobs/$job/read/lat_ns/N=$n" "jobs/$job/read/clat_ns/N=$n"
  done
  runs $vhost --rw=randrw --create --verify --rate_iops=2000 --rate_process=poisson --runtime=0.2
  answers 'jobs/0/write/lat_ns/percentile/99.000000>0' 'vhost/checked>0'
  runs $vhost --rw=randread --rate_iops=100000000
  answers 'jobs/0/due_but_unsent>0'
  runs $vhost --rw=randread --iodepth_batch_submit=2 --iodepth_batch_complete=6 --cpus_allowed=0
  refuses --control-file $vhost --rw=randread --rate_iops=5 --control-file="$work/v"
  refuses --rate_iops $vhost --rw=randread --rate_process=poisson
  refuses --gtod_reduce $vhost --rw=randread --rate_iops=5 --gtod_reduce
  refuses 'one size' $vhost --rw=randread --bssplit=4k
  refuses 'a list' $vhost --rw=randread --cores=2
  refuses 'ask it there' $vhost --rw=randread --fixedbufs
  refuses --random_distribution $vhost --rw=randread --random_distribution=zipf:1
  refuses --latency_target $vhost --rw=randread --latency_target=1ms
  refuses --steadystate $vhost --rw=randread --steadystate=iops:1%
  refuses --ramp_time $vhost --rw=randread --ramp_time=1
}
finish
