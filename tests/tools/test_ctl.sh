#!/usr/bin/env bash
# test_ctl.sh SHARD-CTL JSON-CHECK: a store's life from the command line.
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

expect 1 "$ctl" info "$here"
said "$here"
expect 0 "$ctl" format "$here" --size=64M --shards=2
expect 1 "$ctl" format "$here" --size=64M --shards=2
said exist --force
expect 0 "$ctl" info "$here" --json
json shards=2 blobs=0 'total_bytes>1000000' 'free_bytes>1000000' uuid
expect 0 "$ctl" info --store="$here"
printed shards 'epoch'

# Blobs of every kind of length: none, less than a block, blocks, more than one put's buffer.
id=1
for bytes in 0 1 100 4096 5000 1048576 1048577 5000000; do
  head -c $bytes /dev/urandom > "$work/in.$id"
  expect 0 "$ctl" put "$here" $id "$work/in.$id"
  expect 0 "$ctl" get "$here" $id "$work/back"
  same "$work/in.$id" "$work/back"
  expect 0 "$ctl" stat "$here" $id
  printed $bytes
  expect 0 "$ctl" stat "$here" $id --json
  json size_bytes=$bytes "id=$(printf '%032x' $id)"
  id=$((id + 1))
done

# From stdin, to stdout, a part of it.
head -c 100000 /dev/urandom > "$work/in"
expect 0 sh -c '"$1" put "$2" abc < "$3"' sh "$ctl" "$here" "$work/in"
expect 0 "$ctl" get "$here" abc
same "$work/in" "$work/out"
expect 0 "$ctl" get "$here" abc - --offset=777 --bytes=5k
tail -c +778 "$work/in" | head -c 5120 > "$work/part"
same "$work/part" "$work/out"
expect 0 "$ctl" get "$here" abc --offset=99999 --bytes=10
[ "$(stat -c %s "$work/out")" -eq 1 ] || complain "a get at the end is not one byte long"
expect 0 "$ctl" get "$here" abc --offset=200000
[ ! -s "$work/out" ] || complain "a get behind the end is not empty"
sh -c 'cat "$3" "$3" "$3" | "$1" put "$2" pipe' sh "$ctl" "$here" "$work/in.8" 2> "$work/err" &&
  complain "pipe is no hexadecimal id, and was taken"
cat "$work/in.8" "$work/in.8" | "$ctl" put "$here" ffff --durable || complain "put from a pipe"
expect 0 "$ctl" stat "$here" ffff
printed 10000000
expect 0 "$ctl" rm "$here" ffff

# Refusals that leave everything as it was.
expect 1 "$ctl" put "$here" abc "$work/part" --if-absent
said exists
expect 1 "$ctl" put "$here" abd "$work/nothing"
said "$work/nothing"
expect 1 "$ctl" get "$here" deadbeef "$work/never"
said deadbeef
[ ! -e "$work/never" ] || complain "a file was made for a blob that is not there"
expect 1 "$ctl" rm "$here" deadbeef
expect 1 "$ctl" stat "$here" deadbeef
expect 2 "$ctl" get "$here" abc --json
head -c 70000000 /dev/zero > "$work/large"
expect 1 "$ctl" put "$here" beef "$work/large"
said full
expect 0 "$ctl" get "$here" abc "$work/back"
same "$work/in" "$work/back"

expect 0 "$ctl" ls "$here"
[ "$(wc -l < "$work/out")" -eq 9 ] || complain "ls: $(wc -l < "$work/out") lines instead of 9"
printed "$(printf '%032x' 8) 5000000"
expect 0 "$ctl" ls "$here" --json
json 'blobs#9' blobs/0/id blobs/0/size_bytes
expect 0 "$ctl" check "$here"
printed '9 blobs' '0 findings'
expect 0 "$ctl" check "$here" --json
json blobs=9 'findings#0' ok=true
expect 0 "$ctl" stats "$here" --json
json uuid epoch cores/0/engine cores/0/gets
expect 0 "$ctl" stats "$here"
printed 'core 0' device_submits
expect 0 "$ctl" rm "$here" 1
expect 0 "$ctl" rm "$here" 7 --durable
expect 0 "$ctl" flush "$here" --json
json 'epoch>0'
expect 0 "$ctl" leftovers "$work" --force --json
json 'leftovers#0'
expect 1 "$ctl" leftovers "$work/nowhere"
said 'No such file'
expect 0 "$ctl" vacuum "$here" --json
json moved_bytes released_bytes
expect 0 "$ctl" check "$here"
printed '7 blobs' '0 findings'
expect 0 "$ctl" get "$here" 8 "$work/back"
same "$work/in.8" "$work/back"

# It grows, and what is in it stays.
expect 0 "$ctl" info "$here" --json
before=$(sed -n 's/.*"total_bytes": \([0-9]*\).*/\1/p' "$work/out")
expect 0 "$ctl" grow "$here" --add-size=64M
expect 0 "$ctl" info "$here" --json
json "total_bytes>$before"
expect 0 "$ctl" put "$here" beef "$work/in.8"
expect 0 "$ctl" check "$here"
printed '8 blobs' '0 findings'

# Damage is found, named, and does not hide the rest. The data of blob 8 is somewhere in the
# packed files: its first 64 bytes say where.
damage() {
  local file at
  for file in "$here"/shard-*; do
    at=$(grep -obUaF -m1 -- "$1" "$file" | head -1 | cut -d: -f1)
    [ -n "$at" ] || continue
    printf X | dd of="$file" bs=1 seek="$at" conv=notrunc status=none
    return 0
  done
  complain "the data that was to be damaged is not in a packed file"
}
for i in 1 2 3 4 5 6 7 8 9; do echo "this line is to be found by the test, number $i"; done > "$work/text"
expect 0 "$ctl" put "$here" 7e77 "$work/text"
damage 'to be found by the test, number 5'
expect 1 "$ctl" check "$here"
printed "$(printf '%032x' $((0x7e77)))" 'checksum' '9 blobs' '1 finding'
expect 1 "$ctl" check "$here" --json
json ok=false 'findings#1' blobs=9 findings/0/what
expect 1 "$ctl" get "$here" 7e77 "$work/back"
expect 0 "$ctl" get "$here" beef "$work/back"
same "$work/in.8" "$work/back"

# Not a store; a truncated one.
mkdir "$work/empty"
expect 1 "$ctl" info "$work/empty"
expect 1 "$ctl" check "$work/empty"
truncate -s 1M "$here/shard-0000"
expect 1 "$ctl" check "$here"
expect 1 "$ctl" info "$here"
finish
