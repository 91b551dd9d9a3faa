#!/usr/bin/env bash
# Several disks of one server in one guest: a plain one, a striped one with four queues, one that
# is read-only, one with blocks of 4096 bytes, one that writes through. As lib.sh says.
. "$(dirname "$0")/lib.sh" "$@"

make_store 1024 2
head -c $((4 * mib)) /dev/urandom > "$dir/content"
sum=$(md5sum < "$dir/content")
"$ctl" volume import "$dir/store" fixed "$dir/content" > /dev/null || fail "no import"
start_server "volume=plain,socket=$sockets/0,size=$((128 * mib)),serial=exactly-20-characte" \
  "volume=wide,socket=$sockets/1,size=$((128 * mib)),striped,queues=4" \
  "volume=fixed,socket=$sockets/2,ro" \
  "volume=large,socket=$sockets/3,size=$((64 * mib)),block=4096" \
  "volume=through,socket=$sockets/4,size=$((64 * mib)),cache=through"
start_guest 1 4 1 1 1 << END
sum='$sum'
$(sed '1,/^# GUEST$/d' "$0")
END
end_guest
for disk in "${disks[@]}"; do
  disk=${disk#volume=}
  stat=$(ask "stat ${disk%%,*}")
  [[ "$stat" == *" errors=0 in_flight=0" || "$disk" == fixed,* ]] || fail "errors: $stat"
done
[[ "$(ask stat plain)" =~ " flushes="[1-9] ]] || fail "nothing was flushed"
[[ "$(ask stat through)" == *" flushes=0 "* ]] || fail "a disk that writes through was flushed"
stop_server
echo "$SECONDS s"
exit 0
# GUEST
check "size" same "$(cat /sys/block/vda/size)" 262144
check "serial" same "$(cat /sys/block/vda/serial)" exactly-20-characte
check "serial by itself" expr "$(cat /sys/block/vdb/serial)" : '[0-9][0-9]*$'
check "one queue" same "$(ls /sys/block/vda/mq | wc -l)" 1
check "four queues" same "$(ls /sys/block/vdb/mq | wc -l)" 4

check "write back" same "$(cat /sys/block/vda/cache_type)" "write back"
check "write through" same "$(cat /sys/block/vde/cache_type)" "write through"

# 512 bytes, in and across blocks of 4096.
head -c 65536 /dev/urandom > /tmp/a
check "512: background" dd if=/tmp/a of=/dev/vda bs=64k oflag=direct
for at in 1 7 8 15 100; do
  dd if=/dev/urandom of=/tmp/s bs=512 count=1
  dd if=/tmp/s of=/tmp/a bs=512 seek=$at conv=notrunc
  check "512: at $at" dd if=/tmp/s of=/dev/vda bs=512 seek=$at oflag=direct
done 2> /dev/null
dd if=/tmp/a of=/dev/vda bs=1536 skip=5 seek=5 count=9 oflag=direct 2> /dev/null
dd if=/dev/vda of=/tmp/b bs=512 count=128 iflag=direct 2> /dev/null
check "512: compare" cmp /tmp/a /tmp/b
dd if=/dev/vda of=/tmp/b bs=64k count=1 iflag=direct 2> /dev/null
check "512: compare at once" cmp /tmp/a /tmp/b

# A file system, on one queue.
check "mkfs" mkfs.ext4 -q -F /dev/vda
check "mount" mount -t ext4 /dev/vda /mnt
check "fio, 1 queue, files" fio_verify /mnt/f --size=8m --fsync=64
head -c 3000001 /dev/urandom > /tmp/c
cp /tmp/c /mnt/c
check "umount" umount /mnt
check "fsck" fsck.ext4 -f -n /dev/vda
check "mount again" mount -t ext4 -o ro /dev/vda /mnt
check "the file" cmp /tmp/c /mnt/c
umount /mnt

check "fio, 4 queues, striped" fio_verify /dev/vdb --numjobs=4 --size=6m --offset_increment=32m \
  --bsrange=4k-64k --fsync=32
check "fio, 512 bytes, striped" fio_verify /dev/vdb --size=256k --offset=1020k --bs=512

check "read-only" same "$(cat /sys/block/vdc/ro)" 1
check "read-only: write" fails dd if=/tmp/a of=/dev/vdc bs=4k count=1 oflag=direct
check "read-only: content" same "$(md5sum < /dev/vdc)" "$sum"

check "4096" same "$(cat /sys/block/vdd/queue/logical_block_size)" 4096
check "4096: 512" fails dd if=/tmp/a of=/dev/vdd bs=512 count=1 oflag=direct
check "4096: mkfs" mkfs.ext4 -q -F /dev/vdd
check "4096: fsck" fsck.ext4 -f -n /dev/vdd
check "4096: fio" fio_verify /dev/vdd --size=4m

check "write through: verify" fio_verify /dev/vde --size=2m --iodepth=4
