#!/usr/bin/env bash
# test_tls.sh PLUGIN SHARD-CTL: encrypted, with keys that were given out before; nothing without them.
. "$(dirname "$0")/nbd.sh" "$1" "$2"
needs nbdinfo nbdcopy psktool
nbdkit --dump-config | grep -qx tls=yes || { echo "skipped: this nbdkit has no TLS"; exit 77; }
volume create v --size=4M
(umask 077 && psktool -u tenant-7 -p "$work/keys" && psktool -u other -p "$work/wrong") > "$work/out" 2>&1
tls() { echo "nbds+unix://$1@/v?socket=$sock&tls-psk-file=$2"; }

serve --tls=require --tls-psk="$work/keys"
head -c 4M /dev/urandom > "$work/image"
expect 0 nbdcopy "$work/image" "$(tls tenant-7 "$work/keys")"
expect 0 nbdcopy "$(tls tenant-7 "$work/keys")" "$work/back" && same "$work/image" "$work/back"
expect 0 nbdinfo "$(tls tenant-7 "$work/keys")" && printed 'with TLS'
expect 1 nbdinfo "$(uri v)"
expect 1 nbdinfo "$(tls other "$work/wrong")"
stop
finish
