#!/usr/bin/env bash
# No test of ours: what becomes of a guest that moves under load when none of its disks is ours. It
# writes memory and compares; where that fails, or its kernel does, it is QEMU's. As lib.sh says; $4:
# how many processors; $5: threads, "multi" or "single"; $6: "raw" for a virtio-blk disk on a file.
# shellcheck source=tests/vhost/guest/lib.sh
. "$(dirname "$0")/lib.sh" "$@"
cpus=${4:-4} threads=${5:-multi} options=()
if [ "${6:-}" = raw ]; then
  truncate -s 64M "$dir/image"
  options=(-drive "file=$dir/image,format=raw,if=none,id=disk,cache=none,file.locking=off"
    -device "virtio-blk-pci,drive=disk")
fi
make_common
mkdir "$dir/script"
cp "$here/control_migration.guest" "$dir/script/test.sh"
{ cat "$common"; archive "$dir/script"; } > "$dir/initrd"
run_qemu guest 0 "" "${options[@]}"
wait_for 100 "load" says "round 3"
other_pid=$qemu_pid
run_qemu moved 0 "" "${options[@]}" -incoming "unix:$sockets/migration"
wait_for 20 "who takes it" test -S "$sockets/migration"
echo "migrate_set_parameter max-bandwidth 400M" > "$dir/guest.monitor.in"
echo "migrate -d unix:$sockets/migration" > "$dir/guest.monitor.in"
wait_for 100 "the guest in its new place" says round
sleep $((5 * scale))
go
end_guest
grep -q 'BUG\|Oops\|Segmentation' "$dir/moved.console" && fail "the guest is ill"
echo "none the worse for it: $(grep -c round "$dir/moved.console") rounds, $SECONDS s"
