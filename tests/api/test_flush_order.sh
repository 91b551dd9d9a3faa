#!/usr/bin/env bash
# The order of a flush, by a system-call trace: the blob's data is written before the flush is
# even asked for; then the log's frame, then fdatasync of the shard's file, and only then the
# root, with RWF_DSYNC or, by the other method, with an fdatasync behind it; and nothing else is
# written in between.
# $1: flush_order_child
set -u
command -v strace >/dev/null || { echo "skipped: strace is not installed"; exit 77; }
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/shardring-order-XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT

# order WANTED CHILD ARGUMENT...: the child gets the place of a store as its first argument
order() {
  local want=$1 child=$2 calls
  shift 2
  rm -rf "$dir/store"
  strace -f -y -o "$dir/trace" -e trace=pwrite64,pwritev,pwritev2,fdatasync,fsync,write \
    "$child" "$dir/store" "$@" 2>"$dir/err" || {
    grep -qi 'ptrace' "$dir/err" && { echo "skipped: ptrace is refused here"; exit 77; }
    cat "$dir/err"; exit 1; }
  # One word per call between the marks. A call that another thread interrupts in the trace
  # counts when it returns. A root is written a second time, for which nobody waits.
  calls=$(awk '
    /MARK-PUT/ { on = 1; print "put" } /MARK-FLUSH/ { print "flush" } /MARK-END/ { on = 0 }
    !on || /unfinished|MARK/ { if (on && /unfinished/) name[$1] = $0; next }
    { line = $0; if (/resumed/) line = name[$1] $0 }
    line ~ /(pwrite64|pwritev2?)\([0-9]+<[^>]*shard-0000>/ { print "write-shard" }
    line ~ /(fdatasync|fsync)\([0-9]+<[^>]*shard-0000>/ { print "sync-shard" }
    line ~ /(fdatasync|fsync)\([0-9]+<[^>]*root>/ { print "sync-root" }
    line ~ /pwritev2\([0-9]+<[^>]*root>.*RWF_DSYNC/ { print "write-root-dsync"; next }
    line ~ /(pwrite64|pwritev2?)\([0-9]+<[^>]*root>/ { print "write-root" }
  ' "$dir/trace" | tr '\n' ' ')
  echo "calls: $calls"
  [ "${calls#"$want"}" != "$calls" ] && case ${calls#"$want"} in '' | 'write-root ') return ;; esac
  echo "want:  $want"
  cat "$dir/trace"
  exit 1
}
order "put write-shard flush write-shard sync-shard write-root-dsync " "$1"
order "put write-shard flush write-shard sync-shard write-root sync-root " "$1" after
