# lib.sh - for the shell tests of the tools: a directory of its own that goes away at the end, and
# words for what is expected. A test ends with `finish`.
set -u
work=$(mktemp -d "${TMPDIR:-/tmp}/shardring-tools.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
failures=0 checks=0

complain() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}

# expect STATUS COMMAND...: runs it; its output is in $work/out and $work/err afterwards.
expect() {
  local want=$1 got=0
  shift
  checks=$((checks + 1))
  "$@" > "$work/out" 2> "$work/err" || got=$?
  [ "$got" -eq "$want" ] && return 0
  complain "exit status $got instead of $want: $*"
  head -5 "$work/err" >&2
  return 1
}

# said WORD...: each stands in the error output of the last command.
said() {
  local word
  for word in "$@"; do
    checks=$((checks + 1))
    grep -qF -- "$word" "$work/err" || complain "\"$word\" is not in: $(head -3 "$work/err")"
  done
}

# not_said WORD...
not_said() {
  local word
  for word in "$@"; do
    checks=$((checks + 1))
    ! grep -qF -- "$word" "$work/err" || complain "\"$word\" is in: $(head -3 "$work/err")"
  done
}

# printed WORD...: each stands in the output of the last command.
printed() {
  local word
  for word in "$@"; do
    checks=$((checks + 1))
    grep -qF -- "$word" "$work/out" || complain "\"$word\" is not in: $(head -12 "$work/out")"
  done
}

# same FILE FILE
same() {
  checks=$((checks + 1))
  cmp -s "$1" "$2" || complain "$1 and $2 differ"
}

finish() {
  echo "$checks checks, $failures failed"
  [ "$failures" -eq 0 ] && [ "$checks" -gt 0 ]
  exit
}
