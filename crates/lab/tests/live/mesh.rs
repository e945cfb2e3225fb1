//! Three clusters: east and west with the same pod addresses on different networks, north on west's network.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fairlead_capture::{CaptureSpec, LoopGuard, PROXY_MARK};
use fairlead_lab::faults::{Fault, Heal};
use fairlead_lab::process::{EtcFiles, ProcessError, ProcessSpec, Ready, State};
use fairlead_lab::topology::{self, ClusterSpec, GatewaySpec, Spec, Topology, WorkloadSpec};
use fairlead_lab::{Handle, HandleError, node};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Long enough for any answer on one machine, short enough to wait for none: a first SYN is repeated only after a second.
const SILENCE: Duration = Duration::from_millis(300);

pub async fn scenario() {
    let directory = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let handle = Handle::new(Topology::apply(topology::plan(&spec()).unwrap()).unwrap(), directory.path());
    println!("{} namespaces in {:?}", handle.plan().namespaces.len(), began.elapsed());
    for (owner, name, port) in [
        ("east/shop/a", "east-a", 9000),
        ("east/shop/b", "east-b", 9000),
        ("west/shop/b", "west-b", 9000),
        ("north/shop/c", "north-c", 9000),
        ("west/east-west", "west-gateway", 15443),
        ("west/control", "west-control", 15012),
    ] {
        handle.spawn(echo(owner, name, port)).await.unwrap();
    }
    addresses(&handle).await;
    capture(&handle).await;
    services(&handle).await;
    silence(&handle).await;
    cut(&handle).await;
    processes(&handle).await;
    growth(&handle).await;
    handle.stop_all(Duration::from_secs(5)).await;
    assert!(handle.processes().iter().all(|p| p.pid.is_none()));
    println!("all in {:?}", began.elapsed());
}

fn spec() -> Spec {
    let workload = |name: &str, address: &str| WorkloadSpec {
        name: name.into(),
        addresses: address.split(' ').map(|a| a.parse().unwrap()).collect(),
        ..WorkloadSpec::default()
    };
    let cluster = |network: &str, gateway: &[&str], workloads: Vec<WorkloadSpec>| ClusterSpec {
        network: network.into(),
        gateways: vec![GatewaySpec {
            name: "east-west".into(),
            addresses: gateway.iter().map(|a| a.parse().unwrap()).collect(),
        }],
        workloads,
        ..ClusterSpec::default()
    };
    let clusters = [
        (
            "east".to_owned(),
            cluster("east-net", &[], vec![workload("shop/a", "10.0.0.1"), workload("shop/b", "10.0.0.2")]),
        ),
        (
            "west".to_owned(),
            cluster(
                "west-net",
                &["198.51.100.10"],
                vec![workload("shop/a", "10.0.0.1"), workload("shop/b", "10.0.0.2 2001:db8::2")],
            ),
        ),
        ("north".to_owned(), cluster("west-net", &[], vec![workload("shop/c", "10.0.0.3 2001:db8::3")])),
    ];
    Spec { clusters: clusters.into(), externals: Vec::new() }
}

async fn addresses(handle: &Handle) {
    assert_eq!(lines(handle, "east/shop/a", "10.0.0.2:9000", 1).await, ["east-b 10.0.0.1"]);
    assert_eq!(lines(handle, "west/shop/a", "10.0.0.2:9000", 1).await, ["west-b 10.0.0.1"]);
    assert_eq!(lines(handle, "north/shop/c", "10.0.0.2:9000", 1).await, ["west-b 10.0.0.3"], "flat");
    let node = handle.plan().namespace("east/node").unwrap().wan_addresses()[0];
    assert_eq!(lines(handle, "east/shop/a", "198.51.100.10:15443", 1).await, [format!("west-gateway {node}")]);
    let outside = lines(handle, "outside", "198.51.100.10:15443", 1).await;
    assert_eq!(outside, ["west-gateway 198.18.0.1"]);
    assert!(lines(handle, "outside@west-net", "10.0.0.2:9000", 1).await[0].starts_with("west-b 100.64.0."));
    assert_eq!(lines(handle, "north/shop/c", "[2001:db8::2]:9000", 1).await, ["west-b 2001:db8::3"]);
    let control = handle.plan().namespace("west/control").unwrap().wan_addresses().to_vec();
    let node = handle.plan().namespace("north/node").unwrap().wan_addresses()[1];
    assert_eq!(
        lines(handle, "north/shop/c", &format!("[{}]:15012", control[1]), 1).await,
        [format!("west-control {node}")]
    );
    // The gateway reaches its own pods, and by the other leg the other gateway's address.
    assert!(lines(handle, "west/east-west", "10.0.0.2:9000", 1).await[0].starts_with("west-b 100.64."));
}

/// The largest lab that is promised: five clusters, sixty workloads.
pub async fn largest() {
    let began = Instant::now();
    let clusters = ["a", "b", "c", "d", "e"].map(|name| {
        let workloads =
            (0..12).map(|n| WorkloadSpec { name: format!("shop/w{n}"), ..WorkloadSpec::default() }).collect();
        let gateways = vec![GatewaySpec { name: "east-west".into(), addresses: Vec::new() }];
        (name.to_owned(), ClusterSpec { network: "flat".into(), gateways, workloads, ..ClusterSpec::default() })
    });
    let directory = tempfile::tempdir().unwrap();
    let plan = topology::plan(&Spec { clusters: clusters.into(), externals: Vec::new() }).unwrap();
    let handle = Handle::new(Topology::apply(plan).unwrap(), directory.path());
    println!("{} namespaces in {:?}", handle.plan().namespaces.len(), began.elapsed());
    let last = handle.plan().namespace("e/shop/w11").unwrap().network_addresses()[0];
    handle.spawn(echo("e/shop/w11", "last", 9000)).await.unwrap();
    assert!(lines(&handle, "a/shop/w0", &format!("{last}:9000"), 1).await[0].starts_with("last "));
    let began = Instant::now();
    handle.fault(Fault::Blackhole("e".into())).await.unwrap();
    handle.fault(Fault::Cut("a".into(), "b".into())).await.unwrap();
    handle.heal(&Heal::All).await.unwrap();
    println!("broken and healed in {:?}", began.elapsed());
    assert_eq!(lines(&handle, "a/shop/w0", &format!("{last}:9000"), 1).await.len(), 1);
}

async fn capture(handle: &Handle) {
    let proxy = ProcessSpec::new("east/shop/a", "proxy", std::env::current_exe().unwrap())
        .arguments(["program", "proxy", "240.240.0.1:80=10.0.0.2:9000", "240.240.0.9:80=10.0.0.1:9000"])
        .ready(Ready::Tcp("127.0.0.1:15001".parse().unwrap()));
    // Its first connection to 15001 is not captured, so it is no loop; and not served.
    handle.spawn(ProcessSpec { ready: Ready::Started, ..proxy }).await.unwrap();
    handle.capture("east/shop/a", &CaptureSpec::new(LoopGuard::Mark(PROXY_MARK))).await.unwrap();
    let captured = async || lines(handle, "east/shop/a", "240.240.0.1:80", 2).await;
    let mut first = captured().await;
    while first.is_empty() {
        // Refused until the proxy listens.
        first = captured().await;
    }
    assert_eq!(first, ["outbound 240.240.0.1:80", "east-b 10.0.0.1"], "the proxy's own connection is not captured");
    assert_eq!(
        lines(handle, "east/shop/a", "240.240.0.9:80", 3).await,
        ["outbound 240.240.0.9:80", "inbound 10.0.0.1:9000", "east-a 127.0.0.6"],
        "a program that calls its own virtual address meets its own inbound listener, once"
    );
    assert_eq!(lines(handle, "east/shop/b", "10.0.0.1:9000", 2).await, ["inbound 10.0.0.1:9000", "east-a 127.0.0.6"]);
    assert_eq!(
        lines(handle, "east/shop/a", "127.0.0.1:9000", 1).await,
        ["east-a 127.0.0.1"],
        "loopback is the program's own"
    );
    let dns = handle.namespace("east/shop/a").unwrap().udp_socket("0.0.0.0:0".parse().unwrap()).unwrap();
    dns.connect("192.0.2.53:53").await.unwrap();
    dns.send(b"who").await.unwrap();
    let mut answer = [0; 64];
    let length = timeout(Duration::from_secs(5), dns.recv(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer[..length], b"answer to who");
}

async fn services(handle: &Handle) {
    let ranges = ["240.240.0.0/16".parse().unwrap(), "10.96.0.0/16".parse().unwrap()];
    handle.install("east/node", node::rules::services(topology::NETWORK_DEVICE, &ranges, 15999)).await.unwrap();
    let listener = handle.namespace("east/node").unwrap().listen("0.0.0.0:15999".parse().unwrap()).unwrap();
    for service in ["240.240.3.4:80", "10.96.0.10:443"] {
        let (_caller, arrived) = tokio::join!(connect(handle, "east/shop/b", service), listener.accept());
        assert_eq!(crate::programs::original_destination(&arrived.unwrap().0), service.parse().unwrap());
    }
    handle.uninstall("east/node", "fairlead_services").await.unwrap();
    let error = connect(handle, "east/shop/b", "240.240.3.4:80").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable, "{error}");
}

async fn silence(handle: &Handle) {
    let gateway = "198.51.100.10:15443";
    let silent = async |from: &str, to: &str| timeout(SILENCE, connect(handle, from, to)).await.is_err();
    handle.fault(Fault::Blackhole("west".into())).await.unwrap();
    handle.fault(Fault::Blackhole("west".into())).await.unwrap();
    assert!(silent("east/shop/b", gateway).await);
    assert!(silent("north/shop/c", "10.0.0.2:9000").await, "flat neighbours are others too");
    assert_eq!(lines(handle, "west/shop/a", "10.0.0.2:9000", 1).await, ["west-b 10.0.0.1"], "inside it all is well");
    handle.heal(&Heal::Target("west".into())).await.unwrap();
    assert_eq!(lines(handle, "east/shop/b", gateway, 1).await.len(), 1);
    assert_eq!(lines(handle, "north/shop/c", "10.0.0.2:9000", 1).await.len(), 1);

    handle.fault(Fault::BlackholeBetween("west".into(), "east".into())).await.unwrap();
    assert!(silent("east/shop/b", gateway).await);
    assert_eq!(lines(handle, "north/shop/c", gateway, 1).await.len(), 1);
    handle.heal(&Heal::Fault(Fault::BlackholeBetween("east".into(), "west".into()))).await.unwrap();
    assert_eq!(lines(handle, "east/shop/b", gateway, 1).await.len(), 1);

    handle.fault(Fault::Blackhole("west/east-west@198.51.100.10".into())).await.unwrap();
    assert!(silent("east/shop/b", gateway).await);
    handle.heal(&Heal::All).await.unwrap();
    handle.heal(&Heal::All).await.unwrap();
    assert_eq!(lines(handle, "east/shop/b", gateway, 1).await.len(), 1);

    let control = SocketAddr::new(handle.plan().address("east/control", "west/control").unwrap(), 15012).to_string();
    assert_eq!(lines(handle, "east/control", &control, 1).await.len(), 1);
    handle.fault(Fault::Freeze("west".into())).await.unwrap();
    assert!(silent("east/control", &control).await);
    assert_eq!(lines(handle, "east/shop/b", gateway, 1).await.len(), 1, "traffic goes on");
    handle.heal(&Heal::All).await.unwrap();
    assert_eq!(lines(handle, "east/control", &control, 1).await.len(), 1);
    let unknown = handle.fault(Fault::Blackhole("south".into())).await.unwrap_err();
    assert!(matches!(unknown, HandleError::UnknownTarget(_)), "{unknown}");
    assert_eq!(handle.faults().await.iter().count(), 0);
}

async fn cut(handle: &Handle) {
    let gateway = "198.51.100.10:15443";
    let mut open = BufReader::new(connect(handle, "east/shop/b", gateway).await.unwrap());
    let mut line = String::new();
    open.read_line(&mut line).await.unwrap();
    handle.fault(Fault::Cut("east".into(), "west".into())).await.unwrap();
    let error = connect(handle, "east/shop/b", gateway).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    open.write_all(b"still there?\n").await.unwrap();
    let error = open.read_line(&mut line).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    assert_eq!(lines(handle, "north/shop/c", "10.0.0.2:9000", 1).await.len(), 1);
    handle.heal(&Heal::All).await.unwrap();
    assert_eq!(lines(handle, "east/shop/b", gateway, 1).await.len(), 1);
}

async fn processes(handle: &Handle) {
    handle.fault(Fault::Kill { target: "west".into(), process: None }).await.unwrap();
    for (from, to) in [("west/shop/a", "10.0.0.2:9000"), ("east/shop/b", "198.51.100.10:15443")] {
        assert_eq!(connect(handle, from, to).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
    assert!(handle.processes().iter().filter(|p| p.owner.starts_with("west/")).all(|p| p.state == State::Stopped));
    let held = handle.spawn(echo("west/shop/a", "west-a", 9000)).await.unwrap_err();
    assert!(matches!(held, HandleError::Held { .. }), "{held}");
    handle.heal(&Heal::All).await.unwrap();
    assert_eq!(lines(handle, "west/shop/a", "10.0.0.2:9000", 1).await, ["west-b 10.0.0.1"]);
    handle.fault(Fault::Kill { target: "west/shop/b".into(), process: Some("other".into()) }).await.unwrap();
    assert_eq!(lines(handle, "west/shop/a", "10.0.0.2:9000", 1).await.len(), 1, "only the process named");
    handle.heal(&Heal::All).await.unwrap();

    let starts = |owner: &str| handle.processes().iter().find(|p| p.owner == owner).unwrap().starts;
    let before = (starts("west/shop/b"), starts("west/control"));
    handle.restart("west/fairlead-system/east-west", None).await.unwrap();
    handle.restart("west", Some("echo")).await.unwrap();
    assert_eq!((starts("west/shop/b"), starts("west/control")), (before.0 + 1, before.1 + 1));
    assert_eq!(lines(handle, "west/shop/a", "10.0.0.2:9000", 1).await, ["west-b 10.0.0.1"]);

    let mut events = handle.events();
    let crash =
        ProcessSpec::new("north/shop/c", "crash", std::env::current_exe().unwrap()).arguments(["program", "crash"]);
    let never = Ready::File("/nowhere".into());
    match handle.spawn(crash.ready(never)).await.unwrap_err() {
        HandleError::Process(ProcessError::Ended { how, log, .. }) => {
            assert_eq!((how.as_str(), log.as_str()), ("exit status: 3", "the last words"))
        }
        other => panic!("{other}"),
    }
    assert_eq!(events.recv().await.unwrap().name, "crash");

    let address = "10.0.0.3".parse().unwrap();
    let files = EtcFiles::pod("100.64.3.1".parse().unwrap(), "shop", "cluster.local", "c", address);
    let copy = handle.directory().join("resolv");
    let program = ProcessSpec::new("north/shop/c", "copy", std::env::current_exe().unwrap())
        .arguments(["program".as_ref(), "copy".as_ref(), "/etc/resolv.conf".as_ref(), copy.as_os_str()])
        .files(files.clone())
        .ready(Ready::File(copy.clone()));
    if std::path::Path::new("/etc/resolv.conf").exists() {
        handle.spawn(program).await.unwrap();
        assert_eq!(std::fs::read_to_string(copy).unwrap(), files.resolv);
        assert_ne!(std::fs::read_to_string("/etc/resolv.conf").unwrap(), files.resolv, "only the program sees it");
    }
}

async fn growth(handle: &Handle) {
    let mut spec = spec();
    let east = spec.clusters.get_mut("east").unwrap();
    east.workloads.push(WorkloadSpec { name: "shop/d".into(), ..WorkloadSpec::default() });
    east.workloads.retain(|w| w.name != "shop/b");
    let mut open = BufReader::new(connect(handle, "west/shop/a", "10.0.0.2:9000").await.unwrap());
    let built = handle.update(topology::plan(&spec).unwrap()).await.unwrap();
    assert_eq!(built.into_iter().collect::<Vec<_>>(), ["east/shop/d"]);
    handle.spawn(echo("east/shop/d", "east-d", 9000)).await.unwrap();
    let address = handle.plan().namespace("east/shop/d").unwrap().network_addresses()[0];
    assert_eq!(address.to_string(), "10.0.0.4", "the first that nobody has written");
    assert_eq!(lines(handle, "outside@east-net", &format!("{address}:9000"), 1).await.len(), 1);
    assert!(handle.namespace("east/shop/b").is_err());
    assert!(!handle.processes().iter().any(|p| p.owner == "east/shop/b"), "its program went with it");
    let mut line = String::new();
    open.read_line(&mut line).await.unwrap();
    open.write_all(b"still there\n").await.unwrap();
    line.clear();
    open.read_line(&mut line).await.unwrap();
    assert_eq!(line, "still there\n", "what has not changed is not touched");
}

fn echo(owner: &str, name: &str, port: u16) -> ProcessSpec {
    ProcessSpec::new(owner, "echo", std::env::current_exe().unwrap())
        .arguments(["program", "echo", name, &port.to_string()])
        .ready(Ready::Tcp(([127, 0, 0, 1], port).into()))
}

async fn connect(handle: &Handle, from: &str, to: &str) -> io::Result<TcpStream> {
    handle.namespace(from).unwrap().connect(to.parse().unwrap()).await
}

/// The first lines that a connection gives; none when it is refused or reset.
async fn lines(handle: &Handle, from: &str, to: &str, count: usize) -> Vec<String> {
    let read = async {
        let mut reader = BufReader::new(connect(handle, from, to).await?).lines();
        let mut lines = Vec::new();
        while lines.len() < count {
            lines.extend(reader.next_line().await?.or_else(|| Some("(end)".into())));
        }
        io::Result::Ok(lines)
    };
    let done = timeout(Duration::from_secs(10), read).await.unwrap_or_else(|_| panic!("{from} to {to}: no answer"));
    done.unwrap_or_default()
}
