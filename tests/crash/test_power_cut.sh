#!/usr/bin/env bash
# Cuts the power of a guest's disk. A guest runs the verifying writer on a virtual disk whose writes
# QEMU logs; the log is then replayed to many moments, and what the disk may hold then is opened and
# held against what the writer was promised. No KVM is needed, no root, no network.
# $1: raw (the store is on the disk itself) or ext4 (it is a directory on it). $2: guest,
# $3: power_cut. Optional $4: how many images.
set -u
mode=$1 guest=$2 power_cut=$3 images=${4:-600}
skip() { echo "skipped: $*"; exit 77; }
need() { command -v "$1" > /dev/null || skip "$1 is not installed ($2)"; }
PATH=$PATH:/usr/sbin:/sbin
need qemu-system-x86_64 "package qemu-system-x86"
need cpio "package cpio"
need modprobe "package kmod"
if [ "$mode" = ext4 ]; then
  need mkfs.ext4 "package e2fsprogs"
  need debugfs "package e2fsprogs"
fi
release=
for k in /boot/vmlinuz-*-cloud-amd64 /boot/vmlinuz-*-amd64; do
  [ -r "$k" ] && [ -d "/lib/modules/${k#/boot/vmlinuz-}" ] && { release=${k#/boot/vmlinuz-}; break; }
done
[ -n "$release" ] || skip "no kernel in /boot (package linux-image-cloud-amd64)"

dir=$(mktemp -d "${TMPDIR:-/var/tmp}/shardring-power-XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
mib=1048576
disk_bytes=$((49 * mib)) record_at=$((48 * mib))
[ "$mode" = ext4 ] && disk_bytes=$((65 * mib)) && record_at=$((64 * mib))

# The guest's initial RAM disk: the writer, its libraries, the modules of a virtual disk.
root=$dir/root
mkdir -p "$root/lib64" "$root/modules.d"
cp "$guest" "$root/init" || exit 1
ldd "$guest" | grep -oE '/[^ ]+' | while read -r lib; do
  mkdir -p "$root$(dirname "$lib")"
  cp -L "$lib" "$root$lib"
done
for module in virtio_pci virtio_blk $([ "$mode" = ext4 ] && echo ext4 crc32c_generic); do
  modprobe -S "$release" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' | while read -r file; do
  case $file in
    *.xz) xz -dc "$file" ;; *.zst) zstd -dcq "$file" ;; *) cat "$file" ;;
  esac > "$root/modules.d/$(basename "$file")" || exit 1
  echo "/modules.d/$(basename "$file")" >> "$root/modules"
done
touch "$root/modules"
(cd "$root" && find . | cpio -o -H newc --quiet) > "$dir/initrd" || exit 1

truncate -s "$disk_bytes" "$dir/disk"
if [ "$mode" = ext4 ]; then
  mkfs.ext4 -q -F "$dir/disk" $((record_at / 1024))k || exit 1
else
  "$power_cut" format "$dir/disk" "$record_at" || exit 1
fi
cp --sparse=always "$dir/disk" "$dir/base"
: > "$dir/log"

start=$SECONDS
timeout -k 5 240 qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
  -accel tcg,thread=multi -cpu max -smp 2 -m 384 -serial "file:$dir/console" \
  -kernel "/boot/vmlinuz-$release" -initrd "$dir/initrd" \
  -append "console=ttyS0 quiet panic=-1 -- $mode 1 12 uring $record_at" \
  -blockdev "driver=file,node-name=file,filename=$dir/disk,cache.no-flush=on,discard=unmap" \
  -blockdev "driver=file,node-name=log,filename=$dir/log,cache.no-flush=on" \
  -blockdev "driver=blklogwrites,node-name=logged,file=file,log=log,log-sector-size=512,\
log-super-update-interval=64,discard=unmap" \
  -device virtio-blk-pci,drive=logged
status=$?
grep 'guest:' "$dir/console"
if [ $status -ne 0 ] || ! grep -q 'guest: all is well' "$dir/console"; then
  echo "the guest failed, status $status:"
  tail -40 "$dir/console"
  exit 1
fi
echo "guest: $((SECONDS - start)) s, log $(($(stat -c %s "$dir/log") / mib)) MiB"

start=$SECONDS status=0
export TMPDIR=$dir
"$power_cut" replay "$mode" "$dir/base" "$dir/log" "$record_at" --images="$images" || status=1
echo "replay: $((SECONDS - start)) s"
# The same with a disk that does not keep what it has flushed: that must be found.
"$power_cut" replay "$mode" "$dir/base" "$dir/log" "$record_at" --images=$((images / 20 + 8)) \
  --forget-flushes > "$dir/forget" 2>&1 || {
  echo "a disk that forgets what it has flushed was not found:"
  cat "$dir/forget"
  status=1
}
tail -1 "$dir/forget" | sed 's/^/forgetful disk: /'
exit $status
