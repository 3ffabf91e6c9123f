//! The gate stands in front of whatever the bridge has, and costs only those who are governed.

use crate::bed::{Bed, Options, same};

const API: &str = "-H 'Host: api.example.com'";

/// Packets of the gate's flows, whatever they did.
fn gate_packets(bed: &Bed) -> u64 {
    let text = bed.sh(
        "node",
        "ovs-ofctl dump-flows br0 cookie=0x746f6c6c67617400/-1",
    );
    let counts = text.split("n_packets=").skip(1);
    counts
        .filter_map(|rest| rest.split(',').next()?.parse::<u64>().ok())
        .sum()
}

/// Packets of a flow that a test added.
fn packets(bed: &Bed, cookie: u64) -> u64 {
    // Counters of the data path reach the flows about once a second; this asks for it.
    let line =
        format!("ovs-appctl revalidator/wait; ovs-ofctl dump-flows br0 cookie={cookie:#x}/-1");
    let text = bed.sh("node", &line);
    let count = text
        .split("n_packets=")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    count.unwrap().parse().unwrap()
}

#[test]
fn the_bridges_own_flows_go_on() {
    let mut bed = Bed::without_agent("pipe", Options::default());
    // A pipeline with two tables, which counts where frames come from, and closes a port.
    for flow in [
        "cookie=1,table=0,priority=100,in_port=va,actions=load:5->NXM_NX_REG0[],resubmit(,10)",
        "cookie=2,table=0,priority=100,in_port=LOCAL,actions=load:6->NXM_NX_REG0[],resubmit(,10)",
        "cookie=3,table=0,priority=110,tcp,in_port=va,tp_dst=9000,nw_dst=10.20.0.4,actions=drop",
        "cookie=4,table=10,priority=5,reg0=5,actions=NORMAL",
        "cookie=5,table=10,priority=5,reg0=6,actions=NORMAL",
        "cookie=6,table=10,priority=1,actions=drop",
    ] {
        bed.sh("node", &format!("ovs-ofctl add-flow br0 '{flow}'"));
    }
    bed.start();
    let before = [1, 2, 6].map(|cookie| packets(&bed, cookie));
    let allowed = bed.curl("a", &format!("{API} http://192.0.2.10/v2/status"));
    same("an allowed request", allowed, (0, "200".to_owned()));
    let denied = bed.curl("a", &format!("{API} http://192.0.2.10/v1/x"));
    same("a denied one", denied, (0, "403".to_owned()));
    let after = [1, 2, 6].map(|cookie| packets(&bed, cookie));
    assert!(after[0] > before[0], "frames of a come from a's port");
    assert!(
        after[1] > before[1],
        "frames of the gateway come from its port"
    );
    same("frames from nowhere", after[2], before[2]);
    // The gate allows it, the bridge does not.
    let closed = bed.curl("a", "--max-time 2 http://10.20.0.4:9000/v2/status");
    same("what the bridge drops", closed.0, 28);
    assert!(packets(&bed, 3) > 0);
    // The bridge still knows who is where: nothing was learnt at the TAP's port.
    let learnt = bed.sh(
        "node",
        "ovs-appctl fdb/show br0; ovs-ofctl show br0 | grep tgovs0",
    );
    let tap = learnt.lines().last().unwrap().trim();
    let tap = tap.split('(').next().unwrap();
    for line in learnt
        .lines()
        .filter(|line| line.contains(':') && !line.contains('('))
    {
        assert_ne!(line.split_whitespace().next(), Some(tap), "{learnt}");
    }
}

#[test]
fn who_is_not_governed_pays_nothing() {
    let bed = Bed::new("free");
    let warm = bed.curl("c", "http://192.0.2.10/v2/status");
    same("ready", warm, (0, "200".to_owned()));
    bed.sh("node", "ovs-appctl revalidator/wait");
    let (gate, tap) = (gate_packets(&bed), bed.tap_frames());
    bed.sh(
        "c",
        "curl -sS -o /dev/null http://192.0.2.10:9000/v2/big.bin",
    );
    bed.sh(
        "node",
        "curl -sS -o /dev/null http://10.20.0.4:9000/v2/big.bin",
    );
    bed.sh("node", "ovs-appctl revalidator/wait");
    // Neighbours of governed endpoints may be looked for meanwhile.
    let neighbours = 40;
    let more = gate_packets(&bed) - gate;
    assert!(
        more < neighbours,
        "{more} packets took the way through the gate"
    );
    same("frames at the TAP", bed.tap_frames(), tap);
}

#[test]
fn endpoints_in_a_vlan_meet_a_trunk() {
    let mut bed = Bed::without_agent("vlan", Options::default());
    for port in ["va", "vb", "br0"] {
        bed.sh("node", &format!("ovs-vsctl set Port {port} tag=10"));
    }
    // c is on another switch, whose frames come tagged.
    let kind = Bed::datapath_type();
    bed.sh(
        "node",
        &format!(
            "ovs-vsctl --timeout=20 del-port br0 vc -- add-br br1 -- set Bridge br1 datapath_type={kind} \
             -- add-port br1 vc tag=10 -- add-port br1 up -- set Interface up type=patch options:peer=down \
             -- add-port br0 down -- set Port down trunks=10,20 \
             -- set Interface down type=patch options:peer=up"
        ),
    );
    bed.start();
    for (b, c) in [("10.20.0.3", "10.20.0.4"), ("[fd20::3]", "[fd20::4]")] {
        let get = |place: &str, host: &str, path: &str| {
            bed.curl(place, &format!("{API} http://{host}{path}"))
        };
        same(
            "to the trunk",
            get("a", c, "/v2/status"),
            (0, "200".to_owned()),
        );
        same(
            "to the trunk, denied",
            get("a", c, "/v1/x"),
            (0, "403".to_owned()),
        );
        same(
            "from the trunk",
            get("c", b, "/v2/public/x"),
            (0, "200".to_owned()),
        );
        same(
            "from the trunk, denied",
            get("c", b, "/v2/secret/x"),
            (0, "403".to_owned()),
        );
        let line = format!("curl -sS --max-time 60 http://{b}:9000/v2/big.bin | sha256sum");
        let before = bed.tap_frames();
        let file = bed.path("www/v2/big.bin").display().to_string();
        same(
            "a large object",
            bed.sh("c", &line),
            bed.sh("node", &format!("sha256sum < {file}")),
        );
        assert!(bed.tap_frames() - before < 40);
    }
    same("checksum errors", bed.checksum_errors(), vec![]);
}

/// Frames that would reach an endpoint past its port's own address.
#[test]
fn there_is_no_way_around_the_gate() {
    let mut bed = Bed::new("way");
    let heard = bed.path("heard").display().to_string();
    let listen = "python3 -c 'import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
         s.bind((\"0.0.0.0\", 7000)); print(\"ready\", flush=True); \
         [print(s.recv(99), flush=True) for _ in iter(int, 1)]'";
    bed.spawn("b", listen, "heard");
    crate::bed::until("the listener listens", || {
        let text = std::fs::read_to_string(&heard).unwrap_or_default();
        text.contains("ready").then_some(())
    });
    let mac = bed.sh("b", "ip -br link show eth0 | awk '{print $3}'");
    // UDP 7000 to b is not allowed: not to its station, not to all stations, not from a's station under
    // another name.
    for (place, destination, source) in [
        ("c", mac.as_str(), "02:00:00:00:00:77"),
        ("c", "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:77"),
        ("c", "33:33:00:00:00:01", "02:00:00:00:00:77"),
        ("a", mac.as_str(), "02:00:00:00:00:66"),
    ] {
        bed.sh(place, &datagram(destination, source, "10.20.0.3", "gate"));
    }
    // And one that may pass.
    let open = crate::bed::POLICY.replace("action: Reject", "action: Allow");
    bed.change("policy.yaml", &open);
    bed.sh(
        "c",
        &datagram(&mac, "02:00:00:00:00:77", "10.20.0.3", "free"),
    );
    crate::bed::until("the allowed one comes", || {
        let text = std::fs::read_to_string(&heard).unwrap();
        text.contains("free").then_some(())
    });
    let text = std::fs::read_to_string(&heard).unwrap();
    assert!(!text.contains("gate"), "{text}");
}

/// A shell line that sends a UDP datagram to port 7000 in a frame of one's own making.
fn datagram(destination: &str, source: &str, to: &str, text: &str) -> String {
    format!(
        "python3 - <<'E'\n\
         import socket, struct\n\
         mac = lambda m: bytes.fromhex(m.replace(':', ''))\n\
         def total(b):\n    s = sum(struct.unpack('!%dH' % (len(b) // 2), b))\n    \
         s = (s >> 16) + (s & 65535)\n    return ~(s + (s >> 16)) & 65535\n\
         body = b'{text}'\n\
         udp = struct.pack('!HHHH', 4000, 7000, 8 + len(body), 0) + body\n\
         ip = struct.pack('!BBHHHBBH4s4s', 69, 0, 20 + len(udp), 1, 0, 64, 17, 0, \
         socket.inet_aton('10.20.0.4'), socket.inet_aton('{to}'))\n\
         ip = ip[:10] + struct.pack('!H', total(ip)) + ip[12:]\n\
         s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
         s.bind(('eth0', 0))\n\
         s.send(mac('{destination}') + mac('{source}') + b'\\x08\\x00' + ip + udp)\n\
         E"
    )
}
