#!/usr/bin/env bash
# test_plants.sh SHARD_SIM_PLANTED - each planted fault is found by the simulator, from the first
# seed on and within three minutes of processor time, most within seconds; and without a fault the same
# seeds find nothing.
set -u
sim=$1
failed=0

count=0
while read -r plant _; do
  count=$((count + 1))
  out=$( (ulimit -t 180; "$sim" "--plant=$plant" --seed=1 --runs=1000000) 2>&1)
  if [ $? -eq 1 ] || grep -q "^VIOLATION" <<< "$out"; then
    echo "found   $plant: $(grep -o -- '--seed=.*' <<< "$out" | head -1)"
  else
    echo "MISSED  $plant: $(tail -1 <<< "$out")"
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
