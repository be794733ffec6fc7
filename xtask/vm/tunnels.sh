# Real receiving ends: tunl0, sit0, ip6tnl and fou decapsulate what the director sends, and a client is served.
# Runs as root in the guest. Files beside it: simple_vip, upload.py.
set -u
fails=0
ok() { if [ "$1" = 0 ]; then echo "ok   $2"; else echo "FAIL $2"; fails=$((fails + 1)); fi; }
for module in veth bridge tun ipip sit ip6_tunnel fou fou6; do modprobe "$module" || ok 1 "modprobe $module"; done

# client and director on a bridge; the backend behind a router.
VIP=10.0.0.100 VIP6=fd00::100
for n in sw cl dir r b1; do
  ip netns add $n; ip -n $n link set lo up
  ip netns exec $n sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
    net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
done
ip -n sw link add br0 type bridge forward_delay 0; ip -n sw link set br0 up
plug() { # NAME LAST
  ip link add "p_$1" netns sw type veth peer name eth0 netns "$1"
  ip -n sw link set "p_$1" master br0 up; ip -n "$1" link set eth0 up
  ip -n "$1" addr add "10.0.0.$2/24" dev eth0; ip -n "$1" addr add "fd00::$2/64" dev eth0 nodad
}
plug cl 2; plug dir 10; plug r 1
ip netns exec sw ethtool -K p_dir tx off >/dev/null
ip -n dir addr add $VIP/32 dev eth0; ip -n dir addr add $VIP6/128 dev eth0 nodad preferred_lft 0
ip netns exec r sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0
ip link add b1 netns r type veth peer name eth0 netns b1
ip -n r link set b1 up; ip -n r addr add 10.1.0.1/24 dev b1; ip -n r addr add fd01::1/64 dev b1 nodad
ip -n b1 link set eth0 up; ip -n b1 addr add 10.1.0.11/24 dev eth0; ip -n b1 addr add fd01::11/64 dev eth0 nodad
ip -n b1 route add default via 10.1.0.1; ip -n b1 route add default via fd01::1
for n in cl dir; do ip -n $n route add 10.1.0.0/16 via 10.0.0.1; ip -n $n route add fd01::/16 via fd00::1; done
ip -n b1 addr add $VIP/32 dev lo; ip -n b1 addr add $VIP6/128 dev lo nodad preferred_lft 0

# The kernel's own receiving ends.
ip -n b1 link set tunl0 up; ok $? "tunl0"
ip -n b1 link set sit0 up; ok $? "sit0"
ip -n b1 link add any6 type ip6tnl mode any local fd01::11 remote ::; ok $? "ip6tnl mode any"
ip -n b1 link set any6 up
ip netns exec b1 sysctl -qw net.ipv4.conf.tunl0.rp_filter=0 net.ipv4.conf.any6.rp_filter=0
ip -n b1 fou add port 6080 gue; ok $? "fou gue"
ip -n b1 fou add port 6080 gue -6; ok $? "fou gue over IPv6"
ip netns exec b1 python3 ./upload.py serve 80 > /dev/null 2>&1 &
sleep 1

try() { # NAME BACKEND
  ip netns exec dir ./simple_vip --interface eth0 --vip $VIP --vip $VIP6 --monitor none --json \
    --tunnel-source 10.0.0.10 --tunnel-source fd00::10 --backend "$2" > "log.$1" 2>&1 &
  local director=$!
  for _ in $(seq 60); do grep -q "XDP" "log.$1" && break; sleep 0.2; done
  sleep 1
  for vip in $VIP $VIP6; do
    ip -n cl route flush cache; ip -n cl -6 route flush cache
    # Larger than one packet: works by packet-too-big alone.
    ip netns exec cl timeout 20 python3 ./upload.py send "$vip" 80 200000; ok $? "$1: upload to $vip"
  done
  kill -INT $director; wait $director
  grep -o '"packet-too-big":[0-9]*' "log.$1" | tail -1
}
try ipip-over-ipv4 10.1.0.11,mode=ipip
try ipip-over-ipv6 fd01::11,mode=ipip
try gue0-over-ipv4 10.1.0.11,mode=gue:6080
try gue1-over-ipv4 10.1.0.11,mode=gue1:6080
try gue0-over-ipv6 fd01::11,mode=gue:6080
try gue1-over-ipv6 fd01::11,mode=gue1:6080

# Probes through the VIP: the kernel's own refusal of what no tunnel takes, and its silence about a missing VIP.
says() { # WHAT, since this was last called
  for _ in $(seq 60); do grep -q "$1" log.probes && break; sleep 0.25; done
  grep -q "$1" log.probes; ok $? "probes: $1, in: $(grep -m1 "$1" log.probes)"
  : > log.probes
}
ip netns exec dir ./simple_vip --interface eth0 --vip $VIP --tunnel-source 10.0.0.10 \
  --backend 10.1.0.11,mode=ipip >> log.probes 2>&1 &
director=$!
says "XDP"
ip netns exec cl timeout 20 python3 ./upload.py send $VIP 80 100000; ok $? "probes: upload"
ip -n b1 link set tunl0 down
says "tunnel not decapsulated"
ip -n b1 link set tunl0 up
says "backend 10.1.0.11 takes traffic"
ip -n b1 addr del $VIP/32 dev lo
says "VIP not bound"
kill -INT $director; wait $director
[ $fails = 0 ] || head -50 log.*
echo "$fails failed"
exit $((fails > 0))
