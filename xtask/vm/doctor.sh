# What the doctor finds on NICs and in kernels that the namespaces of `tests/netns_doctor*.rs` do not have: made on purpose,
# found, what the finding says typed, word for word, and gone.
# Runs as root in the guest. Files beside it: doctor, simple_vip, findings.py, upload.py, hosts.sh.
set -u
. ./hosts.sh
modules igb vmxnet3 e1000 virtio_net pktgen veth bridge ipip sit ip6_tunnel fou fou6 8021q
sleep 0.5

# each_way ID HOST BREAK ARGUMENTS...: HOST goes before commands that are typed on that host.
each_way() {
  local id=$1 host=$2 break=$3; shift 3
  $host bash -ec "$break" > /dev/null; ok $? "$id: $break"
  remedied "$id" "$host" "$@"
}
remedied() { # ID HOST ARGUMENTS...
  local id=$1 host=$2 remedy; shift 2
  $director ./doctor --json "$@" > found.json
  remedy=$(python3 ./findings.py remedy "$id" found.json) || { ok 1 "$id: not found"; return; }
  ok 0 "$id: found: $(python3 ./findings.py evidence "$id" found.json)"
  $host bash -ec "$remedy" > typed 2>&1; ok $? "$id: typed: $(echo "$remedy" | paste -sd';')"
  $director ./doctor --json "$@" > gone.json
  python3 ./findings.py none "$id" gone.json; ok $? "$id: gone"
}
director=''
nics() { # DRIVER: both ends of its wire
  for d in /sys/class/net/*; do [ "$(basename "$(readlink -f "$d/device/driver")")" = "$1" ] && basename "$d"; done | sort
}
up() { # NIC...
  local nic; for nic; do ip link set "$nic" up; done
  for nic; do for _ in $(seq 50); do [ "$(cat "/sys/class/net/$nic/carrier" 2> /dev/null)" = 1 ] && break; sleep 0.2; done; done
}

# NICs. Some drivers switch merging off by themselves while an XDP program is attached: no trial is made of those.
mapfile -t igb < <(nics igb); mapfile -t vmxnet3 < <(nics vmxnet3); mapfile -t e1000 < <(nics e1000)
mapfile -t virtio < <(nics virtio_net)
up "${igb[@]}" "${vmxnet3[@]}" "${e1000[@]}" "${virtio[@]}"
each_way lro '' "ethtool -K ${vmxnet3[0]} lro on" --no-trial --interface "${vmxnet3[0]}"
each_way gro-hw '' "ethtool -K ${virtio[0]} rx-gro-hw on" --no-trial --interface "${virtio[0]}"
each_way vlan-stripping '' "ethtool -K ${igb[0]} rxvlan on" --no-trial --interface "${igb[0]}"
printf '[dataplane]\ninterface = "%s"\nqueues = 1\n' "${igb[0]}" > one.toml
remedied queues-unbound '' --config one.toml
ethtool -X "${igb[0]}" default

# Frames that take three places each, to a NIC that has places for 26 and a third: it misses the next.
flood() { # FROM TO
  echo "add_device $1" > /proc/net/pktgen/kpktgend_0
  for setting in "count 2000" "pkt_size 8000" "delay 0" "dst 192.0.2.1" "dst_mac $(cat "/sys/class/net/$2/address")"; do
    echo "$setting" > "/proc/net/pktgen/$1"
  done
  timeout 30 bash -c 'echo start > /proc/net/pktgen/pgctrl'
}
ethtool -G "${e1000[0]}" rx 80
for nic in "${e1000[@]}"; do ip link set "$nic" mtu 9000; done
up "${e1000[@]}"
flood "${e1000[1]}" "${e1000[0]}"
sleep 3 # the driver reads the NIC's counters every two seconds
echo "missed: $(cat "/sys/class/net/${e1000[0]}/statistics/rx_missed_errors")"
remedied ring-size '' --no-trial --interface "${e1000[0]}"

# The kernel.
each_way bpf-jit '' "sysctl -w net.core.bpf_jit_enable=0" --no-trial --interface lo
printf '[dataplane]\ninterface = "%s"\nhuge-pages = true\n' "${igb[0]}" > huge.toml
each_way huge-pages '' "echo 0 > /proc/sys/vm/nr_hugepages" --no-trial --config huge.toml

# Director and a backend on a bridge.
bridge; plug_director
host b1; plug b1 11
ip netns exec b1 sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
ip -n b1 addr add $VIP/32 dev lo; ip -n b1 addr add $VIP6/128 dev lo nodad preferred_lft 0
ip netns exec b1 python3 ./upload.py serve 80 > /dev/null 2>&1 &
sleep 1
director='ip netns exec dir' backend='ip netns exec b1'

# Each tunnel, with strict filters, so that the remedy has to do something about those.
tunnel() { # NAME VIP BACKEND FORWARD
  { printf '[dataplane]\ninterface = "eth0"\ntunnel-source = ["10.0.0.10", "fd00::10"]\n'
    printf '[[service]]\nvip = "%s"\n[[service.backend]]\naddress = "%s"\nforward = %s\n' "$2" "$3" "$4"; } > tunnel.toml
  for device in tunl0 sit0 ip6tnl0; do ip -n b1 link set $device down; done
  ip -n b1 -6 tunnel change ip6tnl0 mode ip6ip6
  ip -n b1 fou del port 6080 2> /dev/null; ip -n b1 fou del port 6080 -6 2> /dev/null
  $backend sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.tunl0.rp_filter=1 net.ipv4.conf.ip6tnl0.rp_filter=1
  echo "$1"
  remedied tunnel-not-decapsulated "$backend" --config tunnel.toml
  python3 ./findings.py none vip-not-bound gone.json && python3 ./findings.py none backend-silent gone.json
  ok $? "$1: the backend serves"
}
for outer in 10.0.0.11 fd00::11; do
  for vip in "$VIP:80/tcp" "[$VIP6]:80/tcp"; do
    tunnel "ipip $vip over $outer" "$vip" $outer '"ipip"'
    tunnel "gue $vip over $outer" "$vip" $outer '{ gue = { port = 6080 } }'
  done
done

# Two hosts with a backend's address, in a VLAN.
host b2; plug b2 12
for at in dir=10 b1=11 b2=11; do
  ip -n "${at%=*}" link add link eth0 name eth0.7 type vlan id 7; ip -n "${at%=*}" link set eth0.7 up
  ip -n "${at%=*}" addr add "10.7.0.${at#*=}/24" dev eth0.7
done
printf '[dataplane]\ninterface = "eth0"\n[[service]]\nvip = "%s"\n[[service.backend]]\naddress = "10.7.0.11"\n' $VIP > vlan.toml
$director ./doctor --json --config vlan.toml > found.json
python3 ./findings.py evidence address-conflict found.json > said; ok $? "address-conflict in a VLAN: found: $(cat said)"
ip -n b2 addr del 10.7.0.11/24 dev eth0.7
$director ./doctor --json --config vlan.toml > gone.json
python3 ./findings.py none address-conflict gone.json; ok $? "address-conflict in a VLAN: gone"

# A program that a BPF link holds, as that of a director does.
$director ./simple_vip --interface eth0 --vip $VIP --monitor none --backend 10.0.0.11 > log.director 2>&1 &
for _ in $(seq 60); do grep -q "XDP" log.director && break; sleep 0.2; done
remedied xdp-program "$director" --no-trial --interface eth0
kill -INT $!; wait $!
[ $fails = 0 ] || { cat found.json gone.json typed; dmesg | tail -5; }
echo "$fails failed"
exit $((fails > 0))
