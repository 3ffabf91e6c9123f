// SPDX-License-Identifier: Apache-2.0
/*
 * The lab's switch: sends what passes between an endpoint and the node's gateway on a detour through
 * a pair of ports, as a switch does that hands traffic to an inline engine. Both directions go in by
 * one port, tagged, and come back by the other. No part of the gate.
 */
#include "parse.h"

#define ETH_ALEN 6
#define IPV6_NEXT_HEADER_OFFSET (ETH_HLEN + 6)
#define IPV6_HLEN 40
#define ND_FIRST 133 /* router solicitation (RFC 4861) */
#define ND_LAST 137  /* redirect */

struct detour {
	__u32 to_engine;  /* interface index of the port towards the engine */
	__u32 endpoint;	  /* interface index of the endpoint's host-side interface */
	__u32 gateway;	  /* interface index of the switch's end of the gateway */
	__u16 vlan;	  /* the tag that the engine sees */
	__u8 gateway_mac[ETH_ALEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct detour);
} detour_config SEC(".maps");

static __always_inline const struct detour *config(void)
{
	__u32 index = 0;

	return bpf_map_lookup_elem(&detour_config, &index);
}

/* Neighbour discovery belongs to the link, as ARP does. */
static __always_inline int is_discovery(struct __sk_buff *skb)
{
	__u8 next = 0, type = 0;

	if (bpf_skb_load_bytes(skb, IPV6_NEXT_HEADER_OFFSET, &next, sizeof(next)) < 0 ||
	    next != IPPROTO_ICMPV6)
		return 0;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + IPV6_HLEN, &type, sizeof(type)) < 0)
		return 0;
	return type >= ND_FIRST && type <= ND_LAST;
}

/* At the endpoint and at the gateway: IP goes to the engine, the rest its usual way. */
SEC("classifier")
int detour_in(struct __sk_buff *skb)
{
	const struct detour *to = config();

	if (!to || to->to_engine == 0)
		return TC_ACT_UNSPEC;
	if (skb->protocol != htons(ETH_P_IP) && skb->protocol != htons(ETH_P_IPV6))
		return TC_ACT_UNSPEC;
	if (skb->protocol == htons(ETH_P_IPV6) && is_discovery(skb))
		return TC_ACT_UNSPEC;
	if (bpf_skb_vlan_push(skb, htons(ETH_P_8021Q), to->vlan) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(to->to_engine, 0);
}

/* At the port that the engine sends by: on to the endpoint or to the gateway, without the tag. */
SEC("classifier")
int detour_out(struct __sk_buff *skb)
{
	const struct detour *to = config();
	__u8 mac[ETH_ALEN];
	int i, differs = 0;

	if (!to || !skb->vlan_present || bpf_skb_vlan_pop(skb) < 0)
		return TC_ACT_SHOT;
	if (bpf_skb_load_bytes(skb, 0, mac, sizeof(mac)) < 0)
		return TC_ACT_SHOT;
	for (i = 0; i < ETH_ALEN; i++)
		differs |= mac[i] ^ to->gateway_mac[i];
	return bpf_redirect(differs ? to->endpoint : to->gateway, 0);
}

char _license[] SEC("license") = "Apache-2.0";
