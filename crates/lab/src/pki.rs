//! The lab's own certificate authority and the external host's certificate.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::error::{IoContext, Result};
use crate::names::{Names, OUT_V4, OUT_V6};

/// Makes the CA and one server certificate (ECDSA P-256, as public servers use) and writes them to
/// the lab's state directory. The CA's key is never written.
///
/// # Errors
/// A certificate or file cannot be made.
pub fn create(names: &Names) -> Result<()> {
    let dir = names.dir().join("pki");
    fs::create_dir_all(&dir).doing("creating", dir)?;

    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name
        .push(DnType::CommonName, "Tollgate lab CA");
    let ca_key = KeyPair::generate()?;
    let ca_cert = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let mut alt_names: Vec<String> = [
        "example.com",
        "*.example.com",
        "*.example.org",
        "*.example.net",
    ]
    .map(Into::into)
    .into();
    alt_names.push(OUT_V4.to_string());
    alt_names.push(OUT_V6.to_string());
    let mut server = CertificateParams::new(alt_names)?;
    server
        .distinguished_name
        .push(DnType::CommonName, "Tollgate lab outside");
    let key = KeyPair::generate()?;
    let cert = server.signed_by(&key, &issuer)?;

    let (cert_path, key_path) = names.server_pem();
    fs::write(names.ca(), ca_cert.pem()).doing("writing", names.ca())?;
    fs::write(&cert_path, cert.pem()).doing("writing", cert_path)?;
    fs::write(&key_path, key.serialize_pem()).doing("writing", key_path)
}
