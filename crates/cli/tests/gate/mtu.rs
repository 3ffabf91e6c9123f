//! Links of every size, equal and unequal, with super-packets and without.

use tollgate_lab::lab::{Outside, Place, UpOptions};
use tollgate_lab::names::{Family, OUT_V4, OUT_V6, UPLINK_IF};

use crate::bed::{Bed, options, until};
use crate::transfer::{download, unharmed, upload};

/// Size of the object in these tests: every one of the matrix moves it some times.
const SIZE: u64 = 32 << 20;

fn matrix(pod: u16, out: u16, outside: Outside) {
    let lab = UpOptions {
        pod_mtu: pod,
        out_mtu: out,
        outside,
        big_bytes: SIZE,
        ..options(&format!("mtu{pod}-{out}-{}", &outside.to_string()[..1]))
    };
    let bed = Bed::of(&lab);
    for (family, scheme) in [
        (Family::V4, "http"),
        (Family::V4, "https"),
        (Family::V6, "http"),
        (Family::V6, "https"),
    ] {
        download(&bed, family, scheme);
        upload(&bed, family, scheme);
    }
    unharmed(&bed);
}

macro_rules! matrix {
    ($($name:ident: $pod:literal, $out:literal, $outside:ident;)*) => {
        $(#[test] fn $name() { matrix($pod, $out, Outside::$outside); })*
    };
}

matrix! {
    mtu_1280: 1280, 1280, Veth;
    mtu_1400: 1400, 1400, Veth;
    mtu_1500: 1500, 1500, Veth;
    mtu_9000: 9000, 9000, Veth;
    mtu_1280_in_1500: 1280, 1500, Veth;
    mtu_1500_in_1280: 1500, 1280, Veth;
    mtu_9000_in_1500: 9000, 1500, Veth;
    mtu_1500_in_9000: 1500, 9000, Veth;
    mtu_1500_wire: 1500, 1500, Wire;
    mtu_9000_in_1500_wire: 9000, 1500, Wire;
}

/// The node's way out narrows behind the ends' backs: the pod learns of it by the node's ICMP
/// errors, which belong to a flow under an L7 rule.
#[test]
fn path_mtu_discovery_works_under_policy() {
    let bed = Bed::of(&UpOptions {
        big_bytes: SIZE,
        ..options("pmtu")
    });
    bed.sh(Place::Node, &format!("ip link set {UPLINK_IF} mtu 1300"));
    for family in [Family::V4, Family::V6] {
        upload(&bed, family, "http");
        upload(&bed, family, "https");
        let outside = match family {
            Family::V4 => OUT_V4.to_string(),
            Family::V6 => OUT_V6.to_string(),
        };
        until("the pod knows the path's MTU", || {
            let route = bed.sh(Place::Pod, &format!("ip route get {outside}"));
            route.contains("mtu 1300").then_some(())
        });
    }
    unharmed(&bed);
}
