# Hosts on a bridge, and how checks are counted. Sourced by scripts that run as root in the guest, where it lies beside them.
fails=0
ok() { if [ "$1" = 0 ]; then echo "ok   $2"; else echo "FAIL $2"; fails=$((fails + 1)); fi; }
modules() { # MODULE...
  local module; for module; do modprobe "$module" || ok 1 "modprobe $module"; done
}

VIP=10.0.0.100 VIP6=fd00::100
host() { # NAME: no filters but those that a check sets
  ip netns add "$1"; ip -n "$1" link set lo up
  ip netns exec "$1" sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
    net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
}
bridge() { # on a host of its own
  host sw; ip -n sw link add br0 type bridge forward_delay 0; ip -n sw link set br0 up
}
plug() { # NAME LAST: a host into the bridge, with the last part of its addresses
  ip link add "p_$1" netns sw type veth peer name eth0 netns "$1"
  ip -n sw link set "p_$1" master br0 up; ip -n "$1" link set eth0 up
  ip -n "$1" addr add "10.0.0.$2/24" dev eth0; ip -n "$1" addr add "fd00::$2/64" dev eth0 nodad
}
plug_director() { # the host `dir`, with the VIPs; XDP takes no packets whose checksums are still to be made
  host dir; plug dir 10
  ip netns exec sw ethtool -K p_dir tx off > /dev/null
  ip -n dir addr add $VIP/32 dev eth0; ip -n dir addr add $VIP6/128 dev eth0 nodad preferred_lft 0
}
