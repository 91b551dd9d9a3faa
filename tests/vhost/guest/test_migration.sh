#!/usr/bin/env bash
# A guest moves, under load, from one QEMU to another, from a disk of the server to another one of
# the same file: what our writes change in its memory meanwhile must move as well.
# shellcheck source=tests/vhost/guest/lib.sh
. "$(dirname "$0")/lib.sh" "$@"

# One processor: with several QEMU's TCG breaks guests that move, with no disk of ours as well
# (control_migration.sh). What a missing log would lose is seldom looked at in time to fail here:
# test_server.c proves the log itself.
threads=single model=qemu64 cpus=1 emulator_breaks_guests=yes
make_store 64 1
truncate -s $((64 * mib)) "$dir/image"
start_server "volume=from,file=$dir/image,socket=$sockets/0,queues=1" \
  "volume=to,file=$dir/image,socket=$sockets/1,queues=1"
start_guest 1 << END
$(cat "$here/migration.guest")
END

at load
go
wait_for 60 "load" says "round 2"
other_pid=$qemu_pid

run_qemu moved 1 1 -incoming "unix:$sockets/migration"
is_there() { [ -S "$sockets/migration" ]; }
wait_for 20 "who takes it" is_there
echo "migrate_set_parameter max-bandwidth 48M" > "$dir/guest.monitor.in"
echo "migrate -d unix:$sockets/migration" > "$dir/guest.monitor.in"
wait_for 100 "the guest in its new place" says "round [0-9]*"
writes_there() { [[ "$(ask stat to)" =~ " writes="[1-9] ]]; }
wait_for 60 "writes to its new disk" writes_there
echo quit > "$dir/guest.monitor.in"
wait "$other_pid" || fail "the first QEMU ended with status $?"
other_pid=
go
end_guest
for disk in from to; do
  stat=$(ask "stat $disk")
  [[ "$stat" == *" errors=0 in_flight=0" ]] || fail "errors: $stat"
done
stop_server
echo "$SECONDS s"
