//! The same rules for the programs `iptables-restore` and `ip6tables-restore`, for nodes whose kernel has no nf_tables NAT.
//!
//! The text is pure: a table, a family and what `iptables-save` said before give the script. Every rule is in a chain of our own, to which
//! one jump leads. Invariant: applying a script twice leaves what applying it once does, and rules of others are never touched.

use std::fmt::Write as _;

use ipnet::IpNet;

use crate::rules::{Chain, Family, Hook, Match, Rule, Table, Transport, Verdict};

/// Why a table has no iptables form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("iptables has no form for `{0}`")]
pub struct NoForm(pub String);

/// A script for `iptables-restore --noflush` (or `ip6tables-restore`) that makes our chains what `table` says. `saved` is what
/// `iptables-save` printed: jumps that are there are not added again.
///
/// # Errors
/// A rule has no iptables form; capture rules all have one.
pub fn script(table: &Table, family: Family, saved: &str) -> Result<String, NoForm> {
    let mut out = String::new();
    for name in TABLES {
        let chains: Vec<&Chain> = table.chains.iter().filter(|chain| place(chain.hook).0 == name).collect();
        if chains.is_empty() {
            continue;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(out, "*{name}");
        for chain in &chains {
            let _ = writeln!(out, ":{} - [0:0]", own(chain.hook));
        }
        for chain in &chains {
            let jump = jump(chain.hook);
            if !is_saved(saved, name, &jump) {
                let _ = writeln!(out, "{jump}");
            }
        }
        for chain in &chains {
            for rule in chain.rules.iter().filter(|rule| concerns(rule, family)) {
                let _ = writeln!(out, "-A {} {}", own(chain.hook), line(rule, family)?);
            }
        }
        let _ = writeln!(out, "COMMIT");
    }
    Ok(out)
}

/// A script that removes our chains and the jumps to them, as far as `saved` has them; empty if there are none.
pub fn undo(saved: &str) -> String {
    let mut out = String::new();
    for name in TABLES {
        let ours: Vec<Hook> =
            HOOKS.into_iter().filter(|hook| place(*hook).0 == name && has_chain(saved, name, own(*hook))).collect();
        if ours.is_empty() {
            continue;
        }
        let _ = writeln!(out, "*{name}");
        for hook in &ours {
            let jump = jump(*hook);
            if is_saved(saved, name, &jump) {
                let _ = writeln!(out, "{}", jump.replacen("-A", "-D", 1));
            }
        }
        for hook in &ours {
            let _ = writeln!(out, "-F {0}\n-X {0}", own(*hook));
        }
        let _ = writeln!(out, "COMMIT");
    }
    out
}

const TABLES: [&str; 2] = ["nat", "raw"];
const HOOKS: [Hook; 4] = [Hook::NatOutput, Hook::NatPrerouting, Hook::FilterOutput, Hook::FilterPrerouting];

/// Table and built-in chain of a hook. Filter chains of priority `raw` are the table of that name.
fn place(hook: Hook) -> (&'static str, &'static str) {
    match hook {
        Hook::NatPrerouting => ("nat", "PREROUTING"),
        Hook::NatOutput => ("nat", "OUTPUT"),
        Hook::NatPostrouting => ("nat", "POSTROUTING"),
        Hook::FilterPrerouting => ("raw", "PREROUTING"),
        Hook::FilterOutput => ("raw", "OUTPUT"),
        Hook::FilterForward => ("filter", "FORWARD"),
        Hook::FilterPostrouting => ("mangle", "POSTROUTING"),
    }
}

fn own(hook: Hook) -> &'static str {
    match hook {
        Hook::NatPrerouting => "FAIRLEAD_INBOUND",
        Hook::NatOutput => "FAIRLEAD_OUTPUT",
        Hook::FilterPrerouting => "FAIRLEAD_RAW_INBOUND",
        Hook::FilterOutput => "FAIRLEAD_RAW_OUTPUT",
        Hook::NatPostrouting | Hook::FilterForward | Hook::FilterPostrouting => "FAIRLEAD_OTHER",
    }
}

fn jump(hook: Hook) -> String {
    format!("-A {} -j {}", place(hook).1, own(hook))
}

fn in_table<'a>(saved: &'a str, table: &str) -> impl Iterator<Item = &'a str> {
    let start = format!("*{table}");
    saved.lines().skip_while(move |line| line.trim() != start).skip(1).take_while(|line| line.trim() != "COMMIT")
}

fn is_saved(saved: &str, table: &str, rule: &str) -> bool {
    in_table(saved, table).any(|line| line.trim() == rule)
}

fn has_chain(saved: &str, table: &str, chain: &str) -> bool {
    in_table(saved, table).any(|line| line.strip_prefix(':').and_then(|l| l.split(' ').next()) == Some(chain))
}

/// A rule about addresses of the other family does not exist for this one.
fn concerns(rule: &Rule, family: Family) -> bool {
    rule.matches.iter().all(|condition| match condition {
        Match::Source(net) | Match::Destination(net) => matches!(net, IpNet::V4(_)) == (family == Family::V4),
        Match::Family(of) => *of == family,
        _ => true,
    })
}

fn line(rule: &Rule, family: Family) -> Result<String, NoForm> {
    let mut words: Vec<String> = Vec::new();
    for condition in &rule.matches {
        words.extend(match condition {
            Match::Mark(mark) => Some(format!("-m mark --mark {mark:#x}")),
            Match::Owner(uid) => Some(format!("-m owner --uid-owner {uid}")),
            Match::Group(gid) => Some(format!("-m owner --gid-owner {gid}")),
            Match::Family(of) if *of == family => None,
            Match::Family(_) => return Err(NoForm(rule.to_string())),
            Match::From(name) => Some(format!("-i {name}")),
            Match::NotFrom(name) => Some(format!("! -i {name}")),
            Match::By(name) => Some(format!("-o {name}")),
            Match::NotBy(name) => Some(format!("! -o {name}")),
            Match::Transport(transport) => Some(format!("-p {transport}")),
            Match::Port(transport, port) => Some(format!("-p {transport} --dport {port}")),
            Match::SourcePort(transport, port) => Some(format!("-p {transport} --sport {port}")),
            Match::Source(net) => Some(format!("-s {net}")),
            Match::Destination(net) => Some(format!("-d {net}")),
        });
    }
    words.push(match rule.verdict {
        // Back to the built-in chain: what others have put there still holds.
        Verdict::Accept => "-j RETURN".into(),
        Verdict::Redirect(port) if transport_of(rule).is_some() => format!("-j REDIRECT --to-ports {port}"),
        Verdict::Zone(zone) => format!("-j CT --zone {zone}"),
        _ => return Err(NoForm(rule.to_string())),
    });
    Ok(words.join(" "))
}

fn transport_of(rule: &Rule) -> Option<Transport> {
    rule.matches.iter().find_map(|condition| match condition {
        Match::Transport(transport) | Match::Port(transport, _) => Some(*transport),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{CaptureSpec, LoopGuard};

    #[test]
    fn one_family_at_a_time() {
        let mut spec = CaptureSpec::new(LoopGuard::Owner { uid: 1337, gid: 1337 });
        spec.exclude_outbound_ranges = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let four = script(&spec.table(), Family::V4, "").unwrap();
        let expected = "*nat
:FAIRLEAD_OUTPUT - [0:0]
:FAIRLEAD_INBOUND - [0:0]
-A OUTPUT -j FAIRLEAD_OUTPUT
-A PREROUTING -j FAIRLEAD_INBOUND
-A FAIRLEAD_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
-A FAIRLEAD_OUTPUT -m owner --uid-owner 1337 -d 127.0.0.0/8 -j RETURN
-A FAIRLEAD_OUTPUT -m owner --uid-owner 1337 -o lo -p tcp --dport 15008 -j RETURN
-A FAIRLEAD_OUTPUT -m owner --uid-owner 1337 -o lo -p tcp --dport 53 -j RETURN
-A FAIRLEAD_OUTPUT -m owner --uid-owner 1337 -o lo -p tcp -j REDIRECT --to-ports 15006
-A FAIRLEAD_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A FAIRLEAD_OUTPUT -m owner --gid-owner 1337 -d 127.0.0.0/8 -j RETURN
-A FAIRLEAD_OUTPUT -m owner --gid-owner 1337 -o lo -p tcp --dport 15008 -j RETURN
-A FAIRLEAD_OUTPUT -m owner --gid-owner 1337 -o lo -p tcp --dport 53 -j RETURN
-A FAIRLEAD_OUTPUT -m owner --gid-owner 1337 -o lo -p tcp -j REDIRECT --to-ports 15006
-A FAIRLEAD_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A FAIRLEAD_OUTPUT -p udp --dport 53 -j REDIRECT --to-ports 15053
-A FAIRLEAD_OUTPUT -p tcp --dport 53 -j REDIRECT --to-ports 15053
-A FAIRLEAD_OUTPUT -d 127.0.0.0/8 -j RETURN
-A FAIRLEAD_OUTPUT -o lo -j RETURN
-A FAIRLEAD_OUTPUT -d 192.0.2.0/24 -j RETURN
-A FAIRLEAD_OUTPUT -p tcp -j REDIRECT --to-ports 15001
-A FAIRLEAD_INBOUND -i lo -j RETURN
-A FAIRLEAD_INBOUND -p tcp --dport 15008 -j RETURN
-A FAIRLEAD_INBOUND -p tcp --dport 15020 -j RETURN
-A FAIRLEAD_INBOUND -p tcp --dport 15021 -j RETURN
-A FAIRLEAD_INBOUND -p tcp --dport 15090 -j RETURN
-A FAIRLEAD_INBOUND -p tcp -j REDIRECT --to-ports 15006
COMMIT
";
        assert_eq!(four, expected);
        let six = script(&spec.table(), Family::V6, "").unwrap();
        assert!(six.contains("-o lo -s ::6/128 -j RETURN") && six.contains("-d 2001:db8::/32 -j RETURN"), "{six}");
        assert!(!six.contains("127.0.0") && !six.contains("192.0.2"), "{six}");
    }

    #[test]
    fn jumps_are_made_once_and_taken_back() {
        let table = CaptureSpec::pod().table();
        let saved =
            "# Generated\n*nat\n:OUTPUT ACCEPT [0:0]\n:FAIRLEAD_OUTPUT - [0:0]\n-A OUTPUT -j FAIRLEAD_OUTPUT\nCOMMIT\n";
        let again = script(&table, Family::V4, saved).unwrap();
        assert!(!again.contains("-A OUTPUT -j FAIRLEAD_OUTPUT\n"), "{again}");
        assert!(again.contains("-A PREROUTING -j FAIRLEAD_INBOUND\n"), "{again}");
        assert!(again.contains("*raw\n") && again.contains("-j CT --zone 1"), "{again}");
        let expected = "*nat\n-D OUTPUT -j FAIRLEAD_OUTPUT\n-F FAIRLEAD_OUTPUT\n-X FAIRLEAD_OUTPUT\nCOMMIT\n";
        assert_eq!(undo(saved), expected);
        assert_eq!(undo("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"), "");
    }
}
