#!/usr/bin/env bash
# test_volume_export.sh SHARD-CTL JSON-CHECK MAKE-STREAM: volumes into files and streams, and back; streams
# that are damaged change nothing.
. "$(dirname "$0")/lib.sh"
ctl=$1 check=$2 make_stream=$3
here=$work/here there=$work/there

# json QUESTION...: the last output is JSON and answers yes.
json() {
  local copy=$work/json
  cp "$work/out" "$copy"
  checks=$((checks + 1))
  "$check" "$copy" "$@" || complain "JSON: $*"
}

# holds STORE NAME FILE: an export of the volume is that file.
holds() {
  expect 0 "$ctl" volume export "$1" "$2" "$work/export"
  same "$3" "$work/export"
}

# random FILE OFFSET BYTES: new content there.
random() {
  head -c "$3" /dev/urandom |
    dd of="$1" bs=64k seek="$2" oflag=seek_bytes conv=notrunc status=none
}

# zeros FILE OFFSET BYTES
zeros() {
  head -c "$3" /dev/zero | dd of="$1" bs=64k seek="$2" oflag=seek_bytes conv=notrunc status=none
}

# There is nothing left of an import that failed.
nothing_left() {
  checks=$((checks + 1))
  "$ctl" volume ls "$there" > "$work/ls" || complain "ls"
  ! grep -q -e import -e "$1" "$work/ls" || complain "left behind: $(cat "$work/ls")"
}

expect 0 "$ctl" format "$here" --size=128M --shards=2
expect 0 "$ctl" format "$there" --size=128M --shards=3

# ---- Raw files: sparse, dense, of odd sizes, empty ----

truncate -s 20M "$work/sparse"
random "$work/sparse" 65536 100000
random "$work/sparse" 5000000 3000001
random "$work/sparse" 20971519 1
head -c 3000000 /dev/urandom > "$work/dense"
truncate -s 3000320 "$work/dense"
truncate -s 1M "$work/holes"
head -c 4096 /dev/urandom > "$work/block"
for layout in '' '--striped' '--stripe=64k --block=4096' '--shard=1'; do
  for file in sparse dense holes block; do
    case $layout$file in *4096dense | -*holes | -*block) continue ;; esac
    expect 0 "$ctl" volume import "$here" "$file" "$work/$file" $layout
    holds "$here" "$file" "$work/$file"
    expect 0 "$ctl" volume export "$here" "$file" - --raw
    same "$work/$file" "$work/out"
    expect 0 sh -c '"$1" volume export "$2" "$3" - | "$1" volume import "$4" "$3" - $5' sh \
      "$ctl" "$here" "$file" "$there" "$layout"
    holds "$there" "$file" "$work/$file"
    expect 0 "$ctl" volume rm "$here" "$file"
    expect 0 "$ctl" volume rm "$there" "$file"
  done
done
expect 0 "$ctl" volume import "$here" sparse "$work/sparse" --json
json size_bytes=20971520 'used_bytes>3000000'
expect 0 "$ctl" volume export "$here" sparse "$work/export" --json
json stream=false size_bytes=20971520 'data_bytes>3100000'
[ "$(stat -c %b "$work/export")" -lt 8000 ] || complain "the export of a thin volume is not sparse"

# Zeros that were written as data are holes all the same.
cat "$work/sparse" > "$work/full"
expect 0 sh -c '"$1" volume import "$2" full - --size=20M < "$3"' sh "$ctl" "$here" "$work/full"
holds "$here" full "$work/sparse"
expect 0 sh -c 'cat "$3" | "$1" volume import "$2" pipe - --size=20M' sh "$ctl" "$here" "$work/full"
expect 0 "$ctl" volume export "$here" pipe "$work/export" --json
json 'data_bytes>3100000'
[ "$(stat -c %b "$work/export")" -lt 8000 ] || complain "the export of written zeros is not sparse"
expect 0 "$ctl" volume stat "$here" pipe --json
json used_bytes
[ "$(sed -n 's/.*"used_bytes": \([0-9]*\).*/\1/p' "$work/out")" -lt 4000000 ] ||
  complain "an import has written zeros"

# An odd end is filled up to the logical block; --size adds more.
printf 'an odd length' > "$work/odd"
expect 0 "$ctl" volume import "$here" odd "$work/odd" --json
json size_bytes=512
expect 0 "$ctl" volume import "$here" odd2 "$work/odd" --block=4096 --size=1M --json
json size_bytes=1048576 block_bytes=4096
cp "$work/odd" "$work/odd2"
truncate -s 1M "$work/odd2"
holds "$here" odd2 "$work/odd2"

# A file that is there is replaced, through a link too; when it fails it stays.
ln -s export "$work/link"
expect 0 "$ctl" volume export "$here" odd2 "$work/link"
[ -L "$work/link" ] || complain "the link is gone"
same "$work/odd2" "$work/export"
expect 1 "$ctl" volume export "$here" nothing "$work/export"
said 'nothing: there is no such volume'
same "$work/odd2" "$work/export"
expect 1 "$ctl" volume export "$here" odd2 "$work/no/where"
said "$work/no/where"
expect 1 "$ctl" volume export "$here" odd2 /dev/full --raw
said /dev/full 'No space'
expect 1 sh -c 'ulimit -f 100; trap "" XFSZ; exec "$1" volume export "$2" sparse "$3"' sh \
  "$ctl" "$here" "$work/limited"
said "$work/limited"
ls "$work" | grep -q part && complain "a part of a file is left: $(ls "$work")"
[ ! -e "$work/limited" ] || complain "a file that could not be written is there"

# ---- A chain: all of it, then three times what has changed ----

# The last one is used further on.
for layout in '' --striped; do
  name=chain$layout
  cp "$work/sparse" "$work/0"
  expect 0 "$ctl" volume import "$here" "$name" "$work/0" $layout
  expect 0 "$ctl" volume snapshot "$here" "$name" "$name-0"
  expect 0 "$ctl" volume export "$here" "$name-0" "$work/stream.0" --stream
  expect 0 "$ctl" volume import "$there" "$name" "$work/stream.0" $layout
  for i in 1 2 3; do
    cp "$work/$((i - 1))" "$work/$i"
    random "$work/$i" $((i * 1000000)) 300000
    zeros "$work/$i" 5242880 $((i * 500000))
    case $i in
    2) truncate -s 24M "$work/$i"; random "$work/$i" 24000000 10000 ;;
    3) truncate -s 15M "$work/$i" ;;
    esac
    size=$(stat -c %s "$work/$i")
    "$make_stream" "$work/$((i - 1))" "$work/$i" "$name-$((i - 1))" > "$work/made" ||
      complain "make_stream"
    expect 0 "$ctl" volume clone "$here" "$name-$((i - 1))" "$name-next"
    expect 0 "$ctl" volume import "$here" "$name-next" "$work/made" --onto
    holds "$here" "$name-next" "$work/$i"
    expect 0 "$ctl" volume snapshot "$here" "$name-next" "$name-$i"
    expect 0 "$ctl" volume rm "$here" "$name-next"
    expect 0 "$ctl" volume snapshot "$there" "$name" "$name-$((i - 1))"
    expect 0 "$ctl" volume export "$here" "$name-$i" "$work/stream.$i" \
      --since="$name-$((i - 1))" --json
    json stream=true "size_bytes=$size"
    [ "$(stat -c %s "$work/stream.$i")" -lt 2000000 ] || complain "a stream of changes is large"
    if [ $i = 2 ]; then
      expect 0 sh -c 'cat "$3" | "$1" volume import "$2" "$4" - --onto' sh \
        "$ctl" "$there" "$work/stream.$i" "$name"
    else
      expect 0 "$ctl" volume import "$there" "$name" "$work/stream.$i" --onto --json
      json "size_bytes=$size"
    fi
    holds "$there" "$name" "$work/$i"
  done
  for i in 0 1 2; do holds "$there" "$name-$i" "$work/$i"; done
done

# ---- Damage ----

# refused FILE WORDS: neither onto the volume nor, of all of one, as a new one; by file and by pipe.
refused() {
  local file=$1
  shift
  expect 1 "$ctl" volume import "$there" new "$file"
  said "$@"
  expect 1 sh -c 'cat "$3" | "$1" volume import "$2" new -' sh "$ctl" "$there" "$file"
  said "$@"
  nothing_left new
}

refused_onto() {
  local file=$1
  shift
  expect 1 "$ctl" volume import "$there" target "$file" --onto
  said "$@"
  holds "$there" target "$work/2"
  expect 1 sh -c 'cat "$3" | "$1" volume import "$2" target - --onto' sh "$ctl" "$there" "$file"
  said "$@"
  holds "$there" target "$work/2"
}
# flip FILE OFFSET
flip() {
  local byte
  byte=$(od -An -tu1 -j "$2" -N 1 "$1")
  printf "\\$(printf %o $((byte ^ 16)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
expect 0 "$ctl" volume clone "$there" chain--striped-2 target
full=$(stat -c %s "$work/stream.0")
# Every place: test_volume_stream.c.
for cut in 8 100 640 300000 $((full - 1)); do
  head -c "$cut" "$work/stream.0" > "$work/cut"
  refused "$work/cut" 'cut short' 'nothing was imported'
done
for at in 30 641 400000 $((full - 20)); do
  cp "$work/stream.0" "$work/flipped"
  flip "$work/flipped" "$at"
  refused "$work/flipped" damaged 'nothing was imported'
done
{ cat "$work/stream.0"; echo; } > "$work/more"
refused "$work/more" 'something follows'
expect 0 "$ctl" volume export "$here" chain--striped-3 "$work/last" --since=chain--striped-2
last=$(stat -c %s "$work/last")
for cut in 640 $((last / 2)) $((last - 32)); do
  head -c "$cut" "$work/last" > "$work/cut"
  refused_onto "$work/cut" 'cut short'
done
for at in 650 $((last / 2)) $((last - 5)); do
  cp "$work/last" "$work/flipped"
  flip "$work/flipped" "$at"
  refused_onto "$work/flipped" damaged
done
expect 0 "$ctl" volume import "$there" target "$work/last" --onto
holds "$there" target "$work/3"

# ---- What does not fit together ----

expect 1 "$ctl" volume import "$there" target "$work/last" --onto
said 'has changed since' 'rollback'
holds "$there" target "$work/3"
expect 0 "$ctl" volume rollback "$there" target chain--striped-2
expect 1 "$ctl" volume import "$there" new "$work/last"
said 'changes since chain--striped-2' '--onto'
nothing_left new
expect 2 "$ctl" volume import "$there" target "$work/stream.0" --onto
said 'whole volume'
expect 2 "$ctl" volume import "$there" target "$work/dense" --onto
said '--onto takes a stream'
expect 1 "$ctl" volume import "$there" target "$work/last" --onto --base=nothing
said 'nothing' '--base=SNAP'
expect 1 "$ctl" volume import "$there" target "$work/last" --onto --base=chain--striped-0
said 'chain--striped-0' 'differs in size'
expect 1 "$ctl" volume import "$there" chain--striped-2 "$work/last" --onto
said 'chain--striped-2' 'never changes'
expect 1 "$ctl" volume import "$there" nothing "$work/last" --onto
said 'nothing: there is no such volume'
expect 0 "$ctl" volume rename "$there" chain--striped-2 other-name
expect 1 "$ctl" volume import "$there" target "$work/last" --onto
said 'chain--striped-2' 'not here'
expect 0 "$ctl" volume import "$there" target "$work/last" --onto --base=other-name
holds "$there" target "$work/3"

expect 1 "$ctl" volume import "$there" target "$work/dense"
said 'target: the name is taken'
expect 1 "$ctl" volume import "$there" new "$work/no-file"
said "$work/no-file"
expect 1 "$ctl" volume import "$there" new "$work"
said "$work"
: > "$work/empty"
expect 1 "$ctl" volume import "$there" new "$work/empty"
said empty
expect 2 "$ctl" volume import "$there" new "$work/dense" --size=1M
said '--size=1048576' 'less than'
expect 1 "$ctl" volume import "$there" a/b "$work/dense"
said 'a/b' 'malformed name'
expect 2 sh -c 'cat "$3" | "$1" volume import "$2" new -' sh "$ctl" "$there" "$work/dense"
said '--size=SIZE'
expect 1 sh -c 'cat "$3" | "$1" volume import "$2" new - --size=4M' sh "$ctl" "$there" "$work/dense"
said 'shorter than --size'
expect 1 sh -c 'cat "$3" | "$1" volume import "$2" new - --size=1M' sh "$ctl" "$there" "$work/dense"
said 'longer than --size'
expect 2 "$ctl" volume import "$there" new "$work/dense" --base=x
said '--base'
expect 2 "$ctl" volume export "$there" target - --json
said '--json'
expect 2 "$ctl" volume export "$there" target "$work/x" --raw --stream
said '--raw'
expect 1 "$ctl" volume export "$there" target "$work/x" --since=target
said 'no snapshot'
expect 1 "$ctl" volume export "$there" target "$work/x" --since=nothing
said 'nothing: there is no such volume'
[ ! -e "$work/x" ] || complain "a refused export has made a file"
# A stream may be kept as what it is.
expect 0 "$ctl" volume import "$there" bytes "$work/stream.0" --raw
expect 0 "$ctl" volume export "$there" bytes "$work/export" --raw
head -c "$full" "$work/export" > "$work/x"
same "$work/stream.0" "$work/x"

# A store that runs full in the middle: the name is free, what was there is as before.
head -c 60000256 /dev/urandom > "$work/big"
expect 0 "$ctl" volume import "$there" big1 "$work/big" --striped
expect 1 "$ctl" volume import "$there" big2 "$work/big" --striped
said big2 'the store is full'
nothing_left big2
holds "$there" big1 "$work/big"
holds "$there" target "$work/3"
expect 0 "$ctl" check "$there"
printed '0 findings'

# Whoever reads it goes away; whoever writes it goes away, and we with him.
expect 1 bash -c 'set -o pipefail; "$1" volume export "$2" big1 - 2> "$3" | head -c 100 > "$3.part"' \
  bash "$ctl" "$there" "$work/pipe.err"
grep -q 'stdout: Broken pipe' "$work/pipe.err" || complain "no word of a broken pipe"
mkfifo "$work/fifo"
# killed FILE WORDS...: `volume import WORDS` of a fifo, killed when half of the file has gone in.
killed() {
  local file=$1
  shift
  "$ctl" volume import "$there" "$@" "$work/fifo" 2> "$work/err" &
  local pid=$!
  exec 9> "$work/fifo"
  head -c $(($(stat -c %s "$file") / 2)) "$file" >&9
  kill -9 $pid
  exec 9>&-
  checks=$((checks + 1))
  wait $pid 2> "$work/err"
  [ $? -eq 137 ] || complain "an import that was to be killed had ended"
}
expect 0 "$ctl" volume rm "$there" big1
expect 0 "$ctl" volume rollback "$there" target other-name
killed "$work/stream.0" new
expect 1 "$ctl" volume stat "$there" new
killed "$work/last" target --onto --base=other-name
expect 0 "$ctl" volume rollback "$there" target other-name
holds "$there" target "$work/2"
expect 0 "$ctl" check "$there"
printed '0 findings'
finish
