//! Builds hellos, right and wrong ones.

/// A vector with a one-byte length.
pub fn vec8(body: &[u8]) -> Vec<u8> {
    [&[u8::try_from(body.len()).unwrap_or(u8::MAX)], body].concat()
}

/// A vector with a two-byte length.
pub fn vec16(body: &[u8]) -> Vec<u8> {
    [
        &u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes(),
        body,
    ]
    .concat()
}

pub fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vec16(body)].concat()
}

/// A server name extension with these names, all of type `kind`.
pub fn sni_of(kind: u8, names: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|name| [vec![kind], vec16(name)].concat())
        .collect();
    extension(0, &vec16(&list))
}

pub fn sni(name: &[u8]) -> Vec<u8> {
    sni_of(0, &[name])
}

pub fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = protocols.iter().flat_map(|p| vec8(p)).collect();
    extension(16, &vec16(&list))
}

pub fn versions(list: &[u16]) -> Vec<u8> {
    let list: Vec<u8> = list.iter().flat_map(|v| v.to_be_bytes()).collect();
    extension(43, &vec8(&list))
}

/// Everything of a hello before its extensions.
pub fn fixed_part() -> Vec<u8> {
    [
        &[3, 3][..],
        &[7; 32],
        &vec8(&[9; 32]),
        &vec16(&[0x13, 1, 0x13, 2]),
        &vec8(&[0]),
    ]
    .concat()
}

/// A handshake message.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[kind], &len[1..], body].concat()
}

/// A ClientHello message with these extensions.
pub fn hello(extensions: &[u8]) -> Vec<u8> {
    message(1, &[fixed_part(), vec16(extensions)].concat())
}

pub fn record(kind: u8, fragment: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1], &vec16(fragment)[..]].concat()
}

/// Handshake records of at most `size` bytes each.
pub fn records(message: &[u8], size: usize) -> Vec<u8> {
    message
        .chunks(size)
        .flat_map(|fragment| record(22, fragment))
        .collect()
}
