#!/usr/bin/env bash
# test_bench_workloads.sh SHARD-BENCH JSON-CHECK SHARD-CTL: blobs of many sizes, requests for other
# cores, flushes, and the workloads of our users. What must hold for a seed is asserted, and no speed.
. "$(dirname "$0")/lib.sh"
bench=$1 check=$2 ctl=$3
here=$work/store
memory="--store=mem:128M:2 --cores=2"
quick="--runtime=0.1 --output-format=json"

# runs OPTIONS...: without an error; its report is in $work/json.
runs() {
  # shellcheck disable=SC2086 # a list of options
  expect 0 "$bench" $quick "$@" || return
  cp "$work/out" "$work/json"
  answers jobs/0/total_err=0 jobs/0/error=0
}
answers() {
  checks=$((checks + 1))
  "$check" "$work/json" "$@" || complain "JSON: $*"
}
# value PATH: the number there.
value() {
  "$check" "$work/json" "$1=-1" 2>&1 | sed -nE 's/.*\(it is (-?[0-9.e+]+)\).*/\1/p'
}
# holds EXPRESSION NAME=PATH...: awk's opinion on numbers of the report.
holds() {
  local expression=$1 pair values=()
  shift
  for pair in "$@"; do values+=(-v "${pair%%=*}=$(value "${pair#*=}")"); done
  checks=$((checks + 1))
  awk "${values[@]}" "BEGIN { exit !($expression) }" ||
    complain "$expression does not hold: ${values[*]//-v/}"
}

# ---- Blobs of many sizes: what lies in the store is as the list says.
runs --store="$here" --create --size=96M --shards=2 --device=pool --blob-size-dist=4k/60:64k/40 --blobs=500 \
  --rw=get --verify
answers 'jobs/0/job options/blob-size-dist=4k/60:64k/40' 'jobs/0/read/total_ios>0'
holds 'bytes / ios > 4096 && bytes / ios < 65536' bytes=jobs/0/read/io_bytes ios=jobs/0/read/total_ios
expect 0 "$ctl" ls "$here"
small=$(grep -c ' 4096$' "$work/out") large=$(grep -c ' 65536$' "$work/out")
[ $((small + large)) -eq 500 ] || complain "$small and $large blobs of the two sizes"
{ [ "$small" -ge 256 ] && [ "$small" -le 344 ]; } || complain "$small of 500 are small: not 60 %, by 4 deviations"
# Another run takes them as they are; another seed has others.
runs --store="$here" --device=pool --blob-size-dist=4k/60:64k/40 --blobs=500 --rw=read --bs=16k --verify
expect 0 "$bench" --store="$here" --device=pool --blob-size-dist=4k/60:64k/40 --blobs=500 --rw=read --runtime=0.05
[ "$(grep -c filled "$work/out")" = 0 ] || complain "filled once more"
printf '5000 3\n# rare\n100k 1\n' > "$work/sizes"
for dist in uniform:1-100k lognormal:8k:1 fixed:5000 "$work/sizes"; do
  for rw in put randwrite get randread read; do
    runs $memory --rw=$rw --blob-size-dist="$dist" --blobs=300 --bs=16k --iodepth=16 --verify
  done
done
holds 'bytes / ios <= 16384' bytes=jobs/0/read/io_bytes ios=jobs/0/read/total_ios
runs $memory --rw=delete --blob-size-dist=uniform:1-100k --blobs=300
answers jobs/0/trim/total_ios=300

# ---- For other cores' shards: the share that was asked for, within 5 deviations.
for share in 0 20 50 100; do
  runs $memory --rw=randread --remote=$share --verify
  holds '(p - s) ^ 2 <= 25 * s * (100 - s) / n + 1e-9' p=jobs/0/remote_percent s='jobs/0/job options/remote' \
    n=jobs/0/read/total_ios
done
for rw in get put 'randwrite --random_distribution=zipf:0.9' 'randread --random_distribution=zipf:0.9'; do
  runs $memory --rw=$rw --remote=50 --verify --blob-size=16k
  answers 'jobs/0/remote_percent>30'
done
expect 0 "$bench" $memory --runtime=0.05 --remote=50
printed 'went to other cores'
expect 2 "$bench" --store=mem:64M:1 --remote=50
said --remote 'at least two cores'
expect 2 "$bench" --store=mem:64M:2 --cores=1 --remote=50
said --remote 'two cores'
for wrong in --where=client --rw=read --rw=delete --engine=volume; do
  expect 2 "$bench" $memory --remote=50 $wrong
  said --remote
done

# ---- Flushes: as many as puts call for; between two of them there may be what is in flight.
runs $memory --rw=put --flush-every=50 --iodepth=16 --verify
holds 'f >= n / 66 - 2 && f <= n / 50 + 2 && f > 2' f=jobs/0/sync/total_ios n=jobs/0/write/total_ios
answers 'jobs/0/sync/lat_ns/percentile/50.000000>0'
runs $memory --rw=randwrite --flush-every=1M --iodepth=16 --blob-size=16k --verify
holds 'f >= n / 80 - 2 && f <= n / 64 + 2 && f > 2' f=jobs/0/sync/total_ios n=jobs/0/write/total_ios
runs $memory --rw=put --flush-every=20ms --where=client --numjobs=2
holds 'f >= 3 && f <= 30' f=jobs/0/sync/total_ios
runs $memory --rw=put --flush-every=100000000 --iodepth=4
answers jobs/0/sync/total_ios=2 # at each load's end
runs --store="$here" --device=pool --create --force --size=96M --shards=2 --rw=put --flush-every=200 --blobs=2000
answers 'jobs/0/sync/total_ios>0'
expect 0 "$ctl" ls "$here"
[ "$(grep -c ' 4096$' "$work/out")" -ge 200 ] || complain 'puts that were flushed are not there'

# ---- kv: the mixes of YCSB, within 5 deviations; sizes; the parts of a read-modify-write.
w=jobs/0/workload c=jobs/0/workload/classes
mix() { # mix YCSB READS-IN-PERCENT OPTIONS...
  local ycsb=$1 percent=$2
  shift 2
  runs $memory --workload=kv --ycsb=$ycsb --verify --blobs=5000 --lat-sample=1 "$@"
  answers jobs/0/jobname=kv "jobs/0/job options/ycsb=$ycsb" "$c/read/lat_ns/percentile/99.000000>0" \
    'jobs/0/job options/random_distribution=zipf:0.99'
  holds "(100 * r / n - $percent) ^ 2 <= 25 * $percent * (100 - $percent) / n + 1e-9" r=$c/read/ops n=$w/ops
  holds 'b == 1000 * r && c == 1000 * t' b=$c/read/bytes r=$c/read/ops c=jobs/0/read/io_bytes t=jobs/0/read/total_ios
  holds 'i * ms / 1000 < 1.05 * t && i * (ms + 1) / 1000 > 0.95 * t' i=jobs/0/read/iops ms=jobs/0/read/runtime \
    t=jobs/0/read/total_ios
}
mix a 50
holds 'u + r == n && t == u && N == u && v == r' u=$c/update/ops r=$c/read/ops n=$w/ops t=jobs/0/write/total_ios \
  N=$c/update/lat_ns/N v=jobs/0/read/total_ios
mix b 95 --where=client --numjobs=2
mix c 100 --remote=50
answers jobs/0/write/total_ios=0 'jobs/0/remote_percent>30'
mix f 50
answers "$c/read_modify_write/lat_ns/mean>0"
holds 'm == ir && m == iu && m + r == n && t == r + m && x == m && b == 2000 * m' m=$c/read_modify_write/ops \
  ir=$c/its_read/ops iu=$c/its_update/ops r=$c/read/ops n=$w/ops t=jobs/0/read/total_ios x=jobs/0/write/total_ios \
  b=$c/read_modify_write/bytes
holds 'least >= a && least >= b' least=$c/read_modify_write/lat_ns/min a=$c/its_read/lat_ns/min \
  b=$c/its_update/lat_ns/min
runs $memory --workload=kv --ycsb=f --blob-size-dist=4k/60:64k/40 --blobs=400 --flush-every=200 --verify --iodepth=16
answers 'jobs/0/sync/total_ios>0' "$c/its_update/ops>0"
holds 'b / n > 4096 && b / n < 65536' b=$c/read/bytes n=$c/read/ops
runs $memory --workload=kv --rate_iops=2000 --runtime=0.2 --verify
holds 'n + u == 400' n=$w/ops u=jobs/0/due_but_unsent
answers "$c/read/clat_ns/N>0"
runs $memory --workload=kv --ramp_time=0.1 --lat-sample=1 # what comes before is not in it
holds 'r + u == n && R == r && U == u' r=$c/read/ops u=$c/update/ops n=$w/ops R=jobs/0/read/clat_ns/N \
  U=jobs/0/write/clat_ns/N
runs --store="$here" --device=null --create --force --size=96M --workload=kv --ycsb=f --blobs=1000
expect 0 "$bench" $memory --runtime=0.1 --workload=kv --ycsb=f
printed 'kv' 'read-modify-write' 'its update' 'errors         0'
# Interrupted: what there is, and a sound store.
runs --store="$here" --create --force --size=96M --shards=2 --device=pool --blobs=500 --workload=kv
expect 130 timeout --preserve-status --signal=INT 1.5 "$bench" --store="$here" --device=pool --blobs=500 \
  --workload=kv --ycsb=f --runtime=60 --output-format=json
cp "$work/out" "$work/json"
answers jobs/0/total_err=0 "$c/read/ops>0"
expect 0 "$ctl" check "$here"
expect 2 "$bench" $memory --ycsb=b
said --ycsb --workload=kv
expect 2 "$bench" $memory --workload=kv --ycsb=d
said --ycsb=d legal:
expect 2 "$bench" $memory --workload=kv --rw=get
said --rw
expect 2 "$bench" $memory --workload=kv --engine=volume
said --engine=store
expect 2 "$bench" --store="$here" --workload=kv --prealloc=unwritten
said --ycsb=c

# ---- ingest: flushes as they were asked for, sizes, space.
runs $memory --workload=ingest --flush-every=2M --verify
holds 'f >= n / 24 - 2 && f <= n / 8 + 2 && f > 1 && N == n' f=jobs/0/sync/total_ios n=jobs/0/write/total_ios \
  N=jobs/0/write/clat_ns/N
holds 'b == 262144 * n' b=jobs/0/write/io_bytes n=jobs/0/write/total_ios
answers jobs/0/jobname=ingest "$w/name=ingest" "$w/metadata_bytes>0" 'jobs/0/sync/lat_ns/percentile/99.000000>0'
holds 'l == 262144 * b && u >= l && r == u / l' l=$w/live_bytes b=$w/blobs u=$w/used_bytes r=$w/used_for_a_live_byte
runs --store="$here" --device=pool --create --force --size=96M --shards=2 --workload=ingest --flush-every=50 \
  --blob-size-dist=4k/60:64k/40 --blobs=300 --verify
expect 0 "$ctl" ls "$here"
live=$(awk '{ n += $2 } END { print n }' "$work/out")
answers "$w/live_bytes=$live" "$w/blobs=300"
runs $memory --workload=ingest --blob-size=64k --where=client --numjobs=2 --rate_iops=200
expect 0 "$bench" $memory --workload=ingest --runtime=0.1
printed ingest flushes 'used for a live byte' metadata
expect 2 "$bench" $memory --workload=ingest --device=null
said --flush-every
expect 2 "$bench" $memory --workload=ingest --verify --rate_iops=10
said --verify --rate_iops

# ---- analytics: each scan reads a footer, and as many chunks as it is told; in all, what all of these have.
runs $memory --workload=analytics --blob-size=4M --chunk-size=256k-512k --chunks=3 --bs=128k --footer-size=10000 \
  --iodepth=4 --verify
holds 'f == s && k == 3 * s && s > 0 && t == s' f=$c/footer/ops k=$c/chunk/ops s=$c/scan/ops t=$w/ops
holds 'f == 10008 * s && r == f + k && r == a && r == i' f=$c/footer/bytes s=$c/scan/ops r=$c/read/bytes \
  k=$c/chunk/bytes a=$c/scan/bytes i=jobs/0/read/io_bytes
holds 'k / n > 256000 && k / n < 524288' k=$c/chunk/bytes n=$c/chunk/ops
holds 'n >= 2 * s + k / 131072 && n <= 2 * s + k / 131072 + c' n=$c/read/ops s=$c/scan/ops k=$c/chunk/bytes \
  c=$c/chunk/ops
holds 'least >= a && least >= b && a > 0' least=$c/scan/lat_ns/min a=$c/footer/lat_ns/min b=$c/chunk/lat_ns/min
runs $memory --workload=analytics --blob-size-dist=uniform:1M-3M --chunk-size=100k-200k --remote=50 --iodepth=2 --verify
answers "$c/footer/lat_ns/percentile/50.000000>0" "$c/chunk/lat_ns/percentile/50.000000>0"
runs --store="$here" --device=pool --create --force --size=96M --shards=2 --workload=analytics --blob-size=6M \
  --chunk-size=1M-2M --where=client --numjobs=2 --verify
expect 0 "$bench" $memory --workload=analytics --blob-size=4M --chunk-size=1M-2M --runtime=0.1
printed scan footer chunk 'errors         0'
for wrong in --chunk-size=5 --chunk-size=2M-1M --footer-size=1M --blob-size=1M; do
  expect 2 "$bench" $memory --workload=analytics $wrong
  said "${wrong%%=*}"
done
expect 2 "$bench" $memory --chunks=2
said --workload=analytics

# ---- lambda: each machine reads 6.5 % of the image, each block once; all space comes back.
image=$((16 << 20)) share=$(((16 << 20) / 4096 * 65 / 1000 * 4096))
machines() { # machines HOW-MANY WRITES OPTIONS...
  local n=$1 writes=$2
  shift 2
  runs "$@" --workload=lambda --clones=$n --boot-writes=$writes --volume-size=16M
  answers jobs/0/jobname=lambda "$w/ops=$n" "$c/machine/ops=$n" "$c/clone/ops=$n" "$c/first_byte/ops=$n" \
    "$c/boot/ops=$n" "$c/remove/ops=$n" "$c/read/bytes=$((n * share))" "jobs/0/read/io_bytes=$((n * share))" \
    "$w/image_bytes=$image" "$c/boot/lat_ns/percentile/99.000000>0" "$c/first_byte/lat_ns/percentile/50.000000>0"
  holds 'r == n * p && r == t' r=$c/read/ops p=$w/reads_of_a_boot n=$w/ops t=jobs/0/read/total_ios
  [ "$writes" = 0 ] || answers "$c/write/ops=$((n * writes))" "$c/write/bytes=$((n * writes * 4096))"
  holds 'k <= f && f <= b && b <= m' k=$c/clone/lat_ns/min f=$c/first_byte/lat_ns/min b=$c/boot/lat_ns/min \
    m=$c/machine/lat_ns/min
  holds 'b == a && x <= y' b=$w/volumes_before_bytes a=$w/volumes_after_bytes x=$w/free_before_bytes \
    y=$w/free_after_bytes
}
machines 12 20 $memory --verify
holds "b == $image" b=$w/volumes_before_bytes
machines 5 0 $memory --numjobs=1 --iodepth=16
machines 4 10 $memory --stripe=64k --verify
machines 6 20 --store="$here" --device=pool --create --force --size=96M --shards=2 --verify
machines 6 60 --store="$here" --device=pool --verify --numjobs=8 # the same image
expect 0 "$ctl" volume ls "$here"
printed lambda-base lambda-image
! grep -q lambda-vm "$work/out" || complain "machines are left over"
# What a killed run leaves is removed by the next one.
"$bench" --store="$here" --device=pool --workload=lambda --runtime=60 > "$work/out" 2> "$work/err" &
sleep 1
kill -KILL $!
wait $! 2> /dev/null # until then it may hold the store's lock
machines 5 10 --store="$here" --device=pool --verify
holds "b == $image" b=$w/volumes_after_bytes
runs $memory --workload=lambda --runtime=0.3 # by time; a size of its own
answers "$c/machine/ops>0"
runs $memory --workload=lambda --reserve --clones=4
expect 130 timeout --preserve-status --signal=INT 1 "$bench" --store="$here" --device=pool --workload=lambda --runtime=60
printed machine boot interrupted
expect 0 "$ctl" volume ls "$here"
! grep -q lambda-vm "$work/out" || complain "machines are left over by an interrupted run"
expect 0 "$ctl" check "$here"
expect 2 "$bench" --store="$here" --workload=lambda --volume-size=8M
said --volume-size
for wrong in --where=core --chain=2 --blobs=5 --rw=randread --engine=raw; do
  expect 2 "$bench" $memory --workload=lambda $wrong
  said "${wrong%%=*}"
done
expect 2 "$bench" $memory --boot-writes=5
said --workload=lambda

# ---- What is no size, no rule.
for wrong in --blob-size-dist=4k/60 --blob-size-dist=uniform:9-8 --blob-size-dist=lognormal:4k --flush-every=3x \
  --flush-every=0 --flush-every=1.5 --remote=101 --blob-size-dist="$work/nowhere"; do
  expect 2 "$bench" $memory --rw=put "$wrong"
  said "$wrong" legal:
done
printf '4k 1\n-5 2\n' > "$work/sizes"
expect 2 "$bench" $memory --blob-size-dist="$work/sizes"
said 'line 2'
expect 2 "$bench" $memory --flush-every=10
said '--rw=put'
expect 2 "$bench" $memory --blob-size=4k --blob-size-dist=fixed:4k
said --blob-size
expect 2 "$bench" $memory --engine=volume --blob-size-dist=fixed:4k
said --engine=store
finish
