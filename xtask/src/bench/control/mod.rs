//! `cargo xtask bench control`: the control plane as its own process, under simulated proxies and peers, against its bars.
//!
//! The process is the product's, on an API server of the tests' (`crates/sources/tests/support`); proxies and peers are simulated in
//! this process and speak the real protocols over mutual TLS. Invariant: what is told as met was measured in this run.

#[path = "../../../../crates/sources/tests/support/api_server.rs"]
#[allow(clippy::unwrap_used)] // Written for tests; here too it ends the run.
mod api_server;
mod mesh;
mod peers;
mod plane;
mod proxies;
mod report;

use super::{ControlArgs, ControlOutput};
use anyhow::ensure;
use mesh::Mesh;
use plane::Plane;
use proxies::{Board, Fleet, proxies, runtime};
use report::{Figure, quantile, slope};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const PARTS: [&str; 5] = ["endpoints", "proxies", "changes", "storm", "peers"];
const PATIENCE: Duration = Duration::from_secs(120);

/// How large everything is.
struct Size {
    services: usize,
    /// Pods of each service, for the slope of endpoints; the middle one is what the rest is measured with.
    pods: [usize; 3],
    proxies: [usize; 3],
    changes: usize,
    per_second: u32,
    storm: usize,
    peers: usize,
    /// Services of each peer, and pods of each in the two runs that are compared.
    peer_services: usize,
    peer_pods: [usize; 2],
}

const FULL: Size = Size {
    services: 1000,
    pods: [2, 10, 20],
    proxies: [100, 500, 1000],
    changes: 200,
    per_second: 10,
    storm: 5000,
    peers: 50,
    peer_services: 200,
    peer_pods: [10, 100],
};
const QUICK: Size = Size {
    services: 20,
    pods: [1, 3, 5],
    proxies: [4, 8, 16],
    changes: 10,
    per_second: 10,
    storm: 40,
    peers: 2,
    peer_services: 5,
    peer_pods: [2, 6],
};

pub fn run(args: &ControlArgs) -> anyhow::Result<ExitCode> {
    for part in &args.parts {
        ensure!(PARTS.contains(&part.as_str()), "there is no part `{part}`: {}", PARTS.join(", "));
    }
    let size = if args.quick { QUICK } else { FULL };
    let has = |part: &str| args.parts.iter().any(|p| p == part);
    let mut figures = Vec::new();
    if has("endpoints") {
        figures.push(endpoints(&size)?);
    }
    if has("proxies") || has("changes") || has("storm") {
        connected(&size, &has, &mut figures)?;
    }
    if has("peers") {
        with_peers(&size, &mut figures)?;
    }
    match args.output {
        ControlOutput::Table => report::print_table(&figures),
        ControlOutput::Json => println!("{:#}", report::json(&figures)),
    }
    Ok(ExitCode::SUCCESS)
}

fn said(text: &str) {
    eprintln!("{text}");
}

/// Memory of an endpoint: the slope over meshes of different size, each with one proxy that has everything.
fn endpoints(size: &Size) -> anyhow::Result<Figure> {
    let runtime = runtime()?;
    let mut points = Vec::new();
    for pods in size.pods {
        let mesh = Mesh { services: size.services, pods, exported: false };
        let plane = Plane::start(mesh)?;
        let board = Board::new(plane.address, size.services);
        let mut fleet = Fleet::new(board.clone());
        fleet.add(runtime.handle(), &proxies(&plane, size.services, 1)?, false);
        board.until_ready(1, PATIENCE)?;
        let memory = plane.memory().anonymous;
        said(&format!("{} endpoints: {:.1} MB", mesh.endpoints(), memory / 1e6));
        points.push((mesh.endpoints() as f64, memory));
    }
    let note = points.iter().map(|(n, b)| format!("{n}: {:.1} MB", b / 1e6)).collect::<Vec<_>>().join(", ");
    Ok(Figure::judged("memory of an endpoint", slope(&points) / 1024.0, "KB", 1.0, note))
}

/// What is measured with many proxies on one control plane.
fn connected(size: &Size, has: &dyn Fn(&str) -> bool, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let mesh = Mesh { services: size.services, pods: size.pods[1], exported: false };
    let mut plane = Plane::start(mesh)?;
    let board = Board::new(plane.address, size.services);
    let all = proxies(&plane, size.services, size.storm.max(size.proxies[2]))?;
    let mut fleet = Fleet::new(board.clone());
    let mut points = Vec::new();
    let mut connected = 0;
    for many in size.proxies {
        let begun = Instant::now();
        while connected < many {
            // In small groups: a proxy that starts takes everything there is.
            let next = (connected + 20).min(many);
            fleet.add(runtime.handle(), &all[connected..next], false);
            board.until_ready(next, PATIENCE)?;
            connected = next;
        }
        said(&format!("{many} proxies are connected, the last after {:.1} s", begun.elapsed().as_secs_f64()));
        if has("proxies") {
            points.push((many as f64, plane.memory().anonymous));
        }
    }
    if has("proxies") {
        let note = points.iter().map(|(n, b)| format!("{n}: {:.1} MB", b / 1e6)).collect::<Vec<_>>().join(", ");
        figures.push(Figure::judged("memory of a proxy", slope(&points) / 1024.0, "KB", 20.0, note));
    }
    if has("changes") {
        changes(size, mesh, &plane, &board, figures)?;
    }
    if has("storm") {
        drop(fleet);
        fleet = Fleet::new(Board::new(plane.address, size.services));
        figures.push(storm(size, &runtime, &mut plane, &board, &mut fleet, &all)?);
    }
    drop(fleet);
    Ok(())
}

/// Endpoints change at a steady rate; every proxy hears of each.
fn changes(size: &Size, mesh: Mesh, plane: &Plane, board: &Board, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let proxies = size.proxies[2];
    let api = plane.api();
    // The first ones find memory and caches cold.
    mesh.move_pod(&api, 0, 0, 1);
    until_acked(board, 0, proxies)?;
    for service in 0..size.services {
        board.forget(service);
    }
    let (used, begun) = (plane.usage()?, Instant::now());
    let mut at = Vec::new();
    let mut late = 0;
    for change in 0..size.changes {
        let due = begun + Duration::from_secs(1) / size.per_second * change as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        late += usize::from(due.elapsed() > Duration::from_millis(5));
        let service = 1 + change % (size.services - 1);
        at.push((service, board.now()));
        mesh.move_pod(&api, service, change % size.pods[1], 1 + change / (size.services - 1));
    }
    for (service, _) in &at {
        until_acked(board, *service, proxies)?;
    }
    let (used, took) = (plane.usage()?.since(used), begun.elapsed().as_secs_f64());
    let mut latencies: Vec<f64> =
        at.iter().map(|(service, from)| (board.acked(*service).1.saturating_sub(*from)) as f64 / 1e6).collect();
    let what =
        format!("{} changes, {} a second, {proxies} proxies; {late} written late", size.changes, size.per_second);
    figures.push(Figure::told("change to last ack, p50", quantile(&mut latencies, 0.5), "ms", what.clone()));
    figures.push(Figure::judged("change to last ack, p99", quantile(&mut latencies, 0.99), "ms", 100.0, what));
    let ticks =
        format!("user {:.1} s, system {:.1} s", used.user_ticks as f64 / 100.0, used.system_ticks as f64 / 100.0);
    figures.push(Figure::judged("CPU under changes", used.cpu_ns as f64 / 1e9 / took, "cores", 1.0, ticks));
    let each = used.cpu_ns as f64 / 1e3 / (size.changes * proxies) as f64;
    figures.push(Figure::told("CPU of a change and proxy", each, "µs", String::new()));
    Ok(())
}

/// Peers with services of their own: a change there until the own proxies have acked it, and what it costs on the wire.
fn with_peers(size: &Size, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let (own, proxied) = (20.min(size.services), 10.min(size.services));
    let mut bytes = Vec::new();
    for (run, pods) in size.peer_pods.into_iter().enumerate() {
        let runtime = runtime()?;
        // With many pods one peer is enough: its stream is its own.
        let many = if run == 0 { size.peers } else { 1 };
        let mesh = Mesh { services: own, pods: 2, exported: true };
        let plane = Plane::start(mesh)?;
        let begun = Instant::now();
        let first = |peer: usize| peers::number(own, peer, size.peer_services, 0);
        let joined = (0..many)
            .map(|peer| runtime.block_on(peers::Peer::join(&plane, peer, first(peer), size.peer_services, pods)));
        let joined: Vec<peers::Peer> = joined.collect::<Result<_, _>>()?;
        joined.iter().try_for_each(peers::Peer::until_told)?;
        said(&format!("{many} peers are heard after {:.1} s", begun.elapsed().as_secs_f64()));
        let board = Board::new(plane.address, own + many * size.peer_services);
        let mut fleet = Fleet::new(board.clone());
        fleet.add(runtime.handle(), &proxies(&plane, own, proxied)?, false);
        board.until_ready(proxied, PATIENCE)?;
        let used = plane.usage()?;
        let (mut latencies, mut sizes) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        for change in 0..size.changes / 2 {
            let (peer, service) = (change % many, change % size.peer_services);
            let number = first(peer) + service;
            board.forget(number);
            let (before, from) = (joined[peer].bytes(), board.now());
            joined[peer].change(first(peer), service, change)?;
            until_acked(&board, number, proxied)?;
            latencies.push(board.acked(number).1.saturating_sub(from) as f64 / 1e6);
            joined[peer].until_told()?;
            sizes.push((joined[peer].bytes() - before) as f64);
        }
        let used = plane.usage()?.since(used);
        bytes.push(quantile(&mut sizes, 0.5));
        if run == 0 {
            let note = format!(
                "{many} peers of {} services with {pods} pods, {proxied} proxies, one change after the other; \
                 {:.0} ms CPU a change, p50 {:.0} ms, {:.1} s in all, {:.0} MB",
                size.peer_services,
                used.cpu_ns as f64 / 1e6 / latencies.len() as f64,
                quantile(&mut latencies, 0.5),
                begun.elapsed().as_secs_f64(),
                plane::anonymous(plane.pid()) / 1e6,
            );
            let p99 = quantile(&mut latencies, 0.99) / 1e3;
            figures.push(Figure::judged("change at a peer to last ack, p99", p99, "s", 2.0, note));
        }
    }
    let [few, many] = size.peer_pods;
    let note = format!("median {:.0} B at {few} pods a service, {:.0} B at {many}", bytes[0], bytes[1]);
    figures.push(Figure::judged("bytes of a change, more pods to fewer", bytes[1] / bytes[0], "", 1.05, note));
    Ok(())
}

fn until_acked(board: &Board, service: usize, proxies: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    while board.acked(service).0 < proxies {
        let acked = board.acked(service).0;
        ensure!(begun.elapsed() < PATIENCE, "{acked} of {proxies} proxies have acked a change of s{service:04}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The control plane is killed and started; everybody comes back at once, with what it had.
fn storm(
    size: &Size,
    runtime: &tokio::runtime::Runtime,
    plane: &mut Plane,
    knowing: &Board,
    fleet: &mut Fleet,
    all: &[proxies::Proxy],
) -> anyhow::Result<Figure> {
    plane.restart()?;
    fleet.board.adopt(knowing);
    let (used, from) = (plane.usage()?, fleet.board.now());
    fleet.add(runtime.handle(), &all[..size.storm], true);
    let last = fleet.board.until_ready(size.storm, PATIENCE)?;
    let used = plane.usage()?.since(used);
    let note = format!(
        "{} proxies; CPU of the control plane {:.1} s; {:.1} KB a proxy; {}; {:.0} MB then",
        size.storm,
        used.cpu_ns as f64 / 1e9,
        fleet.board.bytes.load(Ordering::Relaxed) as f64 / 1024.0 / size.storm as f64,
        fleet.board.failures(),
        plane::anonymous(plane.pid()) / 1e6,
    );
    let took = (last - from) as f64 / 1e9;
    Ok(Figure::judged("all reconnected and ready", took, "s", 10.0, note))
}
