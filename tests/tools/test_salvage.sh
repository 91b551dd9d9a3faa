#!/usr/bin/env bash
# test_salvage.sh SHARD-CTL JSON-CHECK: a damaged store from the command line: check --scrub names every
# place, salvage copies the rest.
. "$(dirname "$0")/lib.sh"
ctl=$1 check=$2
here=$work/store

json() {
  local copy=$work/json
  cp "$work/out" "$copy"
  checks=$((checks + 1))
  "$check" "$copy" "$@" || complain "JSON: $*"
}

# zero FILE BLOCK COUNT
zero() {
  dd if=/dev/zero of="$1" bs=4096 seek="$2" count="$3" conv=notrunc status=none
}

for id in 1 2 3 4 5 6 7 8; do head -c $((id * 3000)) /dev/urandom > "$work/in.$id"; done
{ echo 'this line is to be found by the test'; head -c 2999963 /dev/urandom; } > "$work/in.9"
# Each store has a key of its own, so once in 256 times one of the shards would get none of the nine.
for tries in 1 2 3 4 5; do
  expect 0 "$ctl" format "$here" --size=64M --shards=2 --force
  for id in 1 2 3 4 5 6 7 8 9; do expect 0 "$ctl" put "$here" $id "$work/in.$id"; done
  used=0
  for shard in "$here"/shard-*; do
    [ -z "$(dd if="$shard" bs=4096 skip=16 count=256 status=none | tr -d '\0' | head -c 1 | wc -c | grep 1)" ] ||
      used=$((used + 1))
  done
  [ $used -lt 2 ] || break
done
cp -r --sparse=always "$here" "$work/good"

# Nothing is wrong.
expect 0 "$ctl" check "$here" --scrub
printed '9 blobs' '0 findings'
expect 0 "$ctl" check "$here" --scrub --json
json ok=true blobs=9 'findings#0' 'notes#0' unverified_blobs=0 'bytes>3000000'
expect 0 "$ctl" salvage "$here" "$work/copy" --json
json ok=true complete=true copied_blobs=9 lost_blobs=0 'lost#0' 'old#0' 'damage#0'
expect 0 "$ctl" check "$work/copy" --scrub
printed '9 blobs' '0 findings'
for id in 1 5 9; do
  expect 0 "$ctl" get "$work/copy" $id "$work/back"
  same "$work/in.$id" "$work/back"
done
# A target that is a store already is left alone.
expect 1 "$ctl" salvage "$here" "$work/copy"
said exist

# Into files.
expect 0 "$ctl" salvage "$here" "$work/files" --files
printed '9 blobs' '0 lost by id'
for id in 1 5 9; do same "$work/in.$id" "$work/files/$(printf '%032x' $id)"; done

# One byte of a blob, one of an identity, one of a root copy.
found=
for file in "$here"/shard-*; do
  at=$(grep -obUaF -m1 -- 'is to be found by the test' "$file" | head -1 | cut -d: -f1)
  [ -n "$at" ] || continue
  printf X | dd of="$file" bs=1 seek="$at" conv=notrunc status=none
  found=$file
done
[ -n "$found" ] || complain "the data that was to be damaged is not in a packed file"
expect 1 "$ctl" check "$here" --scrub
printed "$found" "$(printf '%032x' 9)" 'checksum mismatch' 'remedy' '1 finding'
expect 1 "$ctl" salvage "$here" "$work/copy2" --json
json ok=false complete=true copied_blobs=8 lost_blobs=1 "lost/0/id=$(printf '%032x' 9)" \
  lost/0/size_bytes=3000000
expect 0 "$ctl" check "$work/copy2" --scrub
printed '8 blobs'
printf '\377' | dd of="$here/root" bs=1 seek=300 conv=notrunc status=none
expect 1 "$ctl" check "$here" --scrub
printed 'first identity copy' "$here/root, byte 0"
expect 0 "$ctl" get "$here" 1 "$work/back" # the other copy serves
same "$work/in.1" "$work/back"

# A whole log: the writable open is refused, what else is there can be had.
rm -r "$here"
cp -r --sparse=always "$work/good" "$here"
zero "$here/shard-0000" 16 256
expect 1 "$ctl" put "$here" 77 "$work/in.1"
said 'shard 0' 'log position' salvage
expect 1 "$ctl" info "$here"
expect 0 "$ctl" info "$here" --damaged
said 'log position'
expect 0 "$ctl" ls "$here" --damaged
expect 1 "$ctl" check "$here" --scrub --json
json ok=false findings/0/what findings/0/remedy findings/0/file=$here/shard-0000 \
  findings/0/offset_bytes=65536 findings/0/shard=0 'findings/0/lost_changes>0'
expect 1 "$ctl" salvage "$here" "$work/copy3" --json
json ok=false complete=true 'lost_changes>0' 'copied_blobs>0' 'damage#1'
expect 0 "$ctl" check "$work/copy3" --scrub

# A part is gone; all roots are gone; both.
rm "$here/shard-0000"
expect 1 "$ctl" check "$here" --scrub
printed "$here/shard-0000" 'missing'
expect 1 "$ctl" salvage "$here" "$work/copy4" --json
json ok=false complete=true 'copied_blobs>0'
rm -r "$here"
cp -r --sparse=always "$work/good" "$here"
rm "$here/root"
expect 1 "$ctl" check "$here" --scrub
printed 'no valid root' '9 blobs'
expect 1 "$ctl" salvage "$here" "$work/copy5" --json
json ok=false complete=true copied_blobs=9 lost_blobs=0
expect 0 "$ctl" get "$work/copy5" 9 "$work/back"
same "$work/in.9" "$work/back"

# Volumes: into a store, into files; names that are no names of files.
vols=$work/vols
expect 0 "$ctl" format "$vols" --size=96M --shards=2
{ echo 'this block is to be found by the test'; head -c 2999962 /dev/urandom; } > "$work/in.disk"
head -c 300000 /dev/zero >> "$work/in.disk"
truncate -s $(( ($(stat -c %s "$work/in.disk") + 511) / 512 * 512 )) "$work/in.disk"
expect 0 "$ctl" put "$vols" 1 "$work/in.1"
expect 0 "$ctl" volume import "$vols" disk "$work/in.disk"
expect 0 "$ctl" volume snapshot "$vols" disk 'kept: 1 %'
expect 0 "$ctl" volume clone "$vols" 'kept: 1 %' clone --size=5M
expect 0 "$ctl" volume create "$vols" striped --size=1G --striped --block=4096
expect 0 "$ctl" volume limit "$vols" striped --iops=100
expect 0 "$ctl" salvage "$vols" "$work/vols2" --json
json ok=true copied_blobs=1 copied_volumes=4 lost_volumes=0 lost_volume_bytes=0 old_volumes=0 \
  'volumes#4' 'lost#0' 'volume_bytes>9000000'
expect 0 "$ctl" check "$work/vols2" --scrub
expect 0 "$ctl" volume ls "$work/vols2" --json
expect 0 "$ctl" volume stat "$work/vols2" 'kept: 1 %' --json
json kind=snapshot depth=0 size_bytes=$(stat -c %s "$work/in.disk")
expect 0 "$ctl" volume stat "$work/vols2" clone --json
json kind=volume depth=0 size_bytes=5242880
expect 0 "$ctl" volume stat "$work/vols2" striped --json
json size_bytes=1073741824 block_bytes=4096 'stripe_bytes>0'
expect 0 "$ctl" volume export "$work/vols2" 'kept: 1 %' "$work/back"
same "$work/in.disk" "$work/back"
expect 0 "$ctl" volume export "$work/vols2" disk "$work/back"
same "$work/in.disk" "$work/back"
expect 0 "$ctl" salvage "$vols" "$work/vol-files" --files
printed '4 volumes' '0 may be old'
for name in disk 'kept%3A%201%20%25'; do same "$work/in.disk" "$work/vol-files/volumes/$name.img"; done
expect 0 cmp -n 3000000 "$work/in.disk" "$work/vol-files/volumes/clone.img"
[ "$(stat -c '%s %b' "$work/vol-files/volumes/striped.img")" = '1073741824 0' ] ||
  complain "the file of an empty volume is not sparse"

# One byte of a snapshot, once it has checksums: they are made in the background.
expect 0 "$ctl" flush "$vols" --checksums
expect 0 "$ctl" volume stat "$vols" clone --json
json unsummed_bytes=0 'shared_bytes>3000000'
cp -r --sparse=always "$vols" "$work/vols-good"
for file in "$vols"/shard-*; do
  at=$(grep -obUaF -m1 -- 'block is to be found' "$file" | head -1 | cut -d: -f1)
  [ -n "$at" ] && printf X | dd of="$file" bs=1 seek="$at" conv=notrunc status=none
done
expect 1 "$ctl" salvage "$vols" "$work/vols3" --json
json ok=false complete=true copied_volumes=4 lost_volumes=0 lost_volume_bytes=12288 'lost#3' \
  lost/0/volume lost/0/offset_bytes=0 lost/0/bytes=4096 'damage#0'
expect 0 "$ctl" check "$work/vols3" --scrub
expect 0 "$ctl" volume export "$work/vols3" disk "$work/back"
expect 0 cmp -i 4096 "$work/in.disk" "$work/back"
expect 1 "$ctl" salvage "$vols" "$work/vol-files3" --files
printed 'lost: volume disk, byte 0, 4096 bytes, now zeros' '12.0 KiB lost in them'

# A part is gone: what is left is copied, and called old.
rm -r "$vols"
cp -r --sparse=always "$work/vols-good" "$vols"
rm "$vols/shard-0001"
expect 1 "$ctl" salvage "$vols" "$work/vols4" --json
json ok=false complete=true 'old_volumes>0'
expect 0 "$ctl" check "$work/vols4" --scrub

# What cannot be helped.
mkdir "$work/empty"
expect 1 "$ctl" salvage "$work/empty" "$work/copy6"
expect 1 "$ctl" salvage "$work/nothing" "$work/copy6"
[ ! -e "$work/copy6" ] || complain "a target was made for nothing"
expect 2 "$ctl" salvage "$here"
finish
