#!/usr/bin/env bash
# A guest moves, under load, from a shard-host to another one with a store of its own. Its volume is
# copied by NBD while it runs; what it has changed since is copied while QEMU waits before it switches
# over: then the guest is paused, and the first server has completed all of its requests.
# $4: shard-host. $5: nbdkit's plugin.
# shellcheck source=tests/vhost/guest/lib.sh
. "$(dirname "$0")/lib.sh" "$@"
shard_host=$4 plugin=$5
need nbdkit nbdkit
need nbdcopy libnbd-bin

# One processor, as in test_migration.sh.
threads=single model=qemu64 cpus=1 emulator_breaks_guests=yes
pids=()
finish_all() {
  local pid
  for pid in "${pids[@]}"; do kill -9 "$pid" 2> /dev/null; done
  finish
}
trap finish_all EXIT

host() { "$ctl" host --control="$sockets/$1/control" "${@:2}" > "$dir/reply" 2>&1; }
must() { host "$@" || fail "host $*: $(cat "$dir/reply")"; }
# start_host NAME NUMBER SHARDS: a store, a daemon, a volume as the disk on $sockets/NUMBER.
start_host() {
  "$ctl" format "$dir/$1" --size=$((256 * mib)) --shards="$3" --prealloc=sparse > /dev/null || fail "no store"
  mkdir "$sockets/$1"
  "$shard_host" --store="$dir/$1" --socket-dir="$sockets/$1" --core-count=1 2>> "$dir/serve.err" &
  pids+=($!)
  wait_for 20 "the daemon" host "$1" ping
  must "$1" create vm $((64 * mib)) --attach --socket="$2"
  ln -s "$1/$2" "$sockets/$2"
}
# serve_nbd NAME OPTION...: volumes of that daemon, which goes on.
serve_nbd() {
  nbdkit -f -U "$sockets/$1.nbd" "$plugin" control="$sockets/$1/control" "${@:2}" 2>> "$dir/serve.err" &
  pids+=($!)
  wait_for 20 "nbdkit" test -S "$sockets/$1.nbd"
}
# copy SNAPSHOT: what the volume is now, to the other store.
copy() {
  must from snapshot vm "$1"
  nbdcopy --flush "nbd+unix:///$1?socket=$sockets/from.nbd" "nbd+unix:///vm?socket=$sockets/to.nbd" 2>> "$dir/serve.err" ||
    fail "no copy of $1"
}

start_host from 0 2
start_host to 1 1
serve_nbd from read_only=true
serve_nbd to share=true
start_guest 1 << END
$(cat "$here/move.guest")
END

at load
go
wait_for 60 "load" says "round 8"
copy first
other_pid=$qemu_pid

run_qemu moved 1 1 -incoming "unix:$sockets/migration"
is_there() { [ -S "$sockets/migration" ]; }
wait_for 20 "who takes it" is_there
first() { echo "$*" > "$dir/guest.monitor.in"; }
waits() {
  first info migrate
  timeout 0.5 cat "$dir/guest.monitor.out" > "$dir/reply"
  ! grep -q 'status: failed' "$dir/reply" || fail "QEMU: $(cat "$dir/reply")"
  grep -q 'status: pre-switchover' "$dir/reply"
}
first migrate_set_capability pause-before-switchover on
first migrate_set_parameter max-bandwidth 48M
first migrate -d "unix:$sockets/migration"
wait_for 100 "the pause" waits
must from stat vm --json
grep -q '"in_flight": *0,' "$dir/reply" || fail "requests of a paused guest: $(cat "$dir/reply")"
paused_at=$SECONDS
copy last
echo "copied in $((SECONDS - paused_at)) s of pause"
first migrate_continue pre-switchover

wait_for 100 "the guest in its new place" says "round [0-9]*"
first quit
wait "$other_pid" || fail "the first QEMU ended with status $?"
other_pid=
go
end_guest
must to stat vm --json
grep -q '"writes": *[1-9]' "$dir/reply" || fail "nothing was written in its new place"
! grep -q '"errors": *[1-9]' "$dir/reply" || fail "errors: $(cat "$dir/reply")"
for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
  kill -TERM "${pids[i]}"
  wait "${pids[i]}" || fail "a server ended with status $?"
done
pids=()
for store in from to; do
  "$ctl" check "$dir/$store" > "$dir/check" 2>&1 || { cat "$dir/check"; fail "a store is damaged"; }
done
echo "$SECONDS s"
