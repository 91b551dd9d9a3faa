# common.sh - what the scripts of figures share. Sourced, from the root of the sources, with $dir and
# $build set; $tsv is not empty where rows go to bench/all.
bench=$build/tools/shard-bench
cpu=$(($(nproc) - 1))
title() { printf '\n== %s\n' "$*"; }
say() { title "$@" >&2; }

# Of a report on stdin: what people want to see of a load.
show() { grep -E '^ +(rate|ratio|processor)'; }
# "0.868 (0.817 to 1.085, 20 pairs)"
ratio() {
  sed -nE 's/^ +ratio +([0-9.]+) of the raw loop \(median of ([0-9]+) pairs?; ([0-9.]+) to ([0-9.]+)\)/\1 (\3 to \4, \2 pairs)/p'
}
# figure NAME: the number behind it.
figure() { awk -v name="$1" 'index($0, "  " name " ") == 1 { sub("^  " name " +", ""); print $1; exit }'; }

# Of numbers, one a line: "median (least to most, N NAME)"; of each line of two files: their ratio.
middle() {
  sort -g | awk -v name="$1" 'function f(x) { return sprintf(x >= 1000 ? "%.0f" : "%.3g", x) }
    { v[NR] = $1 } END { m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
    print f(m) " (" f(v[1]) " to " f(v[NR]) ", " NR " " name ")" }'
}
ratios() { paste "$1" "$2" | awk '{ printf "%.4f\n", $1 / $2 }'; }
median() { middle '' | cut -d' ' -f1; }

# Tables. ID is one word that stays the same. MEASURED: the median, then its spread in brackets.
#   head; row ID WHAT WANTED MEASURED REACHED; missing ID WHAT WANTED WHAT_IS_MISSING
head_row() { [ -n "${tsv:-}" ] || printf '| what | wanted | measured | reached |\n|---|---|---|---|\n'; }
row() {
  local median=${4%% (*} spread=
  if [ -n "${tsv:-}" ]; then
    case $4 in *' ('*')') spread=${4#* (} spread=${spread%)} ;; *) median=$4 ;; esac
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$median" "$spread" "$5"
  else
    printf '| %s | %s | %s | %s |\n' "$2" "$3" "$4" "$5"
  fi
}
missing() { row "$1" "$2" "$3" "not measured: $4 is missing" ''; }
# at_least and at_most NUMBER MEASURED: "yes" or "**no**"
at_least() { awk -v w="$1" -v m="$2" 'BEGIN { print (m + 0 >= w ? "yes" : "**no**") }'; }
at_most() { awk -v w="$1" -v m="$2" 'BEGIN { print (m != "" && m + 0 <= w ? "yes" : "**no**") }'; }
