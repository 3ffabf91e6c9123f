//! JA4: a short name for the way in which a client builds its hellos.

use sha2::{Digest, Sha256};

use super::ClientHello;
use super::hello::extension::{ALPN, SERVER_NAME};
use super::version::{SSL_2, SSL_3, TLS_1_0, TLS_1_1, TLS_1_2, TLS_1_3, is_grease};

/// Hexadecimal digits of a digest that the fingerprint keeps.
const DIGEST_DIGITS: usize = 12;
/// What stands for the digest of an empty list.
const NO_DIGEST: &str = "000000000000";
/// Largest count that two digits hold.
const COUNT_MAX: usize = 99;

impl ClientHello {
    /// The JA4 fingerprint, for example `t13d1516h2_8daaf6152771_e5627efa2ab1`, as FoxIO describes
    /// it for TLS clients: what does not change from one hello of a program to its next one. `quic`
    /// says whether the hello came in QUIC (`q`) or over TCP (`t`).
    ///
    /// GREASE values count nowhere. Equal fingerprints do not prove equal clients: whoever wants
    /// to can imitate one.
    pub fn ja4(&self, quic: bool) -> String {
        let ciphers = without_grease(&self.cipher_suites);
        let extensions = without_grease(&self.extensions);
        format!(
            "{}{}{}{:02}{:02}{}_{}_{}",
            if quic { 'q' } else { 't' },
            self.ja4_version(),
            if extensions.contains(&SERVER_NAME) {
                'd'
            } else {
                'i'
            },
            ciphers.len().min(COUNT_MAX),
            extensions.len().min(COUNT_MAX),
            self.ja4_alpn(),
            cipher_digest(ciphers),
            self.extension_digest(extensions),
        )
    }

    fn ja4_version(&self) -> &'static str {
        let offered = self.versions.iter().copied();
        match offered.filter(|version| !is_grease(*version)).max() {
            Some(TLS_1_3) => "13",
            Some(TLS_1_2) => "12",
            Some(TLS_1_1) => "11",
            Some(TLS_1_0) => "10",
            Some(SSL_3) => "s3",
            Some(SSL_2) => "s2",
            _ => "00",
        }
    }

    /// First and last character of the first protocol, or first and last digit of its bytes in
    /// hexadecimal if one of the two is neither letter nor digit.
    fn ja4_alpn(&self) -> String {
        let Some((first, last)) = self.alpn_ends else {
            return "00".to_owned();
        };
        if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
            return [char::from(first), char::from(last)].iter().collect();
        }
        format!("{:x}{:x}", first >> 4, last & 0xf)
    }

    /// The extensions' own order is random in current browsers, that of the algorithms is not.
    fn extension_digest(&self, mut extensions: Vec<u16>) -> String {
        // These two depend on where a client goes rather than on what it is.
        extensions.retain(|kind| ![SERVER_NAME, ALPN].contains(kind));
        if extensions.is_empty() {
            return NO_DIGEST.to_owned();
        }
        extensions.sort_unstable();
        let mut digest = Sha256::new();
        add_list(&mut digest, &extensions);
        let algorithms = without_grease(&self.signature_algorithms);
        if !algorithms.is_empty() {
            digest.update("_");
            add_list(&mut digest, &algorithms);
        }
        shortened(digest)
    }
}

fn cipher_digest(mut ciphers: Vec<u16>) -> String {
    if ciphers.is_empty() {
        return NO_DIGEST.to_owned();
    }
    ciphers.sort_unstable();
    let mut digest = Sha256::new();
    add_list(&mut digest, &ciphers);
    shortened(digest)
}

fn without_grease(list: &[u16]) -> Vec<u16> {
    list.iter().copied().filter(|n| !is_grease(*n)).collect()
}

/// Adds the numbers, four digits each, with commas between.
fn add_list(digest: &mut Sha256, list: &[u16]) {
    for (i, number) in list.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        digest.update(format!("{comma}{number:04x}"));
    }
}

fn shortened(digest: Sha256) -> String {
    let bytes = digest.finalize();
    let pairs = bytes.iter().take(DIGEST_DIGITS / 2);
    pairs.map(|byte| format!("{byte:02x}")).collect()
}
