//! Character classes of RFC 9110 as tables: one load for each byte on the hot path.

/// Builds a table from a class.
const fn table(class: u8) -> [bool; 256] {
    let mut out = [false; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        out[i] = match class {
            b't' => is_tchar(b),
            b'u' => matches!(b, 0x21..=0x7e),
            _ => matches!(b, b'\t' | 0x20..=0x7e | 0x80..=0xff),
        };
        i += 1;
    }
    out
}

const fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// `tchar` (RFC 9110 section 5.6.2): methods and field names.
pub(crate) static TOKEN: [bool; 256] = table(b't');
/// Visible ASCII: what a request target may consist of here.
pub(crate) static TARGET: [bool; 256] = table(b'u');
/// `field-content` (RFC 9110 section 5.5): visible characters, SP, HTAB, obs-text.
pub(crate) static VALUE: [bool; 256] = table(b'v');

/// Number of leading bytes that are in the class.
pub(crate) fn run(bytes: &[u8], class: &[bool; 256]) -> usize {
    bytes
        .iter()
        .position(|&b| !class[usize::from(b)])
        .unwrap_or(bytes.len())
}

/// Without leading and trailing optional white space (SP, HTAB).
pub(crate) fn trim_ows(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
