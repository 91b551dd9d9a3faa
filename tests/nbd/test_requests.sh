#!/usr/bin/env bash
# test_requests.sh PLUGIN SHARD-CTL: single requests from nbdsh: extents, zeroes, errors, several
# connections with more threads than a store has ports.
. "$(dirname "$0")/nbd.sh" "$1" "$2"
needs nbdsh
volume create v --size=64M
volume create big --size=8M --block=4096

# sh URI: runs the program on stdin, with `equal` at hand.
sh() {
  { printf 'def equal(a, b): assert a == b, "%%r instead of %%r" %% (a, b)\n'; cat; } > "$work/program"
  expect 0 nbdsh -c 'h.add_meta_context("base:allocation")' -u "$1" -c - < "$work/program"
}

serve
# The map of what is there, whole and in parts; through a clone as well.
cat > "$work/map" << 'END'
def extents(offset, bytes, flags=0):
    found = []
    def collect(context, at, entries, error):
        for length, kind in zip(entries[::2], entries[1::2]):
            found.append((at, length, kind))
            at += length
    h.block_status(bytes, offset, collect, flags)
    return found
M = 1 << 20
DATA, HOLE = 0, 3
END
sh "$(uri v)" << END
$(cat "$work/map")
equal(extents(0, 64*M), [(0, 64*M, HOLE)])
h.pwrite(b'x' * 8192, 4096)
h.pwrite(b'y' * M, 9*M)
h.pwrite(b'z' * 512, 64*M - 512)
whole = [(0, 4096, HOLE), (4096, 8192, DATA), (12288, 9*M - 12288, HOLE), (9*M, M, DATA),
         (10*M, 54*M - 4096, HOLE), (64*M - 4096, 4096, DATA)]
equal(extents(0, 64*M), whole)
equal(extents(8192, 4096), [(8192, 4096, DATA)])
equal(extents(9*M + 512, 1024), [(9*M + 512, 1024, DATA)])
equal(extents(9*M - 4096, 8192), [(9*M - 4096, 4096, HOLE), (9*M, 4096, DATA)])
equal(extents(0, 64*M, nbd.CMD_FLAG_REQ_ONE), [(0, 4096, HOLE)])
equal(extents(4096, 64*M - 4096, nbd.CMD_FLAG_REQ_ONE), [(4096, 8192, DATA)])
# Zeroes: a hole if they may be one, else written and not fast.
h.zero(4096, 4096)
equal(extents(4096, 8192), [(4096, 4096, HOLE), (8192, 4096, DATA)])
h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE)
equal(extents(4096, 8192), [(4096, 8192, DATA)])
equal(h.pread(8192, 4096), bytes(4096) + b'x' * 4096)
h.zero(4096, 4096, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_FUA)
try:
    h.zero(4096, 4096, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
    assert False, 'not fast, but done'
except nbd.Error as e:
    equal(e.errno, 'ENOTSUP')
# Any sector, any length.
h.zero(1536, 9*M + 512)
equal(h.pread(4096, 9*M), b'y' * 512 + bytes(1536) + b'y' * 2048)
h.trim(4096 + 512, 9*M + 4096 - 512, nbd.CMD_FLAG_FUA)
equal(h.pread(12288, 9*M), b'y' * 512 + bytes(1536) + b'y' * 2048 + bytes(4096) + b'y' * 4096)
h.cache(64*M, 0)
h.pwrite(b'f' * 512, 0, nbd.CMD_FLAG_FUA)
h.flush()
equal(bytes(h.pread(32*M, 0)[:513]), b'f' * 512 + b'\0')
END
stop
volume snapshot v monday
volume clone monday twin
serve
sh "$(uri twin)" << END
$(cat "$work/map")
equal(extents(0, 12288), [(0, 4096, DATA), (4096, 4096, HOLE), (8192, 4096, DATA)])
h.pwrite(b't' * 4096, 4096)
h.trim(4096, 0)
equal(extents(0, 16384), [(0, 4096, HOLE), (4096, 8192, DATA), (12288, 4096, HOLE)])
h.cache(64*M, 0)
equal(h.pread(4096, 8192), b'x' * 4096)
END
sh "$(uri monday)" << 'END'
equal(h.is_read_only(), True)
equal(h.pread(512, 0), b'f' * 512)
h.set_strict_mode(h.get_strict_mode() & ~nbd.STRICT_COMMANDS)
for change in (lambda: h.pwrite(b'n' * 512, 0), lambda: h.trim(4096, 0), lambda: h.zero(4096, 0)):
    try:
        change()
        assert False, 'a snapshot was changed'
    except nbd.Error as e:
        equal(e.errno, 'EPERM')
equal(h.pread(512, 0), b'f' * 512)
END
# Blocks of 4 KiB are not cut; the server says what to do.
sh "$(uri big)" << 'END'
h.set_strict_mode(0)
for wrong in (lambda: h.pwrite(b'n' * 512, 0), lambda: h.pread(4096, 512)):
    try:
        wrong()
        assert False, 'a part of a block'
    except nbd.Error as e:
        equal(e.errno, 'EINVAL')
h.pwrite(b'b' * 4096, 4096)
equal(h.pread(8192, 0), bytes(4096) + b'b' * 4096)
END
logged '--filter=blocksize'
# 8 connections of 16 threads: more than ports. Each writes its own sectors of shared blocks; what one
# has written all see, and a flush by one is for all.
sh "$(uri v)" << END
many = [nbd.NBD() for i in range(8)]
for c in many: c.connect_uri('$(uri v)')
assert all(c.can_multi_conn() for c in many)
def wait_all():
    while any(c.aio_in_flight() for c in many):
        for c in many:
            if c.aio_in_flight(): c.poll(10)
bufs = []
for n in range(32):
    for i, c in enumerate(many):
        bufs.append(nbd.Buffer.from_bytearray(bytearray([1 + i + n]) * 512))
        c.aio_pwrite(bufs[-1], 20*(1<<20) + n * 4096 + i * 512)
wait_all()
for c in many:
    data = c.pread(32 * 4096, 20*(1<<20))
    for n in range(32):
        for i in range(8):
            at = n * 4096 + i * 512
            equal(data[at:at + 512], bytes([1 + i + n]) * 512)
many[3].flush()
for c in many: c.shutdown()
END
# A stop with a client: its disk is closed all the same.
sh "$(uri v)" << END
import os, signal
h.pwrite(b's' * 512, 0)
os.kill($(cat "$work/pid"), signal.SIGTERM)
END
checks=$((checks + 1))
wait "$server" || complain "nbdkit ended with $?: $(tail -3 "$work/log")"
server=
expect 0 "$ctl" check "$here"
finish
