//! Rules into the kernel of the calling thread's network namespace, and out of it.
//!
//! Must never leave half of them: nf_tables takes a table in one transaction, `iptables-restore` a table at a time. Invariant: doing it
//! twice is doing it once; what is said of a failure names what is missing.

use std::io::Write as _;
use std::process::{Command, Stdio};

use nix::errno::Errno;

use crate::generate::{PASSTHROUGH, TABLE};
use crate::iptables::{self, NoForm};
use crate::netlink::{Batch, NetlinkError, Protocol, Socket};
use crate::rules::{self, Family, Table};
use crate::spec::{CaptureSpec, Families};

/// Why rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The kernel refused.
    #[error("{error}: {remedy}")]
    Refused {
        /// What it said.
        error: NetlinkError,
        /// What is missing.
        remedy: &'static str,
    },
    /// A program could not be run, or refused.
    #[error("{program}: {text}; it is needed for --backend iptables (--backend nftables needs no program)")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said.
        text: String,
    },
    /// A rule has no iptables form.
    #[error(transparent)]
    NoForm(#[from] NoForm),
}

/// What could not be done and does not matter in most pods.
pub type Notes = Vec<String>;

/// Installs the rules by netlink. No program is needed.
///
/// # Errors
/// The kernel refused: no capability, or no nf_tables.
pub fn nftables(spec: &CaptureSpec) -> Result<Notes, InstallError> {
    let mut notes = passthrough_address(spec).err().into_iter().collect::<Notes>();
    match rules::install(&spec.table()) {
        Ok(()) => {}
        Err(error) if zones(spec) && !is_denied(error.errno) => {
            // The transaction failed as a whole: without what may be missing either all of the rest holds, or its error is the answer.
            rules::install(&without_zones(spec)).map_err(refused)?;
            notes.push(format!("the proxy's questions about names are not tracked apart ({error})"));
        }
        Err(error) => return Err(refused(error)),
    }
    Ok(notes)
}

/// Removes what [`nftables`] installed, if it is there.
///
/// # Errors
/// The kernel refused.
pub fn undo_nftables() -> Result<(), InstallError> {
    rules::remove(TABLE).map_err(refused)
}

/// Installs the rules by `iptables-restore` and `ip6tables-restore`.
///
/// # Errors
/// The programs are not there, or refused.
pub fn iptables(spec: &CaptureSpec) -> Result<Notes, InstallError> {
    let mut notes = passthrough_address(spec).err().into_iter().collect::<Notes>();
    for family in families(spec) {
        let [save, restore] = programs(family);
        let saved = run(save, &[], None)?;
        match run(restore, &["--noflush", "--wait"], Some(&iptables::script(&spec.table(), family, &saved)?)) {
            Ok(_) => {}
            Err(error) if zones(spec) => {
                run(restore, &["--noflush", "--wait"], Some(&iptables::script(&without_zones(spec), family, &saved)?))?;
                notes.push(format!("the proxy's questions about names are not tracked apart ({error})"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(notes)
}

/// Removes what [`iptables`](fn@iptables) installed, if it is there.
///
/// # Errors
/// The programs are not there, or refused.
pub fn undo_iptables(spec: &CaptureSpec) -> Result<(), InstallError> {
    for family in families(spec) {
        let [save, restore] = programs(family);
        let script = iptables::undo(&run(save, &[], None)?);
        if !script.is_empty() {
            run(restore, &["--noflush", "--wait"], Some(&script))?;
        }
    }
    Ok(())
}

/// The families whose rules are written where a rule is about one family only.
pub fn families(spec: &CaptureSpec) -> Vec<Family> {
    match spec.families {
        Families::V4 => vec![Family::V4],
        Families::V6 => vec![Family::V6],
        Families::Both => vec![Family::V4, Family::V6],
    }
}

fn zones(spec: &CaptureSpec) -> bool {
    spec.dns.as_ref().is_some_and(|dns| dns.zones)
}

fn without_zones(spec: &CaptureSpec) -> Table {
    let mut spec = spec.clone();
    if let Some(dns) = &mut spec.dns {
        dns.zones = false;
    }
    spec.table()
}

const RTM_NEWADDR: u16 = 20;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const NO_DUPLICATE_DETECTION: u8 = 2;
const AF_INET6: u8 = 10;
/// The loopback interface is the first of every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// Gives the loopback interface ::6, from which the proxy reaches its program (127.0.0.6 is there already).
///
/// # Errors
/// In words; where there is no IPv6, it is not needed.
pub fn passthrough_address(spec: &CaptureSpec) -> Result<(), String> {
    let [_, std::net::IpAddr::V6(address)] = PASSTHROUGH else { return Ok(()) };
    if spec.families == Families::V4 || !std::path::Path::new("/proc/net/if_inet6").exists() {
        return Ok(());
    }
    let mut fixed = vec![AF_INET6, 128, NO_DUPLICATE_DETECTION, 0];
    fixed.extend_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    let mut batch = Batch::default();
    batch.push(format!("add {address} to lo"), RTM_NEWADDR, CREATE | REPLACE, &fixed, |a| {
        a.raw(IFA_LOCAL, &address.octets());
        a.raw(IFA_ADDRESS, &address.octets());
    });
    let sent = Socket::open(Protocol::Route).and_then(|socket| socket.send(&batch));
    sent.map_err(|error| format!("no IPv6 connection will reach the program: {error}"))
}

fn programs(family: Family) -> [&'static str; 2] {
    match family {
        Family::V4 => ["iptables-save", "iptables-restore"],
        Family::V6 => ["ip6tables-save", "ip6tables-restore"],
    }
}

fn run(program: &'static str, arguments: &[&str], input: Option<&str>) -> Result<String, InstallError> {
    let failed = |text: String| InstallError::Program { program, text };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that ends early says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_denied(errno: Errno) -> bool {
    matches!(errno, Errno::EPERM | Errno::EACCES)
}

fn refused(error: NetlinkError) -> InstallError {
    let remedy = match error.errno {
        Errno::EPERM | Errno::EACCES => {
            "the capability NET_ADMIN is needed in the pod's network namespace: run as root with it, or use the CNI plugin"
        }
        Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT => {
            "the node's kernel lacks nf_tables NAT (modules nf_tables, nft_chain_nat, nft_redir, nft_ct): load them, or use --backend iptables"
        }
        _ => "this is not expected; please report it with the kernel's version",
    };
    InstallError::Refused { error, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        for (errno, expected) in
            [(Errno::EPERM, "NET_ADMIN"), (Errno::ENOENT, "--backend iptables"), (Errno::EOPNOTSUPP, "nft_chain_nat")]
        {
            let error = refused(NetlinkError { purpose: "create table".into(), errno, detail: None });
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
