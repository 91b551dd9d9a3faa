#!/usr/bin/env bash
# test_fio_json.sh SHARD-BENCH FIO-KEYS: whoever reads fio's JSON finds in ours what fio itself writes:
# every path, with a value of the same type. What we leave out stands here, with the reason.
. "$(dirname "$0")/lib.sh"
bench=$1 keys=$2
command -v fio > /dev/null || {
  echo "skipped: fio is missing (package fio)"
  exit 77
}

left_out=(
  # A job says the options that it ran with, in their own words: ours are not fio's, which has text where
  # we have numbers, and names only what was given.
  'jobs/0/job options/*'
  'global options'
  # How deep the queue was at each moment is not counted: a closed load keeps --iodepth in flight, an open
  # one what its rate needs.
  jobs/0/iodepth_level jobs/0/iodepth_submit jobs/0/iodepth_complete
  # A store may lie on several devices, or on none; iostat(1) knows them.
  disk_util
  # Bins have their latencies as names, which differ from run to run.
  'jobs/0/read/clat_ns/bins/*' 'jobs/0/write/clat_ns/bins/*' 'jobs/0/trim/clat_ns/bins/*'
  'jobs/0/read/lat_ns/bins/*' 'jobs/0/write/lat_ns/bins/*' 'jobs/0/trim/lat_ns/bins/*'
  'jobs/0/sync/lat_ns/percentile*' # there was no flush
)
compared() {
  local what=$1
  checks=$((checks + 1))
  "$keys" "$work/fio" "$work/ours" "${left_out[@]}" > "$work/said" || complain "$what: $(cat "$work/said")"
}
fio_says() {
  fio --name=peer --filename="$work/file" --size=4m --ioengine=psync --output="$work/fio" "$@" > "$work/err" 2>&1 || {
    echo "skipped: this fio does not run here: $(head -1 "$work/err")"
    exit 77
  }
}

# Reads and writes, and a steady state.
fio_says --output-format=json --rw=randrw --time_based --runtime=5 --steadystate=iops:100000% --steadystate_duration=2
expect 0 "$bench" --store=mem:96M --engine=volume --rw=randrw --lat-sample=1 --output-format=json \
  --runtime=2 --steadystate=iops:100000% --steadystate_duration=0.2 --output="$work/ours"
compared json
grep -q '"fio version": "shard-bench' "$work/ours" || complain "no version where fio has its own"

# json+: all latencies.
fio_says --output-format=json+ --rw=randrw
expect 0 "$bench" --store=mem:96M --engine=volume --rw=randrw --lat-sample=1 --output-format=json --runtime=0.1 --output="$work/ours"
compared json+

# One side only, of blobs; and one job of several.
fio_says --output-format=json --rw=read
expect 0 "$bench" --store=mem:96M:2 --rw=randread --output-format=json --runtime=0.1 --group_reporting=0 --output="$work/ours"
compared 'reads, each core'
fio_says --output-format=json --rw=randwrite --fsync=16
expect 0 "$bench" --store=mem:96M --rw=put --output-format=json --runtime=0.1 --rate_iops=1000 --output="$work/ours"
compared 'writes, open load'

# The comparison itself.
printf '{"a": {"b": 1, "c": [1.5]}, "d": "x"}' > "$work/fio"
for ours in '{"a": {"b": 1.5, "c": [1.5]}, "d": "x"}' '{"a": {"b": 1}, "d": "x"}' '{"a": {"b": 1, "c": ["1"]}, "d": "x"}' \
  '{"a": {"b": 1, "c": [1]}, "d": 5}'; do
  echo "$ours" > "$work/ours"
  expect 1 "$keys" "$work/fio" "$work/ours"
  printed ' 1 bad'
done
finish
