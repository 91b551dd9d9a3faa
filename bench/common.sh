# common.sh - what the scripts of figures share. Sourced, from the root of the sources, with $dir and
# $build set.
bench=$build/tools/shard-bench
cpu=$(($(nproc) - 1))
title() { printf '\n== %s\n' "$*"; }

# Of a report on stdin: what people want to see of a load.
show() { grep -E '^ +(rate|ratio|processor)'; }
# "0.868 (0.817 to 1.085, 20 pairs)"
ratio() {
  sed -nE 's/^ +ratio +([0-9.]+) of the raw loop \(median of ([0-9]+) pairs?; ([0-9.]+) to ([0-9.]+)\)/\1 (\3 to \4, \2 pairs)/p'
}
# figure NAME: the number behind it.
figure() { awk -v name="$1" 'index($0, "  " name " ") == 1 { sub("^  " name " +", ""); print $1; exit }'; }
# row WHAT WANTED MEASURED REACHED; at_least and at_most NUMBER MEASURED: "yes" or "**no**"
row() { printf '| %s | %s | %s | %s |\n' "$@"; }
at_least() { awk -v w="$1" -v m="$2" 'BEGIN { print (m + 0 >= w ? "yes" : "**no**") }'; }
at_most() { awk -v w="$1" -v m="$2" 'BEGIN { print (m != "" && m + 0 <= w ? "yes" : "**no**") }'; }
