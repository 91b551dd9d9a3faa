# nbd.sh - for the tests of NBD: a store, nbdkit with our plugin on a UNIX socket, clients. Sourced with
# PLUGIN and SHARD-CTL as arguments, and defines:
#   needs CLIENT...   the test is skipped, by name, if one is missing
#   serve WORD...     starts nbdkit in the foreground on $here, or on what $source says; its messages are
#                     in $work/log
#   stop, crash       by SIGTERM, by SIGKILL
. "$(dirname "${BASH_SOURCE[0]}")/../tools/lib.sh"
plugin=$(realpath "$1") ctl=$(realpath "$2")
here=$work/store sock=$work/s
server=
PATH=/usr/bin:$PATH # nbdsh takes the first python3, and its module is the system's
trap 'crash; rm -rf "$work"' EXIT

needs() {
  local client
  for client in nbdkit "$@"; do
    command -v "$client" > /dev/null || { echo "skipped: $client is missing"; exit 77; }
    [ "$client" != nbdsh ] || nbdsh -c pass 2> /dev/null ||
      { echo "skipped: nbdsh does not find its module of Python (python3-libnbd)"; exit 77; }
  done
}
serve() {
  rm -f "$sock" "$work/pid"
  nbdkit -f -U "$sock" -P "$work/pid" \
    "$plugin" "${source:-store=$here}" "$@" > /dev/null 2> "$work/log" &
  server=$!
  answers && return
  complain "nbdkit does not serve: $(cat "$work/log")"
  finish
}

# The socket is there before the store is open; a client waits for that in its queue.
answers() {
  local i
  for ((i = 0; i < 600; i++)); do
    [ -S "$sock" ] && [ -s "$work/pid" ] && return 0
    kill -0 "$server" 2> /dev/null || return 1
    sleep 0.05
  done
  return 1
}

stop() {
  checks=$((checks + 1))
  kill "$server"
  wait "$server" || complain "nbdkit ended with $?: $(tail -3 "$work/log")"
  server=
}

crash() {
  [ -n "$server" ] || return 0
  kill -9 "$server"
  wait "$server" 2> /dev/null
  server=
}

# logged WORD: nbdkit has said so.
logged() {
  checks=$((checks + 1))
  grep -qF -- "$1" "$work/log" || complain "\"$1\" is not in nbdkit's messages: $(cat "$work/log")"
}

# uri [VOLUME]
uri() { echo "nbd+unix:///${1-}?socket=$sock"; }

# own NAME: bytes of the volume's own in the closed store, after its frees have been settled.
own() { "$ctl" volume ls "$here" | awk -v name="$1" '$5 == name { print $3 }'; }

# nbdkit itself is not built with the sanitizers; with one's library loaded before it, it hangs at its
# exit, in a lock of the C library.
if ldd "$plugin" | grep -qE 'lib[at]san'; then
  echo "skipped: a plugin with a sanitizer needs an nbdkit that is built with it"
  exit 77
fi

"$ctl" format "$here" --size=256M --shards=2 > "$work/out" 2>&1 || { cat "$work/out"; exit 1; }
volume() { "$ctl" volume "$1" "$here" "${@:2}" > "$work/out" || complain "shard-ctl volume $*"; }
