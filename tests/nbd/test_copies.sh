#!/usr/bin/env bash
# test_copies.sh PLUGIN SHARD-CTL: disks come and go whole: nbdcopy and qemu-img, holes stay holes.
. "$(dirname "$0")/nbd.sh" "$1" "$2"
needs nbdcopy nbdinfo qemu-img qemu-io
image=$work/image
truncate -s 24M "$image"
head -c 3000000 /dev/urandom | dd of="$image" bs=4096 seek=100 conv=notrunc status=none
head -c 70000 /dev/urandom | dd of="$image" bs=1M seek=20 conv=notrunc status=none
volume create a --size=24M
volume create striped --size=24M --stripe=64K
volume create b --size=24M

serve
expect 0 nbdcopy "$image" "$(uri a)"
expect 0 nbdcopy "$(uri a)" "$work/back" && same "$image" "$work/back"
expect 0 nbdcopy "$(uri a)" "$(uri striped)"
expect 0 qemu-img compare -f raw -F raw "$image" "$(uri striped)"
expect 0 qemu-img convert -n -f raw -O raw "$image" "$(uri b)"
expect 0 qemu-img compare -f raw -F raw "$(uri b)" "$(uri a)"
expect 0 qemu-img convert -f raw -O qcow2 "$(uri b)" "$work/b.qcow2"
expect 0 qemu-img compare -f qcow2 -F raw "$work/b.qcow2" "$image"
expect 0 qemu-img bench -f raw -c 200 -d 16 -s 4096 -S 8192 "$(uri a)"

# Parts of a 4 KiB block, and more than one block, from and to any sector.
expect 0 qemu-io -f raw -c 'write -P 7 512 512' -c 'read -P 7 512 512' -c 'write -P 8 3584 9216' \
  -c 'read -P 8 3584 9216' -c 'read -P 7 512 512' "$(uri b)"
expect 0 qemu-io -f raw -c 'write -z -u 4096 8192' -c 'read -P 0 4096 8192' -c 'read -P 8 3584 512' \
  -c 'read -P 8 12288 512' "$(uri b)"
expect 0 qemu-io -f raw -c 'write -f -P 9 1M 1M' -c 'discard 1M 512k' -c 'read -P 0 1M 512k' \
  -c 'read -P 9 1536k 512k' -c 'flush' "$(uri b)"
stop
for name in a striped b; do
  checks=$((checks + 1))
  [ "$(own $name)" -lt 4000000 ] || complain "$name takes $(own $name) bytes: holes were filled"
done

# Discarded is given back; so are zeroes that may be.
serve
expect 0 qemu-io -d unmap -f raw -c 'discard 0 24M' "$(uri a)"
expect 0 qemu-io -d unmap -f raw -c 'write -z -u 0 24M' "$(uri striped)"
expect 0 nbdinfo --map --totals "$(uri a)" && printed '100.0%   3 hole,zero'
stop
for name in a striped; do
  checks=$((checks + 1))
  [ "$(own $name)" = 0 ] || complain "$name still takes $(own $name) bytes"
done
finish
