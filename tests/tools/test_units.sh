#!/usr/bin/env bash
# test_units.sh SHARD-HOST UNIT...: systemd understands every line of our units, and their command
# lines are ones that the daemon takes.
. "$(dirname "$0")/lib.sh"
host=$(realpath "$1")
shift
command -v systemd-analyze > /dev/null || { echo "skipped: systemd-analyze is not installed (package systemd)"; exit 77; }
# verify: what systemd has to say about the units in $work/units.
verify() { systemd-analyze verify --man=no "$work"/units/* > "$work/said" 2>&1; }

mkdir "$work/units"
for unit; do sed "s|=[^ ]*/shard-host |=$host |" "$unit" > "$work/units/${unit##*/}"; done
checks=$((checks + 1))
verify || complain "systemd-analyze ended with $?: $(cat "$work/said")"
! grep -q 'shard-host\.\(service\|socket\)' "$work/said" || complain "$(cat "$work/said")"
# It would have said so.
sed -i 's/^\[Service\]/&\nNoSuchDirective=yes/' "$work/units/shard-host.service"
checks=$((checks + 1))
verify
grep -q NoSuchDirective "$work/said" || complain "nothing is found: $(cat "$work/said")"

# The options, with --help in front so that nothing is started.
for unit; do
  sed -n 's/^Exec[A-Za-z]*=[^ ]* //p' "$unit" | while read -r line; do
    line=${line//\$OPTIONS/}
    # shellcheck disable=SC2086 # words
    "$host" ${line//'${STORE}'/nowhere} --help > "$work/out" 2> "$work/err" || echo "$line: $(cat "$work/err")"
  done
done > "$work/refused"
checks=$((checks + 1))
[ ! -s "$work/refused" ] || complain "$(cat "$work/refused")"
finish
