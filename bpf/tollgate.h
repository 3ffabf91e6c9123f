/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel programs and user space agree on. Its mirror is crates/datapath/src/abi.rs: change
 * both, and raise TG_ABI_VERSION, or a running agent's pinned maps will be misread.
 *
 * All integers are in host byte order unless a comment says "network order".
 */
#ifndef TOLLGATE_H
#define TOLLGATE_H

#include "bpf_helpers.h"

/* Layout of every map below. User space refuses to adopt pinned maps of another version. */
#define TG_ABI_VERSION 4

/*
 * skb->mark of a packet that the engine gave back ("toll"). Set by tg_from_tap, cleared by the
 * endpoint's program. A packet cannot bring it along: the mark does not cross network namespaces
 * and does not come in from a wire.
 */
#define TG_MARK 0x746f6c6c

/*
 * 802.1Q VLAN id on the way to the engine and back: endpoint << 1 | direction.
 * crates/wire/src/tag.rs has the same formula.
 */
#define TG_OUTBOUND 0 /* the packet leaves the endpoint */
#define TG_INBOUND 1  /* the packet goes to the endpoint */
#define TG_ENDPOINT_MAX 2046

/* Sizes of maps; tg_flows is the default, user space may set another at load time. */
#define TG_ENDPOINTS_MAX 2048
#define TG_FLOWS_MAX 131072
#define TG_CLOSED_BYTES (256 * 1024)

/* tg_config[0] */
struct tg_config {
	__u32 abi_version;
	__u32 tap_ifindex; /* 0: no TAP, everything that should be diverted is dropped */
};

/* A policy selects the endpoint. When unset the programs pass everything. */
#define TG_GOVERNED 1u

/* tg_endpoints[ifindex] */
struct tg_endpoint {
	__u32 id;
	__u32 flags;
};

/* tg_flows key. No implicit padding: it is hashed byte by byte. */
struct tg_flow_key {
	__u32 endpoint;
	__u8 proto;
	__u8 pad[3];
	__u8 local[16];	 /* IPv4 as ::ffff:a.b.c.d */
	__u8 remote[16]; /* likewise */
	__be16 local_port;  /* network order; ICMP echo: the identifier */
	__be16 remote_port; /* network order */
};

/* What happens to one direction of a flow. */
enum tg_steer {
	TG_STEER_DIVERT = 0,
	TG_STEER_PASS = 1,
	TG_STEER_DROP = 2,
	TG_STEER_WINDOW = 3, /* TCP: no payload, or payload inside [start, end), passes */
	TG_STEER_QUIC = 4,   /* UDP: datagrams with a QUIC short header pass */
};

/* One direction of a flow: what user space wrote, and what the programs noted. */
struct tg_direction {
	__u32 steer; /* enum tg_steer */
	__u32 start; /* first sequence number inside the window */
	__u32 end;   /* first sequence number behind it; end - start < 2^31 */
	__u32 max_ack; /* valid if TG_SEEN_ACK */
	__u32 max_seq; /* end of the highest segment, FIN counted; valid if TG_SEEN_SEQ */
	__u32 syn_ack; /* what the latest SYN-ACK acknowledged; valid if TG_SEEN_SYN_ACK */
	__u64 packets;
	__u64 bytes; /* of whole frames */
	/*
	 * The two directions are written on different CPUs. 80 bytes between what is hot keep them off
	 * each other's cache lines wherever the entry begins.
	 */
	__u64 apart[10];
};

/* tg_flow.state: bits of direction d are shifted left by TG_SEEN_SHIFT * d. */
#define TG_SEEN_ACK 1u
#define TG_SEEN_SEQ 2u
#define TG_SEEN_FIN 4u
#define TG_SEEN_RST 8u
#define TG_SEEN_SYN_ACK 16u
#define TG_SEEN_SHIFT 8

/* tg_flows value */
struct tg_flow {
	__u64 last_seen_ns;	    /* CLOCK_MONOTONIC, coarse */
	__u32 state;		    /* TG_SEEN_* of both directions */
	__u32 pad;
	__u64 apart[6];		    /* the key, which every lookup reads, lies in front */
	struct tg_direction dir[2]; /* [TG_OUTBOUND], [TG_INBOUND] */
};

/* tg_counters: index = 2 * kind + direction */
enum tg_counter {
	TG_COUNT_PASSED = 0,	      /* from the flow cache, or never subject to policy */
	TG_COUNT_DIVERTED,	      /* sent to the engine */
	TG_COUNT_FRAGMENTS,	      /* of the diverted: IP fragments */
	TG_COUNT_RETURNED,	      /* came back from the engine */
	TG_COUNT_UNGOVERNED,	      /* passed, because no policy selects the endpoint */
	TG_COUNT_DROP_FLOW,	      /* the flow cache says drop */
	TG_COUNT_DROP_VLAN,	      /* VLAN-tagged traffic of an endpoint */
	TG_COUNT_DROP_NON_IP,	      /* neither IP nor ARP */
	TG_COUNT_DROP_MALFORMED,      /* truncated or contradictory headers */
	TG_COUNT_DROP_NO_TAP,	      /* no TAP configured */
	TG_COUNT_DROP_TAG_FAILED,     /* the tag could not be pushed or popped */
	TG_COUNT_DROP_UNKNOWN,	      /* the interface is not in tg_endpoints */
	TG_COUNT_DROP_BAD_TAG,	      /* from the TAP: no tag, or one of no endpoint */
	TG_COUNT_EVENTS_LOST,	      /* tg_closed was full */
	TG_COUNT_KINDS
};

#endif
