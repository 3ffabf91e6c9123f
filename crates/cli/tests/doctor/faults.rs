//! One fault a test: found by its number and nothing worse beside it, repaired, taken back.

use super::bed::{Bed, Between, Examined, reader, write};

/// A fault that can be made here.
struct Fault {
    /// Its number.
    code: &'static str,
    between: Between,
    /// Makes it.
    make: fn(&mut Bed),
    /// Options that it takes to see it, `--probe` for what shows itself only under traffic.
    with: &'static [&'static str],
    /// What else is rightly said meanwhile: never an error.
    beside: &'static [&'static str],
    /// `--fix --yes` repairs it, and all probes pass afterwards.
    repaired: bool,
    /// The repair helps TCP alone, as its cost says.
    tcp_only: bool,
}

const FAULT: Fault = Fault {
    code: "",
    between: Between::Routed,
    make: |_| {},
    with: &[],
    beside: &[],
    repaired: true,
    tcp_only: false,
};

impl Fault {
    fn check(&self, name: &str) {
        let mut bed = Bed::new(name, self.between);
        let healthy = bed.examine(&[]);
        if matches!(self.between, Between::Routed | Between::Tunnelled) {
            assert_eq!(healthy.code, 0, "before: {:#}", healthy.json);
        } else {
            // Nothing carries frames yet.
            assert_eq!(healthy.code, 3, "before: {:#}", healthy.json);
        }
        assert!(healthy.codes().is_empty(), "before: {:?}", healthy.found());
        (self.make)(&mut bed);

        let found = bed.examine(self.with);
        self.assert_found(&found);
        assert_eq!(
            found.actions(self.code) > 0,
            self.repaired,
            "{:?}",
            found.json
        );
        if !self.repaired {
            return;
        }
        let with: Vec<&str> = self
            .with
            .iter()
            .chain(&["--fix", "--yes"])
            .copied()
            .collect();
        let fixed = bed.examine(&with);
        assert_eq!(fixed.code, 0, "after the repair: {:#}", fixed.json);
        assert!(fixed.codes().is_empty(), "{:#}", fixed.json);
        // Probes hear of wrong packets that others make.
        bed.end_python();
        let with: Vec<&str> = self
            .with
            .iter()
            .filter(|with| **with != "--probe")
            .chain(&["--probe"])
            .copied()
            .collect();
        let probed = bed.examine(&with);
        let mut failed = probed.failed_probes();
        failed.retain(|probe| !self.tcp_only || probe.contains("\"tcp\""));
        assert_eq!(failed, [""; 0], "after the repair");
        if !self.tcp_only {
            assert_eq!(probed.code, 0, "{:#}", probed.json);
        }

        let undone = bed.doctor(&["--undo"]);
        assert!(undone.status.success(), "{undone:?}");
        if !self.with.contains(&"--probe") {
            self.assert_found(&bed.examine(self.with));
        }
    }

    fn assert_found(&self, found: &Examined) {
        let codes = found.codes();
        assert!(
            codes.iter().any(|code| code == self.code),
            "{:#}",
            found.json
        );
        for (code, severity) in found.found() {
            if code == self.code {
                // Info leaves the machine healthy.
                let expected = if severity == "info" { 0 } else { 1 };
                assert!(found.code >= expected, "{:#}", found.json);
                continue;
            }
            assert_ne!(severity, "error", "{:#}", found.json);
            assert!(self.beside.contains(&code.as_str()), "{:#}", found.json);
        }
    }
}

macro_rules! faults {
    ($($name:ident: { $($field:ident: $value:expr),* $(,)? })*) => {$(
        #[test]
        fn $name() {
            Fault { $($field: $value,)* ..FAULT }.check(&stringify!($name).replace('_', "-"));
        }
    )*};
}

faults! {
    tg1001: {
        code: "TG1001",
        between: Between::Copied,
        // Senders as they should be for such an engine, but its own port merges what it receives.
        make: |bed| {
            bed.copy();
            no_checksums_left_out(bed);
            bed.sh("node", "ethtool -K p1 gro on");
        },
    }
    tg1002: {
        code: "TG1002",
        between: Between::Copied,
        make: |bed| {
            bed.copy();
            for place in ["pod", "out"] {
                bed.sh(place, "ethtool -K eth0 tso off");
            }
        },
    }
    tg1003: {
        code: "TG1003",
        make: |bed| {
            bed.sh("pod", "ethtool -K eth0 tx off");
        },
    }
    tg1005: {
        code: "TG1005",
        between: Between::Copied,
        make: |bed| bed.python("node", &reader(1024, true)),
        repaired: false,
    }
    tg1007: {
        code: "TG1007",
        between: Between::Copied,
        make: |bed| {
            bed.copy();
            no_checksums_left_out(bed);
            bed.sh("node", "ip link set p1 mtu 1400");
            bed.sh("out", "ip link set eth0 mtu 1400");
        },
        // Both ends of both pairs belong to somebody: a person has to choose.
        repaired: false,
    }
    tg1008: {
        code: "TG1008",
        between: Between::CopiedAndBridged,
        make: |bed| {
            bed.copy();
            no_checksums_left_out(bed);
            bed.sh("node", "ethtool -K q1 tx off; ethtool -K up0 gro on rx-udp-gro-forwarding on");
        },
    }
    tg1101: {
        code: "TG1101",
        between: Between::Tunnelled,
        make: |bed| {
            bed.sh("pod", "ip link set eth0 mtu 1500");
            bed.sh("node", "ip link set p0 mtu 1500");
        },
    }
    tg1102: {
        code: "TG1102",
        make: |bed| {
            bed.sh("node", "ip link set tgp0 mtu 1400");
        },
    }
    tg1103: {
        code: "TG1103",
        make: |bed| {
            bed.sh("node", "ip link set up0 mtu 1400");
            bed.sh("out", "ip link set eth0 mtu 1400");
            bed.sh("node", NO_ICMP);
        },
        beside: &["TG1104"],
        tcp_only: true,
    }
    tg1104: {
        code: "TG1104",
        make: |bed| {
            bed.sh("node", NO_ICMP);
        },
    }
    tg1105: {
        code: "TG1105",
        make: |bed| {
            bed.sh("node", "ip tuntap add mode tun name tun0; ip link set tun0 mtu 1400 up; \
                            ip route add 198.51.100.0/24 dev tun0");
        },
    }
    tg1108: {
        code: "TG1108",
        make: |bed| {
            bed.sh("node", "nft add table ip cut; \
                nft add chain ip cut f '{ type filter hook forward priority 0; }'; \
                nft add rule ip cut f meta l4proto udp ip length 1401-65535 drop");
        },
        with: &["--probe"],
        repaired: false,
    }
    tg1109: {
        code: "TG1109",
        make: |bed| {
            bed.sh("node", "nft add table ip cut; \
                nft add chain ip cut f '{ type filter hook prerouting priority -450; }'; \
                nft add rule ip cut f ip frag-off '&' 0x3fff != 0 drop");
        },
        with: &["--probe"],
        repaired: false,
    }
    tg1203: {
        code: "TG1203",
        make: |bed| {
            // Sums that are left out would be filled in later.
            bed.sh("pod", "ethtool -K eth0 tx off");
            bed.sh("node", "nft add table ip bad; \
                nft add chain ip bad f '{ type filter hook forward priority 0; }'; \
                nft add rule ip bad f ip daddr 10.88.1.2 udp length 800-65535 udp checksum set 0x4242");
        },
        with: &["--probe"],
        beside: &["TG1003"],
        repaired: false,
    }
    tg1302: {
        code: "TG1302",
        make: |bed| {
            let (source, object) = (write(bed, "x.c", XDP), bed.path("x.o"));
            let (source, object) = (source.display(), object.display());
            bed.sh("node", &format!("clang-14 -O2 -g -target bpf -c {source} -o {object}; \
                                     ip link set dev tgp0 xdpdrv obj {object} sec xdp"));
        },
    }
    tg1304: {
        code: "TG1304",
        make: |bed| {
            let script = write(bed, "size.py", GRO_IPV4_MAX_SIZE);
            bed.sh("pod", &format!("python3 {}", script.display()));
        },
    }
    tg1305: {
        code: "TG1305",
        make: |bed| {
            bed.on_node = true;
            write(bed, "agent.yaml", "offloads:\n  interfaces:\n  - match: eth*\n    place: endpoints\n    \
                features: {tx-tcp6-segmentation: false}\n");
        },
    }
    tg1401: {
        code: "TG1401",
        make: |bed| {
            bed.sh("node", "nft add table ip t; \
                nft add chain ip t f '{ type filter hook forward priority 0; }'; \
                nft add rule ip t f ct state invalid drop");
            bed.python("pod", RESETS);
        },
        with: &["--probe"],
    }
    tg1402: {
        code: "TG1402",
        make: |bed| bed.python("pod", NOBODY_KNOWS),
        with: &["--probe"],
        repaired: false,
    }
}

/// What an engine without the virtio-net header needs of those that send to it.
fn no_checksums_left_out(bed: &mut Bed) {
    for place in ["pod", "out"] {
        bed.sh(place, "ethtool -K eth0 tx off");
    }
}

/// No word of packets that are too large.
pub const NO_ICMP: &str = "nft add table ip quiet; \
    nft add chain ip quiet f '{ type filter hook output priority 0; }'; \
    nft add rule ip quiet f icmp type destination-unreachable drop";

/// A program that passes everything.
const XDP: &str = "__attribute__((section(\"xdp\"), used)) int pass(void *x) { return 2; }\n\
    char l[] __attribute__((section(\"license\"), used)) = \"GPL\";\n";

/// What newer releases of `ip link set eth0 gro_ipv4_max_size 100000` do.
const GRO_IPV4_MAX_SIZE: &str = "
import socket, struct
RTM_NEWLINK, REQUEST_ACK, IFLA_GRO_IPV4_MAX_SIZE = 16, 5, 64
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
body = struct.pack('BxHiII', 0, 0, socket.if_nametoindex('eth0'), 0, 0)
body += struct.pack('HHI', 8, IFLA_GRO_IPV4_MAX_SIZE, 100000)
s.sendto(struct.pack('IHHII', 16 + len(body), RTM_NEWLINK, REQUEST_ACK, 1, 0) + body, (0, 0))
assert struct.unpack_from('i', s.recv(4096), 16) == (0,)
";

/// Resets of connections that never were.
const RESETS: &str = "
import socket, struct, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff
source, to = socket.inet_aton('10.88.0.2'), socket.inet_aton('10.88.1.2')
port = 2000
while True:
    port = port + 1 if port < 60000 else 2000
    head = struct.pack('!HHIIBBHHH', port, 9, 1, 0, 0x50, 4, 0, 0, 0)
    pseudo = source + to + struct.pack('!BBH', 0, 6, len(head))
    head = head[:16] + struct.pack('!H', checksum(pseudo + head)) + head[18:]
    s.sendto(head, ('10.88.1.2', 0))
    if port == 2100:
        open(sys.argv[1], 'w').close()
    time.sleep(0.001)
";

/// Frames of a kind that nobody takes (an EtherType for experiments): the kernel drops and counts them.
const NOBODY_KNOWS: &str = "
import socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('eth0', 0))
open(sys.argv[1], 'w').close()
frame = b'\\xff' * 6 + b'\\x02\\0\\0\\0\\0\\1' + b'\\x88\\xb5' + b'x' * 60
while True:
    for _ in range(10):
        s.send(frame)
    time.sleep(0.001)
";
