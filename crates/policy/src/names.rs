//! Names that peers are given by (`fqdn`).

use std::sync::Arc;

use crate::query::FlowQuery;

/// Longest name or pattern: a DNS name in text form without the trailing dot (RFC 1035 section
/// 2.3.4).
const LONGEST: usize = 253;

/// A flow, and the names for which the endpoint was told the remote address.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'q> {
    pub(crate) query: &'q FlowQuery,
    pub(crate) names: &'q [Arc<str>],
}

/// A DNS name in which each `*` stands for any characters, dots included, or for none: Antrea's
/// reading, where `*` becomes the regular expression `.*`. Lower case, no trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NamePattern(Box<str>);

impl NamePattern {
    /// `None`: not a pattern of a DNS name.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*');
        if text.is_empty()
            || text.len() > LONGEST
            || !text.chars().all(good)
            || text.split('.').any(str::is_empty)
        {
            return None;
        }
        Some(Self(text.to_ascii_lowercase().into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it matches a name, which is lower case and has no trailing dot. The pieces between
    /// the stars are looked for from left to right, each where it comes first.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else {
            return *self.0 == *name;
        };
        let Some(mut name) = name.strip_prefix(first) else {
            return false;
        };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        for piece in middle.split('*') {
            let Some(at) = name.find(piece) else {
                return false;
            };
            name = name.get(at + piece.len()..).unwrap_or_default();
        }
        name.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::NamePattern;

    fn matches(pattern: &str, name: &str) -> bool {
        NamePattern::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_star_stands_for_anything_anywhere() {
        for (pattern, name) in [
            ("example.com", "example.com"),
            ("Example.COM.", "example.com"),
            ("*.example.com", "a.b.example.com"),
            ("*example.com", "example.com"),
            ("*", "a.b"),
            ("a*.example.*", "api.eu.example.co.uk"),
            ("a*a", "aa"),
            ("**.b", "a.b"),
            ("*ab*ab*", "abab"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.example.com", "example.com"),
            ("*.example.com", "a.example.com.evil.org"),
            ("example.com", "a.example.com"),
            ("a*a", "a"),
            ("a*b*c", "acb"),
            ("*ab*ab", "ab"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_no_name_is_no_pattern() {
        for text in ["", ".", "a..b", ".a", "a b", "a/b", "a.b..", "\u{e9}.b"] {
            assert_eq!(NamePattern::new(text), None, "{text}");
        }
    }
}
