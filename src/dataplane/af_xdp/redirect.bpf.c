/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only */
/*
 * Which frames leave the kernel: those addressed to this station whose IP destination is one of the
 * addresses in the maps below go to the AF_XDP socket of the queue they arrived on. Everything else
 * passes to the kernel, so that ARP, neighbour discovery, SSH and BGP go on working.
 */
#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Two tags: 802.1Q alone, or 802.1ad (or 802.1Q again) around it. */
#define MAX_TAGS 2
/* Flag of an address: who asks for its MAC is answered by user space. */
#define ANSWER 1

#define ARP_REQUEST 1
/* RFC 4861 section 4: router solicitation is the first, redirect the last. */
#define ND_FIRST 133
#define ND_NEIGHBOUR_SOLICITATION 135
#define ND_LAST 137

struct vlan_tag {
	__be16 control;
	__be16 ethertype;
};

/* RFC 826, Ethernet and IPv4. */
struct arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender_ip[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target_ip[4];
};

/* RFC 4861 section 4.3. */
struct neighbour_solicitation {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__u32 reserved;
	struct in6_addr target;
};

/*
 * Written by user space only. The prefix counts spare the common case two trie lookups. Until
 * user space is serving, what is sent to the addresses below passes to the kernel. What they
 * send to one of the last two is redirected as well: it answers a probe, and the
 * kernel would take its source for one of its own addresses. Zero: no such address.
 */
struct station {
	__u8 mac[ETH_ALEN];
	__u8 has_prefixes4;
	__u8 has_prefixes6;
	__u32 serving;
	__u32 prober4;
	__u32 prober6[4];
};

struct counters {
	__u64 redirected;
	__u64 passed;
	__u64 no_socket;
};

struct prefix4 {
	__u32 length;
	__u32 address;
};

struct prefix6 {
	__u32 length;
	struct in6_addr address;
};

/* The sizes of the first five are set by user space before the maps are made. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} vip4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct in6_addr);
	__type(value, __u32);
} vip6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix4);
	__type(value, __u32);
} prefixes4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix6);
	__type(value, __u32);
} prefixes6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct station);
} station SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

static const __u32 only = 0;

static __always_inline __u32 *find4(const struct station *us, __u32 address)
{
	__u32 *flags = bpf_map_lookup_elem(&vip4, &address);

	if (!flags && us->has_prefixes4) {
		struct prefix4 key = { .length = 32, .address = address };

		flags = bpf_map_lookup_elem(&prefixes4, &key);
	}
	return flags;
}

static __always_inline __u32 *find6(const struct station *us, const struct in6_addr *address)
{
	/* The hash takes its key from the stack: the packet is not aligned for it. */
	struct prefix6 key = { .length = 128, .address = *address };
	__u32 *flags = bpf_map_lookup_elem(&vip6, &key.address);

	if (!flags && us->has_prefixes6)
		flags = bpf_map_lookup_elem(&prefixes6, &key);
	return flags;
}

static __always_inline int is_answered(const __u32 *flags)
{
	return flags && (*flags & ANSWER);
}

/* A request for the MAC of an address that user space answers for. */
static __always_inline int wants_arp(const struct station *us, const struct arp *arp,
				     const void *end, int to_us, int to_all)
{
	__u32 target;

	if ((const void *)(arp + 1) > end || !(to_us || to_all))
		return 0;
	if (arp->hardware != bpf_htons(1) || arp->protocol != bpf_htons(ETH_P_IP) ||
	    arp->hardware_length != ETH_ALEN || arp->protocol_length != 4 ||
	    arp->operation != bpf_htons(ARP_REQUEST))
		return 0;
	__builtin_memcpy(&target, arp->target_ip, sizeof(target));
	return us->serving && is_answered(find4(us, target));
}

static __always_inline int wants_ipv4(const struct station *us, const struct iphdr *ip,
				      const void *end, int to_us)
{
	if ((const void *)(ip + 1) > end || !to_us)
		return 0;
	if (us->serving && find4(us, ip->daddr))
		return 1;
	return us->prober4 && ip->daddr == us->prober4 && find4(us, ip->saddr);
}

static __always_inline int is_prober6(const struct station *us, const struct in6_addr *address)
{
	const __u32 *own = us->prober6, *to = address->in6_u.u6_addr32;

	return (own[0] | own[1] | own[2] | own[3]) && own[0] == to[0] && own[1] == to[1] &&
	       own[2] == to[2] && own[3] == to[3];
}

static __always_inline int wants_ipv6(const struct station *us, const struct ipv6hdr *ip,
				      const void *end, int to_us, int to_group)
{
	const struct neighbour_solicitation *nd = (const void *)(ip + 1);

	if ((const void *)(ip + 1) > end)
		return 0;
	/*
	 * Neighbour discovery belongs to the kernel, also where it is addressed to one of our
	 * addresses (RFC 4861 section 7.3.3: a probe of reachability is unicast); only a
	 * solicitation for an address that user space answers for is taken.
	 */
	if (ip->nexthdr == IPPROTO_ICMPV6 && (const void *)&nd->checksum <= end &&
	    nd->type >= ND_FIRST && nd->type <= ND_LAST) {
		if ((const void *)(nd + 1) > end || !(to_us || to_group) ||
		    nd->type != ND_NEIGHBOUR_SOLICITATION)
			return 0;
		return us->serving && is_answered(find6(us, &nd->target));
	}
	if (!to_us)
		return 0;
	if (us->serving && find6(us, &ip->daddr))
		return 1;
	return is_prober6(us, &ip->daddr) && find6(us, &ip->saddr);
}

static __always_inline int wants(const struct xdp_md *ctx)
{
	const void *end = (const void *)(long)ctx->data_end;
	const struct ethhdr *ethernet = (const void *)(long)ctx->data;
	const void *network = ethernet + 1;
	const struct station *us = bpf_map_lookup_elem(&station, &only);
	const __u16 *to, *own;
	int to_us, to_all, to_group;
	__be16 ethertype;

	if (network > end || !us)
		return 0;
	to = (const __u16 *)ethernet->h_dest;
	own = (const __u16 *)us->mac;
	/* A bridge floods what it does not know; a frame for another station is not ours to take. */
	to_us = to[0] == own[0] && to[1] == own[1] && to[2] == own[2];
	to_all = (to[0] & to[1] & to[2]) == 0xffff;
	/* RFC 2464 section 7: IPv6 multicast. */
	to_group = to[0] == bpf_htons(0x3333);

	ethertype = ethernet->h_proto;
#pragma unroll
	for (int i = 0; i < MAX_TAGS; i++) {
		const struct vlan_tag *tag = network;

		if (ethertype != bpf_htons(ETH_P_8021Q) && ethertype != bpf_htons(ETH_P_8021AD))
			break;
		if ((const void *)(tag + 1) > end)
			return 0;
		ethertype = tag->ethertype;
		network = tag + 1;
	}

	switch (ethertype) {
	case bpf_htons(ETH_P_IP):
		return wants_ipv4(us, network, end, to_us);
	case bpf_htons(ETH_P_IPV6):
		return wants_ipv6(us, network, end, to_us, to_group);
	case bpf_htons(ETH_P_ARP):
		return wants_arp(us, network, end, to_us, to_all);
	default:
		return 0;
	}
}

SEC("xdp")
int redirect(struct xdp_md *ctx)
{
	struct counters *count = bpf_map_lookup_elem(&counters, &only);
	int action;

	if (!count)
		return XDP_PASS;
	if (!wants(ctx)) {
		count->passed++;
		return XDP_PASS;
	}
	/* The last argument is what comes back when the queue has no socket. */
	action = bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
	if (action == XDP_REDIRECT)
		count->redirected++;
	else
		count->no_socket++;
	return action;
}

char _license[] SEC("license") = "Dual MIT/GPL";
