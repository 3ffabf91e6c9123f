//! Policies for the benchmark: the endpoint, and rules that make the agent judge every request.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{IoContext, Result};
use crate::names::{API_HOST, OUT_V4, OUT_V6, POD_HOST_IF, POD_V4, POD_V6};

/// Rules in one generated policy object; a cluster with many rules has many policies.
const RULES_PER_POLICY: usize = 100;
/// Highest policy priority that may be given (1.0 to 10000.0); lower is first.
const LAST_PRIORITY: usize = 10_000;

/// Writes a policy directory with `rules` egress rules whose addresses do not overlap, the last of
/// which fits the bench's connections and has `rules` items in its `l7Protocols`, the last of which
/// fits the bench's requests.
///
/// # Errors
/// A file cannot be written.
pub fn write(dir: &Path, rules: usize) -> Result<PathBuf> {
    fs::create_dir_all(dir).doing("creating", dir)?;
    let put = |name: String, text: String| {
        let path = dir.join(name);
        fs::write(&path, text).doing("writing", path)
    };
    put("endpoint.yaml".into(), endpoint())?;
    let others: Vec<usize> = (0..rules.saturating_sub(1)).collect();
    for (index, chunk) in others.chunks(RULES_PER_POLICY).enumerate() {
        put(format!("other-{index:04}.yaml"), other_policy(index, chunk))?;
    }
    put("bench.yaml".into(), bench_policy(rules))?;
    Ok(dir.to_owned())
}

fn endpoint() -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: bench}}\n---\n\
         apiVersion: policy.tollgate.dev/v1alpha1\nkind: Endpoint\n\
         metadata: {{name: client, namespace: bench, labels: {{app: bench}}}}\n\
         spec: {{interface: {POD_HOST_IF}, addresses: [{POD_V4}, \"{POD_V6}\"]}}\n"
    )
}

fn policy_head(name: &str, priority: usize) -> String {
    format!(
        "apiVersion: crd.antrea.io/v1beta1\nkind: ClusterNetworkPolicy\n\
         metadata: {{name: {name}}}\nspec:\n  priority: {priority}\n  appliedTo:\n    \
         - podSelector: {{matchLabels: {{app: bench}}}}\n  egress:\n"
    )
}

/// Rules for other external hosts, each with an HTTP item of its own.
fn other_policy(index: usize, numbers: &[usize]) -> String {
    let mut text = policy_head(&format!("other-{index}"), index + 1);
    for number in numbers {
        let to = other_address(*number);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "    - name: r{number}\n      action: Allow\n      \
             to: [{{ipBlock: {{cidr: {to}/32}}}}]\n      \
             ports: [{{protocol: TCP, port: 80}}]\n      \
             l7Protocols: [{{http: {{host: h{number}.example.com, path: /p{number}/*}}}}]"
        );
    }
    text
}

fn bench_policy(items: usize) -> String {
    let to =
        format!("[{{ipBlock: {{cidr: {OUT_V4}/32}}}}, {{ipBlock: {{cidr: \"{OUT_V6}/128\"}}}}]");
    let mut text = policy_head("bench", LAST_PRIORITY);
    // 8080 and 8443 are the sink's.
    let _ = writeln!(
        text,
        "    - name: http\n      action: Allow\n      to: {to}\n      \
         ports: [{{protocol: TCP, port: 80}}, {{protocol: TCP, port: 8080}}]\n      l7Protocols:"
    );
    for item in 1..items {
        let _ = writeln!(
            text,
            "        - http: {{host: h{item}.example.com, path: /p{item}/*}}"
        );
    }
    let _ = writeln!(text, "        - http: {{host: {API_HOST}}}");
    let _ = writeln!(
        text,
        "    - name: tls\n      action: Allow\n      to: {to}\n      \
         ports: [{{protocol: TCP, port: 443}}, {{protocol: TCP, port: 8443}}]\n      \
         l7Protocols: [{{tls: {{sni: \"*.example.com\"}}}}]\n    \
         - name: nothing-else\n      action: Reject\n      to: {to}"
    );
    text
}

/// The same policy for Suricata: everything that is established is refused but what a rule lets pass,
/// and so many rules let HTTP pass, the last of which fits the bench's requests.
///
/// Rules are for any address, as a controller writes them that has chosen the connections before. It
/// matches names as bytes, and asks no more once a rule has let a connection pass.
pub fn suricata_rules(rules: usize) -> String {
    let mut text = "reject ip any any -> any any (msg: \"refused\"; flow: to_server, established; \
                    sid: 1;)\n\
                    pass tls any any -> any any (msg: \"tls\"; tls.sni; content: \".example.com\"; \
                    endswith; sid: 2;)\n"
        .to_owned();
    // Writing to a string cannot fail, here and below.
    for item in 1..rules {
        let _ = writeln!(
            text,
            "pass http any any -> any any (msg: \"other\"; http.host; \
             content: \"h{item}.example.com\"; startswith; endswith; http.uri; \
             content: \"/p{item}/\"; startswith; sid: {};)",
            item + 2
        );
    }
    let _ = writeln!(
        text,
        "pass http any any -> any any (msg: \"http\"; http.host; content: \"{API_HOST}\"; \
         startswith; endswith; sid: {};)",
        rules + 2
    );
    text
}

/// Address of another external host. 198.18.0.0/15 is set aside for benchmarks (RFC 2544): 131072
/// addresses.
fn other_address(number: usize) -> String {
    format!("198.18.{}.{}", (number / 256) % 256, number % 256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_as_many_rules_as_asked_for() {
        for rules in [1, 100, 10_000] {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), rules).unwrap();
            let files = fs::read_dir(dir.path()).unwrap().flatten();
            let texts: Vec<String> = files
                .map(|f| fs::read_to_string(f.path()).unwrap())
                .collect();
            let count = |what: &str| texts.iter().map(|t| t.matches(what).count()).sum::<usize>();
            assert_eq!(count("- name: r") + count("- name: http"), rules);
            assert_eq!(count("- http: {host:"), rules);
        }
    }

    #[test]
    fn suricata_is_given_as_many_rules() {
        for rules in [1, 100, 10_000] {
            let text = suricata_rules(rules);
            assert_eq!(text.matches("pass http").count(), rules);
            let sids = text.lines().filter_map(|l| l.rsplit("sid: ").next());
            let mut sids: Vec<&str> = sids.collect();
            sids.sort_unstable();
            sids.dedup();
            assert_eq!(sids.len(), text.lines().count());
        }
    }

    #[test]
    fn every_generated_rule_has_an_address_of_its_own() {
        let numbers: Vec<usize> = (0..10_000).collect();
        let text = other_policy(0, &numbers);
        let mut cidrs: Vec<&str> = text
            .lines()
            .filter_map(|l| l.split("cidr: ").nth(1))
            .collect();
        cidrs.sort_unstable();
        cidrs.dedup();
        assert_eq!(cidrs.len(), 10_000);
    }
}
