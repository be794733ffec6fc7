# From IPVS to dsrlb as docs/migrating.md says: the same backends, unchanged, are served by one and then by the other, and a
# connection that is open meanwhile goes on.
# Runs as root in the guest. Files beside it: simple_vip, upload.py, hosts.sh.
set -u
. ./hosts.sh
modules veth bridge ipip ip_vs ip_vs_mh
bridge; plug_director
host cl; plug cl 2
host b1; plug b1 11
host b2; plug b2 12
ip netns exec sw ethtool -K p_cl tx off > /dev/null; ip netns exec cl ethtool -K eth0 tx off > /dev/null
# As LVS-DR and LVS-TUN ask of real servers.
for n in b1 b2; do
  ip netns exec $n sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 \
    net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filter=0
  ip -n $n addr add $VIP/32 dev lo; ip -n $n link set tunl0 up
  ip netns exec $n python3 ./upload.py serve 80 > /dev/null 2>&1 &
done
sleep 1
state() { for n in b1 b2; do ip -n $n -o addr; ip -n $n route; ip netns exec $n sysctl -a 2> /dev/null | grep -e '\.arp_' -e rp_filter; done; }
state > before
send() { ip netns exec cl timeout 60 python3 ./upload.py send $VIP 80 200000 "$@"; }
lvs() { # OPTION... of each real server
  ip netns exec dir ipvsadm -A -t $VIP:80 -s mh
  for last in "${@:2}"; do ip netns exec dir ipvsadm -a -t $VIP:80 -r 10.0.0.$last:80 "$1"; done
}
dsrlb() { # MODE LAST...
  local last backends=()
  for last in "${@:2}"; do backends+=(--backend "10.0.0.$last,mode=$1"); done
  ip netns exec dir ./simple_vip --interface eth0 --vip $VIP:80/tcp --tunnel-source 10.0.0.10 "${backends[@]}" > "log.$1" 2>&1 &
  director=$!
  for _ in $(seq 60); do [ "$(grep -c "takes traffic" "log.$1")" = $(($# - 1)) ] && break; sleep 0.2; done
  [ "$(grep -c "takes traffic" "log.$1")" = $(($# - 1)) ]; ok $? "$1: dsrlb has started, and finds the backends well"
}
# IPVS keeps entries of connections that it has long handed over.
established() { ip netns exec dir ipvsadm -L -n -c | grep -c ESTABLISHED; }
for way in l2:-g ipip:-i; do
  mode=${way%%:*}
  # Two backends: served by either director.
  lvs "${way#*:}" 11 12; for n in 1 2 3 4; do send; ok $? "$mode: by IPVS"; done
  ip netns exec dir ipvsadm -L -n --stats | sed -n '/->/p'
  ip netns exec dir ipvsadm -C
  dsrlb $mode 11 12; for n in 1 2 3 4; do send; ok $? "$mode: by dsrlb"; done
  kill -INT $director; wait $director
  # One: neither has anything that the other does not know.
  lvs "${way#*:}" 11; old=$(established)
  # Longer than dsrlb may take to start.
  send 20 & open=$!
  for _ in $(seq 50); do [ "$(established)" -gt "$old" ] && break; sleep 0.2; done
  [ "$(established)" -gt "$old" ]; ok $? "$mode: a connection is open"
  dsrlb $mode 11; ip netns exec dir ipvsadm -C
  kill -0 $open; ok $? "$mode: it is open still"
  wait $open; ok $? "$mode: it has begun with IPVS and ended with dsrlb"
  kill -INT $director; wait $director
done
state > after; diff before after; ok $? "the backends are as they were"
[ $fails = 0 ] || head -40 log.*
echo "$fails failed"
exit $((fails > 0))
