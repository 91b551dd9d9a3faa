#!/bin/sh
# test_mailbox_tsan.sh PROGRAM - runs test_mailbox built with ThreadSanitizer. Its runtime
# wants the address space laid out as it knows it, so without randomization where that can be
# had. Exit 77: it cannot run here.
set -eu
out=$(mktemp)
trap 'rm -f "$out"' EXIT
plain=
setarch -R true 2>/dev/null && plain="setarch -R"
status=0
$plain "$1" >"$out" 2>&1 || status=$?
cat "$out"
if grep -q "FATAL: ThreadSanitizer: unexpected memory mapping" "$out"; then
  echo "ThreadSanitizer does not know this kernel's memory layout"
  exit 77
fi
exit $status
