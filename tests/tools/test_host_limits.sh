#!/usr/bin/env bash
# test_host_limits.sh SHARD-HOST SHARD-CTL JSON-CHECK HOST-CLIENT SHARD-BENCH: what the daemon gives up and whom
# it turns away; figures by HTTP; how systemd starts it; its options.
. "$(dirname "$0")/lib.sh"
host=$1 ctl=$2 check=$3 client=$4 bench=$5
. "$(dirname "$0")/host_lib.sh"
left_out=()

# threads: the status files of the daemon's threads. Those of the kernel's that serve its rings
# (iou-wrk) make no system calls, and act as whoever submitted.
threads() { grep -LE '^Name:[[:space:]]iou-' "/proc/$daemon"/task/*/status; }

# ---- The sandbox ----------------------------------------------------------------------------------
expect 0 "$ctl" format "$here" --size=64M --shards=2
mkdir "$work/files"
truncate -s 1M "$work/files/inside" "$work/outside"
ln -s ../outside "$work/files/link"
begin --no-sandbox --file-dir="$work/files"
expect 0 ask attach inside --file --name=f1
expect 0 ask attach link --file --name=f2
checks=$((checks + 1))
grep -q '^Seccomp:.*0$' "/proc/$daemon/status" || complain "a filter without a sandbox"
end 0

begin --file-dir="$work/files"
expect 0 ask attach inside --file --name=f1 --read-only
expect 1 ask attach ../outside --file --name=f2
said EINVAL
if grep -q 'event=landlock' "$work/log"; then
  left_out+=("landlock is not in this kernel")
else
  expect 1 ask attach link --file --name=f2
  said EACCES
fi
# Whatever disks need goes on working: volumes, sockets, files.
expect 0 ask create disk 8M --attach --queues=2
expect 0 ask snapshot disk monday
expect 0 ask clone monday vm1
expect 0 ask resize vm1 9M
expect 0 ask detach vm1 --remove
# So does a guest's memory: it is mapped, read and written by rings.
expect 0 "$bench" --engine=vhost --socket="$dir/disk.sock" --queues=2 --rw=randwrite --iodepth=8 \
  --runtime=200ms --verify
printed 'errors         0, all data as written'
expect 0 ask stat disk --json
json 'disk/writes>0' 'disk/reads>0' disk/errors=0 disk/connections=1
if grep -q 'event=seccomp' "$work/log"; then
  left_out+=("no filter of system calls in this build")
  expect 1 "$host" --store=mem:64M --socket-dir="$work/must" --sandbox=must
  said event=seccomp 'not implemented'
else
  # Every thread has it.
  for task in $(threads); do
    checks=$((checks + 1))
    grep -q '^Seccomp:.*2$' "$task" || complain "a thread without a filter: $(head -1 "$task")"
    grep -q '^NoNewPrivs:.*1$' "$task" || complain "a thread that may get privileges"
  done
fi
end 0
expect 0 "$ctl" check "$here"
printed '0 findings'

# ---- Another user ---------------------------------------------------------------------------------
if [ "$(id -u)" -eq 0 ] && getent passwd nobody > "$work/passwd"; then
  saved=$dir
  open=$(mktemp -d /tmp/shardring-user.XXXXXX)
  chmod 755 "$open"
  dir=$open/disks control=$open/disks/control
  begin --user=nobody
  expect 0 ask attach disk --mode=0666
  checks=$((checks + 2))
  uid=$(cut -d: -f3 "$work/passwd")
  [ "$(stat -c %u "$dir/disk.sock")" = "$uid" ] || complain "the socket is not that user's"
  for task in $(threads); do
    grep -qE "^Uid:[[:space:]]$uid[[:space:]]$uid[[:space:]]$uid[[:space:]]$uid" "$task" ||
      complain "a thread is somebody else: $(grep ^Uid "$task")"
    grep -qE '^CapEff:[[:space:]]0+$' "$task" || complain "a thread has capabilities"
  done
  end 0
  [ ! -e "$control" ] || complain "that user could not remove the control socket"
  rm -rf "$open"
  dir=$saved control=$saved/control
else
  left_out+=("only root can become another user")
fi
expect 1 "$host" --store="$here" --socket-dir="$dir" --user=no-such-user-here
said 'event=user' no-such-user-here

# ---- Clients --------------------------------------------------------------------------------------
begin --clients-max=2
mkfifo "$work/fifo"
"$client" hold "$control" 2 < "$work/fifo" > "$work/held" &
holder=$!
exec 9> "$work/fifo"
wait_for_file() { until [ -s "$1" ]; do sleep 0.02; done; }
wait_for_file "$work/held"
expect 1 ask ping
said EMFILE 'as many clients'
logged event=clients_max
exec 9>&-
wait $holder
until ask ping > /dev/null 2>&1; do sleep 0.02; done
expect 0 ask ping
end 0

# ---- Figures --------------------------------------------------------------------------------------
fetch() { curl -s -o "$work/out" -w '%{http_code}' --max-time 20 "$@" > "$work/status"; }
status_is() {
  checks=$((checks + 1))
  [ "$(cat "$work/status")" = "$1" ] || complain "HTTP status $(cat "$work/status") instead of $1"
}
has_metrics() {
  : > "$work/log"
  "$host" --store="$here" --socket-dir="$dir" --cores=0 --metrics=127.0.0.1:0 2> "$work/log" &
  daemon=$!
  while ! grep -q 'event=ready' "$work/log"; do
    kill -0 "$daemon" 2> /dev/null || return 1
    sleep 0.02
  done
}
# figure NAME VALUE: a line of the page.
figure() {
  checks=$((checks + 1))
  grep -qxF -- "$1 $2" "$work/out" || complain "not \"$1 $2\": $(grep -F -- "${1%%\{*}" "$work/out" | head -3)"
}
if ! command -v curl > /dev/null; then
  left_out+=("curl is missing")
elif ! has_metrics; then
  logged 'Function not implemented'
  left_out+=("no figures by HTTP in this build")
else
  page=http://127.0.0.1:$(sed -n 's/.*event=metrics port=//p' "$work/log")/metrics
  expect 0 ask attach disk
  expect 0 ask create 'a"b\c' 1M --attach --socket=odd
  fetch "$page"
  status_is 200
  figure 'shardring_volume_reads_total{disk="disk",volume="disk"}' 0
  figure 'shardring_volume_queue_depth{disk="a\"b\\c",volume="a\"b\\c"}' 0
  figure 'shardring_volume_latency_seconds_bucket{disk="disk",volume="disk",le="+Inf"}' 0
  figure 'shardring_volume_latency_seconds_count{disk="disk",volume="disk"}' 0
  figure 'shardring_volume_connected{disk="disk",volume="disk"}' 0
  figure 'shardring_draining' 0
  figure 'shardring_volume_limit_waits_total{disk="disk",volume="disk"}' 0
  figure 'shardring_volume_limit_wait_seconds_total{disk="disk",volume="disk"}' 0
  printed '# TYPE shardring_volume_latency_seconds histogram'
  printed 'shardring_core_device_ios_total{core="0",cpu="' 'shardring_store_free_bytes ' \
    'shardring_volume_cpu_seconds_total' 'shardring_build_info{version="'
  # Every line is one of the format's, and lines of one name stand together, once.
  checks=$((checks + 2))
  grep -vE '^# (HELP|TYPE) shardring_[a-z0-9_]+ .+$|^shardring_[a-z0-9_]+(\{([a-z]+="([^"\\]|\\["\\n])*",?)+\})? [0-9.e+-]+$' \
    "$work/out" > "$work/odd" && complain "no line of the format: $(head -3 "$work/odd")"
  awk '/^#/ { next } { sub(/[{ ].*/, ""); sub(/_(bucket|sum|count)$/, "") }
    $0 != last { if (seen[$0]++) { print; bad = 1 } last = $0 } END { exit bad }' "$work/out" ||
    complain "a name comes twice"
  fetch "${page%metrics}other"
  status_is 404
  fetch -X POST -d x=y "$page"
  checks=$((checks + 1))
  [ "$(cat "$work/status")" != 200 ] || complain "POST is served"
  fetch "$page"
  status_is 200
  "$client" hold "$dir/odd" 1 < "$work/fifo" > "$work/held" &
  holder=$!
  exec 9> "$work/fifo"
  wait_for 'event=connected'
  fetch "$page"
  figure 'shardring_volume_connected{disk="a\"b\\c",volume="a\"b\\c"}' 1
  exec 9>&-
  wait $holder
  # More requests than tokens: most wait.
  expect 0 ask limit disk --iops=20
  expect 0 "$bench" --engine=vhost --socket="$dir/disk.sock" --rw=randread --iodepth=32 --runtime=50ms
  expect 0 ask stat disk --json
  json 'disk/limit_waits>11' 'disk/limit_wait_ns>0' 'volume/limit_waits>11'
  fetch "$page"
  checks=$((checks + 2))
  grep -qE '^shardring_volume_limit_waits_total\{disk="disk",volume="disk"\} [1-9]' "$work/out" ||
    complain "nobody waited"
  grep -qE '^shardring_volume_limit_wait_seconds_total\{disk="disk",volume="disk"\} 0*[.0-9]*[1-9]' "$work/out" ||
    complain "for no time"
  expect 0 ask detach disk
  fetch "$page"
  grep -q 'disk="disk"' "$work/out" && complain "a disk that is gone has figures"
  end 0
fi
daemon=

# ---- As systemd starts it -------------------------------------------------------------------------
: > "$work/log"
own=$dir/own
"$client" activate "$own" "$work/notes" "$host" --store=mem:64M:1 --socket-dir="$dir" --cores=0 \
  2> "$work/log" &
daemon=$!
wait_for 'event=ready'
until grep -q 'READY=1' "$work/notes"; do sleep 0.02; done
control=$own
expect 0 ask create v 1M --attach
expect 0 ask ping --json
json ok=true
[ ! -e "$dir/control" ] || complain "a control socket that nobody asked for"
end 0
grep -q 'STOPPING=1' "$work/notes" || complain "the end was not announced"
[ -S "$own" ] || complain "a socket that is not ours was removed"
control=$dir/control

# ---- Options --------------------------------------------------------------------------------------
expect 2 "$host"
said --store
expect 2 "$host" --store=mem:64M
said --socket-dir
for option in cores-max=1 clients-max=0 workers=1 log-level=loud drain-timeout=0 sandbox=maybe \
  metrics=nowhere metrics=127.0.0.1 control-mode=9 control-mode=7777 socket-mode=x \
  socket-group=no-such-group-here disks-max=0; do
  expect 2 "$host" --store=mem:64M --socket-dir="$dir" --"$option"
  said "--${option%%=*}"
done
expect 1 "$host" --store="$work/nowhere" --socket-dir="$dir"
said "about=$work/nowhere" 'No such file'
expect 1 "$host" --store="$here" --socket-dir="$work/no/such"
said event=socket_dir
expect 0 "$host" --help
printed --store --metrics --sandbox SIGTERM
expect 0 "$host" --version
printed shard-host
[ -e "$dir/control" ] && complain "a control socket is left"
for what in ${left_out[@]+"${left_out[@]}"}; do echo "left out: $what"; done
finish
