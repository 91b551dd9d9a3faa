#!/usr/bin/env bash
# A guest on a disk of shard-host, the daemon itself with its sandbox: a clone that is attached at
# once, a snapshot and a limit under load, a disk that grows, the daemon killed and started again,
# its end in order. $4: shard-host.
# shellcheck source=tests/vhost/guest/lib.sh
. "$(dirname "$0")/lib.sh" "$@"
shard_host=$4

host() { "$ctl" host --control="$sockets/control" "$@" > "$dir/reply" 2>&1; }
must() { host "$@" || fail "host $*: $(cat "$dir/reply")"; }
start_host() {
  "$shard_host" --store="$dir/store" --socket-dir="$sockets" --core-count=2 2>> "$dir/serve.err" &
  server_pid=$!
  wait_for 20 "the daemon" host ping
}

make_store 512 2
start_host
must create golden $((64 * mib))
must snapshot golden monday
must clone monday vm --socket=0 --cache=write-through --serial=vm-7
must flush
must create data $((64 * mib)) --striped --attach --socket=1 --queues=2 --cache=write-through
start_guest 1 2 << END
$(cat "$here/host.guest")
END

at load
go
sleep 1
must snapshot vm tuesday
must limit vm --iops=300
must resize vm $((96 * mib))
wait_for 60 "the new size" says "ok: grown"
must flush
must limit vm --unlimited
kill_server
start_host
must attach vm --socket=0 --cache=write-through
must attach data --socket=1 --queues=2 --cache=write-through
active() { host stat "$1" --json && grep -q '"active": *true' "$dir/reply"; }
for disk in vm data; do wait_for 60 "$disk after the kill" active "$disk"; done
sleep 1
must stat vm --json
! grep -q '"errors": *[1-9]' "$dir/reply" || fail "errors: $(cat "$dir/reply")"
# Neither can be taken from under a guest.
! host detach vm || fail "a disk in use was detached"
go
end_guest
must detach vm --remove
must detach data
kill -TERM "$server_pid"
wait "$server_pid" || fail "the daemon ended with status $?"
server_pid=
"$ctl" check "$dir/store" > "$dir/check" 2>&1 || { cat "$dir/check"; fail "the store is damaged"; }
"$ctl" volume ls "$dir/store" | grep -q tuesday || fail "the snapshot is not there"
! grep -q level=error "$dir/serve.err" || fail "errors in the log"
echo "$SECONDS s"
