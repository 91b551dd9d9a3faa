#!/usr/bin/env bash
# test_volume.sh SHARD-CTL JSON-CHECK: the life of volumes, snapshots and clones from the command
# line; what is refused.
. "$(dirname "$0")/lib.sh"
ctl=$1 check=$2
here=$work/store

# json QUESTION...: the last output is JSON and answers yes.
json() {
  local copy=$work/json
  cp "$work/out" "$copy"
  checks=$((checks + 1))
  "$check" "$copy" "$@" || complain "JSON: $*"
}

# volume COMMAND [WORDS]: of the store.
volume() {
  local command=$1
  shift
  "$ctl" volume "$command" "$here" "$@"
}

# lists NAME...: the volumes that there are, in this order.
lists() {
  checks=$((checks + 1))
  volume ls > "$work/ls" || complain "ls"
  local names
  names=$(awk 'NR > 1 { print $5 }' "$work/ls" | paste -sd ' ' -)
  [ "$names" = "$*" ] || complain "there are \"$names\" instead of \"$*\""
}

# holds NAME FILE: an export of the volume is that file.
holds() {
  expect 0 volume export "$1" "$work/export"
  same "$2" "$work/export"
}

expect 0 "$ctl" format "$here" --size=96M --shards=2
lists
expect 0 volume create disk --size=10M --json
json name=disk kind=volume size_bytes=10485760 block_bytes=512 striped=false used_bytes=0 depth=0
expect 0 volume create wide --size=20M --block=4096 --striped --json
json striped=true stripe_bytes=1048576 block_bytes=4096 shard=0
expect 0 volume create narrow --size=1T --stripe=64k --json
json striped=true stripe_bytes=65536 size_bytes=1099511627776
expect 0 volume create second --size=4k --shard=1 --integrity=off --json
json shard=1
lists disk narrow second wide
expect 0 volume stat disk
printed 'name      disk' '10.0 MiB' 'shard'
expect 0 volume stat narrow
printed 'striped over all shards, 65536 bytes each'
head -c 10485760 /dev/zero > "$work/zeros"
holds disk "$work/zeros"

# Content comes by import; a snapshot keeps it, a clone begins as it.
{ head -c 300000 /dev/urandom; head -c 4000000 /dev/zero; head -c 200000 /dev/urandom; } > "$work/one"
truncate -s 8M "$work/one"
expect 0 volume rm disk
expect 0 volume import disk "$work/one" --json
json name=disk size_bytes=8388608 'used_bytes>400000'
holds disk "$work/one"
expect 0 volume snapshot disk monday --json
json name=monday kind=snapshot children=1
expect 0 volume stat disk --json
json kind=clone depth=1 used_bytes=0 'shared_bytes>400000'
holds monday "$work/one"
expect 0 volume clone monday copy --json
json name=copy kind=clone size_bytes=8388608 used_bytes=0
expect 0 volume clone monday large --size=9M --shard=0 --json
json size_bytes=9437184
cp "$work/one" "$work/one.large"
truncate -s 9M "$work/one.large"
holds large "$work/one.large"
holds copy "$work/one"
lists copy disk large monday narrow second wide
expect 0 volume ls --json
json 'volumes#7' volumes/3/kind=snapshot volumes/0/parent=monday
expect 0 volume ls
printed 'clone 8388608 0' 'copy monday'
id=$(volume stat narrow --json | sed -n 's/.*"id": \([0-9]*\).*/\1/p')
expect 0 volume stat "#$id"
printed narrow

# What differs.
expect 0 volume diff monday copy
[ ! -s "$work/out" ] || complain "a new clone differs: $(cat "$work/out")"
expect 0 volume diff - monday --json
json 'ranges#2' ranges/0/offset_bytes=0 ranges/0/zeros=false 'data_bytes>499999'
expect 0 volume diff monday large
[ ! -s "$work/out" ] || complain "a larger clone differs: $(cat "$work/out")"

# What lies below many is read once.
expect 0 "$ctl" check "$here"
printed '7 volumes, 1 of them snapshots' '0 findings'
expect 0 "$ctl" check "$here" --json
json volumes=7 snapshots=1 'volume_bytes>500000' 'volume_read_bytes>500000' ok=true
[ "$(sed -n 's/.*"volume_read_bytes": \([0-9]*\).*/\1/p' "$work/out")" -lt 1000000 ] ||
  complain "check reads a snapshot more than once"

# Sizes.
expect 0 volume resize copy 12M --json
json size_bytes=12582912
expect 0 volume resize copy 8M
expect 1 volume resize copy 4M
said 'copy' 'data beyond the new end' '--force'
holds copy "$work/one"
expect 0 volume resize copy 4M --force
head -c 4M "$work/one" > "$work/half"
holds copy "$work/half"
expect 0 volume resize copy 8M
cp "$work/half" "$work/half.again"
truncate -s 8M "$work/half.again"
holds copy "$work/half.again"

# Back to what it was; on its own; under another name.
expect 0 volume rollback copy monday --json
json size_bytes=8388608
holds copy "$work/one"
expect 0 volume flatten copy --json
json kind=volume depth=0 parent_id=0 'used_bytes>400000' shared_bytes=0
holds copy "$work/one"
expect 0 volume rename copy paper --json
json name=paper
expect 1 volume stat copy
said 'copy' 'no such volume' 'volume ls'

# Removed in any order; those that are left keep what they need.
expect 0 volume rm monday
holds disk "$work/one"
holds large "$work/one.large"
expect 0 volume rm disk
holds large "$work/one.large"
expect 0 volume rm large
expect 0 volume rm paper
lists narrow second wide
expect 0 volume rm narrow
expect 0 volume rm second
expect 0 volume rm wide
lists
expect 0 "$ctl" info "$here" --json
json volume_bytes=0
expect 0 "$ctl" check "$here"
printed '0 findings'

# Limits: a volume keeps what is not named.
expect 0 volume create disk --size=1M
expect 0 volume limit disk --iops=500 --iops-burst=1000 --json
json limit_ops/size=500 limit_ops/one_time_burst=1000 limit_ops/refill_ms=1000
expect 0 volume limit disk --bps=2M --refill-ms=100 --group=tenant --json
json limit_bytes/size=209715 limit_bytes/refill_ms=100 limit_ops/size=500 group=tenant
expect 0 volume stat disk
printed 'group     tenant' '209715 every 100 ms' '500 every 1000 ms, and 1000 once'
expect 0 volume limit --group=tenant --iops=2000
expect 0 volume limit --all --bps=1G
expect 0 volume limit disk --unlimited --iops=7 --json
json limit_ops/size=7 group=tenant
"$check" "$work/json" limit_bytes 2> /dev/null && complain "a limit that was taken away is there"
expect 0 volume limit disk --no-group
expect 0 volume stat disk
grep -q group "$work/out" && complain "the volume is still in its group"
expect 0 volume limit --all --unlimited

# Refusals that change nothing.
volume ls > "$work/before"
expect 1 volume create disk --size=1M
said 'disk' 'the name is taken'
expect 2 volume create new
said '--size'
expect 2 volume create new --size=100
said '--size=100' legal:
expect 2 volume create new --size=65T
said '--size=65T' legal:
expect 2 volume create new --size=1000
said legal:
expect 2 volume create new --size=1M --block=1024
said '512|4096'
expect 2 volume create new --size=1M --integrity=maybe
said 'sealed|off'
expect 1 volume create new --size=1M --block=4096 --shard=7
said 'impossible'
expect 1 volume create new --size=4608 --block=4096
said 'whole logical blocks'
expect 2 volume create new --size=1M --stripe=1000
said --stripe=1000 legal:
expect 1 volume create new --size=1M --stripe=192k
said 'impossible'
for name in '' '#1' 'a/b' $'a\tb' $'a\xff'; do
  expect 1 volume create "$name" --size=1M
  said 'malformed name'
done
long=$(printf 'x%.0s' $(seq 256))
expect 1 volume create "$long" --size=1M
said 'too long' '255'
for command in rm stat flatten; do
  expect 1 volume $command nothing
  said 'nothing: there is no such volume'
done
expect 1 volume rename nothing new
said 'nothing: there is no'
expect 1 volume rename disk disk
said 'disk'
expect 1 volume resize nothing 1M
said 'nothing: there is no'
expect 2 volume resize disk 0
said 'is no size'
expect 2 volume resize disk 1x
expect 2 volume resize disk 70T
expect 2 volume resize disk 1000
expect 1 volume snapshot nothing new
said 'nothing: there is no'
expect 1 volume snapshot disk disk
said 'disk: the name is taken'
expect 1 volume clone nothing new
said 'nothing: there is no'
expect 1 volume clone disk new
said 'disk'
expect 1 volume rollback disk nothing
said 'nothing: there is no'
expect 1 volume rollback nothing disk
said 'nothing: there is no'
expect 1 volume diff nothing disk
said 'nothing: there is no'
expect 1 volume diff - nothing
said 'nothing: there is no'
expect 1 volume limit nothing --iops=1
said 'nothing: there is no'
for words in disk '' 'disk --all --iops=1' '--all --group=x --iops=1' 'disk --iops-burst=5' \
  'disk --refill-ms=5' 'disk --iops=5 --refill-ms=10' '--all --no-group --iops=1' \
  'disk --group=x --no-group'; do
  expect 2 volume limit $words
  said 'volume limit:'
done
expect 2 volume limit disk --iops=0
said --iops=0 legal:
expect 2 volume limit disk --bps=0
said --bps=0 legal:
expect 1 volume limit disk --group="$(printf 'x%.0s' $(seq 64))"
said '1 to 63 bytes'
volume ls > "$work/after"
same "$work/before" "$work/after"

# A snapshot never changes.
expect 0 volume snapshot disk kept
expect 1 volume resize kept 2M
said 'kept' 'never changes'
expect 1 volume rollback kept kept
said 'never changes'
expect 0 volume create other --size=1M
expect 1 volume rollback other kept
said 'does not lie below'

# The command line.
expect 2 "$ctl" volume
said --help
expect 2 "$ctl" volume frobnicate "$here"
said 'unknown command "volume frobnicate"' create flatten
expect 2 "$ctl" volume create
said 'volume create needs the place of a store'
expect 2 "$ctl" volume rename "$here" one
said 'too few words' 'volume rename WHERE NAME NEW'
expect 2 "$ctl" volume ls "$here" more
said 'too many words'
expect 2 "$ctl" --json volume ls "$here"
said 'must be the first word'
expect 0 "$ctl" volume --help
printed create snapshot export --since
expect 0 "$ctl" --help
printed 'volume COMMAND'
expect 0 "$ctl" volume ls --store="$here"
printed kept
expect 1 "$ctl" volume ls "$work/nowhere"

# A shard's log is lost: what lies in others can be had.
broken=$work/broken
expect 0 "$ctl" format "$broken" --size=64M --shards=2
expect 0 "$ctl" volume import "$broken" lost "$work/one" --shard=0
expect 0 "$ctl" volume import "$broken" whole "$work/one" --shard=1
dd if=/dev/zero of="$broken/shard-0000" bs=4096 seek=16 count=256 conv=notrunc status=none
expect 1 "$ctl" volume ls "$broken"
said 'damaged'
expect 0 "$ctl" volume ls "$broken" --damaged
printed whole
expect 0 "$ctl" volume export "$broken" whole "$work/export" --damaged
same "$work/one" "$work/export"
expect 1 "$ctl" volume export "$broken" lost "$work/export" --damaged
said 'lost: damaged'
finish
