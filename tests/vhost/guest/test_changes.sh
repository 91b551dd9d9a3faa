#!/usr/bin/env bash
# What changes while a guest runs: discarded space comes back, a disk grows, and the machine is
# reset, with requests in flight, and boots again on the same connection.
# shellcheck source=tests/vhost/guest/lib.sh
. "$(dirname "$0")/lib.sh" "$@"

make_store 512 2
start_server "volume=plain,socket=$sockets/0,size=$((128 * mib))" \
  "volume=wide,socket=$sockets/1,size=$((128 * mib)),striped,queues=4"
start_guest 1 4 << END
$(cat "$here/changes.guest")
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
