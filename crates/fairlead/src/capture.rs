//! `fairlead capture`: puts a pod's rules in force, in the network namespace it runs in.
//!
//! A thin shell over `fairlead_capture`. Invariant: where a connection can be made, it ends with 0 only when one has shown that the rules
//! hold; `--verify` without one only where nothing is to be captured (or, with `--print`, when they are printed; with `--undo`, when they are gone).

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::{Args, Parser, ValueEnum};
use fairlead_capture::annotations::{interfaces, ports, ranges};
use fairlead_capture::verify::NotInForce;
use fairlead_capture::{
    CaptureSpec, DnsServers, Families, LoopGuard, PROXY_PORTS, PROXY_UID, Ports, Ranges, install, iptables, verify,
};

/// Redirect this pod's connections to its proxy (init container; root with NET_ADMIN).
///
/// Example: fairlead capture --exclude-outbound-ports 3306 --dns
///
/// Rules are written for the network namespace it runs in, and replace those of an earlier run. To read them first: --print.
#[derive(Args, Debug)]
pub struct CaptureArgs {
    /// User of the proxy, whose own connections are left alone.
    #[arg(long, default_value_t = PROXY_UID)]
    proxy_uid: u32,
    /// Group of the proxy.
    #[arg(long, default_value_t = PROXY_UID)]
    proxy_gid: u32,
    /// Socket mark of the proxy's own connections, in place of user and group.
    #[arg(long, conflicts_with_all = ["proxy_uid", "proxy_gid"])]
    proxy_mark: Option<u32>,
    /// Inbound ports to capture, separated by commas, or `*`.
    #[arg(long, default_value = "*")]
    inbound_ports: String,
    /// Inbound ports to leave alone when `*` is captured; default: those of the proxy, 15020,15021,15090.
    #[arg(long)]
    exclude_inbound_ports: Option<String>,
    /// Destinations to capture, such as 10.0.0.0/8, separated by commas, or `*`.
    #[arg(long, default_value = "*")]
    outbound_cidrs: String,
    /// Destinations to leave alone.
    #[arg(long, default_value = "")]
    exclude_outbound_cidrs: String,
    /// Outbound ports to capture whatever the destination.
    #[arg(long, default_value = "")]
    outbound_ports: String,
    /// Outbound ports to leave alone.
    #[arg(long, default_value = "")]
    exclude_outbound_ports: String,
    /// Users whose connections are left alone.
    #[arg(long, default_value = "", value_name = "UIDS")]
    exclude_uids: String,
    /// Interfaces to leave alone.
    #[arg(long, default_value = "")]
    exclude_interfaces: String,
    /// Interfaces of virtual machines: what arrives by them is captured as outbound.
    #[arg(long, default_value = "")]
    virtual_interfaces: String,
    /// Capture questions about names too, those to the servers in /etc/resolv.conf.
    #[arg(long)]
    dns: bool,
    /// The servers whose questions are captured, in place of those in /etc/resolv.conf; `*` for any.
    #[arg(long, requires = "dns")]
    dns_servers: Option<String>,
    /// Address families of the pod.
    #[arg(long, value_enum, default_value_t = Family::Dual)]
    family: Family,
    /// What installs the rules: the kernel by netlink, or the programs iptables-restore and ip6tables-restore.
    #[arg(long, value_enum, default_value_t = Backend::Nftables)]
    backend: Backend,
    /// Print the rules, for nft or for iptables-restore, and change nothing.
    #[arg(long, conflicts_with_all = ["undo", "verify"])]
    print: bool,
    /// Remove the rules.
    #[arg(long, conflicts_with = "verify")]
    undo: bool,
    /// Only find out whether the rules are in force. Needs no privilege, but another user than the proxy's.
    #[arg(long)]
    verify: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Family {
    Ipv4,
    Ipv6,
    Dual,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Backend {
    Nftables,
    Iptables,
}

/// Does what the arguments say.
pub fn run(args: &CaptureArgs) -> anyhow::Result<ExitCode> {
    let spec = spec(args, || {
        let text = std::fs::read_to_string("/etc/resolv.conf").context("cannot read /etc/resolv.conf")?;
        Ok(DnsServers::Only(name_servers(&text)))
    })?;
    if args.print {
        print(&spec, args.backend)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.undo {
        match args.backend {
            Backend::Nftables => install::undo_nftables()?,
            Backend::Iptables => install::undo_iptables(&spec)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.verify {
        let notes = match args.backend {
            Backend::Nftables => install::nftables(&spec)?,
            Backend::Iptables => install::iptables(&spec)?,
        };
        notes.iter().for_each(|note| eprintln!("fairlead capture: {note}"));
    }
    match verify::verify(&spec) {
        Ok(findings) => {
            findings.iter().for_each(|finding| println!("{finding}"));
            Ok(ExitCode::SUCCESS)
        }
        // The kernel has taken the rules as a whole; without a route there is nothing that could go past the proxy.
        Err(error @ (NotInForce::Untried(_) | NotInForce::Unprovable)) if !args.verify => {
            eprintln!("fairlead capture: {error}");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("fairlead capture: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn print(spec: &CaptureSpec, backend: Backend) -> anyhow::Result<()> {
    match backend {
        Backend::Nftables => print!("{}", spec.table()),
        Backend::Iptables => {
            for family in install::families(spec) {
                let program = match family {
                    fairlead_capture::rules::Family::V4 => "iptables-restore",
                    fairlead_capture::rules::Family::V6 => "ip6tables-restore",
                };
                print!("# {program} --noflush\n{}", iptables::script(&spec.table(), family, "")?);
            }
        }
    }
    Ok(())
}

/// What these arguments ask for where the pod's own files cannot be read: questions about names are captured whoever is asked.
///
/// # Errors
/// As the command itself would say.
pub fn from_arguments(arguments: Vec<String>) -> anyhow::Result<CaptureSpec> {
    let words = std::iter::once("capture".to_owned()).chain(arguments);
    let args = Alone::try_parse_from(words).map_err(|e| anyhow!("{}", e.to_string().trim()))?.args;
    spec(&args, || Ok(DnsServers::Any))
}

#[derive(Parser)]
struct Alone {
    #[command(flatten)]
    args: CaptureArgs,
}

/// The description that the arguments are; the pod's `servers` are asked for only if they are needed.
fn spec(args: &CaptureArgs, servers: impl FnOnce() -> anyhow::Result<DnsServers>) -> anyhow::Result<CaptureSpec> {
    let port_list = |flag: &str, text: &str| {
        ports(text).ok_or_else(|| anyhow!("--{flag} `{text}`: write ports from 1 to 65535, separated by commas"))
    };
    let range_list = |flag: &str, text: &str| {
        ranges(text).ok_or_else(|| anyhow!("--{flag} `{text}`: write ranges such as 10.0.0.0/8, separated by commas"))
    };
    let interface_list = |flag: &str, text: &str| {
        interfaces(text).ok_or_else(|| anyhow!("--{flag} `{text}`: write names of interfaces, separated by commas"))
    };
    let mut spec = CaptureSpec::pod();
    spec.guard = match args.proxy_mark {
        Some(mark) => LoopGuard::Mark(mark),
        None => LoopGuard::Owner { uid: args.proxy_uid, gid: args.proxy_gid },
    };
    spec.inbound_ports = match (args.inbound_ports.trim(), &args.exclude_inbound_ports) {
        ("*", None) => Ports::AllBut(PROXY_PORTS.to_vec()),
        ("*", Some(excluded)) => Ports::AllBut(port_list("exclude-inbound-ports", excluded)?),
        (some, _) => Ports::Only(port_list("inbound-ports", some)?),
    };
    spec.outbound_ranges = match args.outbound_cidrs.trim() {
        "*" => Ranges::All,
        some => Ranges::Only(range_list("outbound-cidrs", some)?),
    };
    spec.exclude_outbound_ranges = range_list("exclude-outbound-cidrs", &args.exclude_outbound_cidrs)?;
    spec.include_outbound_ports = port_list("outbound-ports", &args.outbound_ports)?;
    spec.exclude_outbound_ports = port_list("exclude-outbound-ports", &args.exclude_outbound_ports)?;
    spec.exclude_uids = (args.exclude_uids.split(',').filter(|uid| !uid.is_empty()))
        .map(|uid| uid.trim().parse().with_context(|| format!("--exclude-uids `{uid}`: write numbers of users")))
        .collect::<Result<_, _>>()?;
    spec.exclude_interfaces = interface_list("exclude-interfaces", &args.exclude_interfaces)?;
    spec.virtual_interfaces = interface_list("virtual-interfaces", &args.virtual_interfaces)?;
    spec.families = match args.family {
        Family::Ipv4 => Families::V4,
        Family::Ipv6 => Families::V6,
        Family::Dual => Families::Both,
    };
    match &mut spec.dns {
        Some(dns) if args.dns => {
            dns.servers = match args.dns_servers.as_deref() {
                Some("*") => DnsServers::Any,
                Some(some) => DnsServers::Only(addresses(some)?),
                None => servers()?,
            }
        }
        dns => *dns = None,
    }
    Ok(spec.provable())
}

fn addresses(text: &str) -> anyhow::Result<Vec<IpAddr>> {
    let parse = |part: &str| part.trim().parse().with_context(|| format!("--dns-servers `{part}`: write addresses"));
    text.split(',').filter(|part| !part.is_empty()).map(parse).collect()
}

/// The servers of a resolv.conf; what cannot be read as an address (a zone of a link-local one) is none of the cluster's.
pub fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_install::inject::{Decision, InjectSettings, Namespace, inject};
    use serde_json::json;
    use std::collections::BTreeMap;

    fn read(arguments: &[String]) -> anyhow::Result<CaptureSpec> {
        let words = std::iter::once("capture".to_owned()).chain(arguments.iter().cloned());
        spec(&Alone::try_parse_from(words)?.args, || Ok(DnsServers::Only(name_servers("nameserver 10.96.0.10\n"))))
    }

    /// What the injector tells the init container of a pod with these annotations.
    fn of_the_init_container(annotations: &BTreeMap<String, String>) -> Vec<String> {
        let pod = json!({
            "metadata": { "name": "a", "annotations": annotations },
            "spec": { "containers": [{ "name": "a", "image": "a" }] },
        });
        let cluster =
            InjectSettings { cluster: "east".into(), trust_domain: "east.example".into(), ..Default::default() };
        let namespace = Namespace { name: "shop", labels: None };
        let Decision::Inject { pod, .. } = inject(&pod, namespace, &cluster) else { panic!("not injected") };
        let words: Vec<String> = serde_json::from_value(pod["spec"]["initContainers"][0]["args"].clone()).unwrap();
        assert_eq!(words[0], "capture");
        words[1..].to_vec()
    }

    /// Init container and plugin read a pod's annotations each in their way.
    #[test]
    fn what_the_injector_writes_is_what_the_plugin_reads() {
        let annotations: [&[(&str, &str)]; 4] = [
            &[],
            &[
                ("traffic.sidecar.istio.io/includeInboundPorts", "80,443"),
                ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/8,2001:db8::/32"),
                ("traffic.sidecar.istio.io/excludeInterfaces", "eth1,net1"),
                ("traffic.sidecar.istio.io/kubevirtInterfaces", "k6t-eth0"),
            ],
            &[("traffic.sidecar.istio.io/excludeOutboundIPRanges", "0.0.0.0/0")],
            &[
                ("traffic.sidecar.istio.io/excludeInboundPorts", "22"),
                ("traffic.sidecar.istio.io/excludeOutboundPorts", "3306"),
                ("traffic.sidecar.istio.io/includeOutboundPorts", "443"),
                ("traffic.sidecar.istio.io/includeOutboundIPRanges", ""),
                ("traffic.sidecar.istio.io/includeInboundPorts", "*"),
                ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "192.0.2.0/24"),
            ],
        ];
        for pairs in annotations {
            let pairs: BTreeMap<String, String> = pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
            let mut wanted = CaptureSpec::from_annotations(&pairs).unwrap().unwrap();
            let mut got = read(&of_the_init_container(&pairs)).unwrap();
            // The injector cannot know the pod's servers; the command reads them in the pod.
            wanted.dns.as_mut().unwrap().servers = DnsServers::Only(vec!["10.96.0.10".parse().unwrap()]);
            if let Ports::AllBut(ports) = &mut got.inbound_ports {
                ports.sort_unstable();
            }
            assert_eq!(got, wanted);
        }
        assert!(read(&[]).unwrap().dns.is_none());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (arguments, expected) in [
            (["--inbound-ports", "70000"], "--inbound-ports"),
            (["--outbound-cidrs", "10.0.0.0/99"], "--outbound-cidrs"),
            (["--exclude-uids", "root"], "--exclude-uids"),
        ] {
            let error = read(&arguments.map(str::to_owned)).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
        assert!(read(&["--dns-servers".into(), "192.0.2.1".into()]).is_err(), "only with --dns");
    }

    #[test]
    fn servers_of_a_resolv_conf() {
        let text = "search shop.svc.cluster.local\nnameserver 10.96.0.10\n# nameserver 192.0.2.1\n nameserver\tfd00::a # x\nnameserver fe80::1%eth0\n";
        let expected: Vec<IpAddr> = vec!["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
        assert_eq!(name_servers(text), expected);
    }
}
