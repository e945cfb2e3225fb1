//! `cargo xtask bench resolving`: what a change costs in a mesh of many services, from objects to resources.
//!
//! Everything happens in memory on one thread, with the functions a control plane calls, and is told in CPU time: on a shared
//! machine the wall clock measures the neighbours. Invariant: an incremental result is compared with a
//! full one before its time counts.

use super::ResolvingArgs;
use super::process::Usage;
use super::statistics::{median, range};
use anyhow::ensure;
use fairlead_model::endpoint::WorkloadRef;
use fairlead_model::ids::ClusterId;
use fairlead_model::mesh::ResolvedMesh;
use fairlead_model::{ClientKind, ProxyDescription, ProxyRole};
use fairlead_resolve::view::Peers;
use fairlead_resolve::{ClusterInput, ObjectRef, Observed, ViewInput};
use fairlead_resources::{Decoded, decode};
use fairlead_xdsgen::{Memo, generate};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

pub fn run(args: &ResolvingArgs) -> anyhow::Result<ExitCode> {
    let cluster = ClusterId::from("east");
    let file: Arc<str> = Arc::from("clusters/east/objects.yaml");
    let mut services = Vec::new();
    let begun = Usage::own_cpu_ns();
    for service in 0..args.services {
        services.push(decoded(&cluster, &file, &objects_of(service, args.endpoints, 0))?);
    }
    services.push(decoded(&cluster, &file, &callers(args.proxies))?);
    println!(
        "{} services with {} endpoints each and {} proxies; decoding all objects: {:.0} ms",
        args.services,
        args.endpoints,
        args.proxies,
        ms(begun)
    );
    let proxies: Vec<ProxyDescription> = (0..args.proxies).map(proxy).collect();
    full(args, &cluster, &file, &services, &proxies)?;
    incremental(args, &cluster, &file, services, &proxies)?;
    Ok(ExitCode::SUCCESS)
}

fn full(
    args: &ResolvingArgs,
    cluster: &ClusterId,
    file: &Arc<str>,
    services: &[Vec<Decoded>],
    proxies: &[ProxyDescription],
) -> anyhow::Result<()> {
    let (mut resolving, mut first, mut further) = (Vec::new(), Vec::new(), Vec::new());
    let mut resources = 0;
    for _ in 0..args.repeat {
        let begun = Usage::own_cpu_ns();
        let mesh = resolve(cluster, file, services, 1, None);
        resolving.push(ms(begun));
        let memo = Memo::default();
        let begun = Usage::own_cpu_ns();
        resources = generate(&mesh, &proxies[0], &memo).len();
        first.push(ms(begun));
        let begun = Usage::own_cpu_ns();
        for proxy in &proxies[1..] {
            generate(&mesh, proxy, &memo);
        }
        further.push(ms(begun) / (proxies.len() - 1).max(1) as f64);
    }
    ensure!(resources > args.services, "only {resources} resources: the mesh is not what it should be");
    println!("full, CPU time, median [min–max] of {}:", args.repeat);
    line("resolve all objects", &resolving);
    line(&format!("generate {resources} resources for the first proxy"), &first);
    line("generate for each further proxy", &further);
    Ok(())
}

fn incremental(
    args: &ResolvingArgs,
    cluster: &ClusterId,
    file: &Arc<str>,
    mut services: Vec<Vec<Decoded>>,
    proxies: &[ProxyDescription],
) -> anyhow::Result<()> {
    let memo = Memo::default();
    let mut mesh = resolve(cluster, file, &services, 1, None);
    for proxy in proxies {
        generate(&mesh, proxy, &memo);
    }
    let (mut decoding, mut resolving, mut generating, mut all) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let before = made(&memo);
    for change in 0..args.repeat {
        let begun = Usage::own_cpu_ns();
        let service = change % args.services;
        services[service] = decoded(cluster, file, &objects_of(service, args.endpoints, change + 1))?;
        decoding.push(ms(begun));
        let step = Usage::own_cpu_ns();
        mesh = resolve(cluster, file, &services, change as u64 + 2, Some(&mesh));
        resolving.push(ms(step));
        let step = Usage::own_cpu_ns();
        for proxy in proxies {
            generate(&mesh, proxy, &memo);
        }
        generating.push(ms(step));
        all.push(ms(begun));
    }
    let made = (made(&memo) - before) as f64 / args.repeat as f64;
    let anew = generate(&resolve(cluster, file, &services, 1, None), &proxies[0], &Memo::default());
    let kept = generate(&mesh, &proxies[0], &memo);
    let versions = |of: &[Arc<fairlead_xdsgen::Generated>]| -> BTreeSet<String> {
        of.iter().map(|g| format!("{} {} {}", g.type_url(), g.name, g.version)).collect()
    };
    ensure!(versions(&anew) == versions(&kept), "the incremental result differs from a full one");
    println!("one endpoint of one service changes address, CPU time, median [min–max] of {}:", args.repeat);
    line("decode the changed objects", &decoding);
    line("resolve", &resolving);
    line(&format!("generate for {} proxies ({made:.1} resources made)", proxies.len()), &generating);
    line("all of it", &all);
    Ok(())
}

fn resolve(
    cluster: &ClusterId,
    file: &Arc<str>,
    services: &[Vec<Decoded>],
    generation: u64,
    previous: Option<&ResolvedMesh>,
) -> ResolvedMesh {
    let objects: Vec<ObjectRef<'_>> = services.iter().flatten().map(|decoded| ObjectRef { decoded, file }).collect();
    let members = BTreeSet::from([cluster.clone()]);
    let settings = fairlead_resolve::settings("bench", None, &members, &objects);
    let observed = Observed::default();
    let input = ClusterInput { cluster, settings: &settings, objects: &objects, observed: &observed };
    let (state, _) = fairlead_resolve::cluster(&input);
    let (peers, kept) = (Peers::new(), BTreeMap::new());
    let view = ViewInput { state: &state, peers: &peers, generation, previous, kept: &kept };
    fairlead_resolve::view_with(&view).0
}

fn decoded(cluster: &ClusterId, file: &Arc<str>, text: &str) -> anyhow::Result<Vec<Decoded>> {
    let decoding = decode(cluster, file, text.as_bytes());
    let refused = decoding.diagnostics.first();
    ensure!(refused.is_none(), "the benchmark's own objects are refused: {refused:?}");
    Ok(decoding.objects)
}

/// A service and its endpoints; `edit` changes one of the addresses.
fn objects_of(service: usize, endpoints: usize, edit: usize) -> String {
    let namespace = format!("ns-{}", service % 20);
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: svc-{service}, namespace: {namespace}}}\nspec:\n  \
         clusterIP: 10.96.{}.{}\n  ports: [{{name: http, port: 80, targetPort: 8080}}]\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: svc-{service}-1\n  \
         namespace: {namespace}\n  labels: {{kubernetes.io/service-name: svc-{service}}}\naddressType: IPv4\n\
         ports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n",
        service / 250,
        service % 250 + 1,
    );
    for endpoint in 0..endpoints {
        let number = service * endpoints + endpoint;
        let moved = if endpoint == 0 { edit % 200 } else { 0 };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "- {{addresses: [10.{}.{}.{}], conditions: {{ready: true}}}}",
            10 + moved,
            number / 250,
            number % 250 + 1
        );
    }
    text
}

/// Workloads whose proxies are generated for.
fn callers(proxies: usize) -> String {
    let mut text = String::new();
    for number in 0..proxies {
        let _ = writeln!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: caller-{number}, namespace: ns-0}}\n\
             spec: {{address: 10.250.0.{}, labels: {{app: caller}}, ports: {{http: 8080}}}}",
            number % 250 + 1
        );
    }
    text
}

fn proxy(number: usize) -> ProxyDescription {
    ProxyDescription {
        workload: WorkloadRef {
            cluster: "east".into(),
            namespace: "ns-0".into(),
            name: format!("caller-{number}").into(),
        },
        role: ProxyRole::Sidecar,
        client: ClientKind::Fairlead,
        network: Default::default(),
        locality: Default::default(),
        addresses: Vec::new(),
        labels: Default::default(),
        service_account: "default".to_owned(),
        identity: "spiffe://east.bench.mesh/ns/ns-0/sa/default".to_owned(),
    }
}

fn made(memo: &Memo) -> u64 {
    memo.counters().by_type.values().map(|counters| counters.generated).sum()
}

/// CPU milliseconds since an earlier reading.
fn ms(since: u64) -> f64 {
    (Usage::own_cpu_ns() - since) as f64 / 1e6
}

fn line(what: &str, times: &[f64]) {
    let (min, max) = range(times);
    println!("  {what:<55} {:>8.1} ms [{min:.1}–{max:.1}]", median(times));
}
