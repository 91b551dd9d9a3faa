#!/usr/bin/env bash
# test_kill.sh PLUGIN SHARD-CTL: nbdkit is killed while a client writes; what was answered, with or
# without FUA or a flush, is there after a restart.
. "$(dirname "$0")/nbd.sh" "$1" "$2"
needs nbdsh
[ "$(stat -f -c %T /dev/shm)" = tmpfs ] && [ "$(df --output=avail /dev/shm | tail -1)" -ge 65536 ] || {
  echo "skipped: /dev/shm is no tmpfs with 64 MiB"
  exit 77
}
volume create v --size=32M

cat > "$work/write" << 'END'
# Round after round over the same blocks. A line says what is there from now on.
def say(number): print(number, flush=True)
number = int(open(base).read())
try:
    while True:
        number += 1
        block = number.to_bytes(8, 'little') * 512
        h.pwrite(block, number % 4096 * 4096, nbd.CMD_FLAG_FUA if number % 4 == 1 else 0)
        if number % 16 == 2:
            h.flush()
        say(number)
except nbd.Error:
    pass
END
cat > "$work/read" << 'END'
# The last number that was answered has its block; so has each one before, or a later one of the same
# place.
last = int(open(base).read())
for number in range(max(1, last - 4095), last + 1):
    data = h.pread(4096, number % 4096 * 4096)
    got = int.from_bytes(data[:8], 'little')
    assert got == number or got == number + 4096, '%d instead of %d' % (got, number)
    assert data == data[:8] * 512, 'torn: %d' % number
END
echo 0 > "$work/base"
for round in 1 2 3 4 5; do
  serve
  : > "$work/said"
  nbdsh -c "base = '$work/base'" -u "$(uri v)" -c - < "$work/write" > "$work/said" 2> "$work/err" &
  writer=$!
  wanted=$((round * 40))
  for ((i = 0; i < 1200; i++)); do
    [ "$(wc -l < "$work/said")" -ge $wanted ] && break
    sleep 0.025
  done
  crash
  wait $writer || complain "the writer: $(tail -2 "$work/err")"
  checks=$((checks + 1))
  [ "$(wc -l < "$work/said")" -ge $wanted ] || complain "only $(wc -l < "$work/said") writes in time"
  tail -1 "$work/said" > "$work/base"
  serve
  expect 0 nbdsh -c "base = '$work/base'" -u "$(uri v)" -c - < "$work/read"
  [ $round = 3 ] && crash || stop
done
[ -z "$server" ] || stop
expect 0 "$ctl" check "$here"
finish
