// SPDX-License-Identifier: Apache-2.0
/*
 * The gate in the kernel: passes what is decided, drops what is denied, and sends the rest to the
 * engine through the TAP. See tollgate.h for maps and constants.
 *
 * Everything that cannot be judged or handed over is dropped and counted; nothing is passed by
 * default at a governed endpoint.
 */
#include "parse.h"
#include "tollgate.h"

#define PIN_BY_NAME 1

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tg_config);
	__uint(pinning, PIN_BY_NAME);
} tg_config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TG_ENDPOINTS_MAX);
	__type(key, __u32);
	__type(value, struct tg_endpoint);
	__uint(pinning, PIN_BY_NAME);
} tg_endpoints SEC(".maps");

/* The way back: endpoint id to interface index. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TG_ENDPOINT_MAX + 1);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, PIN_BY_NAME);
} tg_ifindex SEC(".maps");

/*
 * Preallocated: nothing is allocated per packet, and a full table is full at a known size. The kernel
 * may give the memory of a replaced or removed entry to another flow at once, so a program that
 * looked the old entry up less than a microsecond before may note its packet there. Counts and
 * sequence numbers noted here are hints for that reason too; no verdict rests on them.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TG_FLOWS_MAX);
	__type(key, struct tg_flow_key);
	__type(value, struct tg_flow);
	__uint(pinning, PIN_BY_NAME);
} tg_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, TG_CLOSED_BYTES);
	__uint(pinning, PIN_BY_NAME);
} tg_closed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * TG_COUNT_KINDS);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, PIN_BY_NAME);
} tg_counters SEC(".maps");

static __always_inline void count(enum tg_counter kind, __u32 direction)
{
	__u32 index = 2 * kind + direction;
	__u64 *value = bpf_map_lookup_elem(&tg_counters, &index);

	if (value)
		*value += 1;
}

static __always_inline int divert(struct __sk_buff *skb, __u32 endpoint, __u32 direction)
{
	__u32 zero = 0;
	struct tg_config *config = bpf_map_lookup_elem(&tg_config, &zero);
	enum tg_counter fate = TG_COUNT_DIVERTED;
	__u32 tap = config ? config->tap_ifindex : 0;

	if (!tap)
		fate = TG_COUNT_DROP_NO_TAP;
	else if (bpf_skb_vlan_push(skb, htons(ETH_P_8021Q), endpoint << 1 | direction))
		fate = TG_COUNT_DROP_TAG_FAILED;
	count(fate, direction);
	return fate == TG_COUNT_DIVERTED ? bpf_redirect(tap, 0) : TC_ACT_SHOT;
}

static __always_inline void flow_key(struct tg_flow_key *key, const struct tg_packet *p,
				     __u32 endpoint, __u32 direction)
{
	int outbound = direction == TG_OUTBOUND;
	int icmp = p->proto == IPPROTO_ICMP || p->proto == IPPROTO_ICMPV6;

	key->endpoint = endpoint;
	key->proto = p->proto;
	key->pad[0] = key->pad[1] = key->pad[2] = 0;
	__builtin_memcpy(key->local, outbound ? p->src : p->dst, 16);
	__builtin_memcpy(key->remote, outbound ? p->dst : p->src, 16);
	/* An echo identifier is the local "port" both ways. */
	key->local_port = outbound || icmp ? p->src_port : p->dst_port;
	key->remote_port = outbound || icmp ? p->dst_port : p->src_port;
}

/* True if sequence number a lies behind b, modulo 2^32. */
static __always_inline int seq_after(__u32 a, __u32 b)
{
	return (__s32)(a - b) > 0;
}

/* Moves *highest forward to value; the direction may be on several CPUs at once. */
static __always_inline void raise_to(__u32 *highest, __u32 value)
{
	__u32 seen = *(volatile __u32 *)highest;

	/* Who loses this often loses to packets that are as good as this one. */
	for (int i = 0; i < 4; i++) {
		__u32 now;

		if (!seq_after(value, seen))
			return;
		now = __sync_val_compare_and_swap(highest, seen, value);
		if (now == seen)
			return;
		seen = now;
	}
}

static __always_inline int both_closed(__u32 state)
{
	__u32 out = state, in = state >> TG_SEEN_SHIFT;

	return ((out | in) & TG_SEEN_RST) || (out & in & TG_SEEN_FIN);
}

/* Sets bits of the state; tells user space, once, when they close the flow. */
static __always_inline void note_state(struct tg_flow *flow, struct tg_flow_key *key, __u32 bits,
				       __u32 direction)
{
	__u32 before = *(volatile __u32 *)&flow->state;

	bits <<= TG_SEEN_SHIFT * direction;
	if ((before & bits) == bits)
		return;
	before = __sync_fetch_and_or(&flow->state, bits);
	if (both_closed(before) || !both_closed(before | bits))
		return;
	if (bpf_ringbuf_output(&tg_closed, key, sizeof(*key), BPF_RB_NO_WAKEUP))
		count(TG_COUNT_EVENTS_LOST, direction);
}

/* A TCP segment, as far as windows and progress need it. */
struct segment {
	__u32 seq;
	__u32 ack;
	__u32 payload;
	__u8 flags;
};

static __always_inline int read_segment(struct __sk_buff *skb, const struct tg_packet *p,
					struct segment *s)
{
	struct tcp_header tcp;
	__u32 header;

	if (bpf_skb_load_bytes(skb, p->l4, &tcp, sizeof(tcp)))
		return -1;
	header = (tcp.offset >> 4) * 4;
	if (header < 20 || p->l4 + header > p->end)
		return -1;
	s->seq = ntohl(tcp.seq);
	s->ack = ntohl(tcp.ack);
	s->payload = p->end - p->l4 - header;
	s->flags = tcp.flags;
	return 0;
}

/* Does the segment's payload lie inside the direction's window? */
static __always_inline int in_window(const struct tg_direction *d, const struct segment *s)
{
	__u32 start = *(volatile __u32 *)&d->start;
	__u32 size = *(volatile __u32 *)&d->end - start;
	__u32 before = s->seq - start;

	/*
	 * A FIN cuts the stream where it stands, and an urgent pointer takes a byte out of it: the engine
	 * must see both, or the server reads other bytes than those that were judged.
	 */
	if (s->flags & (TCP_FIN | TCP_URG))
		return 0;
	if (!s->payload)
		return 1;
	/* Payload on a SYN begins one further on; the engine may read that. */
	if (s->flags & TCP_SYN)
		return 0;
	return before <= size && s->payload <= size - before;
}

/*
 * An RST ends the flow only if its number can be what its receiver expects (RFC 5961): one that is
 * guessed from afar must not make the engine forget a flow that goes on. The receiver may be as far
 * behind as a window in flight.
 */
#define RST_AHEAD_MAX (16u << 20)

static __always_inline int rst_counts(struct tg_flow *flow, const struct segment *s,
				      __u32 direction)
{
	__u32 other = direction == TG_OUTBOUND ? TG_INBOUND : TG_OUTBOUND;
	__u32 seen = *(volatile __u32 *)&flow->state >> TG_SEEN_SHIFT * other;

	if (!(seen & TG_SEEN_ACK))
		return 1;
	return s->seq - flow->dir[other].max_ack <= RST_AHEAD_MAX;
}

static __always_inline void note_segment(struct tg_flow *flow, struct tg_direction *d,
					 struct tg_flow_key *key, const struct segment *s,
					 __u32 direction)
{
	__u32 bits = TG_SEEN_SEQ;
	__u32 end = s->seq + s->payload + !!(s->flags & TCP_FIN) + !!(s->flags & TCP_SYN);
	__u32 seen = *(volatile __u32 *)&flow->state >> TG_SEEN_SHIFT * direction;

	if (s->flags & TCP_RST) {
		if (rst_counts(flow, s, direction))
			note_state(flow, key, TG_SEEN_RST, direction);
		return;
	}
	if (seen & TG_SEEN_SEQ)
		raise_to(&d->max_seq, end);
	else
		d->max_seq = end;
	if (s->flags & TCP_ACK) {
		bits |= TG_SEEN_ACK;
		if (seen & TG_SEEN_ACK)
			raise_to(&d->max_ack, s->ack);
		else
			d->max_ack = s->ack;
	}
	if ((s->flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK)) {
		d->syn_ack = s->ack;
		bits |= TG_SEEN_SYN_ACK;
	}
	if (s->flags & TCP_FIN)
		bits |= TG_SEEN_FIN;
	note_state(flow, key, bits, direction);
}

static __always_inline void note_packet(struct __sk_buff *skb, struct tg_flow *flow,
					struct tg_direction *d)
{
	__u64 now = bpf_ktime_get_coarse_ns();

	__sync_fetch_and_add(&d->packets, 1);
	__sync_fetch_and_add(&d->bytes, skb->len);
	/* Coarse time stands still for milliseconds: most packets find it written. */
	if (flow->last_seen_ns != now)
		flow->last_seen_ns = now;
}

/* A QUIC packet's header form (RFC 8999 section 5): long headers open connections. */
#define QUIC_LONG_HEADER 0x80
#define UDP_HLEN 8
/* The kernel's UDP_MAX_SEGMENTS (include/linux/udp.h): the most datagrams in a super-packet. */
#define UDP_SEGMENTS_MAX 128

/*
 * Is every datagram of the packet one of an open QUIC connection? A datagram that begins with a short
 * header holds nothing else; but one socket may open another connection at any time, also in the
 * middle of a super-packet.
 */
static __always_inline int quic_open(struct __sk_buff *skb, const struct tg_packet *p)
{
	__u32 at = p->l4 + UDP_HLEN;
	__u32 size = skb->gso_size;

	for (int i = 0; i < UDP_SEGMENTS_MAX; i++) {
		__u8 first;

		if (at >= p->end)
			return 1;
		if (bpf_skb_load_bytes(skb, at, &first, 1) || first & QUIC_LONG_HEADER)
			return 0;
		if (!size)
			return 1;
		at += size;
	}
	return 0;
}

/* The fate of a packet whose headers name a flow. */
static __always_inline enum tg_counter judge_flow(struct __sk_buff *skb, const struct tg_packet *p,
						  __u32 endpoint, __u32 direction)
{
	struct segment s = {};
	struct tg_flow_key key;
	struct tg_direction *d;
	struct tg_flow *flow;
	int tcp = p->proto == IPPROTO_TCP;

	if (p->end > skb->len)
		return TG_COUNT_DROP_MALFORMED;
	if (tcp && read_segment(skb, p, &s))
		return TG_COUNT_DROP_MALFORMED;
	/* May open a new flow under an old key. */
	if (tcp && (s.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return TG_COUNT_DIVERTED;

	flow_key(&key, p, endpoint, direction);
	flow = bpf_map_lookup_elem(&tg_flows, &key);
	if (!flow)
		return TG_COUNT_DIVERTED;
	d = &flow->dir[direction];
	switch (d->steer) {
	case TG_STEER_PASS:
		break;
	case TG_STEER_DROP:
		return TG_COUNT_DROP_FLOW;
	case TG_STEER_WINDOW:
		if (tcp && in_window(d, &s))
			break;
		return TG_COUNT_DIVERTED;
	case TG_STEER_QUIC:
		if (p->proto == IPPROTO_UDP && quic_open(skb, p))
			break;
		return TG_COUNT_DIVERTED;
	default:
		return TG_COUNT_DIVERTED;
	}
	note_packet(skb, flow, d);
	if (tcp)
		note_segment(flow, d, &key, &s, direction);
	return TG_COUNT_PASSED;
}

/* The fate of a packet at a governed endpoint. */
static __always_inline enum tg_counter judge(struct __sk_buff *skb, __u32 endpoint,
					     __u32 direction)
{
	struct tg_packet p = {};

	if (skb->vlan_present)
		return TG_COUNT_DROP_VLAN;
	switch (parse_frame(skb, &p)) {
	case TG_PARSED_FLOW:
		return judge_flow(skb, &p, endpoint, direction);
	case TG_PARSED_FRAGMENT:
		return TG_COUNT_FRAGMENTS;
	case TG_PARSED_OPAQUE:
	case TG_PARSED_ICMP_ERROR:
		return TG_COUNT_DIVERTED;
	case TG_PARSED_LINK:
		return TG_COUNT_PASSED;
	case TG_PARSED_NON_IP:
		return TG_COUNT_DROP_NON_IP;
	default:
		return TG_COUNT_DROP_MALFORMED;
	}
}

/* Any packet at an endpoint's host-side interface. */
static __always_inline int gate(struct __sk_buff *skb, __u32 direction)
{
	__u32 ifindex = skb->ifindex;
	struct tg_endpoint *endpoint;
	enum tg_counter fate;

	if (skb->mark == TG_MARK) {
		skb->mark = 0;
		count(TG_COUNT_RETURNED, direction);
		return TC_ACT_UNSPEC;
	}
	endpoint = bpf_map_lookup_elem(&tg_endpoints, &ifindex);
	if (!endpoint)
		fate = TG_COUNT_DROP_UNKNOWN;
	else if (!(endpoint->flags & TG_GOVERNED))
		fate = TG_COUNT_UNGOVERNED;
	else
		fate = judge(skb, endpoint->id, direction);

	if (endpoint && fate == TG_COUNT_DIVERTED)
		return divert(skb, endpoint->id, direction);
	count(fate, direction);
	if (endpoint && fate == TG_COUNT_FRAGMENTS)
		return divert(skb, endpoint->id, direction);
	return fate == TG_COUNT_PASSED || fate == TG_COUNT_UNGOVERNED ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

/* tc ingress of the endpoint's host-side interface. */
SEC("classifier")
int tg_from_endpoint(struct __sk_buff *skb)
{
	return gate(skb, TG_OUTBOUND);
}

/* tc egress of the endpoint's host-side interface. */
SEC("classifier")
int tg_to_endpoint(struct __sk_buff *skb)
{
	return gate(skb, TG_INBOUND);
}

/* tc ingress of the TAP: what the engine wrote. */
SEC("classifier")
int tg_from_tap(struct __sk_buff *skb)
{
	__u32 direction = skb->vlan_tci & 1;
	__u32 endpoint = (skb->vlan_tci & 0xfff) >> 1;
	__u32 *ifindex = bpf_map_lookup_elem(&tg_ifindex, &endpoint);

	if (!skb->vlan_present || !ifindex || !*ifindex) {
		count(TG_COUNT_DROP_BAD_TAG, direction);
		return TC_ACT_SHOT;
	}
	if (bpf_skb_vlan_pop(skb)) {
		count(TG_COUNT_DROP_TAG_FAILED, direction);
		return TC_ACT_SHOT;
	}
	skb->mark = TG_MARK;
	return bpf_redirect(*ifindex, direction == TG_OUTBOUND ? BPF_F_INGRESS : 0);
}

/*
 * The TAP's queue of a packet (TUNSETSTEERINGEBPF; the kernel takes it modulo the number of
 * queues). Both directions of a flow, and the ICMP errors about it, come to one queue; fragments go
 * by their addresses alone, since not every one has ports. crates/datapath/src/steer.rs has the same
 * function.
 */
#define HASH_SEED 0x746f6c6c
#define HASH_STEP 0x85ebca6b /* multipliers of MurmurHash3's 32-bit mixing */
#define HASH_LAST 0xc2b2ae35

static __always_inline __u32 mix(__u32 hash, __u32 word)
{
	hash = (hash ^ word) * HASH_STEP;
	return hash ^ hash >> 15;
}

static __always_inline __u32 queue_hash(const struct tg_packet *p)
{
	const __u32 *src = (const __u32 *)p->src;
	const __u32 *dst = (const __u32 *)p->dst;
	__u32 hash = HASH_SEED;

#pragma unroll
	for (int i = 0; i < 4; i++)
		hash = mix(hash, ntohl(src[i] ^ dst[i]));
	hash = mix(hash, (__u32)ntohs(p->src_port ^ p->dst_port) << 8 | p->proto);
	hash = (hash ^ hash >> 13) * HASH_LAST;
	return hash ^ hash >> 16;
}

SEC("socket")
int tg_steer(struct __sk_buff *skb)
{
	struct tg_packet p = {};
	enum tg_parsed parsed = parse_frame(skb, &p);

	if (parsed == TG_PARSED_ICMP_ERROR)
		parsed = parse_ip(skb, p.l4 + sizeof(struct icmp_header), &p);
	switch (parsed) {
	case TG_PARSED_FLOW:
	case TG_PARSED_LINK:
		return queue_hash(&p);
	case TG_PARSED_NON_IP:
	case TG_PARSED_MALFORMED:
		return 0;
	default:
		p.proto = 0;
		p.src_port = 0;
		p.dst_port = 0;
		return queue_hash(&p);
	}
}

char LICENSE[] SEC("license") = "Apache-2.0";
