//! What a reader made of a stream, and how two of them compare.

use serde::Deserialize;

/// One request that a reader would act on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Asked {
    pub method: String,
    pub target: String,
    /// Value of `Host`, without surrounding white space.
    pub host: Option<String>,
    /// Bytes of the body, decoded; `None` if the reader leaves the coding to others.
    pub body: Option<u64>,
    /// The body is complete.
    pub done: bool,
}

/// How a reader stands when all bytes are read; the end of the stream is not shown to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// It waits for more.
    Open,
    /// It refused, or closed in an orderly way: nothing behind is read.
    Closed,
}

/// Everything that a reader saw.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Seen {
    pub requests: Vec<Asked>,
    pub end: End,
}

impl Seen {
    /// Acts on a request, or on the end of one, that is not among `ours`.
    pub fn goes_beyond(&self, ours: &Self) -> bool {
        let done = |seen: &Self| seen.requests.iter().filter(|r| r.done).count();
        self.requests.len() > ours.requests.len() || done(self) > done(ours)
    }
}

/// Why what `theirs` saw is not what we reported.
pub fn disagreement(peer: &str, ours: &Seen, theirs: &Seen) -> Option<String> {
    for (n, theirs) in theirs.requests.iter().enumerate() {
        let Some(ours) = ours.requests.get(n) else {
            return Some(format!("acts on {theirs:?}, which we did not report"));
        };
        if ours.method != theirs.method || rewritten(peer, &ours.target) != theirs.target {
            return Some(format!("reads request {n} as {theirs:?}"));
        }
        if trimmed(&ours.host) != trimmed(&theirs.host) {
            return Some(format!("reads another host in {theirs:?}"));
        }
        if theirs.done && !ours.done {
            return Some(format!("takes {theirs:?} for complete"));
        }
        if theirs.done && theirs.body.is_some() && ours.body != theirs.body {
            return Some(format!("reads another body in {theirs:?}"));
        }
    }
    if theirs.end == End::Closed {
        return None;
    }
    let short = |seen: &Seen| seen.requests.iter().filter(|r| !r.done).count();
    let same = ours.requests.len() == theirs.requests.len() && short(ours) == short(theirs);
    (!same).then(|| "waits where we see a request complete".to_owned())
}

fn trimmed(host: &Option<String>) -> Option<&str> {
    host.as_deref().map(str::trim)
}

/// A target as sent, the way this peer shows it to its user.
fn rewritten(peer: &str, target: &str) -> String {
    match peer {
        "hyper" => as_uri(target),
        // Several slashes at the start become one (CPython's gh-87389).
        "Python" if target.starts_with("//") => format!("/{}", target.trim_start_matches('/')),
        _ => target.to_owned(),
    }
}

/// hyper keeps the target as a URI: no fragment, scheme in lower case, and a path, `/` if need be.
fn as_uri(target: &str) -> String {
    let target = target.split('#').next().unwrap_or_default();
    let Some((scheme, rest)) = target
        .split_once("://")
        .filter(|_| !target.starts_with('/'))
    else {
        return target.to_owned();
    };
    let (authority, resource) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let slash = if resource.starts_with('/') { "" } else { "/" };
    format!(
        "{}://{authority}{slash}{resource}",
        scheme.to_ascii_lowercase()
    )
}
