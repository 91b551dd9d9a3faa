#!/usr/bin/env bash
# serve_host.sh STORE DISK: what serve.c does with one disk, done by the daemon: for tests that start,
# ask and kill a server. This process becomes the daemon ($SHARD_HOST); another one makes the disk
# through its control socket ($SHARD_CTL), says "ready", and answers `stat NAME` as long as there is
# a daemon.
set -u
store=$1 queues=1 cache=back size=67108864 volume='' socket=''
IFS=, read -ra options <<< "$2"
for option in "${options[@]}"; do
  case $option in
    volume=* | socket=* | size=* | queues=* | cache=*) printf -v "${option%%=*}" %s "${option#*=}" ;;
    *) echo "serve_host: what is $option" >&2; exit 2 ;;
  esac
done
daemon=$$ dir=$(dirname "$socket")
host() { "$SHARD_CTL" host --control="$dir/control" "$@"; }
alive() { kill -0 $daemon 2> /dev/null; }

attach() {
  until host ping > /dev/null 2>&1; do
    alive || exit 1
    sleep 0.05
  done
  host stat "$volume" --volume > /dev/null 2>&1 || host create "$volume" "$size" > /dev/null
  host attach "$volume" --socket="$(basename "$socket")" --queues="$queues" --cache="write-$cache" > /dev/null
}
answer() {
  while alive; do
    read -r -t 0.2 what name || continue
    [ "$what" = stat ] || continue
    stat=$(host stat "$name" --json 2> /dev/null | grep -m1 -oE '"writes": *[0-9]+')
    echo "$name: writes=${stat##*[: ]}"
  done
}
{ attach && echo ready && answer; } <&0 &
exec "$SHARD_HOST" --store="$store" --socket-dir="$dir" --core-count=2 < /dev/null > /dev/null
