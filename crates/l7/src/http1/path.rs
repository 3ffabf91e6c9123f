//! One reading of a path, and whether another server could read it differently.

use crate::refusal::{
    HTTP_PATH_ABOVE_ROOT, HTTP_PATH_BACKSLASH, HTTP_PATH_BAD_ESCAPE, HTTP_PATH_DOT_SEGMENTS,
    HTTP_PATH_DOUBLE_ENCODING, HTTP_PATH_DOUBLE_SLASH, HTTP_PATH_ENCODED_CONTROL,
    HTTP_PATH_ENCODED_SLASH, HTTP_PATH_FRAGMENT, HTTP_PATH_NOT_UTF8, HTTP_PATH_OPTIONS_ROOT,
    HTTP_PATH_PARAMETERS, Refusal,
};

/// A request's path as rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathForm {
    /// Percent-decoded, without `.` and `..` segments, slashes merged. Case and a trailing slash
    /// are kept. The best guess if `ambiguous`.
    pub normal: String,
    /// Servers could act on another path than `normal`: a rule that has a path must refuse the
    /// request with this. A rule without one need not care.
    pub ambiguous: Option<Refusal>,
}

impl PathForm {
    /// A path that needs no work.
    pub(super) fn plain(path: &str) -> Self {
        Self {
            normal: path.to_owned(),
            ambiguous: None,
        }
    }

    /// `OPTIONS http://host`, which means `*` (RFC 9112 section 3.2.4) and is often read as `/`.
    pub(super) fn options_root() -> Self {
        Self {
            normal: "*".to_owned(),
            ambiguous: Some(HTTP_PATH_OPTIONS_ROOT),
        }
    }

    /// Normalises a path that starts with a slash (or, behind a host, with `#`), without its
    /// query.
    pub fn new(path: &str) -> Self {
        if is_plain(path.as_bytes()) {
            Self::plain(path)
        } else {
            Normaliser::run(path)
        }
    }
}

/// Nothing in it is encoded, special to some server, or to be removed.
fn is_plain(path: &[u8]) -> bool {
    let mut slash = false;
    for &b in path {
        match b {
            b'%' | b'\\' | b';' | b'#' => return false,
            b'/' | b'.' if slash => return false,
            _ => slash = b == b'/',
        }
    }
    path.first() == Some(&b'/')
}

#[derive(Default)]
struct Normaliser {
    segments: Vec<String>,
    ambiguous: Option<Refusal>,
}

impl Normaliser {
    fn run(path: &str) -> PathForm {
        let mut this = Self::default();
        this.literal_checks(path);
        let mut directory = false;
        // The part before the first slash is empty.
        for raw in path.split('/').skip(1) {
            directory = this.segment(raw);
        }
        let mut normal = String::with_capacity(path.len());
        for segment in &this.segments {
            normal.push('/');
            normal.push_str(segment);
        }
        if directory || normal.is_empty() {
            normal.push('/');
        }
        PathForm {
            normal,
            ambiguous: this.ambiguous,
        }
    }

    /// The first reason stands.
    fn flag(&mut self, why: Refusal) {
        self.ambiguous.get_or_insert(why);
    }

    fn literal_checks(&mut self, path: &str) {
        if path.contains('\\') {
            self.flag(HTTP_PATH_BACKSLASH);
        }
        if path.contains('#') {
            self.flag(HTTP_PATH_FRAGMENT);
        }
        if path.contains(';') {
            self.flag(HTTP_PATH_PARAMETERS);
        }
        if path.starts_with("//") {
            self.flag(HTTP_PATH_DOUBLE_SLASH);
        }
    }

    /// Adds one segment; whether the path would end with a slash behind it.
    fn segment(&mut self, raw: &str) -> bool {
        let segment = self.decode(raw);
        match segment.as_str() {
            "" => return true,
            "." => self.flag(HTTP_PATH_DOT_SEGMENTS),
            ".." if self.segments.pop().is_none() => {
                // Worse than a dot segment that stays inside; the more telling reason wins.
                if matches!(self.ambiguous, None | Some(HTTP_PATH_DOT_SEGMENTS)) {
                    self.ambiguous = Some(HTTP_PATH_ABOVE_ROOT);
                }
            }
            ".." => self.flag(HTTP_PATH_DOT_SEGMENTS),
            _ => {
                self.segments.push(segment);
                return false;
            }
        }
        true
    }

    /// Decodes `%XX` once.
    fn decode(&mut self, raw: &str) -> String {
        if !raw.contains('%') {
            return raw.to_owned();
        }
        let mut out = Vec::with_capacity(raw.len());
        let mut rest = raw.as_bytes();
        while let Some((&b, tail)) = rest.split_first() {
            rest = tail;
            if b != b'%' {
                out.push(b);
                continue;
            }
            match tail {
                [high, low, after @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                    let byte = hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0);
                    self.decoded(byte);
                    out.push(byte);
                    rest = after;
                }
                _ => {
                    self.flag(HTTP_PATH_BAD_ESCAPE);
                    out.push(b);
                }
            }
        }
        if out
            .windows(3)
            .any(|w| w[0] == b'%' && w[1..].iter().all(u8::is_ascii_hexdigit))
        {
            self.flag(HTTP_PATH_DOUBLE_ENCODING);
        }
        String::from_utf8(out).unwrap_or_else(|e| {
            self.flag(HTTP_PATH_NOT_UTF8);
            String::from_utf8_lossy(e.as_bytes()).into_owned()
        })
    }

    /// Judges a byte that was encoded.
    fn decoded(&mut self, byte: u8) {
        match byte {
            b'/' | b'\\' => self.flag(HTTP_PATH_ENCODED_SLASH),
            b';' => self.flag(HTTP_PATH_PARAMETERS),
            0..=0x1f | 0x7f => self.flag(HTTP_PATH_ENCODED_CONTROL),
            _ => {}
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
