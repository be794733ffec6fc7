# Zero-copy on virtio-net: two NICs back to back, the director on one of them. Runs as root in the guest.
# Files beside it: simple_vip, upload.py. Argument: the driver's module.
set -u
fails=0
ok() { if [ "$1" = 0 ]; then echo "ok   $2"; else echo "FAIL $2"; fails=$((fails + 1)); fi; }
driver=${1:-virtio_net}
for module in "$driver" veth ipip sit macvlan; do modprobe "$module" || ok 1 "modprobe $module"; done
sleep 0.5
mapfile -t nics < <(for d in /sys/class/net/*; do [ -e "$d/device" ] && basename "$d"; done | sort)
near=${nics[0]} far=${nics[1]}
# Client and backend share the far NIC, each with a macvlan of its own.
for n in cl b1; do
  ip netns add $n; ip -n $n link set lo up
  ip netns exec $n sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
done
ip link set "$far" up promisc on
for n in cl b1; do
  ip link add "v$n" link "$far" type macvlan mode bridge; ip link set "v$n" netns $n; ip -n $n link set "v$n" name eth0 up
done
ip -n cl addr add 10.0.0.2/24 dev eth0; ip -n b1 addr add 10.0.0.11/24 dev eth0
ip netns exec b1 sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
ip -n b1 addr add 10.0.0.100/32 dev lo; ip -n b1 link set tunl0 up
ip netns exec b1 sysctl -qw net.ipv4.conf.tunl0.rp_filter=0
ip addr add 10.0.0.10/24 dev "$near"; ip link set "$near" up promisc on; ip addr add 10.0.0.100/32 dev "$near"
for _ in $(seq 50); do [ "$(cat "/sys/class/net/$near/carrier" 2>/dev/null)" = 1 ] && break; sleep 0.2; done
ip netns exec cl ethtool -K eth0 tx off >/dev/null 2>&1; ethtool -K "$far" tx off >/dev/null 2>&1
# As many small packets as one core of the guest can make, for some seconds. Emulated: only ratios mean anything.
modprobe pktgen
flood() {
  for t in /proc/net/pktgen/kpktgend_*; do echo rem_device_all > "$t"; done
  echo "add_device $far" > /proc/net/pktgen/kpktgend_0
  for setting in "count 200000" "pkt_size 60" "delay 0" "dst 10.0.0.100" "src_min 10.0.0.3" "src_max 10.0.0.200" \
    "dst_mac $(cat "/sys/class/net/$near/address")"; do echo "$setting" > "/proc/net/pktgen/$far"; done
  timeout 30 bash -c 'echo start > /proc/net/pktgen/pgctrl'
  sleep 1
}
ip netns exec b1 python3 ./upload.py serve 80 > /dev/null 2>&1 &
sleep 1
for mode in l2 ipip; do
  ./simple_vip --interface "$near" --vip 10.0.0.100 --monitor none --json --tunnel-source 10.0.0.10 \
    --backend "10.0.0.11,mode=$mode" > "log.$mode" 2>&1 &
  director=$!
  for _ in $(seq 60); do grep -q "XDP" "log.$mode" && break; sleep 0.2; done
  sleep 4 # a NIC may reset its link when a program is attached
  grep -q "native XDP, zero-copy" "log.$mode"; ok $? "$mode: $(grep XDP "log.$mode" | head -1)"
  ip netns exec cl timeout 30 python3 ./upload.py send 10.0.0.100 80 200000; ok $? "$mode: upload"
  flood
  kill -INT $director; wait $director
  python3 ./upload.py rate "log.$mode"
  tail -1 "log.$mode" | grep -o '"\(received\|forwarded\|transmitted\|transmit_failed\)":[0-9]*' | tr '\n' ' '; echo
  sleep 2
done
[ $fails = 0 ] || { head -40 log.*; dmesg | tail -5; }
echo "$fails failed"
exit $((fails > 0))
