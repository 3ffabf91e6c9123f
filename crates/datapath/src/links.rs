//! Network interfaces: facts by name, and their coming and going.

use futures_util::stream::{Stream, StreamExt};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;

use crate::Error;
use crate::ifreq::IfRequest;

/// What there is to know of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// It is up.
    pub up: bool,
    /// Its frames are Ethernet frames.
    pub ethernet: bool,
}

/// An interface came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is there, new or changed.
    Present {
        /// Its index.
        ifindex: u32,
        /// Its name.
        name: String,
        /// It is up.
        up: bool,
    },
    /// It is gone.
    Gone {
        /// Its index.
        ifindex: u32,
        /// Its name.
        name: String,
    },
    /// Events were lost; look at everything again.
    Lost,
}

/// Index of an interface; [`Error::is_gone`] if there is none of that name.
pub fn index(name: &str) -> Result<u32, Error> {
    let mut request = IfRequest::new(name)?;
    // SAFETY: reads the name of the ifreq and writes the index.
    unsafe { request.call(libc::SIOCGIFINDEX, "looking up")? };
    // SAFETY: the kernel filled in the index.
    let index = unsafe { request.raw.ifr_ifru.ifru_ifindex };
    Ok(index.unsigned_abs())
}

/// Name of an interface; `None` if there is none of that index.
pub fn name(ifindex: u32) -> Option<String> {
    let mut buffer = [0 as libc::c_char; libc::IFNAMSIZ];
    // SAFETY: the buffer has the IFNAMSIZ bytes that the function may write.
    let found = unsafe { libc::if_indextoname(ifindex, buffer.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    let bytes = buffer
        .iter()
        .take_while(|&&c| c != 0)
        .map(|&c| c as u8)
        .collect();
    String::from_utf8(bytes).ok()
}

/// Names of the interfaces that there are.
pub fn names() -> Result<Vec<String>, Error> {
    // SAFETY: the function takes nothing; it returns an array that is ours until it is freed below.
    let all = unsafe { libc::if_nameindex() };
    if all.is_null() {
        return Err(Error::os("listing", "interfaces")(
            std::io::Error::last_os_error(),
        ));
    }
    let mut names = Vec::new();
    let mut next = all;
    // SAFETY: the array ends with an entry whose index is 0 and whose name is null; none beyond it
    // is looked at.
    while let entry = unsafe { &*next }
        && entry.if_index != 0
        && !entry.if_name.is_null()
    {
        // SAFETY: the entry's name is a terminated string that lives as long as the array.
        let name = unsafe { std::ffi::CStr::from_ptr(entry.if_name) };
        names.push(name.to_string_lossy().into_owned());
        // SAFETY: the entry was not the last one.
        next = unsafe { next.add(1) };
    }
    // SAFETY: it came from if_nameindex and is not used any more.
    unsafe { libc::if_freenameindex(all) };
    Ok(names)
}

/// Sets an interface's MTU, in bytes.
pub fn set_mtu(name: &str, mtu: u32) -> Result<(), Error> {
    let mut request = IfRequest::new(name)?;
    request.raw.ifr_ifru.ifru_mtu = i32::try_from(mtu).unwrap_or(i32::MAX);
    // SAFETY: reads name and MTU of the ifreq.
    unsafe { request.call(libc::SIOCSIFMTU, "setting the MTU of") }
}

/// Facts of an interface; [`Error::is_gone`] if there is none of that name.
pub fn by_name(name: &str) -> Result<Link, Error> {
    let ifindex = index(name)?;
    let mut request = IfRequest::new(name)?;
    // SAFETY: reads the name of the ifreq and writes the MTU.
    unsafe { request.call(libc::SIOCGIFMTU, "reading the MTU of")? };
    // SAFETY: the kernel filled in the MTU.
    let mtu = unsafe { request.raw.ifr_ifru.ifru_mtu }.unsigned_abs();
    // SAFETY: reads the name of the ifreq and writes the flags.
    unsafe { request.call(libc::SIOCGIFFLAGS, "reading the flags of")? };
    // SAFETY: the kernel filled in the flags.
    let flags = libc::c_int::from(unsafe { request.raw.ifr_ifru.ifru_flags });
    // SAFETY: reads the name of the ifreq and writes the hardware address.
    unsafe { request.call(libc::SIOCGIFHWADDR, "reading the address of")? };
    // SAFETY: the kernel filled in the hardware address.
    let family = unsafe { request.raw.ifr_ifru.ifru_hwaddr.sa_family };
    Ok(Link {
        ifindex,
        name: name.to_owned(),
        mtu,
        up: flags & libc::IFF_UP != 0,
        ethernet: family == libc::ARPHRD_ETHER,
    })
}

/// Watches interfaces come and go, in the namespace of the thread that calls this. Must be called
/// in a tokio runtime; ends when the runtime does. What is there already is not reported.
pub fn watch() -> Result<impl Stream<Item = LinkEvent> + Send + Unpin, Error> {
    let (connection, _, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
        .map_err(Error::os("watching", "links"))?;
    tokio::spawn(connection);
    Ok(messages.filter_map(|(message, _)| std::future::ready(event(message.payload))))
}

fn event(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<LinkEvent> {
    // A bridge speaks of its ports in the same messages, under another family: a port that leaves
    // it is not gone.
    let own = |link: &LinkMessage| link.header.interface_family == AddressFamily::Unspec;
    match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) if own(&link) => {
            let up = link.header.flags.contains(LinkFlags::Up);
            Some(LinkEvent::Present {
                ifindex: link.header.index,
                name: link_name(link)?,
                up,
            })
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) if own(&link) => {
            Some(LinkEvent::Gone {
                ifindex: link.header.index,
                name: link_name(link)?,
            })
        }
        NetlinkPayload::Overrun(_) => Some(LinkEvent::Lost),
        _ => None,
    }
}

fn link_name(link: LinkMessage) -> Option<String> {
    link.attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        })
}

/// Does the index name an interface?
pub(crate) fn exists(ifindex: u32) -> bool {
    name(ifindex).is_some()
}
