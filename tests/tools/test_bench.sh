#!/usr/bin/env bash
# test_bench.sh SHARD-BENCH JSON-CHECK SHARD-CTL: every kind of load runs on every engine, does something,
# fails nothing, and says so in JSON. No speed is asserted.
. "$(dirname "$0")/lib.sh"
bench=$1 check=$2 ctl=$3
here=$work/store
quick="--runtime=0.1 --output-format=json"

# runs SIDE OPTIONS...: and did some requests on that side without an error.
runs() {
  local side=$1
  shift
  # shellcheck disable=SC2086 # a list of options
  expect 0 "$bench" $quick "$@" || return
  cp "$work/out" "$work/json"
  checks=$((checks + 1))
  "$check" "$work/json" "jobs/0/$side/total_ios>0" "jobs/0/$side/iops>0" jobs/0/total_err=0 \
    jobs/0/error=0 'cpu_ns_per_op>0' environment/kernel || complain "JSON of: $*"
}
answers() {
  checks=$((checks + 1))
  "$check" "$work/json" "$@" || complain "JSON: $*"
}

# In memory: every load, on the cores and from threads.
for where in core client; do
  for rw in randread read get; do
    runs read --store=mem: --size=64M --shards=2 --where=$where --rw=$rw --blob-size=16k --verify
  done
  for rw in randwrite put; do
    runs write --store=mem: --size=64M --shards=2 --where=$where --rw=$rw --blob-size=16k --verify
  done
  runs trim --store=mem: --size=64M --shards=2 --where=$where --rw=delete
done
runs read --store=mem: --size=64M --shards=2 --where=client --numjobs=3 --iodepth=8
runs sync --store=mem: --size=64M --rw=flush
runs read --device=mem --size=64M
answers environment/engine=mem
# Lengths that fit nothing: no block, no sector.
runs read --store=mem: --size=64M --rw=get --blob-size=5000 --verify
runs write --store=mem: --size=64M --rw=put --blob-size=777 --verify
runs read --store=mem: --size=64M --rw=get --blob-size=1 --iodepth=1 --verify --lat-sample=1
answers 'jobs/0/read/clat_ns/percentile/50.000000>0' 'jobs/0/read/lat_ns/mean>0'
answers jobs/0/series/interval_ms=10 'jobs/0/series/iops/0>0' 'jobs/0/series/p99_ns/0>0'
runs read --store=mem: --size=64M --gtod_reduce=1
answers jobs/0/read/clat_ns/N=0
# An open load: what is due is sent, and what could not be sent is counted.
runs read --store=mem: --size=64M --rate_iops=2000 --runtime=0.2
answers 'jobs/0/read/clat_ns/N>0' 'jobs/0/read/lat_ns/percentile/99.000000>0' \
  'jobs/0/job options/where=client'
number() { sed -nE "s/.*\"$1\": ([0-9]+).*/\1/p" "$work/json" | head -1; }
all=$(($(number total_ios) + $(number due_but_unsent)))
[ "$all" -eq 400 ] || complain "$all requests were due in 0.2 s at 2000 a second"
runs read --store=mem: --size=256M --engine=volume --rw=randrw --rate_iops=2000 --runtime=0.2
reads=$(number total_ios) both=$(grep -oE '"N": [1-9][0-9]*' "$work/json" | grep -oE '[0-9]+' | tr '\n' ' ')
answers "jobs/0/read/clat_ns/N=$reads" "jobs/0/read/lat_ns/N=$reads" 'jobs/0/write/clat_ns/N>0'
[ "$(echo $both | awk '{ print $1 == $2 && $3 == $4 }')" = 1 ] || complain "service and response times: $both"
runs write --store=mem: --size=64M --rw=put --rate_iops=500 --rate_process=poisson --numjobs=2
runs read --store=mem: --size=64M --rate_iops=100000000 --iodepth=4
answers 'jobs/0/due_but_unsent>0'
expect 0 "$bench" --store=mem: --size=64M --runtime=0.1 --rate_iops=100000000
printed 'the rate was not reached' 'response time' 'service time'
# Some are asked for more often than others.
for d in zipf:0.99 pareto:0.2 normal:5 random; do
  runs read --store=mem: --size=64M --shards=2 --blob-size=16k --verify --random_distribution=$d
  answers "jobs/0/job options/random_distribution=$d"
  runs write --store=mem: --size=64M --rw=randwrite --random_distribution=$d
done
runs read --store=mem: --size=256M --engine=volume --rw=randrw --volumes=2 --verify --random_distribution=zipf:1.2
expect 2 "$bench" --store=mem: --random_distribution=zipf:0
said --random_distribution=zipf:0 legal:
expect 2 "$bench" --store=mem: --rw=put --random_distribution=zipf:1
said 'random reads and writes'
expect 2 "$bench" --store=mem: --rate_iops=5 --where=core
said --where=client
expect 2 "$bench" --store=mem: --rate_process=poisson
said --rate_iops

# What comes before the measurement is not in it.
runs read --store=mem: --size=64M --ramp_time=0.1 --lat-sample=1 --where=client --rate_iops=1000 --runtime=0.2
all=$(($(number total_ios) + $(number due_but_unsent)))
[ "$all" -eq 200 ] || complain "$all requests were due in 0.2 s at 1000 a second, with 0.1 s before it"
answers "jobs/0/read/clat_ns/N=$(number total_ios)" 'jobs/0/job options/ramp_time>0'

# Files besides the report, in forms that others read.
runs write --store=mem: --size=64M --rw=put --lat-sample=1 --write_lat_log="$work/l" --write_hist_log="$work/h" \
  --percentile_list=25:99.95
answers 'jobs/0/write/clat_ns/percentile/25.000000>0' 'jobs/0/write/clat_ns/percentile/99.950000>0'
grep -qvE '^[0-9]+, [0-9]+, 1, 4096, 0$' "$work/l_lat.1.log" && complain "$(head -1 "$work/l_lat.1.log")"
[ "$(wc -l < "$work/l_lat.1.log")" -ge 5 ] || complain "$(wc -l < "$work/l_lat.1.log") lines of latencies"
timed=$(sed -nE 's/.*Total count *= *([0-9]+).*/\1/p' "$work/h.hgrm")
answers "jobs/0/write/clat_ns/N=${timed:-none}"
awk '/^ *[0-9]/ { if ($2 < last || $3 < count) exit 1; last = $2; count = $3; n++ }
  END { exit !(n > 3 && last == 1) }' "$work/h.hgrm" || complain "$(head -5 "$work/h.hgrm")"
expect 0 "$bench" --store=mem: --size=64M --runtime=0.1 --percentile_list=12.5
printed '12.5 % '
for list in 0 101 50: x 50,99 1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17:18:19:20:21; do
  expect 2 "$bench" --store=mem: --percentile_list=$list
  said "--percentile_list=$list" legal:
done
expect 1 "$bench" --store=mem: --runtime=0.1 --write_hist_log=/nowhere/h
said /nowhere/h.hgrm

# A job file: sections, options of the command line on top, mistakes by line and column.
cat > "$work/jobs" << 'END'
; two runs
[global]
store=mem:
size=64M
runtime=100ms
[deep]
iodepth=64
[writes]
rw=randwrite
verify
END
expect 0 "$bench" "$work/jobs"
printed 'deep: randread' 'depth 64' 'writes: randwrite' 'all data as written'
expect 0 "$bench" --output-format=json "$work/jobs" --seed=7 --output="$work/json"
answers jobs/0/jobname=deep jobs/1/jobname=writes 'jobs/0/read/total_ios>0' 'jobs/1/write/total_ios>0' \
  'jobs/1/job options/seed=7' jobs/1/environment/engine=mem 'version' 'timestamp>0'
echo 'iodepht=3' >> "$work/jobs"
expect 2 "$bench" "$work/jobs"
said 'line 11, column 1: unknown option --iodepht; did you mean --iodepth?' 'See shard-bench --help'
printf '[a]\nstore=mem:\n  iodepth = 0\n' > "$work/jobs"
expect 2 "$bench" "$work/jobs"
said 'line 3, column 3: --iodepth=0: not a legal value'
printf '[a\n' > "$work/jobs"
expect 2 "$bench" "$work/jobs"
said 'line 1, column 1: a section'
printf '[a]\nstore=mem:\nruntime=50ms\n[b]\nstore=mem:\nruntime=50ms\noutput-format=json\n' > "$work/jobs"
expect 0 "$bench" "$work/jobs"
cp "$work/out" "$work/json"
answers jobs/0/jobname=a jobs/1/jobname=b # one report, whoever asked for its form
printf '[bad]\nstore=%s\n[good]\nstore=mem:\nruntime=50ms\n' "$work/nowhere" > "$work/jobs"
expect 1 "$bench" "$work/jobs"
said 'section [bad] of line 1 has failed'
printed 'good: randread'
expect 2 "$bench" "$work/nofile"
said nofile 'job file'

# On the disk.
runs read --store="$here" --create --size=96M --shards=2 --device=pool --blob-size=16k --verify
answers environment/engine=pool
runs write --store="$here" --rw=randwrite --blob-size=16k --device=pool --verify
runs read --store="$here" --where=client --blob-size=16k --rw=get --verify
runs sync --store="$here" --rw=flush --blob-size=4k --numjobs=2
runs sync --store="$here" --rw=open --blob-size=16k
expect 1 "$bench" $quick --store="$here" --create --size=96M
said exist --force
expect 1 "$bench" $quick --store="$work/nowhere"
said --create
expect 2 "$bench" $quick --store="$here" --blobs=100000000
said --blobs=100000000
# Data that somebody else has changed is noticed, and only by --verify.
runs read --store="$here" --create --force --size=96M --shards=1 --blobs=100 --verify --prealloc=full
expect 0 "$ctl" ls "$here"
victim=$(head -1 "$work/out" | cut -d' ' -f1)
head -c 4096 /dev/urandom > "$work/other"
expect 0 "$ctl" put "$here" "$victim" "$work/other"
expect 1 "$bench" $quick --store="$here" --blobs=100 --verify
said 'does not hold what was written'
runs read --store="$here" --blobs=100

# The null engine: index and runtime only.
runs read --store="$here" --create --force --size=96M --device=null --blob-size=4k
answers environment/engine=null environment/checksums=off
expect 0 "$bench" --runtime=0.1 --store="$here" --create --force --size=96M --device=null
printed 'moves no data' 'errors         0'

# The raw loop, and both in turn.
uring=$("$bench" --store=mem: --runtime=0.01 > /dev/null; cat /proc/sys/kernel/io_uring_disabled 2> /dev/null || echo 0)
if [ "$uring" = 0 ]; then
  runs read --store="$here" --create --force --size=96M --shards=2 --cores=1 \
    --prealloc=unwritten --control --iodepth=16 --batch=4
  answers 'control/ratio/median>0' 'control/ratio/pairs>7' 'control/ratio/max>0' \
    'control/raw_iops/median>0' environment/checksums=off
  runs read --store="$here" --create --force --size=96M --engine=raw
  runs write --store="$here" --rw=put --blob-size=64k --control --iodepth=4 --batch=2 --blobs=200
  answers 'control/ratio/pairs>7'
  runs write --store="$here" --rw=put --blob-size=64k --engine=raw
fi

# To a file, as a table.
expect 0 "$bench" --store=mem: --runtime=0.1 --output="$work/report"
[ ! -s "$work/out" ] || complain "--output leaves something on stdout"
grep -q 'rate' "$work/report" || complain "no table in the report"
expect 1 "$bench" --store=mem: --runtime=0.1 --output=/nowhere/report
said /nowhere/report
finish
