#!/usr/bin/env bash
# What changes while a guest runs: discarded space comes back, a disk grows, and the machine is
# reset, with requests in flight, and boots again on the same connection.
. "$(dirname "$0")/lib.sh" "$@"

make_store 512 2
start_server "volume=plain,socket=$sockets/0,size=$((128 * mib))" \
  "volume=wide,socket=$sockets/1,size=$((128 * mib)),striped,queues=4"
start_guest 1 4 << END
$(sed '1,/^# GUEST$/d' "$0")
END

used_below() { (($(ask "used $1") < $2)); }
at filled
for disk in plain wide; do
  (($(ask "used $disk") >= 16 * mib)) || fail "$disk is too small: $(ask "used $disk")"
done
go
at discarded
for disk in plain wide; do wait_for 10 "space of $disk" used_below "$disk" $((2 * mib)); done
go
at trimmed
# Metadata of the file system is left, and some 2 MiB of files.
wait_for 10 "space of removed files" used_below plain $((10 * mib))
go

at size
for disk in plain wide; do
  answer=$(ask "resize $disk $((160 * mib))")
  [ "$answer" = ok ] || fail "resize of $disk: $answer"
done
go

at reset
writes() { ask "stat $1" | grep -o ' writes=[0-9]*' | cut -d= -f2; }
writes_more() { (($(writes "$1") > $2)); }
for disk in plain wide; do
  before=$(writes "$disk")
  wait_for 20 "load on $disk" writes_more "$disk" "$((before + 50))"
done
monitor system_reset
wait_for 60 "the second boot" says "ok: boots again"
end_guest
for disk in plain wide; do
  stat=$(ask "stat $disk")
  [[ "$stat" == *"connections=1 "*" errors=0 in_flight=0" ]] || fail "after all: $stat"
done
stop_server
echo "$SECONDS s"
exit 0
# GUEST
marker() { dd if=/dev/vda bs=4096 count=1 skip=40000 iflag=direct 2> /dev/null | head -c 9; }
if [ "$(marker)" = rebooted. ]; then
  check "boots again" true
  check "size after all" same "$(cat /sys/block/vda/size) $(cat /sys/block/vdb/size)" "327680 327680"
  fsck.ext4 -p /dev/vda # the journal is replayed
  check "fsck after all" fsck.ext4 -f -n /dev/vda
  check "mount after all" mount -t ext4 /dev/vda /mnt
  check "the file after all" md5sum -c /mnt/sum
  umount /mnt
  check "fio after all" fio_verify /dev/vdb --numjobs=4 --size=1m --offset_increment=32m
else
  for disk in vda vdb; do
    check "fill $disk" dd if=/dev/urandom of=/dev/$disk bs=256k count=64 oflag=direct conv=fsync
  done
  at filled
  for disk in vda vdb; do
    check "discard $disk" blkdiscard /dev/$disk
    check "zeros $disk" same "$(dd if=/dev/$disk bs=1M count=6 2> /dev/null | tr -d '\0' | wc -c)" 0
  done
  at discarded
  check "mkfs" mkfs.ext4 -q -F -E lazy_itable_init=0 /dev/vda
  check "mount" mount -t ext4 /dev/vda /mnt
  head -c 2000000 /dev/urandom > /mnt/a
  head -c 12000000 /dev/urandom > /mnt/b
  sync
  rm /mnt/b
  sync
  check "trim" fstrim /mnt
  at trimmed
  md5sum /mnt/a > /mnt/sum
  sync

  at size
  for disk in vda vdb; do
    check "grown $disk" becomes /sys/block/$disk/size 327680
    head -c 1048576 /dev/urandom > /tmp/a
    check "write at the new end of $disk" dd if=/tmp/a of=/dev/$disk bs=1M seek=159 oflag=direct
    dd if=/dev/$disk of=/tmp/b bs=1M skip=159 iflag=direct 2> /dev/null
    check "compare the new end of $disk" cmp /tmp/a /tmp/b
  done

  # Behind the file system's end.
  printf 'rebooted.' > /tmp/m
  truncate -s 4096 /tmp/m
  check "marker" dd if=/tmp/m of=/dev/vda bs=4096 seek=40000 oflag=direct
  fio_verify /dev/vdb --numjobs=4 --size=32m --offset_increment=32m > /dev/null 2>&1 &
  fio_verify /dev/vda --size=4m --offset=132m --time_based --runtime=100 > /dev/null 2>&1 &
  at reset # which it does not outlive
fi
