# shellcheck shell=bash disable=SC2154
# host_lib.sh - for the tests of shard-host, behind lib.sh: a daemon that goes away at the end, and
# ways to talk with it. The test has set host, ctl, check, client.
here=$work/store dir=$work/disks control=$work/disks/control daemon=
trap '[ -z "$daemon" ] || kill -KILL "$daemon" 2> /dev/null; rm -rf "$work"' EXIT

# Paths of sockets are short: 107 bytes.
[ ${#dir} -lt 80 ] || { dir=$(mktemp -d /tmp/shardring-host.XXXXXX) control=$dir/control
  trap '[ -z "$daemon" ] || kill -KILL "$daemon" 2> /dev/null; rm -rf "$work" "$dir"' EXIT; }

# begin [OPTIONS]: starts the daemon and waits until it is ready.
begin() {
  : > "$work/log" # what the last one wrote must not be taken for this one's
  "$host" --store="$here" --socket-dir="$dir" --cores=0 "$@" 2> "$work/log" &
  daemon=$!
  wait_for 'event=ready'
}

# wait_for TEXT: until it stands in the log, or the daemon is gone.
wait_for() {
  checks=$((checks + 1))
  while ! grep -qF -- "$1" "$work/log"; do
    kill -0 "$daemon" 2> /dev/null || {
      complain "the daemon is gone: $(tail -3 "$work/log")"
      return 1
    }
    sleep 0.02
  done
}

# end STATUS [SIGNAL]: asks it to stop.
end() {
  local got=0
  kill -"${2:-TERM}" "$daemon"
  wait "$daemon" 2> /dev/null || got=$?
  daemon=
  checks=$((checks + 1))
  [ "$got" -eq "$1" ] || complain "the daemon ended with $got: $(tail -3 "$work/log")"
}

ask() { "$ctl" host --control="$control" "$@"; }

# json QUESTION...: the last output is JSON and answers yes.
json() {
  checks=$((checks + 1))
  cp "$work/out" "$work/json"
  "$check" "$work/json" "$@" || complain "JSON: $* in $(head -c 300 "$work/out")"
}

# lines TEXT: sends it as it is; what comes is in $work/out.
lines() {
  printf "$1" | timeout 20 "$client" lines "$control" > "$work/out" || complain "lines: $?"
}
# answered COUNT
answered() {
  checks=$((checks + 1))
  [ "$(wc -l < "$work/out")" -eq "$1" ] || complain "not $1 replies: $(head -c 400 "$work/out")"
}
# reply N QUESTION...: of that line.
reply() {
  local n=$1
  shift
  checks=$((checks + 1))
  sed -n "${n}p" "$work/out" > "$work/json"
  "$check" "$work/json" "$@" || complain "reply $n: $* in $(head -c 300 "$work/json")"
}
logged() {
  checks=$((checks + 1))
  grep -qF -- "$1" "$work/log" || complain "\"$1\" is not in the log: $(tail -5 "$work/log")"
}
