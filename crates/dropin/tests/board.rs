//! VLANs and the endpoints that stand for them.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use tollgate_dropin::board::{Board, BoardError};
use tollgate_dropin::rules::parse;
use tollgate_dropin::tenants::{FileRules, Tenants, VlanRules};
use tollgate_wire::tag::EndpointId;

fn rules(policy: &str, path: &str) -> VlanRules {
    let text = format!(
        "reject ip any any -> any any (msg: \"Reject by {policy}\"; sid: 1;)\n\
         pass http any any -> any any (msg: \"Allow\"; http.uri; content:\"{path}\"; sid: 2;)\n"
    );
    VlanRules::of_tenant(&parse(text.as_bytes()).unwrap()).unwrap()
}

/// A board without packet threads, and what is put there.
struct Bed {
    board: Board,
    tenants: Tenants,
}

impl Bed {
    fn new() -> Self {
        Self {
            board: Board::new(0).unwrap(),
            tenants: Tenants::default(),
        }
    }

    fn put(&self) -> Result<u64, BoardError> {
        self.board.put(&self.tenants, &FileRules::default())?;
        Ok(self.board.epoch())
    }

    fn come(&mut self, vlan: u16, rules: VlanRules) -> EndpointId {
        self.tenants.put(vlan.into(), rules).unwrap();
        self.tenants.handle(vlan, vlan.into()).unwrap();
        self.put().unwrap();
        self.id(vlan).unwrap()
    }

    fn go(&mut self, vlan: u16) {
        self.tenants.unhandle(vlan, vlan.into()).unwrap();
        self.tenants.remove(vlan.into()).unwrap();
        self.put().unwrap();
    }

    fn id(&self, vlan: u16) -> Option<EndpointId> {
        self.board.snapshot().by_vlan.get(&vlan).copied()
    }

    fn has_policy(&self, id: EndpointId) -> bool {
        self.board.snapshot().table.get(id).is_some()
    }
}

#[test]
fn a_number_used_again_is_another_endpoint_while_old_flows_live() {
    let mut bed = Bed::new();
    let first = bed.come(4000, rules("a", "/a"));
    bed.board.flow_opened(first);
    bed.go(4000);
    assert_eq!(bed.id(4000), None);
    assert!(bed.has_policy(first), "the flow goes on");
    let second = bed.come(4000, rules("b", "/b"));
    assert_ne!(first, second);
    let snapshot = bed.board.snapshot();
    assert_eq!(snapshot.endpoints[&first].vlan, 4000);
    assert_eq!(snapshot.endpoints[&second].vlan, 4000);
    // The same rules come back: they are their flow's.
    bed.go(4000);
    assert_eq!(bed.come(4000, rules("a", "/a")), first);
    // Nothing is left of them once the flow is gone and something changes.
    bed.go(4000);
    bed.board.flow_ended(first);
    bed.come(5, rules("c", "/c"));
    assert!(bed.id(4000).is_none());
    let endpoints = &bed.board.snapshot().endpoints;
    assert_eq!(endpoints.len(), 1, "{endpoints:?}");
}

#[test]
fn rules_that_change_keep_their_endpoint_unless_they_become_anothers() {
    let mut bed = Bed::new();
    let id = bed.come(7, rules("a", "/a"));
    bed.board.flow_opened(id);
    let epoch = bed.board.epoch();
    assert_eq!(bed.come(7, rules("a", "/a")), id);
    assert_eq!(bed.board.epoch(), epoch, "nothing changed");
    assert_eq!(bed.come(7, rules("a", "/b")), id);
    assert_ne!(bed.board.epoch(), epoch);
    assert_ne!(bed.come(7, rules("other", "/b")), id);
    assert!(bed.has_policy(id));
}

#[test]
fn rules_that_make_no_policy_change_nothing() {
    let mut bed = Bed::new();
    let id = bed.come(7, rules("a", "/a"));
    let bad = r#"http.uri; content:"*"; startswith;"#;
    let text = format!(
        "reject ip any any -> any any (sid: 1;)\npass http any any -> any any ({bad} sid: 2;)\n"
    );
    let bad = VlanRules::of_tenant(&parse(text.as_bytes()).unwrap()).unwrap();
    let epoch = bed.board.epoch();
    bed.tenants.put(7, bad).unwrap();
    let error = bed.put().unwrap_err().to_string();
    assert!(error.contains("vlan 7"), "{error}");
    assert_eq!((bed.board.epoch(), bed.id(7)), (epoch, Some(id)));
}

#[test]
fn numbers_run_out_and_come_back() {
    let mut bed = Bed::new();
    let mut text = String::new();
    for vlan in 1..=EndpointId::MAX {
        text +=
            &format!("reject ip any any -> any any (msg: \"x\"; vlan.id: {vlan}; sid: {vlan};)\n");
    }
    let full = FileRules::new(&parse(text.as_bytes()).unwrap()).unwrap();
    bed.board.put(&bed.tenants, &full).unwrap();
    bed.tenants.put(1, rules("a", "/a")).unwrap();
    bed.tenants.handle(4001, 1).unwrap();
    let error = bed.board.put(&bed.tenants, &full).unwrap_err();
    assert!(matches!(error, BoardError::NoNumber(4001)), "{error}");
    bed.put().unwrap();
    assert_eq!(bed.board.snapshot().by_vlan.len(), 1);
}
