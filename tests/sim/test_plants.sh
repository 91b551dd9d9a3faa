#!/usr/bin/env bash
# test_plants.sh SHARD_SIM_PLANTED SEEDS - each planted fault is found by the simulator; and without a
# fault it finds nothing. SEEDS says from which seed on a fault is found at once, "FAULT SEED" a line.
# Where that is not so any more (a seed means another world after each change of the simulator), all
# are tried from the first one on, for three minutes of processor time.
#   SEARCH=1: asks for no hints, and prints what SEEDS should say.
set -u
sim=$1 seeds=$2
failed=0

# try FAULT SEED RUNS: true if it is found; `seed` is then where.
try() {
  local out
  out=$( (ulimit -t 180; "$sim" "--plant=$1" "--seed=$2" "--runs=$3") 2>&1)
  [ $? -eq 1 ] || grep -q "^VIOLATION" <<< "$out" || return 1
  seed=$(sed -nE 's/.*--seed=([0-9]+).*/\1/p' <<< "$out" | head -1)
}

count=0
while read -r fault _; do
  count=$((count + 1))
  hint=$([ -n "${SEARCH-}" ] || awk -v f="$fault" '$1 == f { print $2 }' "$seeds")
  if { [ -n "$hint" ] && try "$fault" "$hint" 4; } || try "$fault" 1 1000000; then
    echo "$fault ${seed:-1}"
  else
    echo "MISSED  $fault"
    failed=1
  fi
done < <("$sim" --plant=list)

if [ "$count" -lt 12 ]; then
  echo "only $count faults are known"
  failed=1
fi
if ! "$sim" --plant=none --seed=1 --runs=48 > /dev/null; then
  echo "without a fault something is found as well"
  failed=1
fi
exit $failed
