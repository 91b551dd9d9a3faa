#!/usr/bin/env bash
# test_regressions.sh SHARD_SIM LIST - runs that once found something find nothing now.
set -u
failed=0
while read -r scenario seed what; do
  case $scenario in '' | '#'*) continue ;; esac
  if ! out=$("$1" "--scenario=$scenario" "--seed=$seed" 2>&1); then
    echo "again: $what"
    echo "$out"
    failed=1
  fi
done < "$2"
exit $failed
