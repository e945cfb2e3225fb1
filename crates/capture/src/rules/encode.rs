//! Tables as nf_tables netlink messages.
//!
//! One batch is one transaction. A table is replaced by "create, delete, create": deleting one that does not exist would fail
//! the batch, creating one that exists does not. Numbers are in network byte order except what is compared with a register
//! that the kernel fills in host order (mark, owner). Source: `include/uapi/linux/netfilter/nf_tables.h`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Chain, Family, Hook, Match, Rule, Table, Transport, Verdict};
use crate::netlink::{Attributes, Batch};

/// A batch that makes `table` what is given, whatever was there.
pub(super) fn replace(table: &Table) -> Batch {
    transaction(|batch| {
        create_table(batch, &table.name);
        delete_table(batch, &table.name);
        create_table(batch, &table.name);
        for chain in &table.chains {
            create_chain(batch, &table.name, chain);
        }
        for chain in &table.chains {
            for rule in &chain.rules {
                create_rule(batch, &table.name, chain, rule);
            }
        }
    })
}

/// A batch that removes a table, if it is there.
pub(super) fn remove(name: &str) -> Batch {
    transaction(|batch| {
        create_table(batch, name);
        delete_table(batch, name);
    })
}

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

fn transaction(fill: impl FnOnce(&mut Batch)) -> Batch {
    let mut batch = Batch::default();
    batch.push("begin a packet filter transaction", BATCH_BEGIN, 0, &family(NFPROTO_UNSPEC, SUBSYSTEM), |_| ());
    fill(&mut batch);
    batch.push("commit a packet filter transaction", BATCH_END, 0, &family(NFPROTO_UNSPEC, SUBSYSTEM), |_| ());
    batch
}

fn family(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn kind(message: u16) -> u16 {
    (SUBSYSTEM << 8) | message
}

fn create_table(batch: &mut Batch, name: &str) {
    batch.push(format!("create table inet {name}"), kind(NEWTABLE), CREATE, &family(NFPROTO_INET, 0), |a| {
        a.text(1, name)
    });
}

fn delete_table(batch: &mut Batch, name: &str) {
    batch.push(format!("delete table inet {name}"), kind(DELTABLE), 0, &family(NFPROTO_INET, 0), |a| a.text(1, name));
}

fn create_chain(batch: &mut Batch, table: &str, chain: &Chain) {
    let (kind_name, number, priority) = match chain.hook {
        Hook::NatPrerouting => ("nat", 0, -100),
        Hook::NatOutput => ("nat", 3, -100),
        Hook::NatPostrouting => ("nat", 4, 100),
        Hook::FilterPrerouting => ("filter", 0, -300),
        Hook::FilterForward => ("filter", 2, -300),
        Hook::FilterOutput => ("filter", 3, -300),
        Hook::FilterPostrouting => ("filter", 4, -300),
    };
    let purpose = format!("create chain {} ({}) in table {table}", chain.name, chain.hook);
    batch.push(purpose, kind(NEWCHAIN), CREATE, &family(NFPROTO_INET, 0), |a| {
        a.text(1, table);
        a.text(3, &chain.name);
        a.nested(4, |a| {
            a.be32(1, number);
            a.raw(2, &i32::to_be_bytes(priority));
        });
        a.be32(5, NF_ACCEPT);
        a.text(7, kind_name);
    });
}

fn create_rule(batch: &mut Batch, table: &str, chain: &Chain, rule: &Rule) {
    let purpose = format!("add rule `{rule}` to chain {} of table {table}", chain.name);
    batch.push(purpose, kind(NEWRULE), CREATE | APPEND, &family(NFPROTO_INET, 0), |a| {
        a.text(1, table);
        a.text(2, &chain.name);
        a.nested(4, |a| {
            for condition in &rule.matches {
                put_match(a, condition);
            }
            put_verdict(a, rule.verdict);
        });
    });
}

const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_SKUID: u32 = 10;
const META_SKGID: u32 = 11;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_ZONE: u32 = 17;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const REJECT_TCP_RESET: u32 = 1;
const REJECT_ICMPX: u32 = 2;
const ICMPX_NO_ROUTE: u8 = 0;

fn put_match(a: &mut Attributes<'_>, condition: &Match) {
    match condition {
        Match::Mark(mark) => {
            load_meta(a, META_MARK);
            compare(a, EQUAL, &mark.to_ne_bytes());
        }
        Match::Owner(uid) => {
            load_meta(a, META_SKUID);
            compare(a, EQUAL, &uid.to_ne_bytes());
        }
        Match::Group(gid) => {
            load_meta(a, META_SKGID);
            compare(a, EQUAL, &gid.to_ne_bytes());
        }
        Match::Family(family) => {
            load_meta(a, META_NFPROTO);
            compare(
                a,
                EQUAL,
                &[match family {
                    Family::V4 => NFPROTO_IPV4,
                    Family::V6 => NFPROTO_IPV6,
                }],
            );
        }
        Match::From(name) => interface(a, META_IIFNAME, EQUAL, name),
        Match::NotFrom(name) => interface(a, META_IIFNAME, NOT_EQUAL, name),
        Match::By(name) => interface(a, META_OIFNAME, EQUAL, name),
        Match::NotBy(name) => interface(a, META_OIFNAME, NOT_EQUAL, name),
        Match::Transport(transport) => put_transport(a, *transport),
        Match::Port(transport, port) => put_port(a, *transport, 2, *port),
        Match::SourcePort(transport, port) => put_port(a, *transport, 0, *port),
        Match::Source(net) => put_address(a, net, 12, 8),
        Match::Destination(net) => put_address(a, net, 16, 24),
    }
}

fn put_port(a: &mut Attributes<'_>, transport: Transport, offset: u32, port: u16) {
    put_transport(a, transport);
    load_payload(a, TRANSPORT_HEADER, offset, 2);
    compare(a, EQUAL, &port.to_be_bytes());
}

fn put_transport(a: &mut Attributes<'_>, transport: Transport) {
    load_meta(a, META_L4PROTO);
    compare(
        a,
        EQUAL,
        &[match transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        }],
    );
}

/// The whole 16 bytes are compared: the kernel pads the name with zeroes.
fn interface(a: &mut Attributes<'_>, key: u32, operator: u32, name: &str) {
    let mut padded = [0u8; 16];
    for (to, from) in padded.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    load_meta(a, key);
    compare(a, operator, &padded);
}

fn put_address(a: &mut Attributes<'_>, net: &IpNet, offset_v4: u32, offset_v6: u32) {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let (protocol, offset) = match net {
        IpNet::V4(_) => (NFPROTO_IPV4, offset_v4),
        IpNet::V6(_) => (NFPROTO_IPV6, offset_v6),
    };
    let network = octets(net.network());
    let length = network.len() as u32;
    load_meta(a, META_NFPROTO);
    compare(a, EQUAL, &[protocol]);
    load_payload(a, NETWORK_HEADER, offset, length);
    if net.prefix_len() < net.max_prefix_len() {
        let mask = octets(net.netmask());
        expression(a, "bitwise", |a| {
            a.be32(1, REGISTER);
            a.be32(2, REGISTER);
            a.be32(3, length);
            a.nested(4, |a| a.raw(1, &mask));
            a.nested(5, |a| a.raw(1, &vec![0; mask.len()]));
        });
    }
    compare(a, EQUAL, &network);
}

fn put_verdict(a: &mut Attributes<'_>, verdict: Verdict) {
    match verdict {
        Verdict::Accept => decide(a, NF_ACCEPT),
        Verdict::Drop => decide(a, NF_DROP),
        Verdict::Redirect(port) => {
            expression(a, "immediate", |a| {
                a.be32(1, REGISTER);
                a.nested(2, |a| a.raw(1, &port.to_be_bytes()));
            });
            expression(a, "redir", |a| a.be32(1, REGISTER));
        }
        Verdict::Masquerade => expression(a, "masq", |_| ()),
        Verdict::Reset => reject(a, REJECT_TCP_RESET, 0),
        Verdict::Zone(zone) => {
            expression(a, "immediate", |a| {
                a.be32(1, REGISTER);
                a.nested(2, |a| a.raw(1, &zone.to_ne_bytes()));
            });
            expression(a, "ct", |a| {
                a.be32(2, CT_ZONE);
                a.be32(4, REGISTER);
            });
            decide(a, NF_ACCEPT);
        }
        Verdict::NoRoute => reject(a, REJECT_ICMPX, ICMPX_NO_ROUTE),
    }
}

fn decide(a: &mut Attributes<'_>, code: u32) {
    expression(a, "immediate", |a| {
        a.be32(1, VERDICT_REGISTER);
        a.nested(2, |a| a.nested(2, |a| a.be32(1, code)));
    });
}

fn reject(a: &mut Attributes<'_>, kind: u32, code: u8) {
    expression(a, "reject", |a| {
        a.be32(1, kind);
        a.raw(2, &[code]);
    });
}

fn load_meta(a: &mut Attributes<'_>, key: u32) {
    expression(a, "meta", |a| {
        a.be32(1, REGISTER);
        a.be32(2, key);
    });
}

fn load_payload(a: &mut Attributes<'_>, base: u32, offset: u32, length: u32) {
    expression(a, "payload", |a| {
        a.be32(1, REGISTER);
        a.be32(2, base);
        a.be32(3, offset);
        a.be32(4, length);
    });
}

fn compare(a: &mut Attributes<'_>, operator: u32, value: &[u8]) {
    expression(a, "cmp", |a| {
        a.be32(1, REGISTER);
        a.be32(2, operator);
        a.nested(3, |a| a.raw(1, value));
    });
}

fn expression(a: &mut Attributes<'_>, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
    a.nested(1, |a| {
        a.text(1, name);
        a.nested(2, fill);
    });
}
