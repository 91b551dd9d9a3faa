#!/usr/bin/env bash
# test_host.sh SHARD-HOST SHARD-CTL JSON-CHECK HOST-CLIENT: the daemon from start to end, driven by
# shard-ctl host and by lines of JSON as they are; what is refused; figures; restart.
. "$(dirname "$0")/lib.sh"
host=$1 ctl=$2 check=$3 client=$4
. "$(dirname "$0")/host_lib.sh"

# ---- A life ---------------------------------------------------------------------------------------
expect 0 "$ctl" format "$here" --size=64M --shards=2
truncate -s 4M "$work/spots"
for at in 16 256 768; do printf x | dd of="$work/spots" bs=4096 seek=$at conv=notrunc status=none; done
expect 0 "$ctl" volume import "$here" spots "$work/spots"
begin
expect 0 ask ping --json
json ok=true protocol=1 draining=false "pid=$daemon" 'uptime_s>0'
expect 1 ask ping --control="$work/nowhere"
said 'no shard-host listens there' --control
expect 1 "$ctl" volume ls "$here"
said 'another process has it open'

expect 0 ask create disk 8M --json
json volume/name=disk volume/size_bytes=8388608 volume/block_bytes=512
expect 0 ask attach disk
printed "$dir/disk.sock"
[ -S "$dir/disk.sock" ] || complain "there is no socket"
checks=$((checks + 1))
[ "$(stat -c %a "$dir/disk.sock")" = 600 ] || complain "its mode is not 600"
expect 0 ask create wide 16M --striped --block=4096 --attach --name=w --queues=4 --socket=other \
  --mode=0660 --cache=ephemeral --serial=number
printed "$dir/other"
checks=$((checks + 1))
[ "$(stat -c %a "$dir/other")" = 660 ] || complain "its mode is not 660"
expect 0 ask list
printed "idle disk disk $dir/disk.sock" "idle w wide $dir/other"
expect 0 ask list --json
json 'disks#2' disks/1/name=w disks/1/queues=4 disks/1/cache=ephemeral disks/0/connected=false
expect 0 ask stat w --json
json disk/striped=true disk/reads=0 volume/name=wide volume/block_bytes=4096
expect 0 ask stat --volume wide --json
json volume/striped=true volume/stripe_bytes=1048576

expect 0 ask snapshot disk monday --json
json volume/kind=snapshot
expect 0 ask clone monday vm1 --size=9M
printed "$dir/vm1.sock"
expect 0 ask clone monday plain --no-attach --json
json volume/kind=clone volume/size_bytes=8388608
expect 0 ask attach monday --read-only --name=gold
expect 0 ask volumes
printed 'snapshot 8388608 0 0 monday' 'clone 9437184 0 0 vm1'
expect 0 ask limit vm1 --iops=500 --bps=2M --group=tenant --json
json volume/limit_ops/size=500 volume/limit_bytes/size=2097152 volume/group=tenant
expect 0 ask limit --group=tenant --iops=1000 --json
json limit_ops/size=1000
expect 0 ask limit vm1 --unlimited --no-group --json
json ok=true
grep -q limit_ops "$work/out" && complain "a limit that was taken away is there"
expect 0 ask resize vm1 12M --json
json volume/size_bytes=12582912
expect 0 ask rm plain
expect 0 ask detach vm1 --remove --json
json removed=vm1
[ ! -e "$dir/vm1.sock" ] || complain "the socket is still there"
# What is not zeros, as many as are wanted at a time.
expect 0 ask raw '{"do":"ranges","volume":"spots","offset":0,"bytes":4194304}'
json 'ranges#3' ranges/0/0=65536 ranges/0/1=4096 ranges/1/0=1048576 ranges/2/0=3145728 end=4194304
expect 0 ask raw '{"do":"ranges","volume":"spots","offset":65536,"bytes":4128768,"max":2}'
json 'ranges#2' ranges/0/0=65536 ranges/1/0=1048576 end=3145728
expect 0 ask raw '{"do":"ranges","volume":"spots","offset":131072,"bytes":131072}'
json 'ranges#0' end=262144
expect 0 ask flush
expect 0 ask store --json
json shards=2 cores=1 'free_bytes>1000000' damaged_blobs=0

# ---- Refusals -------------------------------------------------------------------------------------
ask list > "$work/before"
expect 1 ask attach disk
said 'disk: ' EEXIST
expect 1 ask attach disk --name=again
said 'disk: ' EBUSY
expect 0 ask attach disk --name=shared --share
expect 0 ask attach disk --name=looks --read-only
expect 0 ask detach shared
expect 0 ask detach looks
expect 1 ask raw '{"do":"ranges","volume":"spots","offset":4194304,"bytes":4096}'
printed EINVAL
expect 1 ask raw '{"do":"ranges","volume":"spots","offset":0}'
printed EINVAL 'bytes: is missing'
expect 1 ask raw '{"do":"ranges","volume":"nothing","offset":0,"bytes":1}'
printed ENOENT
expect 1 ask attach nothing
said nothing ENOENT
expect 1 ask attach monday --name=w
said EEXIST
expect 1 ask attach monday --read-only --name=w
said EEXIST
expect 1 ask attach monday --read-only --name=x --socket=other
said EEXIST
expect 1 ask clone monday second --name=w
said EEXIST
expect 1 ask stat --volume second
said ENOENT
expect 1 ask clone disk third
said EINVAL
expect 1 ask detach nothing
said nothing ENOENT
expect 1 ask detach gold --remove
said 'no snapshots'
expect 1 ask rm disk
said EBUSY
expect 1 ask attach file --file
said 'no files are served' EACCES
expect 1 ask attach monday --read-only --socket=../x
said 'socket' EINVAL
expect 1 ask attach monday --read-only --name="$(printf 'x%.0s' $(seq 120))"
said 'path of the socket' ENAMETOOLONG
expect 1 ask create disk 1M
said EEXIST
expect 1 ask resize disk 100
said size_bytes 512
expect 1 ask raw '{"do":"upgrade","store":"0123456789abcdef"}'
printed EXDEV 'another one'
expect 2 ask attach
said 'too few words' 'host attach VOLUME'
expect 2 ask frobnicate
said 'unknown command "host frobnicate"'
expect 2 ask resize disk large
said 'needs a size'
expect 2 ask attach disk --mode=9
said 'octal'
ask list > "$work/after"
same "$work/before" "$work/after"

# ---- Lines as they are ----------------------------------------------------------------------------
lines '{"id":7,"do":"ping"}\n\n  {"id":"x","do":"version"}\r\n{"do":"list","max":1}\n'
answered 3
reply 1 id=7 ok=true
reply 2 id=x ok=true
reply 3 'disks#1' more=true ok=true
lines '{"do":"ping"}\nnonsense\n{"do":"ping"\n{"do":"ping"} 1\n[]\n1\n"ping"\n{"do":"ping"}\n'
answered 8
for n in 2 3 4; do reply $n ok=false error=EBADMSG message; done
for n in 5 6 7; do reply $n ok=false error=EINVAL; done
reply 8 ok=true
lines '{"id":5}\n{"id":5,"do":1}\n{"id":5,"do":"frob"}\n{"id":5,"do":"attach"}\n{"id":{},"do":"ping"}\n'
answered 5
reply 1 id=5 error=EINVAL
reply 2 id=5 error=EINVAL
reply 3 id=5 error=ENOSYS
reply 4 id=5 error=EINVAL
reply 5 error=EINVAL
lines '{"do":"ping","volume":"x"}\n{"do":"attach","volume":"disk","queues":0}\n{"do":"attach","volume":""}\n{"do":"attach","volume":"a\\u0000b"}\n{"do":"create","volume":"y","size_bytes":1e6}\n{"do":"create","volume":"y","size_bytes":-1}\n{"do":"ping","do":"list"}\n{"do":"attach","volume":"disk","queue_size":100}\n'
answered 8
for n in 1 2 3 5 6 8; do reply $n ok=false error=EINVAL; done
for n in 4 7; do reply $n ok=false error=EBADMSG; done
lines '{"do":"limit","all":true,"ops":{"size":{"size":{"size":[]}}}}\n{"do":"limit","all":true,"ops":{"sizes":1}}\n{"do":"limit","all":true,"ops":{}}\n{"do":"limit"}\n'
answered 4
reply 1 error=EBADMSG
for n in 2 3 4; do reply $n error=EINVAL; done
# What is deep in a text is not deep.
lines '{"do":"stat","name":"[[[[[[[[\\"{{{{{{{{"}\n'
reply 1 ok=false error=ENOENT
# The longest line there may be, and one byte more.
long=$(head -c 65515 /dev/zero | tr '\0' ' ')
lines "{\"do\":\"ping\",\"id\":1${long}}\n{\"do\":\"ping\"}\n"
answered 2
reply 1 ok=true id=1
lines "{\"do\":\"ping\",\"id\":12 ${long}}\n{\"do\":\"ping\"}\n"
answered 1
reply 1 ok=false error=EMSGSIZE
head -c 300000 /dev/zero | timeout 20 "$client" lines "$control" > "$work/out" 2> /dev/null
reply 1 ok=false error=EMSGSIZE
# The last line has no newline: it was not finished.
lines '{"do":"create","volume":"y","size_bytes":1048576}'
answered 0
expect 1 ask stat --volume y
# Names from outside cannot forge a line of the log.
lines '{"do":"detach","name":"x\\nlevel=error event=\\"forged"}\n'
reply 1 ok=false error=ENOENT
checks=$((checks + 1))
grep -q '^level=error' "$work/log" && complain "a line of the log was forged"
logged '"x\x0alevel=error event=\"forged"'
logged "event=request do=detach name=vm1 error=none"
logged "uid=$(id -u)"
expect 0 ask ping

# ---- The end, and again ---------------------------------------------------------------------------
end 0
logged 'event=stopped'
logged 'event=signal signal=TERM'
[ ! -e "$control" ] || complain "the control socket is still there"
[ ! -e "$dir/disk.sock" ] || complain "a disk's socket is still there"
begin --log-level=debug
expect 0 ask list --json
json 'disks#0'
expect 0 ask volumes --json
json 'volumes#4'
expect 0 ask attach disk
# Whoever is killed leaves sockets behind, which the next one replaces.
end 137 KILL
[ -S "$dir/disk.sock" ] || complain "kill -9 took the socket away"
begin
expect 0 ask attach disk
expect 1 "$host" --store=mem:64M --socket-dir="$dir"
said 'event=control' 'Address already in use'
expect 0 ask ping

# ---- Drain ----------------------------------------------------------------------------------------
expect 0 ask drain --json
json draining=true disks_left=0
expect 0 ask list --json
json 'disks#0'
expect 1 ask attach disk
said ESHUTDOWN
expect 1 ask clone monday x
said ESHUTDOWN
expect 1 ask stat --volume x
expect 0 ask drain --off --json
json draining=false
expect 0 ask attach disk
expect 0 ask ping --json
json draining=false
# A monitor keeps its disk until it goes.
mkfifo "$work/fifo"
"$client" hold "$dir/disk.sock" 1 < "$work/fifo" > "$work/held" &
holder=$!
exec 9> "$work/fifo"
wait_for 'event=connected'
expect 1 ask detach disk
said EBUSY force
expect 0 ask drain --json
json disks_left=1
expect 0 ask list
printed 'connected disk'
exec 9>&-
wait $holder
wait_for 'event=drained'
end 0 INT
expect 0 "$ctl" check "$here"
printed '0 findings'

# A first signal waits for it, a second one does not.
begin --drain-timeout=1h
expect 0 ask attach disk
"$client" hold "$dir/disk.sock" 1 < "$work/fifo" > "$work/held" &
holder=$!
exec 9> "$work/fifo"
wait_for 'event=connected'
kill "$daemon"
wait_for 'event=signal'
expect 0 ask list --json
json 'disks#1' disks/0/connected=true
expect 1 ask attach monday
said ESHUTDOWN
end 0
exec 9>&-
wait $holder
# And one waits only so long.
begin --drain-timeout=100ms
expect 0 ask attach disk
"$client" hold "$dir/disk.sock" 1 < "$work/fifo" > "$work/held" &
holder=$!
exec 9> "$work/fifo"
wait_for 'event=connected'
end 0
exec 9>&-
wait $holder
finish
