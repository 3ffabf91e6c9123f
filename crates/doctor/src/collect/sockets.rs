//! Packet sockets, by `sock_diag` (linux/packet_diag.h), and who holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use super::namespaces;
use crate::model::{PacketSocket, Process};
use tollgate_datapath::netlink::{Socket, attributes_after, u32_at};

/// `SOCK_DIAG_BY_FAMILY` and `AF_PACKET`.
const BY_FAMILY: u16 = 20;
const AF_PACKET: u8 = 17;
/// `PACKET_SHOW_INFO | PACKET_SHOW_MCLIST | PACKET_SHOW_RING_CFG | PACKET_SHOW_FANOUT`.
const SHOW: u32 = 0x1 | 0x2 | 0x4 | 0x8;
/// Bytes of `struct packet_diag_req` and `struct packet_diag_msg`.
const REQUEST: usize = 20;
const MESSAGE: usize = 16;
const PACKET_DIAG_INFO: u16 = 0;
const PACKET_DIAG_MCLIST: u16 = 1;
/// Bytes of `struct packet_diag_mclist`, and where its type is.
const MCLIST_ENTRY: usize = 44;
const MCLIST_TYPE: usize = 8;
/// `PACKET_MR_PROMISC` (linux/if_packet.h).
const MR_PROMISC: u16 = 1;
const PACKET_DIAG_RX_RING: u16 = 2;
const PACKET_DIAG_FANOUT: u16 = 4;
/// Of `pdi_flags`.
const AUXDATA: u32 = 0x2;
const VNETHDR: u32 = 0x8;

/// The packet sockets of this namespace, each with its inode number.
pub fn read(socket: &mut Socket) -> io::Result<Vec<(u64, PacketSocket)>> {
    let mut request = [0; REQUEST];
    request[0] = AF_PACKET;
    request[8..12].copy_from_slice(&SHOW.to_ne_bytes());
    socket.dump(BY_FAMILY, &request, |_, body| packet_socket(body))
}

fn packet_socket(body: &[u8]) -> Option<(u64, PacketSocket)> {
    let inode = u32_at(body, 4)?;
    let mut found = PacketSocket::default();
    for (kind, value) in attributes_after(body, MESSAGE) {
        match kind {
            // struct packet_diag_info: index, version, reserve, copy_thresh, tstamp, flags.
            PACKET_DIAG_INFO => {
                let flags = u32_at(value, 20).unwrap_or(0);
                found.ifindex = u32_at(value, 0).unwrap_or(0);
                found.vnet_hdr = flags & VNETHDR != 0;
                found.aux_data = flags & AUXDATA != 0;
            }
            PACKET_DIAG_MCLIST => found.promiscuous = Some(has_promiscuous(value)),
            // struct packet_diag_ring: block_size, block_nr, frame_size, ...
            PACKET_DIAG_RX_RING => found.ring_frame = u32_at(value, 8).unwrap_or(0),
            PACKET_DIAG_FANOUT => found.fanout = true,
            _ => {}
        }
    }
    Some((inode.into(), found))
}

/// struct packet_diag_mclist, one after the other: index, count, type, address length, address.
fn has_promiscuous(list: &[u8]) -> bool {
    list.chunks_exact(MCLIST_ENTRY).any(|entry| {
        let kind = entry.get(MCLIST_TYPE..MCLIST_TYPE + 2);
        kind.is_some_and(|kind| kind == MR_PROMISC.to_ne_bytes())
    })
}

/// The processes that hold these sockets, by inode number, in one pass over all of them. Of several
/// the one with the lowest number: it opened the socket before the others inherited it.
pub fn owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, Process> {
    let mut owners = BTreeMap::new();
    let mut pids: Vec<u32> = namespaces::pids().collect();
    pids.sort_unstable();
    for pid in pids {
        if owners.len() == inodes.len() {
            break;
        }
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        for descriptor in descriptors.flatten() {
            let Some(inode) = socket_inode(&descriptor.path()) else {
                continue;
            };
            if inodes.contains(&inode) {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                let name = name.trim_end().to_owned();
                owners.entry(inode).or_insert(Process { pid, name });
            }
        }
    }
    owners
}

/// Inode number of the socket that a descriptor's link names: `socket:[123]`.
fn socket_inode(descriptor: &std::path::Path) -> Option<u64> {
    let target = fs::read_link(descriptor).ok()?;
    let name = target.to_str()?.strip_prefix("socket:[")?;
    name.strip_suffix(']')?.parse().ok()
}
