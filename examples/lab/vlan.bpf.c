/* A trunk port for kernels without the 8021q module: what leaves gets a tag, what arrives must have it and loses it.
 * The lab attaches both programs to both ends of the director's cable, so that the wire, and with it XDP, carries
 * tagged frames while the bridge and the director's kernel see plain ones. Compiled with -DVLAN_ID=<1..4094>.
 * No headers on purpose: it has to compile wherever clang is installed. */

struct __sk_buff {
	unsigned int len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto;
};

static long (*bpf_skb_vlan_push)(struct __sk_buff *, unsigned short, unsigned short) = (void *)18;
static long (*bpf_skb_vlan_pop)(struct __sk_buff *) = (void *)19;

#define SECTION(name) __attribute__((section(name), used))
#define TC_ACT_OK 0
#define TC_ACT_SHOT 2
#define ETH_P_8021Q 0x8100

SECTION("push") int tag_on_the_way_out(struct __sk_buff *frame)
{
	return bpf_skb_vlan_push(frame, __builtin_bswap16(ETH_P_8021Q), VLAN_ID) ? TC_ACT_SHOT : TC_ACT_OK;
}

SECTION("pop") int untag_on_the_way_in(struct __sk_buff *frame)
{
	/* A trunk has no business with untagged frames: a data path that loses the tag must fail its test. */
	if (!frame->vlan_present || (frame->vlan_tci & 0xfff) != VLAN_ID)
		return TC_ACT_SHOT;
	return bpf_skb_vlan_pop(frame) ? TC_ACT_SHOT : TC_ACT_OK;
}

SECTION("license") char license_text[] = "Dual MIT/GPL";
