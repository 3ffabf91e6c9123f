//! MTU, sizes of super-packets and XDP programs of interfaces, by netlink in the calling thread's
//! network namespace.

use std::os::fd::RawFd;

use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, new_connection};
use serde::{Deserialize, Serialize};

use crate::repair::RepairError;

/// Below this many bytes IPv6 takes its addresses off the interface (RFC 8200, section 5), which
/// nothing restores.
const MIN_MTU: u32 = 1280;

/// Attributes that can be set, as `ip link` names them; in this order, because the first of a kind
/// sets the second along with it (net/core/dev.h, `netif_set_gso_max_size`).
const SIZES: [&str; 5] = [
    "gso_max_size",
    "gso_ipv4_max_size",
    "gso_max_segs",
    "gro_max_size",
    "gro_ipv4_max_size",
];

/// What of an interface can be restored here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// In bytes.
    pub mtu: u32,
    /// By name, as far as the kernel knows them.
    pub sizes: Vec<(String, u32)>,
    /// The XDP program.
    #[serde(default)]
    pub xdp: Option<Xdp>,
}

/// An XDP program that is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xdp {
    /// Its number.
    pub id: u32,
    /// After the driver rather than in it.
    pub generic: bool,
}

/// Runs netlink requests to their end.
fn netlink<T>(
    action: &'static str,
    object: &str,
    work: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error>,
) -> Result<T, RepairError> {
    let failed = |why: String| RepairError::Netlink {
        action,
        object: object.to_owned(),
        why,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    runtime
        .block_on(async {
            let (connection, handle, _) = new_connection().map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            work(handle).await.map_err(|error| error.to_string())
        })
        .map_err(failed)
}

/// All interfaces.
pub fn all() -> Result<Vec<State>, RepairError> {
    netlink("listing", "interfaces", async |handle| {
        let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
        Ok(links.into_iter().map(state).collect())
    })
}

/// One interface.
pub fn one(ifname: &str) -> Result<State, RepairError> {
    let ifindex = index(ifname)?;
    let found = all()?.into_iter().find(|link| link.ifindex == ifindex);
    found.ok_or_else(|| RepairError::NoInterface(ifname.to_owned()))
}

/// The index of an interface.
pub fn index(ifname: &str) -> Result<u32, RepairError> {
    match tollgate_datapath::links::index(ifname) {
        Ok(index) => Ok(index),
        Err(error) if error.is_gone() => Err(RepairError::NoInterface(ifname.to_owned())),
        Err(error) => Err(error.into()),
    }
}

fn state(link: LinkMessage) -> State {
    let mut state = State {
        ifindex: link.header.index,
        ..State::default()
    };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => state.name = name,
            LinkAttribute::Mtu(mtu) => state.mtu = mtu,
            LinkAttribute::Xdp(parts) => state.xdp = xdp(&parts),
            other => state.sizes.extend(size(&other)),
        }
    }
    state.sizes.sort_by_key(|(name, _)| place(name));
    state
}

fn place(name: &str) -> Option<usize> {
    SIZES.iter().position(|known| *known == name)
}

fn size(attribute: &LinkAttribute) -> Option<(String, u32)> {
    let (name, value) = match attribute {
        LinkAttribute::GsoMaxSize(value) => ("gso_max_size", value),
        LinkAttribute::GsoIpv4MaxSize(value) => ("gso_ipv4_max_size", value),
        LinkAttribute::GsoMaxSegs(value) => ("gso_max_segs", value),
        LinkAttribute::GroMaxSize(value) => ("gro_max_size", value),
        LinkAttribute::GroIpv4MaxSize(value) => ("gro_ipv4_max_size", value),
        _ => return None,
    };
    Some((name.to_owned(), *value))
}

fn attribute(name: &str, value: u32) -> Result<LinkAttribute, RepairError> {
    Ok(match name {
        "gso_max_size" => LinkAttribute::GsoMaxSize(value),
        "gso_ipv4_max_size" => LinkAttribute::GsoIpv4MaxSize(value),
        "gso_max_segs" => LinkAttribute::GsoMaxSegs(value),
        "gro_max_size" => LinkAttribute::GroMaxSize(value),
        "gro_ipv4_max_size" => LinkAttribute::GroIpv4MaxSize(value),
        other => {
            return Err(RepairError::Unfit(format!(
                "{other:?} cannot be set; one of {}",
                SIZES.join(", ")
            )));
        }
    })
}

fn xdp(parts: &[LinkXdp]) -> Option<Xdp> {
    parts.iter().find_map(|part| match part {
        LinkXdp::DrvProgId(id) => Some(Xdp {
            id: *id,
            generic: false,
        }),
        LinkXdp::SkbProgId(id) => Some(Xdp {
            id: *id,
            generic: true,
        }),
        _ => None,
    })
}

fn set(ifname: &str, action: &'static str, attribute: LinkAttribute) -> Result<(), RepairError> {
    let message = LinkMessageBuilder::<LinkUnspec>::new()
        .index(index(ifname)?)
        .append_extra_attribute(attribute)
        .build();
    netlink(action, ifname, async |handle| {
        handle.link().set(message).execute().await
    })
}

/// Refuses an MTU whose effects could not be taken back.
pub fn check_mtu(ifname: &str, mtu: u32) -> Result<(), RepairError> {
    match mtu < MIN_MTU {
        false => Ok(()),
        true => Err(RepairError::Unfit(format!(
            "an MTU of {mtu} would take IPv6 off {ifname}; at least {MIN_MTU}"
        ))),
    }
}

/// Sets the MTU in bytes.
pub fn set_mtu(ifname: &str, mtu: u32) -> Result<(), RepairError> {
    set(ifname, "setting the MTU of", LinkAttribute::Mtu(mtu))
}

/// Sets sizes, in the order given.
pub fn set_sizes(ifname: &str, sizes: &[(String, u32)]) -> Result<(), RepairError> {
    let attributes: Result<Vec<_>, _> = sizes
        .iter()
        .map(|(name, value)| attribute(name, *value))
        .collect();
    for attribute in attributes? {
        set(ifname, "setting the sizes of super-packets of", attribute)?;
    }
    Ok(())
}

/// Makes the MTU what it was, and that of the interfaces that followed it: a VLAN's or macvlan's MTU sinks
/// with that of its lower device and does not rise with it.
pub fn restore_mtu(ifname: &str, lowered_to: u32, before: &[State]) -> Result<(), RepairError> {
    let was = |name: &str, ifindex: u32| {
        before
            .iter()
            .find(|was| was.ifindex == ifindex && was.name == name)
    };
    let now = one(ifname)?;
    if let Some(was) = was(ifname, now.ifindex).filter(|was| was.mtu != now.mtu) {
        set(ifname, "restoring the MTU of", LinkAttribute::Mtu(was.mtu))?;
    }
    for now in all()? {
        let followed = |was: &&State| was.mtu > now.mtu && now.mtu == lowered_to;
        if let Some(was) = was(&now.name, now.ifindex).filter(followed) {
            set(
                &now.name,
                "restoring the MTU of",
                LinkAttribute::Mtu(was.mtu),
            )?;
        }
    }
    Ok(())
}

/// Makes the sizes what they were.
pub fn restore_sizes(ifname: &str, before: &[(String, u32)]) -> Result<(), RepairError> {
    let now = one(ifname)?.sizes;
    if now == before {
        return Ok(());
    }
    set_sizes(ifname, before)?;
    let now = one(ifname)?.sizes;
    match now == before {
        true => Ok(()),
        false => Err(RepairError::Refused {
            what: format!("sizes of super-packets of {ifname}"),
            is: format!("{now:?}"),
            should: format!("{before:?}"),
            hint: "another program sets them, or the device no longer allows them; see ip -d link",
        }),
    }
}

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` of linux/if_link.h.
const SKB_MODE: u32 = 1 << 1;
const DRV_MODE: u32 = 1 << 2;

/// Attaches a program, or none (`-1`), in the driver or after it.
pub fn set_xdp(ifname: &str, program: RawFd, generic: bool) -> Result<(), RepairError> {
    let flags = if generic { SKB_MODE } else { DRV_MODE };
    let parts = vec![LinkXdp::Fd(program), LinkXdp::Flags(flags)];
    set(
        ifname,
        "attaching an XDP program to",
        LinkAttribute::Xdp(parts),
    )
}
