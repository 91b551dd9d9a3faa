#!/usr/bin/env bash
# test_exports.sh PLUGIN SHARD-CTL: which volumes are served and as what, to nbdinfo; parameters and
# what is refused.
. "$(dirname "$0")/nbd.sh" "$1" "$2"
needs nbdinfo
volume create v --size=10M
volume snapshot v monday
volume create web-1 --size=4M
volume create web-2 --size=4M --block=4096

serve
expect 0 nbdinfo --list "$(uri)" && printed 'export="monday"' 'export="v"' 'export="web-1"' 'export="web-2"'
printed 'snapshot, read-only, 10485760 bytes' 'volume, 4194304 bytes'
expect 0 nbdinfo "$(uri v)"
printed 'export-size: 10485760' 'is_read_only: false' 'can_multi_conn: true' 'can_fua: true' \
  'can_fast_zero: true' 'can_trim: true' 'can_cache: true' 'block_size_minimum: 512' \
  'block_size_preferred: 4096' 'block_size_maximum: 33554432' 'base:allocation' 'volume #1'
expect 0 nbdinfo "$(uri monday)" && printed 'is_read_only: true' 'snapshot'
expect 0 nbdinfo "$(uri web-2)" && printed 'block_size_minimum: 4096'
expect 1 nbdinfo "$(uri none)"
logged 'none: No such file or directory; shard-ctl volume ls'
expect 1 nbdinfo "$(uri)"
logged 'there is not exactly one volume'
stop

serve prefix=web-
expect 0 nbdinfo --list "$(uri)" && printed 'export="web-1"'
checks=$((checks + 1))
grep -q 'export="v"' "$work/out" && complain "v is listed"
expect 1 nbdinfo "$(uri v)"
logged 'names that begin with web- only'
expect 0 nbdinfo "$(uri web-1)"
stop

serve volume=v
expect 0 nbdinfo "$(uri)" && printed 'export-size: 10485760'
expect 0 nbdinfo "$(uri v)"
expect 1 nbdinfo "$(uri web-1)"
stop

# The only volume is the default one; -r is for all of them.
serve prefix=web-2 cores=0 queue_depth=16 -r
expect 0 nbdinfo "$(uri)" && printed 'export-size: 4194304' 'is_read_only: true'
stop

# Two that only read share the store; one that writes needs it alone.
serve read_only=true
expect 0 nbdinfo "$(uri v)" && printed 'is_read_only: true'
expect 0 nbdkit -U - "$plugin" "store=$here" read_only=true volume=v \
  --run 'nbdinfo --size "$uri"' && printed 10485760
expect 1 nbdkit -f -U "$work/s2" "$plugin" "store=$here" && said 'another process has it open'
stop

# In the background nbdkit is in another directory.
rm -f "$sock" "$work/pid" "$work/s2"
(cd "$work" && nbdkit -U "$sock" -P "$work/pid" "$plugin" store volume=v) ||
  complain "it does not start in the background"
for ((i = 0; i < 100; i++)); do [ -s "$work/pid" ] && break; sleep 0.05; done
expect 0 nbdinfo --size "$(uri)" && printed 10485760
kill "$(cat "$work/pid")"

rm -f "$work/s2"
expect 1 nbdkit -f -U "$work/s2" "$plugin" && said 'which store is to be served'
expect 1 nbdkit -f -U "$work/s2" "$plugin" "store=$work/none" && said 'shard-ctl format makes one'
rm -f "$work/s2"
expect 1 nbdkit -f -U "$work/s2" "$plugin" "store=$here" volume=a prefix=b && said 'one of the two'
expect 1 nbdkit -f -U "$work/s2" "$plugin" "store=$here" speed=high && said "unknown parameter 'speed'"
expect 1 nbdkit -f -U "$work/s2" "$plugin" "store=$here" queue_depth=many && said queue_depth
expect 0 nbdkit --dump-plugin "$plugin" && printed 'name=shardring' 'shardring_version=' \
  'thread_model=parallel' 'has_extents=1'
finish
