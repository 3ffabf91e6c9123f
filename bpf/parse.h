/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the headers that name a flow. Copies them out with bpf_skb_load_bytes: it works on paged
 * and shared packets without making them linear, so super-packets stay as they are.
 */
#ifndef TOLLGATE_PARSE_H
#define TOLLGATE_PARSE_H

#include "bpf_helpers.h"

#define ETH_HLEN 14
#define ETH_TYPE_OFFSET 12
#define ETH_P_IP 0x0800
#define ETH_P_ARP 0x0806
#define ETH_P_8021Q 0x8100
#define ETH_P_IPV6 0x86dd
#define VLAN_HLEN 4

#define IPPROTO_HOPOPTS 0
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_AH 51
#define IPPROTO_ICMPV6 58
#define IPPROTO_DSTOPTS 60
#define IPPROTO_SCTP 132
#define IPPROTO_MH 135
#define IPPROTO_HIP 139
#define IPPROTO_SHIM6 140

#define IPV4_OFFSET_OR_MORE 0x3fff /* fragment offset and "more fragments" */

/* RFC 8504 section 5.3 lets a node limit the extension headers it reads. */
#define MAX_EXTENSION_HEADERS 6

#define MAPPED_WORD 0xffff0000 /* ::ffff:0:0/96 in memory order on a little-endian machine */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define TCP_URG 0x20

#define ND_HOP_LIMIT 255 /* RFC 4861: came from the link itself */
#define MLD_HOP_LIMIT 1	 /* RFC 3810: does not leave the link */

/* What the headers are. */
enum tg_parsed {
	TG_PARSED_FLOW,	      /* addresses, protocol and ports are known */
	TG_PARSED_FRAGMENT,   /* addresses are known */
	TG_PARSED_OPAQUE,     /* addresses are known; the rest is for the engine to read */
	TG_PARSED_ICMP_ERROR, /* speaks of another packet, quoted at `l4 + 8` */
	TG_PARSED_LINK,	      /* ARP, neighbour discovery, multicast listener discovery */
	TG_PARSED_NON_IP,
	TG_PARSED_MALFORMED,
};

struct tg_packet {
	__u8 src[16];
	__u8 dst[16];
	__be16 src_port;
	__be16 dst_port;
	__u8 proto;
	__u8 hop_limit;
	__u16 ether_type;
	__u32 l4;  /* offset of the transport header */
	__u32 end; /* offset behind the IP packet; link-layer padding lies beyond */
};

struct ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 tot_len;
	__be16 id;
	__be16 frag;
	__u8 ttl;
	__u8 proto;
	__be16 check;
	__be32 src;
	__be32 dst;
};

struct ipv6_header {
	__be32 version_class_label;
	__be16 payload_len;
	__u8 next;
	__u8 hop_limit;
	__u8 src[16];
	__u8 dst[16];
};

struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 check;
	__be16 id;
	__be16 seq;
};

struct tcp_header {
	__be16 src;
	__be16 dst;
	__be32 seq;
	__be32 ack;
	__u8 offset; /* high four bits, in words of four bytes */
	__u8 flags;
};

static __always_inline int is_icmp4_error(__u8 type)
{
	return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

static __always_inline int is_icmp6_error(__u8 type)
{
	return type >= 1 && type <= 4;
}

static __always_inline void put_mapped(__u8 *to, __be32 addr)
{
	__u32 *words = (__u32 *)to;

	words[0] = 0;
	words[1] = 0;
	words[2] = MAPPED_WORD;
	words[3] = addr;
}

static __always_inline int is_mapped(const __u8 *addr)
{
	const __u32 *words = (const __u32 *)addr;

	return !words[0] && !words[1] && words[2] == MAPPED_WORD;
}

static __always_inline enum tg_parsed parse_ipv4(struct __sk_buff *skb, __u32 offset,
						 struct tg_packet *p)
{
	struct ipv4_header ip;
	__u32 header, total;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
		return TG_PARSED_MALFORMED;
	header = (ip.version_ihl & 0x0f) * 4;
	if (ip.version_ihl >> 4 != 4 || header < sizeof(ip))
		return TG_PARSED_MALFORMED;
	total = ntohs(ip.tot_len);
	if (total != 0 && total < header)
		return TG_PARSED_MALFORMED;
	put_mapped(p->src, ip.src);
	put_mapped(p->dst, ip.dst);
	p->proto = ip.proto;
	p->hop_limit = ip.ttl;
	p->l4 = offset + header;
	/* The kernel writes 0 in packets too large for the field (BIG TCP). */
	p->end = total ? offset + total : skb->len;
	if (ip.frag & htons(IPV4_OFFSET_OR_MORE))
		return TG_PARSED_FRAGMENT;
	return TG_PARSED_FLOW;
}

static __always_inline enum tg_parsed skip_extensions(struct __sk_buff *skb, struct tg_packet *p)
{
	__u8 head[2]; /* next header, length in eights of bytes beyond the first */

#pragma unroll
	for (int i = 0; i <= MAX_EXTENSION_HEADERS; i++) {
		switch (p->proto) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_DSTOPTS:
			break;
		case IPPROTO_FRAGMENT:
			return TG_PARSED_FRAGMENT;
		case IPPROTO_ROUTING: /* the destination is not the last one */
		case IPPROTO_AH:
		case IPPROTO_MH:
		case IPPROTO_HIP:
		case IPPROTO_SHIM6:
			return TG_PARSED_OPAQUE;
		default:
			return TG_PARSED_FLOW;
		}
		if (bpf_skb_load_bytes(skb, p->l4, head, sizeof(head)))
			return TG_PARSED_MALFORMED;
		p->proto = head[0];
		p->l4 += (head[1] + 1) * 8;
	}
	return TG_PARSED_OPAQUE;
}

static __always_inline enum tg_parsed parse_ipv6(struct __sk_buff *skb, __u32 offset,
						 struct tg_packet *p)
{
	struct ipv6_header ip;
	__u32 payload;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
		return TG_PARSED_MALFORMED;
	if ((ip.version_class_label & 0xf0) != 0x60)
		return TG_PARSED_MALFORMED;
	__builtin_memcpy(p->src, ip.src, 16);
	__builtin_memcpy(p->dst, ip.dst, 16);
	/* Never on a wire (RFC 4291); it would take the key of an IPv4 flow. */
	if (is_mapped(p->src) || is_mapped(p->dst))
		return TG_PARSED_MALFORMED;
	p->proto = ip.next;
	p->hop_limit = ip.hop_limit;
	p->l4 = offset + sizeof(ip);
	/* 0: a jumbogram or BIG TCP, as long as the packet is. */
	payload = ntohs(ip.payload_len);
	p->end = payload ? p->l4 + payload : skb->len;
	return skip_extensions(skb, p);
}

static __always_inline enum tg_parsed parse_icmp(struct __sk_buff *skb, struct tg_packet *p)
{
	struct icmp_header icmp;
	int v6 = p->proto == IPPROTO_ICMPV6;

	if (bpf_skb_load_bytes(skb, p->l4, &icmp, sizeof(icmp)))
		return TG_PARSED_MALFORMED;
	if (v6 ? is_icmp6_error(icmp.type) : is_icmp4_error(icmp.type))
		return TG_PARSED_ICMP_ERROR;
	/*
	 * Neighbours must find each other whatever the policy says. A router does forward a solicitation
	 * to an address that is not on the link: what little such a packet can carry is not governed.
	 */
	if (v6 && icmp.type >= 133 && icmp.type <= 137 && p->hop_limit == ND_HOP_LIMIT)
		return TG_PARSED_LINK;
	if (v6 && ((icmp.type >= 130 && icmp.type <= 132) || icmp.type == 143) &&
	    p->hop_limit == MLD_HOP_LIMIT)
		return TG_PARSED_LINK;
	/* Echo: the identifier stands in for the endpoint's port; see flow_key(). */
	if (v6 ? icmp.type == 128 || icmp.type == 129 : icmp.type == 8 || icmp.type == 0)
		p->src_port = icmp.id;
	return TG_PARSED_FLOW;
}

/* Reads what follows the IP header(s) and names the flow. */
static __always_inline enum tg_parsed parse_transport(struct __sk_buff *skb, struct tg_packet *p)
{
	__be16 ports[2];

	switch (p->proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		if (bpf_skb_load_bytes(skb, p->l4, ports, sizeof(ports)))
			return TG_PARSED_MALFORMED;
		p->src_port = ports[0];
		p->dst_port = ports[1];
		return TG_PARSED_FLOW;
	case IPPROTO_ICMP:
		if (p->ether_type != ETH_P_IP)
			return TG_PARSED_OPAQUE;
		return parse_icmp(skb, p);
	case IPPROTO_ICMPV6:
		if (p->ether_type != ETH_P_IPV6)
			return TG_PARSED_OPAQUE;
		return parse_icmp(skb, p);
	default:
		return TG_PARSED_FLOW;
	}
}

/* Reads the IP packet at `offset`; p->ether_type says which version it is. */
static __always_inline enum tg_parsed parse_ip(struct __sk_buff *skb, __u32 offset,
					       struct tg_packet *p)
{
	enum tg_parsed parsed;

	p->src_port = 0;
	p->dst_port = 0;
	if (p->ether_type == ETH_P_IP)
		parsed = parse_ipv4(skb, offset, p);
	else
		parsed = parse_ipv6(skb, offset, p);
	if (parsed != TG_PARSED_FLOW)
		return parsed;
	return parse_transport(skb, p);
}

/* Reads an Ethernet frame whose VLAN tag, if any, lies beside it and not in it. */
static __always_inline enum tg_parsed parse_frame(struct __sk_buff *skb, struct tg_packet *p)
{
	__be16 ether_type;

	if (bpf_skb_load_bytes(skb, ETH_TYPE_OFFSET, &ether_type, sizeof(ether_type)))
		return TG_PARSED_MALFORMED;
	p->ether_type = ntohs(ether_type);
	if (p->ether_type == ETH_P_ARP)
		return TG_PARSED_LINK;
	if (p->ether_type != ETH_P_IP && p->ether_type != ETH_P_IPV6)
		return TG_PARSED_NON_IP;
	return parse_ip(skb, ETH_HLEN, p);
}

#endif
