#!/usr/bin/env bash
# test_fio.sh PLUGIN SHARD-CTL: random writes and reads with verification, deep and from several jobs.
. "$(dirname "$0")/nbd.sh" "$1" "$2"
needs fio
fio --enghelp | grep -qw nbd || { echo "skipped: this fio has no nbd engine"; exit 77; }
volume create v --size=32M
volume create striped --size=32M --stripe=64K

# load NAME VOLUME WORD...
load() { expect 0 fio --name="$1" --ioengine=nbd --uri="$(uri "$2")" --size=32M "${@:3}"; }
serve
for name in v striped; do
  load write $name --rw=randwrite --bs=4k --iodepth=32 --verify=crc32c --verify_fatal=1
  load odd $name --rw=randwrite --bsrange=512-64k --bs_unaligned=0 --iodepth=16 --verify=crc32c \
    --verify_fatal=1 --io_size=16M
  load trims $name --rw=randtrimwrite --bs=4k --iodepth=8 --io_size=8M
done
load jobs v --rw=randrw --bs=4k --iodepth=16 --numjobs=4 --thread --size=8M --offset_increment=8M \
  --verify=crc32c --verify_fatal=1 --fsync=16
stop
expect 0 "$ctl" check "$here"
finish
