#!/usr/bin/env bash
# test_tune.sh SHARD-BENCH JSON-CHECK SHARD-CTL: tune measures what lies behind a directory, leaves nothing
# behind but settings, which the store then uses; and says what is wrong where it cannot.
. "$(dirname "$0")/lib.sh"
bench=$1 check=$2 ctl=$3
here=$work/store
answers() {
  checks=$((checks + 1))
  "$check" "$work/json" "$@" || complain "JSON: $*"
}
in_use() { # QUESTION...: of the open store
  expect 0 "$ctl" stats "$here" --json
  cp "$work/out" "$work/json"
  answers "$@"
}
quick="--runtime=1 --size=16M"

# What is no place for it; nothing is made there.
expect 2 "$bench" tune
said --store legal:
expect 2 "$bench" tune --store="$here"
said "$here" legal:
mkdir "$here"
expect 2 "$bench" tune --store="$here"
said 'no store' --output
expect 2 "$bench" tune --store=/dev/null --dry-run
said directory
expect 2 "$bench" tune --store="$here" --runtime=0
said legal:
expect 2 "$bench" tune --store="$here" --size=1M
said --size=1M legal:
expect 1 "$bench" tune --store="$here" --dry-run --size=1023G
said 'are free' 'at least'
expect 0 "$bench" tune --help
printed --store --runtime --output
if mountpoint -q /dev/shm; then # no direct I/O, or a device that is none
  expect 0 mkdir "$work/nothing"
  "$bench" tune --store=/dev/shm --dry-run $quick > "$work/out" 2> "$work/err" ||
    said 'no direct I/O'
fi
[ -z "$(ls "$here")" ] || complain "refused, and yet: $(ls "$here")"

# On a store.
rmdir "$here"
expect 0 "$ctl" format "$here" --size=64M --shards=1
in_use queue_depth=256 poll_us=50 flush_method=fua
find "$here" | sort > "$work/before"
expect 0 "$bench" tune --store="$here" $quick --dry-run --output-format=json
cp "$work/out" "$work/json"
find "$here" | sort > "$work/after"
same "$work/before" "$work/after"
answers 'measured/depths#9' 'measured/batches#4' 'measured/reads#5' 'measured/writes#5' 'measured/depths/8/depth=256' \
  'measured/depths/0/iops>0' 'measured/depths/8/iops>0' 'measured/reads/4/iops>0' 'measured/writes/4/iops>0' \
  'measured/read_p50_ns>0' 'measured/wake_ns>0' 'measured/write_ns>0' 'measured/write_flush_ns>0' \
  'measured/write_dsync_ns>0' 'measured/scratch_bytes=16777216' 'model/read/fixed_ns>0' 'model/knee_depth>0' \
  'model/iops_max>0' 'model/reads_kept>0' 'model/writes_kept>0' 'settings/poll_us>9' 'settings/queue_depth>31' \
  settings/flush device kernel 'timestamp>0'
expect 0 "$bench" tune --store="$here" $quick
printed 'for each KiB' 'requests wait for each other' 'with a flush' 'beside each other' 'settings  '
find "$here" | sort > "$work/after"
echo "$here/settings" | sort -m - "$work/before" > "$work/want"
same "$work/after" "$work/want"
grep -qxE 'poll_us = [0-9]+' "$here/settings" || complain "no poll_us in: $(cat "$here/settings")"
grep -qxE 'queue_depth = [0-9]+' "$here/settings" || complain "no queue_depth in: $(cat "$here/settings")"
grep -qxE 'flush = (fua|write\+flush)' "$here/settings" || complain "no flush in: $(cat "$here/settings")"
number() { sed -nE "s/^$1 = (.*)/\1/p" "$here/settings"; }
in_use "queue_depth=$(number queue_depth)" "poll_us=$(number poll_us)" "flush_method=$(number flush)" why_settings
grep -qF "$here/settings" "$work/json" || complain "where they are from is not said"
expect 0 "$ctl" stats "$here"
printed "$here/settings" flush_method

# By hand, and damaged: it says so, and the store works.
printf 'queue_depth = 33\nflush = write+flush\n' > "$here/settings"
in_use queue_depth=33 poll_us=50 flush_method=write+flush
echo data > "$work/data"
expect 0 "$ctl" put "$here" 1 "$work/data"
expect 0 "$ctl" get "$here" 1 "$work/back"
same "$work/data" "$work/back"
head -c 3000 /dev/urandom > "$here/settings"
in_use queue_depth=256 poll_us=50 flush_method=fua
said "$here/settings" 'left alone' 'shard-bench tune'
expect 0 "$ctl" get "$here" 1 "$work/back"
same "$work/data" "$work/back"

# A file elsewhere.
expect 0 "$bench" tune --store="$work" $quick --output="$work/elsewhere"
grep -q '^poll_us' "$work/elsewhere" || complain "nothing in the other file"
expect 1 "$bench" tune --store="$work" $quick --output=/nowhere/settings
said /nowhere/settings
rm "$here/settings"
expect 0 "$bench" --store="$here" --settings="$work/elsewhere" --runtime=10ms --blobs=10
expect 1 "$bench" --store="$here" --settings="$work/none" --runtime=10ms --blobs=10
said "$work/none"
expect 0 "$bench" --store="$here" --settings=none --runtime=10ms --blobs=10
finish
