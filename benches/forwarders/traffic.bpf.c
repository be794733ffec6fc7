/* The generator and the sink of the comparison. The generator is run by BPF_PROG_RUN over live frames, which sends
 * some eight million of them a second; the sink is at tc ingress of the same interface and counts what comes back.
 * No headers on purpose: it has to compile wherever clang is installed. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};
struct __sk_buff {
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority, ingress_ifindex,
		ifindex, tc_index, cb[5], hash, tc_classid, data, data_end;
};

#define SECTION(name) __attribute__((section(name), used))
#define UINT(name, value) int(*name)[value]
#define TYPE(name, value) typeof(value) *name
#define ARRAY 2
#define PERCPU_ARRAY 6
#define XDP_ABORTED 0
#define XDP_DROP 1
#define XDP_TX 3
#define TC_ACT_OK 0
#define TC_ACT_SHOT 2
#define HOP_BY_HOP 0
#define ICMPV6 58

static void *(*map_lookup_elem)(void *, const void *) = (void *)1;
static u64 (*ktime_get_ns)(void) = (void *)5;
static long (*skb_load_bytes)(const struct __sk_buff *, u32, void *, u32) = (void *)26;

#define HEADER 64
#define STAMP 42 /* Behind Ethernet, IPv4 and UDP. */
#define SLOTS 65
#define WRONG 64
#define CLASSES 2048
#define WINDOW 27 /* Nanoseconds of a window, as a power of two: an eighth of a second. */
#define WINDOWS 16

/* What to send, and how it must look when it arrives. `traffic.rs` has the same. */
struct plan {
	u8 header[HEADER];
	u64 gap;	/* Nanoseconds from one frame to the next; none: as fast as it goes. */
	u64 flows;	/* Less one; they differ in 14 bits of the source port, then in the source address. */
	u32 source_at;	/* Where the last two bytes of the source address are. */
	u32 port_at;	/* Where the source port is. */
	u32 length;	/* Of a frame that arrives. */
	u32 look_at;	/* Where a frame that arrives must have these four bytes: */
	u32 look_for;
	u32 stamp_at;	/* Where it has the time it was sent at; none: frames are not stamped. */
	u8 head[8];	/* Bytes 6 to 14 of a frame that arrives. */
};
struct state {
	u64 next, sent;
};
struct {
	UINT(type, ARRAY);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct plan);
} plan SECTION(".maps");
struct {
	UINT(type, ARRAY);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, struct state);
} state SECTION(".maps");
/* Frames that arrived as they should, by the last byte of the destination MAC address; the last slot: others. */
struct {
	UINT(type, PERCPU_ARRAY);
	UINT(max_entries, SLOTS);
	TYPE(key, u32);
	TYPE(value, u64);
} arrived SECTION(".maps");
/* Nanoseconds under way: 32 classes for each power of two, from 32 on; anew for each of some windows of time. */
struct {
	UINT(type, PERCPU_ARRAY);
	UINT(max_entries, WINDOWS * CLASSES);
	TYPE(key, u32);
	TYPE(value, u64);
} delays SECTION(".maps");

SECTION("xdp") int generate(struct xdp_md *context)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	u32 only = 0;
	struct plan *wanted = map_lookup_elem(&plan, &only);
	struct state *own = map_lookup_elem(&state, &only);
	u64 now = 0;

	if (!wanted || !own || data + HEADER > end)
		return XDP_ABORTED;
	if (wanted->gap) {
		now = ktime_get_ns();
		if (now < own->next)
			return XDP_DROP;
		/* What a stall has missed is not made up for. */
		own->next = now > own->next + 64 * wanted->gap ? now : own->next + wanted->gap;
	}
	u64 flow = own->sent++ & wanted->flows;
	u16 port = __builtin_bswap16(1024 + (flow & 0x3fff)), source = __builtin_bswap16(flow >> 14);
	/* All of it: pages are used again, and a forwarder may have written to them. */
	__builtin_memcpy(data, wanted->header, HEADER);
	u32 port_at = wanted->port_at & 63, source_at = wanted->source_at & 63;
	if (data + port_at + 2 > end || data + source_at + 2 > end)
		return XDP_ABORTED;
	__builtin_memcpy(data + port_at, &port, 2);
	__builtin_memcpy(data + source_at, &source, 2);
	if (port_at == 34) {
		/* IPv4's checksum, from that of the header with zeros there. */
		u16 check;
		__builtin_memcpy(&check, data + 24, 2);
		u32 sum = (u16)~check + source;
		check = ~((sum & 0xffff) + (sum >> 16));
		__builtin_memcpy(data + 24, &check, 2);
	}
	if (wanted->stamp_at) {
		if (data + STAMP + 8 > end)
			return XDP_ABORTED;
		now = ktime_get_ns();
		__builtin_memcpy(data + STAMP, &now, 8);
	}
	return XDP_TX;
}

static inline __attribute__((always_inline)) void count(void *map, u32 slot)
{
	u64 *counter = map_lookup_elem(map, &slot);
	if (counter)
		(*counter)++;
}

static inline __attribute__((always_inline)) u32 class_of(u64 delay)
{
	u32 octave = 0;
	u64 rest = delay;

	if (rest < 32)
		return 0;
	if (rest >> 32) { octave += 32; rest >>= 32; }
	if (rest >> 16) { octave += 16; rest >>= 16; }
	if (rest >> 8) { octave += 8; rest >>= 8; }
	if (rest >> 4) { octave += 4; rest >>= 4; }
	if (rest >> 2) { octave += 2; rest >>= 2; }
	if (rest >> 1) octave += 1;
	return (octave << 5 | (delay >> ((octave - 5) & 63) & 31)) & (CLASSES - 1);
}

SECTION("tc") int sink(struct __sk_buff *frame)
{
	u32 only = 0, seen = 0;
	u8 head[24];
	struct plan *wanted = map_lookup_elem(&plan, &only);

	if (!wanted || skb_load_bytes(frame, 0, head, sizeof(head)))
		return TC_ACT_OK;
	/* The kernels at both ends have a few words of their own: ARP, neighbour and listener discovery. */
	if (head[12] == 8 && head[13] == 6)
		return TC_ACT_OK;
	if (head[12] == 0x86 && (head[20] == ICMPV6 || head[20] == HOP_BY_HOP))
		return TC_ACT_OK;
	u64 is, should;
	__builtin_memcpy(&is, head + 6, 8);
	__builtin_memcpy(&should, wanted->head, 8);
	if (is != should || frame->len != wanted->length || head[0] != 2 || head[4] != 2 || head[5] >= WRONG ||
	    skb_load_bytes(frame, wanted->look_at, &seen, 4) || seen != wanted->look_for) {
		count(&arrived, WRONG);
		return TC_ACT_SHOT;
	}
	count(&arrived, head[5]);
	u64 sent = 0;
	if (wanted->stamp_at && !skb_load_bytes(frame, wanted->stamp_at, &sent, 8)) {
		u64 now = ktime_get_ns();
		count(&delays, (now >> WINDOW) % WINDOWS * CLASSES + class_of(now - sent));
	}
	return TC_ACT_SHOT;
}

SECTION("license") char license_text[] = "Dual MIT/GPL";
