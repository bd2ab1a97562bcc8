#!/bin/bash
# A real S3 server for the tests, on this machine only: Ceph's gateway from Debian's packages.
#
#   apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common
#   ceph.sh FOLDER PORT ACCESS_KEY SECRET_KEY
#
# Runs in the foreground as any user and prints "READY http://127.0.0.1:PORT" after about six
# seconds.  SIGTERM stops all of it.  Takes the ports PORT (S3), PORT+1 (monitor) and PORT+2 to
# PORT+9 (storage).  It checks signatures and honours If-None-Match, which is what the tests are
# about; between the daemons there is no authentication, so keep nothing of value in it.  The same
# call starts it again on the folder of an earlier one.
set -euo pipefail
[ $# -eq 4 ] || { echo "usage: $0 FOLDER PORT ACCESS_KEY SECRET_KEY" >&2; exit 2; }
umask 077
mkdir -p "$1"
folder=$(cd "$1" && pwd -P)
port=$2 access_key=$3 secret_key=$4
monitor="[v2:127.0.0.1:$((port + 1))]"
[ -f "$folder/made" ] || find "$folder" -mindepth 1 -delete  # made half only: made anew
mkdir -p "$folder"/{mon,osd,rgw,log,run,crash/posted}
[ -f "$folder/fsid" ] || cat /proc/sys/kernel/random/uuid >"$folder/fsid"
fsid=$(cat "$folder/fsid")
unset CEPH_ARGS
export CEPH_CONF=$folder/ceph.conf

# One monitor, one disk (a sparse file), one copy of everything.  "mode = crc", because the
# default "secure" needs the authentication that is switched off here.  Without "tcp_nodelay" every
# read waits 40 ms for a delayed acknowledgement.
cat >"$CEPH_CONF" <<CONF
[global]
fsid = $fsid
mon host = $monitor
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
ms bind port min = $((port + 2))
ms bind port max = $((port + 9))
auth cluster required = none
auth service required = none
auth client required = none
admin socket =
run dir = $folder/run
crash dir = $folder/crash
log file = $folder/log/\$name.log
log to stderr = false
err to stderr = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
[mon]
mon data = $folder/mon
mon cluster log file = $folder/log/cluster.log
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 0
paxos propose interval = 0.05
paxos min wait = 0.01
[osd]
osd data = $folder/osd
osd objectstore = bluestore
bluestore block size = 10737418240
bluestore cache autotune = false
bluestore cache size = 134217728
osd memory target = 939524096
osd max object name len = 2048
osd heartbeat grace = 3600
[client]
ms mon client mode = crc
rgw data = $folder/rgw
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw thread pool size = 64
CONF

die() { echo "$0: $*; see $folder/log" >&2; exit 1; }

pids=()
start() { # name command...: a daemon that ends with this script, even when that is killed
  setpriv --pdeathsig TERM -- "${@:2}" >>"$folder/log/$1.out" 2>&1 &
  pids=("$!" "${pids[@]}") # newest first: the order to stop them in
}
stop() {
  trap '' TERM INT HUP
  for pid in "${pids[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
    for _ in {1..100}; do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
}
trap stop EXIT
trap 'exit 0' TERM INT HUP

wait_for() { # seconds pid command...: until the command succeeds, as long as the daemon runs
  for ((tenth = 0; tenth < $1 * 10; tenth++)); do
    kill -0 "$2" 2>/dev/null || return 1
    "${@:3}" 2>/dev/null && return 0
    sleep 0.1
  done
  return 1
}
osd_is_up() { timeout 20 ceph osd stat | grep -q ' 1 up'; }
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$port"); }

if [ ! -f "$folder/made" ]; then
  monmaptool --create --fsid "$fsid" --addv a "$monitor" "$folder/monmap" >/dev/null
  ceph-mon --mkfs -i a --monmap "$folder/monmap" >>"$folder/log/mon.out" 2>&1 || die "no monitor"
fi
start mon ceph-mon -f -i a

if [ ! -f "$folder/made" ]; then
  osd=$(cat /proc/sys/kernel/random/uuid)
  timeout 60 ceph osd new "$osd" 0 >>"$folder/log/mon.out" 2>&1 || die "no answer of the monitor"
  ceph-osd --mkfs -i 0 --osd-uuid "$osd" >>"$folder/log/osd.out" 2>&1 || die "no disk"
else
  timeout 60 ceph osd down 0 >>"$folder/log/mon.out" 2>&1 || true  # after a kill it still counts as up
fi
start osd ceph-osd -f -i 0
wait_for 60 "${pids[0]}" osd_is_up || die "the disk does not come up"

if [ ! -f "$folder/made" ]; then
  timeout 120 radosgw-admin --log-file="$folder/log/admin.log" user create \
    --uid="tests" --display-name=tests \
    --access-key="$access_key" --secret="$secret_key" >"$folder/log/admin.out" 2>&1 || die "no user"
  touch "$folder/made"
fi
start rgw radosgw -f -n client.rgw
wait_for 60 "${pids[0]}" answers || die "the gateway does not come up"

echo "READY http://127.0.0.1:$port"
wait -n || true
die "a daemon stopped"
