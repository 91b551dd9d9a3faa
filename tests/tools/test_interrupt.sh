#!/usr/bin/env bash
# test_interrupt.sh SHARD-BENCH JSON-CHECK SHARD-CTL VHOST-DISKS: a signal in the middle of a run: it
# ends, its report says what there is, the store is sound. And the live line, by which the moment for
# the signal is known.
. "$(dirname "$0")/lib.sh"
bench=$1 check=$2 ctl=$3 disks=$4
here=$work/store client='' server=''
trap '[ -z "$client" ] || kill -9 $client 2> /dev/null; [ -z "$server" ] || kill -9 $server 2> /dev/null
  rm -rf "$work"' EXIT

answers() {
  checks=$((checks + 1))
  "$check" "$work/json" "$@" || complain "JSON: $*: $(head -c 300 "$work/json")"
}
# shows WORD: the client's live line has it by now; gives up when the client ends.
shows() {
  until grep -qF "$1" "$work/err"; do
    kill -0 $client 2> /dev/null || { complain "ended before it said $1: $(head -3 "$work/err")"; return 1; }
    sleep 0.05
  done
}
# begins OPTIONS...: a client in the background. A shell's background jobs ignore SIGINT.
begins() {
  : > "$work/err"
  env --default-signal=INT "$bench" --output-format=json --eta=always --runtime=600 "$@" > "$work/json" 2>> "$work/err" &
  client=$!
}
# ends STATUS
ends() {
  local status=0
  wait $client || status=$?
  client=''
  checks=$((checks + 1))
  [ $status -eq "$1" ] || complain "exit status $status instead of $1: $(tail -3 "$work/err")"
}
# interrupted SIGNAL STATUS WORD OPTIONS...: one signal, when the line has said WORD.
interrupted() {
  local signal=$1 status=$2 word=$3
  shift 3
  begins "$@"
  shows "$word" && kill "-$signal" $client
  ends "$status"
  said "SIG$signal: stopping"
}
sound() {
  expect 0 "$ctl" check "$here"
}

# Blobs on disk: on the cores, from threads, and an open load; each is read back by the next.
expect 0 "$bench" --store="$here" --create --size=96M --shards=2 --device=pool --blob-size=16k --runtime=0.01
interrupted INT 130 IOPS --store="$here" --device=pool --blob-size=16k --rw=randwrite
answers jobs/0/interrupted=SIGINT 'jobs/0/write/total_ios>0' 'jobs/0/write/runtime>0' jobs/0/error=0 environment/engine=pool
sound
interrupted TERM 143 IOPS --store="$here" --device=pool --blob-size=16k --where=client --numjobs=2 --rw=get --verify
answers jobs/0/interrupted=SIGTERM 'jobs/0/read/total_ios>0' jobs/0/total_err=0
interrupted INT 130 IOPS --store="$here" --device=pool --blob-size=16k --rw=put --rate_iops=500
answers jobs/0/interrupted=SIGINT 'jobs/0/write/total_ios>0' 'jobs/0/job options/rate_iops=500'
sound
interrupted INT 130 IOPS --store="$here" --device=pool --rw=flush
answers jobs/0/interrupted=SIGINT 'jobs/0/sync/total_ios>0'
interrupted INT 130 IOPS --store="$here" --device=pool --blob-size=16k --rw=open
answers jobs/0/interrupted=SIGINT 'jobs/0/sync/total_ios>0'
sound

# The table says so, too.
begins --store=mem:64M --output-format=normal --rw=randwrite --verify
shows IOPS && kill -INT $client
ends 130
cp "$work/json" "$work/out"
printed 'interrupted    by SIGINT' 'not read back'

# A control: the last pair is not whole, and not counted. Where io_uring works.
if "$bench" --store="$work/probe" --create --size=64M --shards=1 --device=uring --runtime=0.01 > /dev/null 2>&1; then
  interrupted INT 130 'of the raw loop' --store="$work/probe" --control
  answers jobs/0/interrupted=SIGINT 'control/ratio/median>0'
  interrupted TERM 143 IOPS --store="$work/probe" --engine=raw
  answers jobs/0/interrupted=SIGTERM 'jobs/0/read/total_ios>0'
fi

# Volumes, and their workloads.
rm -rf "$here"
expect 0 "$bench" --engine=volume --store="$here" --create --size=96M --shards=2 --device=pool --rw=read --runtime=0.01
interrupted INT 130 IOPS --engine=volume --store="$here" --device=pool --rw=randrw
answers jobs/0/interrupted=SIGINT 'jobs/0/read/total_ios>0' 'jobs/0/write/total_ios>0'
sound
interrupted TERM 143 IOPS --engine=volume --store="$here" --device=pool --verify --volume-size=64k
answers workload=verify interrupted=SIGTERM 'figures/requests>0' figures/errors=0
sound
interrupted INT 130 limits --engine=volume --store=mem:96M --workload=limits --runtime=1
answers interrupted=SIGINT error=0
rm -rf "$here"
interrupted INT 130 clones --engine=volume --store="$here" --create --size=256M --shards=1 --device=pool \
  --workload=clone-open --clones=1000000 --volume-size=1M
answers interrupted=SIGINT error=0
sound

# While the store is filled there is nothing to report.
rm -rf "$here"
interrupted INT 130 'put blobs' --store="$here" --create --size=2G --shards=1 --device=pool --prealloc=sparse --bs=512
sound

# A job file: the run that is under way, and none after it.
printf '[one]\nstore=mem:64M\nruntime=50ms\n[two]\nstore=mem:64M\n[three]\nstore=mem:64M\n' > "$work/jobs"
begins "$work/jobs"
shows IOPS && kill -INT $client
ends 130
answers jobs/0/interrupted=SIGINT 'jobs/0/read/total_ios>0' 'jobs#1'

# Two commands in turn: the one that runs gets the signal, too.
begins --store=mem:64M --runtime=0.05 --versus='exec sleep 600'
until pgrep -P $client -x sleep > /dev/null; do
  kill -0 $client 2> /dev/null || break
  sleep 0.05
done
kill -TERM $client
ends 143
said 'interrupted after 0 of 10 rounds'

# A virtual disk: the server lives on.
mkfifo "$work/ask"
exec 9<> "$work/ask"
mkdir "$here.v"
expect 0 "$ctl" format "$here.v" --size=96M --shards=1 --prealloc=sparse
"$disks" "$here.v" "volume=v,socket=$work/socket,size=16777216,queues=2" < "$work/ask" > "$work/said" 2> "$work/server" &
server=$!
until grep -q ready "$work/said"; do
  kill -0 "$server" 2> /dev/null || { complain "no server: $(cat "$work/server")"; finish; }
  sleep 0.05
done
vhost="--engine=vhost --socket=$work/socket --queues=2 --iodepth=8"
# shellcheck disable=SC2086 # a list of options
interrupted INT 130 IOPS $vhost --rw=randrw
answers jobs/0/interrupted=SIGINT 'jobs/0/read/total_ios>0' 'jobs/0/write/total_ios>0' 'vhost/kicks>0'
# shellcheck disable=SC2086
expect 0 "$bench" $vhost --rw=randread --runtime=0.05

# One that cannot end, as its server stands still: the second signal does what it always does.
# shellcheck disable=SC2086
begins $vhost --rw=randread
if shows IOPS; then
  kill -STOP $server
  kill -INT $client
  shows stopping
  sleep 0.4 # what comes at once counts as the same one
  kill -TERM $client
fi
ends 143
kill -CONT $server

# On a terminal the line takes its own place, and leaves none behind.
if command -v script > /dev/null; then
  expect 0 script -qec "$bench --store=mem:64M --runtime=1.2 2>&1" "$work/typescript"
  grep -q 'randread \[.*IOPS.*B/s.*p50 .*us, p99 .*us' "$work/typescript" || complain "no live line on a terminal"
  expect 0 script -qec "$bench --store=mem:64M --runtime=1.2 --eta=never" "$work/typescript"
  ! grep -q 'randread \[' "$work/typescript" || complain "a line in spite of --eta=never"
fi
expect 0 "$bench" --store=mem:64M --runtime=0.6
not_said 'randread ['
finish
