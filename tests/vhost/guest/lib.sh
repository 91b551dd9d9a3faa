# shellcheck shell=bash
# lib.sh - real guests on disks that we serve: QEMU without KVM, the system's kernel, an initial RAM
# disk made of the system's tools. No root, no network. Sourced by the tests beside it.
#
# A test runs as: TEST.sh SERVE SHARD_CTL KEEP; KEEP: a directory for the RAM disk's common part,
# which is made once. It starts a server (start_server), then a guest (start_guest), whose script it
# gives. They talk by lines: the guest's `check` and `at` on its console, the host's `go` on the
# guest's second serial line. TEST_SCALE stretches all waiting.
set -u
# shellcheck disable=SC2034
serve=$1 ctl=$2 keep=$3
self=$0 self_arguments=("$@")
skip() { echo "skipped: $*"; exit 77; }
need() { command -v "$1" > /dev/null || skip "$1 is not installed (package $2)"; }
PATH=$PATH:/usr/sbin:/sbin
need qemu-system-x86_64 qemu-system-x86
need cpio cpio
need modprobe kmod
need busybox busybox-static
need fio fio
need mkfs.ext4 e2fsprogs
need blkdiscard util-linux
release=
for k in /boot/vmlinuz-*-cloud-amd64 /boot/vmlinuz-*-amd64; do
  [ -r "$k" ] && [ -d "/lib/modules/${k#/boot/vmlinuz-}" ] && { release=${k#/boot/vmlinuz-}; break; }
done
[ -n "$release" ] || skip "no kernel in /boot (package linux-image-cloud-amd64)"

mib=1048576
scale=${TEST_SCALE:-1}
# The machine.
threads=multi model=max cpus=4
server_pid='' qemu_pid='' other_pid='' qemu=guest
# Sockets' paths are short, whatever TMPDIR is; the store lies where the build does.
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/shardring-guest-XXXXXX") || exit 1
sockets=$(mktemp -d /tmp/sr-guest-XXXXXX) || exit 1
finish() {
  [ -z "$qemu_pid" ] || kill -9 "$qemu_pid" 2> /dev/null
  [ -z "$other_pid" ] || kill -9 "$other_pid" 2> /dev/null
  [ -z "$server_pid" ] || kill -9 "$server_pid" 2> /dev/null
  wait 2> /dev/null
  rm -rf "$dir" "$sockets"
}
trap finish EXIT
trap 'exit 1' TERM INT

# Tests whose guests move set this: QEMU's TCG breaks the kernels of some of those, with no disk of ours
# as well (control_migration.sh). Such a kernel says so itself; then the test is done again, twice at
# most. A guest that finds wrong data says FAIL, and that is one.
emulator_breaks_guests=
retry_broken_guest() {
  [ -n "$emulator_breaks_guests" ] && [ "${ATTEMPT:-1}" -lt 3 ] || return 0
  grep -qE 'kernel BUG|Oops|general protection|corruption|Kernel panic|BUG: ' "$dir"/*.console || return 0
  ! grep -q 'GUEST: FAIL' "$dir"/*.console || return 0
  echo "attempt ${ATTEMPT:-1}: the guest's kernel broke: $(grep -hE 'BUG|Oops|corruption|panic' "$dir"/*.console | head -1)"
  trap - EXIT
  finish
  ATTEMPT=$((${ATTEMPT:-1} + 1)) exec "$self" "${self_arguments[@]}"
}

failing=
fail() {
  [ -z "$failing" ] || exit 1 # the server does not answer either
  retry_broken_guest
  echo "FAILED after $SECONDS s: $*"
  local f disk
  failing=yes
  if [ -n "$server_pid" ] && kill -0 "$server_pid" 2> /dev/null; then
    # What a disk has done, and what it has not, says who waits for whom.
    for disk in $(grep -oE '^event: [^:]+' "$dir/serve.err" | cut -d' ' -f2 | sort -u); do
      echo "-- $disk: $(ask "stat $disk")"
    done
  fi
  [ -z "$qemu_pid" ] || echo "-- QEMU: $(ps -o stat=,pcpu=,etime= -p "$qemu_pid")"
  for f in "$dir"/*.console "$dir"/{qemu.log,serve.err,answers}; do
    [ -s "$f" ] && { echo "-- ${f##*/}"; tail -60 "$f"; }
  done
  exit 1
}

# ---- The RAM disk -------------------------------------------------------------------------------

# add_program ROOT PROGRAM...: with its libraries.
add_program() {
  local root=$1 program lib
  shift
  for program in "$@"; do
    program=$(command -v "$program") || return 1
    cp -L "$program" "$root/bin/" || return 1
    ldd "$program" 2> /dev/null | grep -oE '/[^ ]+' | while read -r lib; do
      [ -e "$root$lib" ] && continue
      mkdir -p "$root$(dirname "$lib")" && cp -L "$lib" "$root$lib" || exit 1
    done || return 1
  done
}

add_modules() {
  local root=$1 module file
  mkdir "$root/modules.d" && touch "$root/modules"
  for module in virtio_pci virtio_blk ext4 crc32c_generic; do
    modprobe -S "$release" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
  done | awk '!seen[$0]++' | while read -r file; do
    case $file in
      *.xz) xz -dc "$file" ;; *.zst) zstd -dcq "$file" ;; *) cat "$file" ;;
    esac > "$root/modules.d/$(basename "$file")" || exit 1
    echo "/modules.d/$(basename "$file")" >> "$root/modules"
  done
}

archive() { (cd "$1" && find . | cpio -o -H newc --quiet); }

# What all tests share, made by whoever comes first. Its name says of what.
make_common() {
  local sum root=$dir/root
  sum=$(stat -Lc '%n %s %Y' "$(command -v fio)" "$(command -v busybox)" "$here"/{lib.sh,init} |
    cksum | cut -d' ' -f1)
  common=$keep/guest-$release-$sum.cpio
  mkdir -p "$keep"
  exec 9> "$keep/guest.lock"
  flock 9
  if [ ! -f "$common" ]; then
    rm -f "$keep"/guest-*.cpio
    mkdir -p "$root"/{bin,dev,lib64,proc,sys,tmp}
    install -m 755 "$here/init" "$root/init"
    add_program "$root" busybox dd fio mkfs.ext4 fsck.ext4 blkdiscard &&
      add_modules "$root" && archive "$root" > "$common.new" && mv "$common.new" "$common" ||
      fail "the RAM disk could not be made"
    rm -rf "$root"
  fi
  exec 9>&-
}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# ---- Waiting ------------------------------------------------------------------------------------

# wait_for SECONDS WHAT COMMAND...: until it is true.
wait_for() {
  local left=$(($1 * scale * 10)) what=$2
  shift 2
  until "$@"; do
    [ -z "$server_pid" ] || kill -0 "$server_pid" 2> /dev/null || fail "the server is gone"
    ((left-- > 0)) || fail "waited in vain for $what"
    sleep 0.1
  done
}

# ---- The server ---------------------------------------------------------------------------------

make_store() { # MEBIBYTES SHARDS
  "$ctl" format "$dir/store" --size=$(($1 * mib)) --shards="$2" --prealloc=sparse > /dev/null ||
    fail "no store"
}

lines() { wc -l < "$dir/answers"; }
more_lines() { [ "$(lines)" -gt "$1" ]; }

# start_server [DISK...]: as serve.c has them; none: the same as last time.
start_server() {
  [ $# -eq 0 ] || disks=("$@")
  [ -p "$dir/ask" ] || mkfifo "$dir/ask"
  touch "$dir/answers"
  exec 7<> "$dir/ask"
  local before
  before=$(lines)
  "$serve" "$dir/store" "${disks[@]}" < "$dir/ask" >> "$dir/answers" 2>> "$dir/serve.err" 7>&- &
  server_pid=$!
  wait_for 20 "the server" more_lines "$before"
  [ "$(tail -1 "$dir/answers")" = ready ] || fail "the server does not serve"
}

# ask WORDS: what the server answers.
ask() {
  local before
  before=$(lines)
  echo "$*" >&7
  wait_for 20 "an answer to $*" more_lines "$before"
  tail -1 "$dir/answers"
}

kill_server() {
  kill -9 "$server_pid"
  wait "$server_pid" 2> /dev/null
  server_pid=
}

# Ends it in order; then the store is checked.
stop_server() {
  kill -TERM "$server_pid"
  wait "$server_pid" || fail "the server ended with status $?"
  server_pid=
  [ "$(tail -1 "$dir/answers")" = closed ] || fail "the server did not close"
  ! grep -i 'sanitizer\|runtime error\|check failed' "$dir/serve.err" || fail "the server complained"
  "$ctl" check "$dir/store" > "$dir/check" 2>&1 || { cat "$dir/check"; fail "the store is damaged"; }
}

# ---- The guest ----------------------------------------------------------------------------------

# run_qemu NAME FIRST "QUEUES..." OPTION...: a machine with one disk for each number of queues, which
# may have properties behind it (4,packed=on), on the sockets $sockets/FIRST and so on. Its pipes and console are $dir/NAME.*. Sets qemu_pid.
run_qemu() {
  local name=$1 i=$2 queues args=()
  for queues in $3; do
    args+=(-chardev "socket,id=c$i,path=$sockets/$i,reconnect=1"
      -device "vhost-user-blk-pci,chardev=c$i,num-queues=$queues")
    i=$((i + 1))
  done
  shift 3
  mkfifo "$dir/$name".{go,monitor}.{in,out}
  : > "$dir/$name.console"
  qemu-system-x86_64 -nodefaults -no-user-config -display none \
    -accel "tcg,thread=$threads" -cpu "$model" -smp "$cpus" -m 448 \
    -object memory-backend-memfd,id=memory,size=448M,share=on -machine q35,memory-backend=memory \
    -serial "file:$dir/$name.console" -chardev "pipe,id=go,path=$dir/$name.go" -serial chardev:go \
    -chardev "pipe,id=monitor,path=$dir/$name.monitor" -mon chardev=monitor \
    -kernel "/boot/vmlinuz-$release" -initrd "$dir/initrd" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check" \
    "${args[@]}" "$@" >> "$dir/qemu.log" 2>&1 7>&- &
  qemu_pid=$!
  qemu=$name
}

# start_guest QUEUES... < SCRIPT
start_guest() {
  local script=$dir/script
  make_common
  mkdir -p "$script"
  cat > "$script/test.sh"
  { cat "$common"; archive "$script"; } > "$dir/initrd" || fail "no RAM disk"
  run_qemu guest 0 "$*"
}

says() {
  ! grep -q 'GUEST: FAIL\|Kernel panic' "$dir/$qemu.console" || fail "a check of the guest"
  local gone=
  kill -0 "$qemu_pid" 2> /dev/null || gone=yes # looked at first: its last words count
  grep -q "GUEST: $*" "$dir/$qemu.console" && return
  [ -z "$gone" ] || fail "the guest is gone"
  return 1
}
# The guest has come to this point, and waits for `go` there.
at() { wait_for 100 "the guest at '$*'" says "at $*"; }
go() { echo go > "$dir/$qemu.go.in"; }
monitor() { echo "$*" > "$dir/$qemu.monitor.in"; }

# The guest has ended, with no check failed.
end_guest() {
  wait_for 100 "the guest's end" says "done"
  local status
  wait "$qemu_pid"
  status=$?
  qemu_pid=
  [ $status -eq 0 ] || fail "QEMU ended with status $status"
  grep -o 'GUEST: ok.*' "$dir/$qemu.console"
  ! grep -i 'I/O error\|Buffer I/O\|blocked for more' "$dir/$qemu.console" || fail "errors in the guest"
}
