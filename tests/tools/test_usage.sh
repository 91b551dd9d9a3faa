#!/usr/bin/env bash
# test_usage.sh SHARD-BENCH SHARD-CTL: every bad option is refused with its name, its value and
# what is legal, exit status 2, and nothing is made.
. "$(dirname "$0")/lib.sh"
bench=$1 ctl=$2
here=$work/store

# refused OPTION VALUE WORDS...: shard-bench names the option, the value and the legal range.
refused() {
  local option=$1 value=$2
  shift 2
  expect 2 "$bench" --store="$here" --create --size=64M "--$option=$value" "$@"
  said "--$option=$value" "legal:"
}
refused size 1k
refused size 16777217
refused size lots
refused size ''
refused shards 0
refused shards 1025
refused shards -1
refused rw write
refused bs 511
refused bs 100M
refused bs 4096x
refused blob-size 0
refused blob-size 2g
refused blobs 0
refused iodepth 0
refused iodepth 100000
refused batch 0
refused batch 64 --iodepth=32
refused numjobs 0
refused numjobs 61
refused runtime 0
refused runtime forever
refused where moon
refused device floppy
refused engine steam
refused prealloc maybe
refused output-format xml
refused lat-sample 0
refused seed x
refused bs 8192 --blob-size=4k
refused cores two
refused cores 0
refused cores 1000

expect 2 "$bench"
said --store legal:
expect 2 "$bench" --store="$here" --frobnicate
said --frobnicate --help
not_said 'did you mean'
for typo in iodept=4 iodpeth=4 lat_smaple=4; do
  expect 2 "$bench" --store="$here" --$typo
  said "unknown option --${typo%=*}; did you mean --$([[ $typo = lat* ]] && echo lat-sample || echo iodepth)?"
done
expect 2 "$bench" --store="$here" --lat_sample=0 # as fio writes names
said --lat-sample=0 legal:
expect 2 "$bench" --store="$here" -d
said -d
expect 2 "$bench" --store="$here" word
said word "job file"
expect 2 "$bench" --store="$here" --iodepth
said --iodepth 'a whole number from 1'
expect 2 "$bench" --store="$here" --rw=flush --where=core
said --where=core
expect 2 "$bench" --store="$here" --numjobs=2
said --numjobs
expect 2 "$bench" --store="$here" --rw=delete --control
said --control
expect 2 "$bench" --store=mem: --control
said memory
expect 2 "$bench" --store="$here" --prealloc=unwritten --verify
said --verify
expect 2 "$bench" --store="$here" --prealloc=unwritten --rw=put
said unwritten
expect 2 "$bench" --store="$here" --device=mem
said mem:

expect 0 "$bench" --help
printed --store --control unwritten
expect 0 "$bench" --version
printed shard-bench

expect 2 "$ctl"
said --help
expect 2 "$ctl" frobnicate "$here"
said 'unknown command "frobnicate"' format vacuum
expect 2 "$ctl" info
said 'info needs the place of a store'
expect 2 "$ctl" info "$here" more
said 'too many words'
expect 2 "$ctl" get "$here"
said 'too few words' 'get WHERE ID [FILE]'
expect 2 "$ctl" format "$here" --size=1k
said --size=1k legal:
expect 2 "$ctl" format "$here" --shards=0
said --shards=0 legal:
expect 2 "$ctl" ls "$here" --frobnicate
said --frobnicate
for id in '' xyz 123456789012345678901234567890123 0x; do
  expect 2 "$ctl" stat "$here" "$id"
  said 'is no id' hexadecimal
done
expect 0 "$ctl" --help
printed format check vacuum grow
expect 0 "$ctl" --version

[ ! -e "$here" ] || complain "$here was made by a refused command"
finish
