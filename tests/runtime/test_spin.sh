#!/bin/sh
# test_spin.sh MODEL - spin searches the model of the sleep/wake handshake: the right one
# completely and without an error, and in each with a planted mistake it finds one.
# Exit 77: spin is not installed.
set -eu
model=$(realpath "$1")
command -v spin >/dev/null || { echo "spin is not installed"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cp "$model" model.pml

# search MACRO PAN_MACROS PAN_OPTIONS: leaves pan's report in ./report
search() {
  spin "-D$1" -a model.pml >spin.out 2>&1 || { cat spin.out; exit 1; }
  # shellcheck disable=SC2086 # words on purpose
  ${CC:-cc} -O1 $2 -w -o pan pan.c
  # shellcheck disable=SC2086
  ./pan $3 -m100000 >report 2>&1 || true
  grep -q 'errors: ' report || { echo "$1: the search did not end"; cat report; exit 1; }
}
safety="-DSAFETY -DNOCLAIM"

passes() {
  search "$1" "$2" "$3"
  if ! grep -q 'errors: 0$' report || grep -Eq 'not completed|truncated|too small' report; then
    echo "FAIL: $4"
    cat report
    exit 1
  fi
  echo "ok: $4:$(grep 'states, stored' report)"
}

# The error must be the one expected, not any.
fails() {
  search "$1" "$2" "$3"
  if ! grep -q "pan:1: $4" report; then
    echo "FAIL: $1: $4 was expected"
    cat report
    exit 1
  fi
  echo "ok: $1 is found: $4"
}

passes RIGHT "$safety" "" "no mail is left behind"
passes RIGHT "" "-a -f" "all mail arrives"
bugs=$(sed -n 's/^ \*   \(BUG_[A-Z_]*\) .*/\1/p' model.pml)
[ "$(echo "$bugs" | wc -w)" -ge 7 ] || { echo "FAIL: the model lists too few mistakes"; exit 1; }
for bug in $bugs; do
  grep -q "^#.*$bug" model.pml || { echo "FAIL: $bug is listed and not there"; exit 1; }
  fails "$bug" "$safety" "" "invalid end state"
done
fails BUG_NO_SECOND_LOOK "" "-a -f" "acceptance cycle"
