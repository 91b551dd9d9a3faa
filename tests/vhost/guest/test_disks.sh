#!/usr/bin/env bash
# Several disks of one server in one guest: a plain one, a striped one with four queues, one that
# is read-only, one with blocks of 4096 bytes, one that writes through; some have packed rings. As
# lib.sh says.
# shellcheck source=tests/vhost/guest/lib.sh
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
start_guest 1 4,packed=on 1 1,packed=on 1 << END
sum='$sum'
$(cat "$here/disks.guest")
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
