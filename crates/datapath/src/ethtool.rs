//! What `ethtool` tells of an interface beside its features: driver, statistics, receive hash. By
//! `SIOCETHTOOL`, in the calling thread's network namespace.

use crate::Error;
use crate::ifreq::IfRequest;

// linux/ethtool.h
const GDRVINFO: u32 = 0x03;
const GSTRINGS: u32 = 0x1b;
const GSTATS: u32 = 0x1d;
const GCHANNELS: u32 = 0x3c;
const GRSSH: u32 = 0x46;
const SS_STATS: u32 = 1;
/// `ETH_GSTRING_LEN`.
pub(crate) const STRING_LEN: usize = 32;
/// Words of `struct ethtool_drvinfo`.
const DRVINFO_WORDS: usize = 49;
/// Where its `n_stats` is, in words.
const DRVINFO_STATS: usize = 45;
/// The most statistics that are read; cards with hundreds of queues have some ten thousand.
const MAX_STATS: usize = 65_536;
/// Words of `struct ethtool_rxfh` before its table and key.
const RXFH_WORDS: usize = 6;
/// The most entries of a receive table, and bytes of a key, that are read.
const MAX_RXFH: u32 = 65_536;
/// `ETH_RSS_HASH_TOP` and `ETH_RSS_HASH_XOR`.
const HASH_TOEPLITZ: u8 = 1;
const HASH_XOR: u8 = 2;
/// `RXH_XFRM_SYM_XOR | RXH_XFRM_SYM_OR_XOR`: the card orders the addresses before it hashes.
const SYMMETRIC_INPUT: u8 = 3;
/// A Toeplitz key that repeats after 16 bits, as wide as a port, does not tell source from
/// destination (Woo and Park, "Scalable TCP session monitoring with symmetric RSS", 2012).
const SYMMETRIC_PERIOD: usize = 2;

/// Name of the driver.
///
/// # Errors
/// The interface is gone, or its driver has no ethtool operations.
pub fn driver(ifname: &str) -> Result<String, Error> {
    let info = drvinfo(ifname)?;
    Ok(text(&bytes(&info[1..1 + STRING_LEN / 4])))
}

/// The driver's own statistics (`ethtool -S`), names and values in the driver's order.
///
/// # Errors
/// The interface is gone, or its driver has no statistics.
pub fn statistics(ifname: &str) -> Result<Vec<(String, u64)>, Error> {
    let count = (drvinfo(ifname)?[DRVINFO_STATS] as usize).min(MAX_STATS);
    if count == 0 {
        return Ok(Vec::new());
    }
    // The kernel writes as many as the driver has at that moment, which may be more than it said
    // before: room for the most.
    let names = strings(ifname, SS_STATS, count, MAX_STATS * STRING_LEN / 4)?;
    let mut data = vec![0u32; 2 + MAX_STATS * 2];
    (data[0], data[1]) = (GSTATS, count as u32);
    call(ifname, &mut data, "reading the statistics of")?;
    let values = data[2..].chunks_exact(2).map(|pair| {
        let (low, high) = (pair[0].to_ne_bytes(), pair[1].to_ne_bytes());
        u64::from_ne_bytes([
            low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3],
        ])
    });
    Ok(names.into_iter().zip(values).collect())
}

/// Numbers of queues in use: for receiving and for sending.
///
/// # Errors
/// The interface is gone, or its driver does not say.
pub fn queues(ifname: &str) -> Result<(u32, u32), Error> {
    // struct ethtool_channels: command, four maxima, then receive, send, other, combined.
    let mut channels = [GCHANNELS, 0, 0, 0, 0, 0, 0, 0, 0];
    call(ifname, &mut channels, "counting the queues of")?;
    let [_, _, _, _, _, rx, tx, _, combined] = channels;
    Ok((rx.saturating_add(combined), tx.saturating_add(combined)))
}

/// Does the hash that picks a receive queue give both directions of a flow the same one? `None` if
/// the hash is of a kind that is not known here.
///
/// # Errors
/// The interface is gone, or its driver does not say.
pub fn symmetric_hash(ifname: &str) -> Result<Option<bool>, Error> {
    let mut sizes = [GRSSH, 0, 0, 0, 0, 0];
    call(ifname, &mut sizes, "reading the receive hash of")?;
    let (table, key) = (sizes[2].min(MAX_RXFH), sizes[3].min(MAX_RXFH));
    let mut hash = vec![0u32; RXFH_WORDS + table as usize + key.div_ceil(4) as usize];
    (hash[0], hash[2], hash[3]) = (GRSSH, table, key);
    call(ifname, &mut hash, "reading the receive hash of")?;
    let [function, input, ..] = hash[4].to_ne_bytes();
    let key_bytes = bytes(&hash[RXFH_WORDS + table as usize..]);
    let key_bytes = &key_bytes[..(key as usize).min(key_bytes.len())];
    Ok(match function {
        _ if input & SYMMETRIC_INPUT != 0 => Some(true),
        HASH_XOR => Some(true),
        HASH_TOEPLITZ if !key_bytes.is_empty() => Some(repeats(key_bytes)),
        _ => None,
    })
}

fn repeats(key: &[u8]) -> bool {
    key.iter()
        .zip(key.iter().skip(SYMMETRIC_PERIOD))
        .all(|(a, b)| a == b)
}

fn drvinfo(ifname: &str) -> Result<[u32; DRVINFO_WORDS], Error> {
    let mut info = [0u32; DRVINFO_WORDS];
    info[0] = GDRVINFO;
    call(ifname, &mut info, "reading the driver of")?;
    Ok(info)
}

/// The first `count` strings of a set. `room` is how many words the kernel may write.
pub(crate) fn strings(
    ifname: &str,
    set: u32,
    count: usize,
    room: usize,
) -> Result<Vec<String>, Error> {
    let mut data = vec![0u32; 3 + room];
    (data[0], data[1], data[2]) = (GSTRINGS, set, count as u32);
    call(ifname, &mut data, "reading ethtool's names of")?;
    let all = bytes(&data[3..]);
    Ok(all.chunks_exact(STRING_LEN).take(count).map(text).collect())
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn text(raw: &[u8]) -> String {
    let end = raw.iter().position(|&b| b == 0).unwrap_or(raw.len());
    String::from_utf8_lossy(&raw[..end]).into_owned()
}

/// One ethtool command. `data` begins with its number and is as long as its header says.
pub(crate) fn call(ifname: &str, data: &mut [u32], action: &'static str) -> Result<(), Error> {
    let mut request = IfRequest::new(ifname)?;
    request.raw.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
    // SAFETY: the command's structure is `data`, aligned for it, which lives for the call; the
    // callers size it by the counts that they put into it, beyond which the kernel does not write,
    // or by the most that the kernel has.
    unsafe { request.call(libc::SIOCETHTOOL, action) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_repeats_after_a_port_is_symmetric() {
        assert!(repeats(&[0x6d, 0x5a, 0x6d, 0x5a, 0x6d, 0x5a]));
        assert!(!repeats(&[0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b]));
    }

    #[test]
    fn loopback_has_no_driver_statistics() {
        assert!(statistics("lo").is_err());
    }
}
