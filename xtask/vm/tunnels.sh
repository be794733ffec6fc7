# Real receiving ends: ipip, sit, ip6tnl and fou, set up by what `backend_setup` prints, decapsulate what the director sends,
# and a client is served.
# Runs as root in the guest. Files beside it: simple_vip, backend_setup, upload.py, hosts.sh, container.sh. Argument: the
# guide, `linux` or `networkd`; for that a systemd is booted on the backend, and told.
set -u
system=$1
. ./hosts.sh
modules veth bridge tun ipip sit ip6_tunnel fou fou6

# Client and director on a bridge; the backend behind a router.
bridge; plug_director
host cl; plug cl 2
host r; plug r 1
host b1
ip netns exec r sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0
ip link add b1 netns r type veth peer name eth0 netns b1
ip -n r link set b1 up; ip -n r addr add 10.1.0.1/24 dev b1; ip -n r addr add fd01::1/64 dev b1 nodad
ip -n b1 link set eth0 up; ip -n b1 addr add 10.1.0.11/24 dev eth0; ip -n b1 addr add fd01::11/64 dev eth0 nodad
ip -n b1 route add default via 10.1.0.1; ip -n b1 route add default via fd01::1
for n in cl dir; do ip -n $n route add 10.1.0.0/16 via 10.0.0.1; ip -n $n route add fd01::/16 via fd00::1; done
# Strict, so that the guide has to do something about it.
ip netns exec b1 sysctl -qw net.ipv4.conf.all.rp_filter=1
ip netns exec b1 python3 ./upload.py serve 80 > /dev/null 2>&1 &
sleep 1

# The kernel's own receiving ends, as `backend_setup` says, word for word.
set -o pipefail
configure() { # ADDRESS MODE
  local forward port=${2#*:}
  case $2 in
    gue:*) forward="{ gue = { port = $port } }";; gue1:*) forward="{ gue = { port = $port, variant = 1 } }";;
    *) forward="\"$2\"";;
  esac
  for vip in $VIP $VIP6; do
    printf '[[service]]\nvip = "%s"\n[[service.backend]]\naddress = "%s"\nforward = %s\n' "$vip" "$1" "$forward"
  done > backend.toml
}
# The guest's `sh` is busybox, which takes its own `ip` for iproute2's.
run() { ip netns exec b1 bash --posix; }
guide() { ./backend_setup --config backend.toml --system "$system" "$@" | run; }
if [ "$system" = networkd ]; then
  R=/tmp/b1
  mkdir -p $R/{usr,proc,sys,dev,run,tmp,root,var/l{ib,og},etc/{sysctl.d,systemd/{network,system/{multi-user,sockets}.target.wants}}}
  for link in bin sbin lib lib64; do ln -s usr/$link $R/$link; done
  for of in passwd group; do grep ^root: /etc/$of > $R/etc/$of; done
  echo d5b1d5b1d5b1d5b1d5b1d5b1d5b1d5b1 > $R/etc/machine-id
  units=etc/systemd/system
  for of in getty.target systemd-logind.service systemd-hwdb-update.service ldconfig.service; do ln -s /dev/null $R/$units/$of; done
  ln -s /usr/lib/systemd/system/systemd-networkd.service $R/$units/multi-user.target.wants/
  ln -s /usr/lib/systemd/system/systemd-networkd.socket $R/$units/sockets.target.wants/
  mount -t cgroup2 cgroup2 /sys/fs/cgroup; mkfifo /tmp/hold
  nsenter --net=/run/netns/b1 bash ./container.sh hold $R /sys/fs/cgroup/b1 < /tmp/hold &
  exec 9> /tmp/hold
  run() {
    nsenter --target "$(cat $R/init.pid)" --mount --uts --ipc --net --pid --cgroup env -i PATH=/usr/sbin:/usr/bin bash --posix
  }
  for _ in $(seq 120); do
    [ -s $R/init.pid ] && echo "systemctl is-active --quiet multi-user.target" | run 2> /dev/null && break
    sleep 0.5
  done
  echo "systemctl --version | head -n 1; systemctl is-active multi-user.target" | run; ok $? "systemd was booted"
fi
state() { for what in addr route "-6 route" link; do ip -n b1 -o $what; done; ip netns exec b1 nft list ruleset
  ip netns exec b1 sysctl -a 2> /dev/null | grep -e '\.arp_' -e rp_filter; ip -n b1 fou show
  # The container's /run is its own.
  [ "$system" = linux ] || { echo "ls /run" | run | grep dsrlb; find $R/etc | sort; }; }
# networkd is told, and does it later; for what is done at once one look is enough.
[ "$system" = linux ] && patience=0 || patience=10
within() { # COMMAND...: succeeds, if not at once then in time
  local end=$((SECONDS + patience))
  until "$@"; do [ $SECONDS -lt $end ] || return 1; sleep 0.2; done
}
passes() { guide --check > check; }
is_as_before() { state > after; diff before after > difference; }
finds() { # WHAT: the check has this one failure
  guide --check > check; [ "$(grep -c FAIL check)" = 1 ] && grep -q "FAIL.*$1" check; ok $? "$name: the check finds: $(grep FAIL check)"
}

forget() { ip -n cl route flush cache; ip -n cl -6 route flush cache; } # the MTUs that the client has learnt
upload() { # WHAT
  for vip in $VIP $VIP6; do
    forget; ip netns exec cl timeout 20 python3 ./upload.py send "$vip" 80 200000; ok $? "$name: upload to $vip, $1"
  done
}
thorough() { # MSS
  upload "segments that fit"
  sleep 1.5
  tail -1 "log.$name" | grep -q '"packet-too-big":[1-9]'; [ $? = 1 ]; ok $? "$name: nothing was too large"
  guide --check > check; grep -q '^ok .* is up ([1-9][0-9]* packets so far)' check; ok $? "$name: the check has seen packets"
  if [ "$name" = gue0-over-ipv6 ]; then ip -n b1 fou del port 6080 -6; finds "GUE is taken off"; guide; return; fi
  ip -n b1 link set dsrlb-ipip down; finds "tunnel dsrlb-ipip is up"; ip -n b1 link set dsrlb-ipip up
  ip netns exec b1 sysctl -qw net.ipv4.conf.dsrlb-ipip.rp_filter=0; finds "rp_filter lets in"
  ip netns exec b1 sysctl -qw net.ipv4.conf.dsrlb-ipip.rp_filter=2; ip -n b1 addr flush dev dsrlb-ipip
  finds "rp_filter lets in.*without an address"; guide
  # Routes may say it instead; of the two VIPs this is what fits for one.
  ip netns exec b1 nft flush ruleset
  for of in 4 6; do ip -n b1 -$of route show default | while read -r route; do ip -n b1 -$of route change $route advmss "$1"; done; done
  finds "TCP of $VIP6 announces"
  for of in 4 6; do ip -n b1 -$of route show default | while read -r route; do ip -n b1 -$of route change ${route% advmss*}; done; done
  guide
}
try() { # NAME BACKEND MSS MSS6 [thorough]
  name=$1
  configure "${2%%,*}" "${2#*mode=}"
  state > before
  # One that was not run at all has no such line.
  guide --check > check; [ $? = 1 ] && grep -q '^FAIL' check; ok $? "$name: the check fails before: $(grep -c FAIL check) points"
  guide; ok $? "$name: set up"
  within passes; ok $? "$name: the check passes: $(grep FAIL check)"
  ip netns exec dir ./simple_vip --interface eth0 --vip $VIP --vip $VIP6 --monitor none --json \
    --tunnel-source 10.0.0.10 --tunnel-source fd00::10 --backend "$2" > "log.$name" 2>&1 &
  local director=$! mss
  for _ in $(seq 60); do grep -q "XDP" "log.$name" && break; sleep 0.2; done
  sleep 1
  forget
  mss="$(ip netns exec cl python3 ./upload.py mss $VIP 80) $(ip netns exec cl python3 ./upload.py mss $VIP6 80)"
  [ "$mss" = "$3 $4" ]; ok $? "$name: announces $mss bytes"
  [ $# = 4 ] || thorough "$3"
  # Larger than what fits: works by packet-too-big alone.
  ip netns exec b1 nft flush ruleset
  guide --check > check; [ "$(grep -c 'FAIL TCP of .* announces' check)" = 2 ]; ok $? "$name: the check finds the MSS"
  upload "too large segments"
  kill -INT $director; wait $director
  grep -o '"packet-too-big":[0-9]*' "log.$name" | tail -1
  guide; guide --undo; ok $? "$name: undone"
  within is_as_before; ok $? "$name: nothing is left"; cat difference
}
[ "$system" = linux ] && thorough=thorough || thorough=
try ipip-over-ipv4 10.1.0.11,mode=ipip 1440 1420 $thorough
try ipip-over-ipv6 fd01::11,mode=ipip 1420 1400
try gue0-over-ipv4 10.1.0.11,mode=gue:6080 1428 1408
try gue1-over-ipv4 10.1.0.11,mode=gue1:6080 1432 1412
try gue0-over-ipv6 fd01::11,mode=gue:6080 1408 1388 $thorough
try gue1-over-ipv6 fd01::11,mode=gue1:6080 1412 1392

[ "$system" = linux ] || { [ $fails = 0 ] || echo "journalctl --no-pager | tail -n 80" | run; echo "$fails failed"; exit $((fails > 0)); }

# Probes through the VIP: the kernel's own refusal of what no tunnel takes, and its silence about a missing VIP.
says() { # WHAT, since this was last called
  for _ in $(seq 60); do grep -q "$1" log.probes && break; sleep 0.25; done
  grep -q "$1" log.probes; ok $? "probes: $1, in: $(grep -m1 "$1" log.probes)"
  : > log.probes
}
configure 10.1.0.11 ipip; guide
ip netns exec dir ./simple_vip --interface eth0 --vip $VIP --tunnel-source 10.0.0.10 \
  --backend 10.1.0.11,mode=ipip >> log.probes 2>&1 &
director=$!
says "XDP"
ip netns exec cl timeout 20 python3 ./upload.py send $VIP 80 100000; ok $? "probes: upload"
ip -n b1 link set dsrlb-ipip down
says "tunnel not decapsulated"
ip -n b1 link set dsrlb-ipip up
says "backend 10.1.0.11 takes traffic"
ip -n b1 addr del $VIP/32 dev lo
says "VIP not bound"
kill -INT $director; wait $director
[ $fails = 0 ] || head -50 log.*
echo "$fails failed"
exit $((fails > 0))
