//! The flow tables of a node in encap mode, with AntreaProxy: those that a packet under a layer-7 rule
//! passes, in Antrea's order and with its marks. Where Antrea has groups, conjunctions or per-Service
//! flows, one plain flow stands for them.

use std::fmt::Write;

/// Tables in the order of the pipeline; the position is the number.
const TABLES: [&str; 29] = [
    "PipelineRootClassifier",
    "ARP",
    "ND",
    "Classifier",
    "SpoofGuard",
    "UnSNAT",
    "ConntrackZone",
    "ConntrackState",
    "PreRoutingClassifier",
    "ServiceLB",
    "EndpointDNAT",
    "AntreaPolicyEgressRule",
    "EgressRule",
    "EgressDefaultRule",
    "EgressMetric",
    "L3Forwarding",
    "EgressMark",
    "L3DecTTL",
    "SNATMark",
    "SNAT",
    "L2ForwardingCalc",
    "TrafficControl",
    "IngressSecurityClassifier",
    "AntreaPolicyIngressRule",
    "IngressRule",
    "IngressDefaultRule",
    "IngressMetric",
    "ConntrackCommit",
    "Output",
];

/// Every node's tunnel endpoint, towards the others.
pub const VIRTUAL_MAC: &str = "aa:bb:cc:dd:ee:ff";
/// The Service address in front of the server pod.
pub const CLUSTER_IP: [&str; 2] = ["10.96.0.10", "fd96::10"];
/// The Service address in front of the pod on the other node.
pub const CLUSTER_IP_REMOTE: [&str; 2] = ["10.96.0.11", "fd96::11"];
/// Pods and gateway of this node.
pub const LOCAL_PODS: [&str; 2] = ["10.10.0.0/24", "fd10::/64"];
/// Pods of the other node.
pub const REMOTE_PODS: [&str; 2] = ["10.10.1.0/24", "fd11::/64"];
/// The other node, as tunnel endpoint.
pub const OTHER_NODE: &str = "198.51.100.2";
/// Port of both Services and of their endpoints.
const SERVICE_PORT: u16 = 8080;
/// The mark that makes the host translate to an Egress address.
pub const EGRESS_MARK: u32 = 1;

/// A pod of this node, or the gateway.
pub struct Local {
    pub port: u16,
    pub mac: &'static str,
    pub addresses: [&'static str; 2],
}

/// What the flows are made for.
pub struct Ports {
    pub gateway: Local,
    pub pods: Vec<Local>,
    pub tunnel: u16,
    pub tap0: u16,
    pub tap1: u16,
    /// Address of the pod on the other node.
    pub remote_pod: [&'static str; 2],
}

/// Which way a rule faces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Ingress,
    Egress,
}

/// Which address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    pub fn index(self) -> usize {
        match self {
            Self::V4 => 0,
            Self::V6 => 1,
        }
    }

    /// Conntrack zone.
    pub fn zone(self) -> u16 {
        [65520, 65510][self.index()]
    }

    fn ip(self) -> &'static str {
        ["ip", "ipv6"][self.index()]
    }

    fn tcp(self) -> &'static str {
        ["tcp", "tcp6"][self.index()]
    }

    fn dst(self) -> &'static str {
        ["nw_dst", "ipv6_dst"][self.index()]
    }

    fn src(self) -> &'static str {
        ["nw_src", "ipv6_src"][self.index()]
    }
}

/// Number of a table.
pub fn table(name: &str) -> usize {
    TABLES.iter().position(|table| *table == name).unwrap()
}

/// Puts numbers for names: `table=NAME` and `goto_table:NAME`.
pub fn numbered(flows: &str) -> String {
    let mut names: Vec<_> = TABLES.iter().enumerate().collect();
    // A name that begins with another comes first.
    names.sort_by_key(|(_, name)| std::cmp::Reverse(name.len()));
    let mut text = flows.to_owned();
    for (number, name) in names {
        text = text.replace(&format!("table={name}"), &format!("table={number}"));
        text = text.replace(
            &format!("goto_table:{name}"),
            &format!("goto_table:{number}"),
        );
    }
    text
}

/// All flows of a node without a policy.
pub fn node(ports: &Ports) -> String {
    let mut flows = String::new();
    entrance(&mut flows, ports);
    for family in FAMILIES {
        conntrack(&mut flows, family);
        service(&mut flows, family, ports);
        routing(&mut flows, family, ports);
    }
    onwards(&mut flows);
    switching(&mut flows, ports);
    numbered(&flows)
}

fn line(flows: &mut String, text: &str) {
    writeln!(flows, "{text}").unwrap();
}

fn entrance(flows: &mut String, ports: &Ports) {
    line(
        flows,
        "table=PipelineRootClassifier,priority=200,arp,actions=goto_table:ARP",
    );
    for kind in 133..=136 {
        line(
            flows,
            &format!(
                "table=PipelineRootClassifier,priority=210,icmp6,icmp_type={kind},actions=goto_table:ND"
            ),
        );
    }
    line(
        flows,
        "table=PipelineRootClassifier,priority=200,ip,actions=goto_table:Classifier",
    );
    line(
        flows,
        "table=PipelineRootClassifier,priority=200,ipv6,actions=goto_table:Classifier",
    );
    line(flows, "table=ARP,priority=190,actions=NORMAL");
    line(flows, "table=ND,priority=190,actions=NORMAL");
    let tunnel = ports.tunnel;
    line(
        flows,
        &format!(
            "table=Classifier,priority=210,in_port={tunnel},actions=set_field:0x1/0xf->reg0,\
         set_field:0x200/0x200->reg0,goto_table:UnSNAT"
        ),
    );
    let gateway = ports.gateway.port;
    line(
        flows,
        &format!(
            "table=Classifier,priority=210,in_port={gateway},actions=set_field:0x2/0xf->reg0,\
         goto_table:SpoofGuard"
        ),
    );
    line(
        flows,
        &format!("table=SpoofGuard,priority=200,in_port={gateway},actions=goto_table:UnSNAT"),
    );
    for pod in &ports.pods {
        let Local {
            port,
            mac,
            addresses,
        } = pod;
        line(
            flows,
            &format!(
                "table=Classifier,priority=190,in_port={port},actions=set_field:0x3/0xf->reg0,\
             goto_table:SpoofGuard"
            ),
        );
        for family in FAMILIES {
            let (ip, src, address) = (family.ip(), family.src(), addresses[family.index()]);
            line(
                flows,
                &format!(
                    "table=SpoofGuard,priority=200,{ip},in_port={port},dl_src={mac},{src}={address},\
                 actions=goto_table:UnSNAT"
                ),
            );
        }
    }
}

fn conntrack(flows: &mut String, family: Family) {
    let (ip, zone) = (family.ip(), family.zone());
    for text in [
        format!(
            "table=ConntrackZone,priority=200,{ip},actions=ct(table=ConntrackState,zone={zone},nat)"
        ),
        format!("table=ConntrackState,priority=200,ct_state=+inv+trk,{ip},actions=drop"),
        format!(
            "table=ConntrackState,priority=190,ct_state=-new+trk,ct_mark=0x10/0x10,{ip},\
             actions=set_field:0x200/0x200->reg0,goto_table:AntreaPolicyEgressRule"
        ),
        format!(
            "table=ConntrackState,priority=190,ct_state=-new+trk,ct_mark=0x0/0x10,{ip},\
             actions=goto_table:AntreaPolicyEgressRule"
        ),
        format!(
            "table=ConntrackCommit,priority=200,ct_state=+new+trk,ct_mark=0x0/0x10,{ip},\
             actions=ct(commit,table=Output,zone={zone},exec(move:NXM_NX_REG0[0..3]->NXM_NX_CT_MARK[0..3]))"
        ),
    ] {
        line(flows, &text);
    }
    for (rules, metric) in [
        ("AntreaPolicyEgressRule", "EgressMetric"),
        ("AntreaPolicyIngressRule", "IngressMetric"),
    ] {
        for state in ["-new+est", "-new+rel"] {
            line(
                flows,
                &format!(
                    "table={rules},priority=64990,ct_state={state},{ip},actions=goto_table:{metric}"
                ),
            );
        }
    }
}

/// Two Services with one endpoint each.
fn service(flows: &mut String, family: Family, ports: &Ports) {
    let (ip, tcp, dst, zone) = (family.ip(), family.tcp(), family.dst(), family.zone());
    let at = family.index();
    for (cluster_ip, endpoint) in [
        (CLUSTER_IP[at], ports.pods[1].addresses[at]),
        (CLUSTER_IP_REMOTE[at], ports.remote_pod[at]),
    ] {
        let to = match family {
            Family::V4 => format!("{endpoint}:{SERVICE_PORT}"),
            Family::V6 => format!("[{endpoint}]:{SERVICE_PORT}"),
        };
        line(
            flows,
            &format!(
                "table=ServiceLB,priority=200,{tcp},{dst}={cluster_ip},tp_dst={SERVICE_PORT},\
             actions=set_field:0x200/0x200->reg0,set_field:0x20000/0x70000->reg4,\
             goto_table:EndpointDNAT"
            ),
        );
        line(
            flows,
            &format!(
                "table=EndpointDNAT,priority=200,{tcp},reg4=0x20000/0x70000,{dst}={cluster_ip},\
             actions=ct(commit,table=AntreaPolicyEgressRule,zone={zone},nat(dst={to}),\
             exec(set_field:0x10/0x10->ct_mark,move:NXM_NX_REG0[0..3]->NXM_NX_CT_MARK[0..3]))"
            ),
        );
    }
    line(
        flows,
        &format!("table=EndpointDNAT,priority=190,{ip},reg4=0x20000/0x70000,actions=drop"),
    );
}

fn routing(flows: &mut String, family: Family, ports: &Ports) {
    let (ip, dst, at) = (family.ip(), family.dst(), family.index());
    let gateway = ports.gateway.mac;
    let to_gateway = ports.gateway.addresses[at];
    line(
        flows,
        &format!(
            "table=L3Forwarding,priority=210,{ip},{dst}={to_gateway},\
         actions=set_field:{gateway}->eth_dst,set_field:0x20/0xf0->reg0,goto_table:L3DecTTL"
        ),
    );
    line(
        flows,
        &format!(
            "table=L3Forwarding,priority=210,ct_state=+rpl+trk,ct_mark=0x2/0xf,{ip},\
         actions=set_field:{gateway}->eth_dst,set_field:0x20/0xf0->reg0,goto_table:L2ForwardingCalc"
        ),
    );
    for Local { mac, addresses, .. } in &ports.pods {
        let address = addresses[at];
        line(
            flows,
            &format!(
                "table=L3Forwarding,priority=200,{ip},reg0=0x200/0x200,{dst}={address},\
             actions=set_field:{gateway}->eth_src,set_field:{mac}->eth_dst,goto_table:L3DecTTL"
            ),
        );
    }
    let (local, remote) = (LOCAL_PODS[at], REMOTE_PODS[at]);
    line(
        flows,
        &format!(
            "table=L3Forwarding,priority=200,{ip},reg0=0x0/0x200,{dst}={local},\
         actions=goto_table:L2ForwardingCalc"
        ),
    );
    line(
        flows,
        &format!(
            "table=L3Forwarding,priority=200,{ip},{dst}={remote},actions=set_field:{gateway}->eth_src,\
         set_field:{VIRTUAL_MAC}->eth_dst,set_field:{OTHER_NODE}->tun_dst,\
         set_field:0x10/0xf0->reg0,goto_table:L3DecTTL"
        ),
    );
    line(
        flows,
        &format!(
            "table=L3Forwarding,priority=190,ct_state=-rpl+trk,{ip},reg0=0x3/0xf,\
         actions=goto_table:EgressMark"
        ),
    );
    line(
        flows,
        &format!("table=L3DecTTL,priority=210,{ip},reg0=0x2/0xf,actions=goto_table:SNATMark"),
    );
    line(
        flows,
        &format!("table=L3DecTTL,priority=200,{ip},actions=dec_ttl,goto_table:SNATMark"),
    );
}

/// What happens where no flow of a table says otherwise.
fn onwards(flows: &mut String) {
    for (from, to) in [
        ("UnSNAT", "ConntrackZone"),
        ("ConntrackZone", "ConntrackState"),
        ("ConntrackState", "PreRoutingClassifier"),
        ("PreRoutingClassifier", "ServiceLB"),
        ("ServiceLB", "EndpointDNAT"),
        ("EndpointDNAT", "AntreaPolicyEgressRule"),
        ("AntreaPolicyEgressRule", "EgressRule"),
        ("EgressRule", "EgressDefaultRule"),
        ("EgressDefaultRule", "EgressMetric"),
        ("EgressMetric", "L3Forwarding"),
        ("L3DecTTL", "SNATMark"),
        ("SNATMark", "SNAT"),
        ("SNAT", "L2ForwardingCalc"),
        ("L2ForwardingCalc", "TrafficControl"),
        ("TrafficControl", "IngressSecurityClassifier"),
        ("IngressSecurityClassifier", "AntreaPolicyIngressRule"),
        ("AntreaPolicyIngressRule", "IngressRule"),
        ("IngressRule", "IngressDefaultRule"),
        ("IngressDefaultRule", "IngressMetric"),
        ("IngressMetric", "ConntrackCommit"),
        ("ConntrackCommit", "Output"),
    ] {
        line(
            flows,
            &format!("table={from},priority=0,actions=goto_table:{to}"),
        );
    }
    for from in ["L3Forwarding", "EgressMark"] {
        line(
            flows,
            &format!(
                "table={from},priority=0,actions=set_field:0x20/0xf0->reg0,goto_table:L2ForwardingCalc"
            ),
        );
    }
}

fn switching(flows: &mut String, ports: &Ports) {
    let tunnel = (ports.tunnel, VIRTUAL_MAC);
    let locals = ports.pods.iter().chain([&ports.gateway]);
    for (port, mac) in locals.map(|l| (l.port, l.mac)).chain([tunnel]) {
        line(
            flows,
            &format!(
                "table=L2ForwardingCalc,priority=200,dl_dst={mac},actions=set_field:{port}->reg1,\
             set_field:0x200000/0x600000->reg0,goto_table:TrafficControl"
            ),
        );
    }
    for text in [
        "table=IngressSecurityClassifier,priority=210,ct_state=-rpl+trk,pkt_mark=0x80000000/0x80000000,ip,actions=goto_table:ConntrackCommit",
        "table=IngressSecurityClassifier,priority=210,ct_state=-rpl+trk,pkt_mark=0x80000000/0x80000000,ipv6,actions=goto_table:ConntrackCommit",
        "table=IngressSecurityClassifier,priority=200,reg0=0x20/0xf0,actions=goto_table:IngressMetric",
        "table=IngressSecurityClassifier,priority=200,reg0=0x10/0xf0,actions=goto_table:IngressMetric",
        "table=Output,priority=200,reg0=0x200000/0x600000,actions=output:NXM_NX_REG1[]",
    ] {
        line(flows, text);
    }
}

/// The flows that the first layer-7 rule of a node brings, and that stay.
pub fn layer_7(ports: &Ports) -> String {
    let (tap0, tap1) = (ports.tap0, ports.tap1);
    let mut flows = format!(
        "table=Classifier,priority=200,in_port={tap1},vlan_tci=0x1000/0x1000,actions=pop_vlan,set_field:0x7/0xf->reg0,goto_table:UnSNAT
table=TrafficControl,priority=210,reg0=0x7/0xf,actions=goto_table:Output
table=Output,priority=213,reg0=0x7/0xf,actions=output:NXM_NX_REG1[]
table=Output,priority=212,ct_mark=0x80/0x80,actions=push_vlan:0x8100,move:NXM_NX_CT_LABEL[64..75]->OXM_OF_VLAN_VID[0..11],output:{tap0}
"
    );
    for family in FAMILIES {
        let (ip, zone) = (family.ip(), family.zone());
        flows.push_str(&format!(
            "table=ConntrackZone,priority=212,{ip},reg0=0x0/0x800000,actions=set_field:0x800000/0x800000->reg0,ct(table=ConntrackZone,zone={zone})
table=ConntrackZone,priority=211,ct_state=+rpl+trk,{ip},reg0=0x7/0xf,actions=ct(table=L3Forwarding,zone={zone},nat)
table=ConntrackZone,priority=211,ct_state=-rpl+trk,{ip},reg0=0x7/0xf,actions=goto_table:L3Forwarding
table=ConntrackZone,priority=210,ct_state=+rpl+trk,ct_mark=0x80/0x80,{ip},actions=goto_table:Output
table=ConntrackZone,priority=210,ct_state=-rpl+trk,ct_mark=0x80/0x80,{ip},actions=ct(table=ConntrackState,zone={zone},nat)
"
        ));
    }
    numbered(&flows)
}

/// What a layer-7 rule applies to.
pub struct Match {
    pub way: Way,
    /// The pod it is applied to: position among the node's pods.
    pub pod: usize,
    /// The other side; `None`: any.
    pub peer: Option<[&'static str; 2]>,
    /// TCP port; `None`: all of IP.
    pub port: Option<u16>,
    /// OpenFlow priority: higher first.
    pub priority: u16,
}

/// Matches of the flows of a rule, to add or to delete by.
pub fn rule_matches(rule: &Match, ports: &Ports) -> Vec<(Family, String)> {
    FAMILIES
        .into_iter()
        .map(|family| {
            let at = family.index();
            let pod = ports.pods[rule.pod].addresses[at];
            let (own, other, table) = match rule.way {
                Way::Egress => (family.src(), family.dst(), "AntreaPolicyEgressRule"),
                Way::Ingress => (family.dst(), family.src(), "AntreaPolicyIngressRule"),
            };
            let mut text = format!("table={table},priority={},", rule.priority);
            match rule.port {
                Some(port) => write!(text, "{},tp_dst={port}", family.tcp()).unwrap(),
                None => text.push_str(family.ip()),
            }
            write!(text, ",{own}={pod}").unwrap();
            if let Some(peer) = rule.peer {
                write!(text, ",{other}={}", peer[at]).unwrap();
            }
            (family, numbered(&text))
        })
        .collect()
}

/// The flows of a rule: what matches is committed with its VLAN.
pub fn rule(rule: &Match, vlan: u16, id: u32, ports: &Ports) -> String {
    let (register, label, metric) = match rule.way {
        Way::Egress => ("reg5", "32..63", "EgressMetric"),
        Way::Ingress => ("reg6", "0..31", "IngressMetric"),
    };
    let mut flows = String::new();
    for (family, matches) in rule_matches(rule, ports) {
        let zone = family.zone();
        line(
            &mut flows,
            &format!(
                "{matches},actions=set_field:{id}->{register},ct(commit,table={metric},zone={zone},\
             exec(load:{id}->NXM_NX_CT_LABEL[{label}],set_field:0x80/0x80->ct_mark,\
             load:{vlan}->NXM_NX_CT_LABEL[64..75]))"
            ),
        );
    }
    numbered(&flows)
}

/// An Egress address for a pod: its packets to the outside are marked for the host.
pub fn egress_mark(pod: usize, ports: &Ports) -> String {
    let port = ports.pods[pod].port;
    let mut flows = String::new();
    for family in FAMILIES {
        let ip = family.ip();
        line(
            &mut flows,
            &format!(
                "table=EgressMark,priority=200,ct_state=+trk,{ip},in_port={port},\
             actions=set_field:{EGRESS_MARK:#x}/0xff->pkt_mark,set_field:0x20/0xf0->reg0,\
             goto_table:L2ForwardingCalc"
            ),
        );
    }
    numbered(&flows)
}
