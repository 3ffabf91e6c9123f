//! Offload features of interfaces, as `ethtool -k` shows them, by `SIOCETHTOOL`.

use std::sync::OnceLock;

use crate::Error;
use crate::ethtool::{STRING_LEN, call, strings};

// linux/ethtool.h
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const SFEATURES: u32 = 0x3b;
const SS_FEATURES: u32 = 4;
/// Words of each block of 32 features: available, requested, active, never changed.
const GET_WORDS: usize = 4;
/// Words of each block when setting: which are meant, and what they shall be.
const SET_WORDS: usize = 2;

/// The kernel's names, by bit: the same for every interface and namespace while it runs.
static NAMES: OnceLock<Vec<String>> = OnceLock::new();

/// One feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The kernel's name, e.g. `tx-tcp-segmentation`.
    pub name: String,
    /// It is on.
    pub active: bool,
    /// Somebody asked for it. Differs from `active` where another feature, a lower device or the
    /// driver prevents it; of a feature that cannot be switched it is the same.
    pub wanted: bool,
    /// It can be switched.
    pub changeable: bool,
}

/// All features of an interface.
pub fn read(ifname: &str) -> Result<Vec<Feature>, Error> {
    let names = names(ifname)?;
    let blocks = names.len().div_ceil(32);
    let mut get = vec![0u32; 2 + blocks * GET_WORDS];
    (get[0], get[1]) = (GFEATURES, blocks as u32);
    call(ifname, &mut get, "reading the features of")?;
    let features = names.iter().enumerate().map(|(i, name)| {
        let block = &get[2 + i / 32 * GET_WORDS..][..GET_WORDS];
        let bit = |word: usize| block[word] >> (i % 32) & 1 == 1;
        let changeable = bit(0) && !bit(3);
        Feature {
            name: name.clone(),
            active: bit(2),
            wanted: if changeable { bit(1) } else { bit(2) },
            changeable,
        }
    });
    Ok(features
        .filter(|feature| !feature.name.is_empty())
        .collect())
}

/// Switches features. Names that the kernel does not know, and features that cannot be switched,
/// are ignored: read them again to see what came of it.
pub fn set(ifname: &str, wanted: &[(&str, bool)]) -> Result<(), Error> {
    let names = names(ifname)?;
    let blocks = names.len().div_ceil(32);
    let mut set = vec![0u32; 2 + blocks * SET_WORDS];
    (set[0], set[1]) = (SFEATURES, blocks as u32);
    for (i, name) in names.iter().enumerate() {
        let Some((_, on)) = wanted.iter().find(|(wanted, _)| wanted == name) else {
            continue;
        };
        let block = &mut set[2 + i / 32 * SET_WORDS..][..SET_WORDS];
        block[0] |= 1 << (i % 32);
        block[1] |= u32::from(*on) << (i % 32);
    }
    call(ifname, &mut set, "switching features of")
}

/// The kernel's names, by bit; asked for once.
fn names(ifname: &str) -> Result<&'static [String], Error> {
    if let Some(names) = NAMES.get() {
        return Ok(names);
    }
    let names = ask_names(ifname)?;
    Ok(NAMES.get_or_init(|| names))
}

fn ask_names(ifname: &str) -> Result<Vec<String>, Error> {
    // cmd, reserved, 64-bit mask in and out, then a length for each bit of the mask.
    let mut info = [GSSET_INFO, 0, 0, 0, 0];
    // The mask is 64 bits wide in memory order.
    let mask = (1u64 << SS_FEATURES).to_ne_bytes();
    info[2] = u32::from_ne_bytes([mask[0], mask[1], mask[2], mask[3]]);
    info[3] = u32::from_ne_bytes([mask[4], mask[5], mask[6], mask[7]]);
    call(ifname, &mut info, "counting the features of")?;
    let count = info[4] as usize;
    strings(ifname, SS_FEATURES, count, count * STRING_LEN / 4)
}
