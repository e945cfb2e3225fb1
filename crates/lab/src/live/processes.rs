//! The processes of a lab: how each part of this program is started.
//!
//! Pure: data in, process descriptions out. Invariant: nothing but this program's own file is started, unless a Workload names a
//! command; nothing is looked up in a PATH.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fairlead_capture::PROXY_MARK;

use super::layout::Layout;
use super::spec::{MeshSpec, MeshWorkload, Part, Probe, ProbeKind};
use super::start::StartOptions;
use crate::process::{EtcFiles, ProcessSpec, Ready};
use crate::topology::Plan;

/// Names of processes.
pub const CONTROL: &str = "control";
/// A proxy.
pub const PROXY: &str = "proxy";
/// The program of a workload.
pub const PROGRAM: &str = "program";
/// Name server and stand-in for kube-proxy of a node.
pub const NODE: &str = "node";
/// Where a node takes connections to service addresses.
pub const RELAY_PORT: u16 = 15999;
/// Where proxies ask whether their program is ready: a loopback address of its own, so that `unhealthy` can stop these questions
/// and nothing else. A program that listens on all addresses answers there.
pub const PROBE_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 15));
/// Where control planes take proxies and peers.
pub const CONTROL_PORT: u16 = 15012;

/// The longest that one process may take to be ready; the whole start has its own bound.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all descriptions need.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The mesh.
    pub spec: &'a MeshSpec,
    /// Where files are.
    pub layout: &'a Layout,
    /// What is built.
    pub plan: &'a Plan,
    /// How it is run.
    pub options: &'a StartOptions,
    /// This program.
    pub program: &'a Path,
}

impl Parts<'_> {
    /// A control plane.
    pub fn control(&self, cluster: &str) -> ProcessSpec {
        let owner = format!("{cluster}/control");
        let advertise = self.plan.namespace(&owner).and_then(|n| n.wan_addresses().first().copied());
        let mut process = self
            .process(&owner, CONTROL)
            .arguments([OsString::from("control"), "--cluster".into(), cluster.into(), "--directory".into()])
            .arguments([self.spec.directory.as_os_str().to_owned()])
            .arguments(["--listen".to_owned(), format!("0.0.0.0:{CONTROL_PORT}")])
            .arguments([OsString::from("--admin"), self.layout.admin(cluster).into()])
            .arguments([OsString::from("--state"), self.layout.control(cluster).into()])
            .arguments([OsString::from("--cacerts"), self.layout.cacerts(cluster).into()]);
        if let Some(address) = advertise {
            process = process.arguments(["--advertise".to_owned(), SocketAddr::new(address, CONTROL_PORT).to_string()]);
        }
        if let Some(lifetime) = self.options.certificate_lifetime {
            process = process.arguments(["--certificate-lifetime".to_owned(), format!("{}s", lifetime.as_secs_f64())]);
        }
        process.ready(Ready::Unix(self.layout.admin(cluster)))
    }

    /// Name server and stand-in for kube-proxy.
    pub fn node(&self, owner: &str, cluster: &str) -> Option<ProcessSpec> {
        let address = *self.plan.namespace(owner)?.network_addresses().first()?;
        let hosts = self.spec.externals.iter().filter_map(|server| Some((server.host.as_ref()?, server.address)));
        let mut process = self
            .process(owner, NODE)
            .arguments([OsString::from("node"), "--admin".into(), self.layout.admin(cluster).into()])
            .arguments(["--cluster".to_owned(), cluster.to_owned()])
            .arguments(["--dns".to_owned(), SocketAddr::new(address, 53).to_string()])
            .arguments(["--relay".to_owned(), format!("0.0.0.0:{RELAY_PORT}")]);
        for (host, address) in hosts {
            process = process.arguments(["--host".to_owned(), format!("{host}={address}")]);
        }
        Some(process.ready(Ready::Tcp(SocketAddr::new(address, 53))))
    }

    /// The proxy of a workload or gateway. `owner` is the namespace (one of several for a built-in gateway), `workload` its name.
    pub fn proxy(
        &self,
        owner: &str,
        cluster: &str,
        workload: &str,
        part: Part,
        own: Option<&MeshWorkload>,
    ) -> ProcessSpec {
        let role = match part {
            Part::Sidecar | Part::Plain => "sidecar",
            Part::Ingress => "gateway",
            Part::EastWest => "east-west",
        };
        let trust_domain = self.spec.clusters.get(cluster).map(|c| c.trust_domain.as_str()).unwrap_or_default();
        let mut process = self
            .process(owner, PROXY)
            .arguments(["proxy", "--role", role, "--workload", workload])
            .arguments(["--mark".to_owned(), PROXY_MARK.to_string()])
            .arguments(["--control-identity".to_owned(), format!("spiffe://{trust_domain}/fairlead/control")])
            .arguments([OsString::from("--credentials-from"), self.layout.admin(cluster).into()])
            .arguments([OsString::from("--state"), self.layout.proxy(owner).into()])
            .arguments(["--records".to_owned(), self.options.records.to_string()])
            .environment("SSL_CERT_FILE", self.layout.outside().join("root-cert.pem"));
        if let Some(control) = self.plan.address(owner, &format!("{cluster}/control")) {
            process = process.arguments(["--control".to_owned(), SocketAddr::new(control, CONTROL_PORT).to_string()]);
        }
        if let Some(own) = own {
            process =
                process.arguments(["--canonical-service", &own.canonical.0, "--canonical-revision", &own.canonical.1]);
            if part == Part::Sidecar
                && let Some(probe) = probe(own)
            {
                process = process.arguments(questions(&probe));
            }
        }
        if part == Part::Sidecar
            && let Some(server) = self.name_server(owner)
        {
            process = process.arguments(["--resolver".to_owned(), SocketAddr::new(server, 53).to_string()]);
        }
        process.ready(Ready::Http(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 15021), "/healthz/ready".into()))
    }

    /// The program of a workload; None when it has neither a command nor a port.
    pub fn program(&self, name: &str, workload: &MeshWorkload) -> Option<ProcessSpec> {
        if matches!(workload.part, Part::Ingress | Part::EastWest) {
            return None;
        }
        let mut process = self.process(name, PROGRAM);
        process.directory = Some(self.spec.directory.clone());
        match workload.command.split_first() {
            Some((first, rest)) => {
                process.program = if first == "fairlead" { self.program.to_owned() } else { PathBuf::from(first) };
                process = process.arguments(rest);
            }
            None if workload.ports.is_empty() => return None,
            None => {
                process = process.arguments(["echo", "--workload", name]);
                for port in &workload.ports {
                    process = process.arguments(["--port".to_owned(), port.to_string()]);
                }
            }
        }
        // An echo program that a Workload starts is told as well as the one that stands in for a program.
        process = process.environment("FAIRLEAD_WORKLOAD", name);
        process = process.environment("FAIRLEAD_ANSWERS", self.layout.answers(name));
        for (key, value) in &workload.environment {
            process = process.environment(key, value);
        }
        let own = self.plan.namespace(name).and_then(|n| n.network_addresses().first().copied());
        if let (Some(server), Some(own)) = (self.name_server(name), own) {
            process = process.files(EtcFiles::pod(server, &workload.namespace, &self.spec.domain, &workload.name, own));
        }
        let local = |port: u16| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        // Whether it is ready for requests is its sidecar's to find out, in its own time.
        Some(match probe(workload).map(|probe| (probe.kind, probe.address)) {
            Some((ProbeKind::Tcp(port) | ProbeKind::Http { port, .. }, None)) => process.ready(Ready::Tcp(local(port))),
            Some((ProbeKind::Tcp(port) | ProbeKind::Http { port, .. }, Some(address))) => {
                process.ready(Ready::Tcp(SocketAddr::new(address.into(), port)))
            }
            None => process,
        })
    }

    /// A server outside the mesh, as the echo program.
    pub fn external(&self, server: &super::spec::ExternalServer) -> ProcessSpec {
        let mut process = self
            .process(&format!("outside/{}", server.name()), PROGRAM)
            .arguments(["echo".to_owned(), "--workload".into(), format!("outside/server/{}", server.name())])
            .arguments(["--bind".to_owned(), server.address.to_string()])
            .arguments([OsString::from("--issuer"), self.layout.outside().into()]);
        for name in &server.names {
            process = process.arguments(["--name", name]);
        }
        for port in &server.ports {
            process = process.arguments(["--port".to_owned(), port.to_string()]);
        }
        process
    }

    /// The name server that pods of a workload's cluster are told: their node.
    pub fn name_server(&self, owner: &str) -> Option<IpAddr> {
        let namespace = self.plan.namespace(owner)?;
        let cluster = namespace.cluster.as_ref()?;
        let named = format!("{cluster}/node@{}", namespace.network.as_deref().unwrap_or_default());
        let node = self.plan.namespace(&named).or_else(|| self.plan.namespace(&format!("{cluster}/node")))?;
        node.network_addresses().first().copied()
    }

    fn process(&self, owner: &str, name: &str) -> ProcessSpec {
        let mut process = ProcessSpec::new(owner, name, self.program);
        process.ready_within = PATIENCE;
        process
    }
}

fn probe(workload: &MeshWorkload) -> Option<Probe> {
    workload.probe.clone().or_else(|| workload.ports.first().map(|port| Probe::tcp(*port)))
}

/// What a proxy is told of its program's probe.
fn questions(probe: &Probe) -> Vec<String> {
    let kind = match &probe.kind {
        ProbeKind::Tcp(port) => format!("tcp:{port}"),
        ProbeKind::Http { port, path, tls, .. } => format!("http{}:{port}{path}", if *tls { "s" } else { "" }),
    };
    let mut words = vec!["--probe".to_owned(), kind, "--probe-address".into()];
    match probe.address {
        // Told by where they come from, since they go where the program's other callers may go.
        Some(address) => words.extend([address.to_string(), "--probe-source".into(), PROBE_ADDRESS.to_string()]),
        None => words.push(PROBE_ADDRESS.to_string()),
    }
    if let ProbeKind::Http { headers, .. } = &probe.kind {
        words.extend(headers.iter().flat_map(|(name, value)| ["--probe-header".into(), format!("{name}: {value}")]));
    }
    for (name, seconds) in [("delay", probe.delay), ("period", probe.period), ("timeout", probe.timeout)] {
        words.extend(seconds.into_iter().flat_map(|s| [format!("--probe-{name}"), format!("{s}s")]));
    }
    for (name, count) in [("failures", probe.failures), ("successes", probe.successes)] {
        words.extend(count.into_iter().flat_map(|n| [format!("--probe-{name}"), n.to_string()]));
    }
    words
}
