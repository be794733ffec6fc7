//! Every kind of finding.

macro_rules! catalogue {
    ($($name:ident = $id:literal: $meaning:literal;)+) => {
        $(pub(super) const $name: &str = $id;)+

        /// The identifier of each kind of finding with what it means; `docs/doctor.md` has what to type.
        pub const FINDINGS: &[(&str, &str)] = &[$(($id, $meaning)),+];
    };
}

catalogue! {
    NOT_LOOKED_AT = "not-looked-at": "something could not be looked at, for want of rights or because it is not there";
    CONFIG = "config": "a director would refuse the configuration on this host";
    KERNEL = "kernel-version": "the kernel is too old";
    AF_XDP = "af-xdp": "the kernel has no AF_XDP sockets, or does not let this process have them";
    CAPABILITIES = "capabilities": "a director started as this process is lacks capabilities";
    MEMLOCK = "memlock": "the memory for frames is more than the process may lock";
    JIT = "bpf-jit": "BPF programs are interpreted";
    HUGE_PAGES = "huge-pages": "there are not enough huge pages for the frames";
    MISSING = "interface-missing": "there is no such interface in this network namespace";
    KIND = "interface-kind": "the interface is not Ethernet";
    DOWN = "interface-down": "the interface is down";
    CARRIER = "carrier": "nothing is plugged in";
    PROGRAM = "xdp-program": "an XDP program is attached already";
    MODE = "xdp-mode": "which modes the driver really granted, or why it granted none";
    QUEUE_BUSY = "queue-busy": "another AF_XDP socket has a queue";
    QUEUES = "queues": "the queues that were asked for are not there";
    UNBOUND = "queues-unbound": "packets arrive on queues without a socket, and stay with the kernel";
    FRAME_SIZE = "frame-size": "frames of the interface's MTU do not fit into the memory for one";
    LRO = "lro": "the NIC merges packets, into ones too large to be taken";
    GRO_HW = "gro-hw": "the NIC merges packets by the rules of GRO, into ones too large to be taken";
    GRO = "gro": "the kernel merges packets before the generic hook sees them";
    VLAN = "vlan-stripping": "the NIC takes VLAN tags out of frames before they are seen";
    PEER = "peer-checksum": "the other end of the veth pair sends packets without their checksums";
    RING = "ring-size": "the NIC's RX rings are smaller than they could be, and packets were missed";
    DROPS = "nic-drops": "the interface loses packets";
    RP_FILTER = "rp-filter": "what comes in by this interface is dropped unless its answer would leave by it";
    FORWARDING = "ip-forwarding": "the host routes packets for VIPs that it does not hold back to where they came from";
    VIP_UNANSWERED = "vip-unanswered": "nobody answers ARP or neighbour discovery for the VIP";
    VIP_CLAIMED = "vip-claimed": "another host than the director answers for the VIP";
    VIP_SOURCE = "vip-source": "the host may send from the VIP, to which answers never come back";
    TUNNEL_SOURCE = "tunnel-source": "the host does not hold the address that tunnels are sent from";
    NEIGHBOUR = "neighbour": "whether and by whom a backend's address is answered for";
    CONFLICT = "address-conflict": "two hosts answer for a backend's address";
    BACKEND_MTU = "backend-mtu": "packets of full size do not fit the way to a backend";
    VIP_NOT_BOUND = "vip-not-bound": "a backend does not take packets for the VIP";
    NOT_DECAPSULATED = "tunnel-not-decapsulated": "a backend does not take out what its tunnel brings";
    BACKEND_SILENT = "backend-silent": "a backend answers nothing";
    SERVICE_DOWN = "service-down": "a backend holds the VIP and refuses its port";
    MSS = "mss": "a backend asks clients for larger segments than fit the way to it";
}

#[cfg(test)]
mod tests {
    use super::FINDINGS;
    use std::collections::BTreeSet;

    /// The page has a row for each: `| `id` | meaning | what to type |`.
    #[test]
    fn the_page_lists_the_same_findings() {
        let page = include_str!("../../docs/doctor.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let documented: Vec<&str> = rows.map(|(id, _)| id).collect();
        let known: Vec<&str> = FINDINGS.iter().map(|(id, _)| *id).collect();
        assert_eq!(documented, known);
        assert_eq!(known.iter().collect::<BTreeSet<_>>().len(), known.len());
    }
}
