#!/usr/bin/env bash
# test_versus.sh SHARD-BENCH JSON-CHECK: --versus alternates with another command, in an order that the
# seed says, and its ratio is that of what both have measured. Whatever goes wrong with the other is
# an error that shows what it said.
. "$(dirname "$0")/lib.sh"
bench=$1 check=$2
quick="--store=mem: --size=64M --runtime=20ms"
answers() {
  checks=$((checks + 1))
  "$check" "$work/json" "$@" || complain "JSON: $*"
}
# versus STATUS COMMAND OPTION...
versus() {
  local status=$1 command=$2
  shift 2
  # shellcheck disable=SC2086 # a list of options
  expect "$status" "$bench" $quick --versus="$command" "$@"
}

# Against itself.
versus 0 "$bench $quick --output-format=json" --rounds=3 --output-format=json --output="$work/json"
answers versus/rounds=3 versus/ratio/pairs=3 'versus/ratio/median>0' 'versus/ratio/confidence/low>0' \
  'versus/ratio/confidence/high>0' versus/ratio/confidence/percent=95 'versus/a_iops#3' 'versus/b_iops#3' \
  'versus/mean_latency_ratio/median>0' 'versus/p99_latency_ratio/median>0' 'jobs/0/read/iops>0'
expect 0 "$bench" compare "$work/json" "$work/json" # it is a result like others

# One number. All that varies is ours, so the ratio is our rate by that number.
versus 0 'echo some words; echo 4' --rounds=2 --output_format json --output "$work/json"
answers versus/b_iops/0=4 versus/b_iops/1=4 'versus/ratio/median>10'
awk '/"a_iops"/ { getline; a = $1 + 0; getline; b = $1 + 0 } /"median"/ && !m { m = $2 + 0 }
  END { want = (a + b) / 8; exit !(m > want * 0.999 && m < want * 1.001) }' "$work/json" ||
  complain "the ratio is not that of the rates: $(cat "$work/json")"
# So little that no halt of this machine in one of the rounds could leave it in doubt.
versus 0 'echo 0.000000001' --rounds=4
printed 'A, this command line, against B: echo 0.000000001' 'median of 4 rounds' 'geometric mean' ': above 1'
# Two values that differ much: the interval is wide, and it says so.
versus 0 "echo >> $work/turns; [ \$((\$(wc -l < $work/turns) % 2)) = 0 ] && echo 1 || echo 1000000000" --rounds=4
printed 'no difference can be told from chance' 'that is wide'

# The order: half of the rounds each way, another one with another seed, the same with the same.
order() { grep -oE '"[ab]"' "$work/json" | tail -8 | tr -d '"\n'; }
for seed in 3 3 4; do
  versus 0 'echo 4' --rounds=8 --seed=$seed --output-format=json --output="$work/json"
  order >> "$work/orders" && echo >> "$work/orders"
done
[ "$(sed -n 1p "$work/orders")" = "$(sed -n 2p "$work/orders")" ] || complain "one seed, two orders"
[ "$(sort -u "$work/orders" | wc -l)" -eq 2 ] || complain "two seeds, one order: $(cat "$work/orders")"
[ "$(head -c 8 "$work/orders" | tr -d b | wc -c)" -eq 4 ] || complain "not half of the rounds each way"
# It is that order in which they run.
rm -f "$work/turns"
versus 0 "echo b >> $work/turns; echo 4" --rounds=2 --seed=3
[ "$(wc -l < "$work/turns")" -eq 2 ] || complain "B did not run twice"

# A store on disk is made and filled once, before the first round.
expect 0 "$bench" --store="$work/store" --create --size=32M --shards=1 --cores=1 --runtime=20ms \
  --versus='echo 4' --rounds 2 --output="$work/out2"
cp "$work/out2" "$work/out"
printed 'median of 2 rounds'
expect 1 "$bench" --store="$work/store" --create --size=32M --versus='echo 4'
said 'there is one already'

# Against the raw loop there is an interval in the same form.
expect 0 "$bench" --store="$work/store" --cores=1 --runtime=100ms --control --output-format=json --output="$work/json"
answers control/ratio/confidence/percent=95 'control/ratio/confidence/low>0' 'control/ratio/confidence/geometric_mean>0'
expect 0 "$bench" --store="$work/store" --cores=1 --runtime=100ms --control
printed 'of the raw loop (median of' '95 % confidence' 'geometric mean'

# What goes wrong.
versus 1 'echo this was said >&2; exit 3' --rounds=2
said '(B), round 1' 'exit status 3' 'this was said'
versus 1 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do echo line $i; done; exit 1'
said 'line 14'
! grep -qx ' *line 2' "$work/err" || complain "more than the end was shown: $(cat "$work/err")"
versus 1 'echo words 3'
said 'neither JSON' 'words 3' --output-format=json
versus 1 'echo 0'
said 'neither JSON'
versus 1 'echo -5'
said 'neither JSON'
versus 1 'printf "\033[31mred\n"; exit 1' # bytes that a terminal would act upon
not_said $'\033'
versus 1 'echo "{\"jobs\": []}"'
said 'no requests'
versus 1 'echo "{\"jobs\": [{\"error\": 5, \"read\": {\"iops\": 3}}]}"'
said 'failed with error 5'
versus 1 '/nowhere/program'
said 'exit status 127' /nowhere/program
versus 1 'kill -9 $$'
said 'killed by signal 9'
versus 0 'echo "note: {not} JSON yet"; echo 7' --rounds=2
versus 0 'echo "fio: a note"; echo "{\"jobs\": [{\"error\": 0, \"read\": {\"iops\": 3}, \"write\": {\"iops\": 4}}]}"; echo' \
  --rounds=2 --output-format=json --output="$work/json"
answers versus/b_iops/0=7
expect 1 "$bench" --store="$work/nothing" --versus='echo 4'
said nothing

versus 2 'echo 4' --rounds=1
said --rounds=1 legal:
expect 2 "$bench" --store=mem: --rounds=5
said --versus
expect 2 "$bench" --store="$work/store" --control --versus='echo 4'
said --control
expect 2 "$bench" --store=mem: --versus=
said --versus legal:

# fio, if it is there.
if command -v fio > /dev/null; then
  truncate -s 1M "$work/data"
  versus 0 "fio --name=f --filename=$work/data --rw=randread --bs=4k --size=1M --output-format=json" --rounds=2
  printed 'mean latency' 'p99 latency'
fi
finish
