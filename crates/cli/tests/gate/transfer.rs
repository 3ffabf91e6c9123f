//! Large transfers: the content is right, the checksums are right, and the bytes stay in the kernel.

use std::time::{Duration, Instant};

use tollgate_lab::lab::Place;
use tollgate_lab::names::Family;

use crate::bed::{API, BIG, Bed, FAMILIES, same, success};
use crate::net::checksum_errors;

/// Frames that may come up for one transfer: handshake, head, ends, and what was under way until
/// the kernel knew. 64 MiB have 1,000 super-packets and 46,000 packets.
const FRAMES: u64 = 200;

#[test]
fn transfers_stay_in_the_kernel() {
    Bed::new("transfer").run(&[
        ("downloads", |bed| {
            for (family, scheme) in kinds() {
                cheap(
                    bed,
                    &format!("{scheme} download, {}", family.word()),
                    |bed| {
                        download(bed, family, scheme);
                    },
                );
            }
        }),
        ("uploads", |bed| {
            for (family, scheme) in kinds() {
                cheap(bed, &format!("{scheme} upload, {}", family.word()), |bed| {
                    upload(bed, family, scheme);
                });
            }
        }),
        ("upload without a stated length", |bed| chunked(bed)),
        ("nothing was wrong", |bed| unharmed(bed)),
    ]);
}

fn kinds() -> impl Iterator<Item = (Family, &'static str)> {
    FAMILIES
        .into_iter()
        .flat_map(|family| [(family, "http"), (family, "https")])
}

/// Does something and checks that the engines saw little of it.
fn cheap(bed: &Bed, what: &str, work: impl FnOnce(&Bed)) {
    let (frames, diverted) = seen(bed);
    work(bed);
    let (frames, diverted) = (seen(bed).0 - frames, seen(bed).1 - diverted);
    eprintln!("{what}: {frames} frames came up");
    assert!(frames < FRAMES, "{what}: {frames} frames came up");
    assert!(
        diverted < FRAMES,
        "{what}: {diverted} packets were diverted"
    );
}

fn seen(bed: &Bed) -> (u64, u64) {
    let all = bed.counters();
    let of = |name: &str| all.get(name).copied().unwrap_or(0);
    (
        of("frames_in"),
        of("diverted outbound") + of("diverted inbound"),
    )
}

/// Downloads the large object and compares its hash.
pub fn download(bed: &Bed, family: Family, scheme: &str) {
    let curl = bed.curl_line(family);
    let line = format!("{curl} --fail {scheme}://{API}/v2/data/big.bin | openssl sha256 -r");
    let found = bed.sh(Place::Pod, &line);
    same(
        "hash",
        found.split(' ').next().unwrap(),
        bed.lab.info.big_sha256.as_str(),
    );
}

/// Uploads the large object and compares the hash of what the server stored.
pub fn upload(bed: &Bed, family: Family, scheme: &str) {
    let stored = bed.lab.names.www().join("upload/big");
    let url = format!("{scheme}://{API}/upload/big");
    success(&bed.curl(family, &["--fail", "-T", &bed.big_file(), &url]));
    let found = bed.sh(
        Place::Out,
        &format!("openssl sha256 -r {}", stored.display()),
    );
    same(
        "hash",
        found.split(' ').next().unwrap(),
        bed.lab.info.big_sha256.as_str(),
    );
    std::fs::remove_file(stored).unwrap();
}

/// A chunked body has to be read for its end, so all of it comes up; it is slower, but steady.
fn chunked(bed: &mut Bed) {
    let begin = Instant::now();
    let stored = bed.lab.names.www().join("upload/chunked");
    let curl = bed.curl_line(Family::V4);
    let (file, url) = (bed.big_file(), format!("http://{API}/upload/chunked"));
    bed.sh(Place::Pod, &format!("{curl} --fail -T - {url} < {file}"));
    let found = bed.sh(
        Place::Out,
        &format!("openssl sha256 -r {}", stored.display()),
    );
    same(
        "hash",
        found.split(' ').next().unwrap(),
        bed.lab.info.big_sha256.as_str(),
    );
    same("size", std::fs::metadata(&stored).unwrap().len(), BIG);
    // A second is much; with lost segments in it, it would take ten.
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
}

/// No receiver saw a wrong checksum, and no frame was refused or unreadable on its way.
pub fn unharmed(bed: &Bed) {
    let errors = checksum_errors(bed);
    assert!(errors.is_empty(), "checksum errors: {errors:?}");
    let counters = bed.counters();
    for name in [
        "write_errors",
        "malformed",
        "bad_tag",
        "not_ip",
        "kept_full",
    ] {
        same(name, counters.get(name).copied().unwrap_or(0), 0);
    }
    let lost = [
        "drop-malformed",
        "drop-no-tap",
        "drop-tag-failed",
        "drop-bad-tag",
    ];
    for (name, value) in &counters {
        let is_lost = lost.iter().any(|lost| name.starts_with(lost));
        assert!(!is_lost || *value == 0, "{name}: {value}");
    }
}
