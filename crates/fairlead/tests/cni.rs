//! The CNI plugin as a container runtime runs it: environment and standard input in, rules in a network namespace and JSON out.
//!
//! The program is the product's own binary under the plugin's name. As root it works beside the machine's namespaces, without privileges
//! in a lab.

#![allow(clippy::unwrap_used)] // A test: clippy knows only those of the standard harness.

use fairlead_lab::Role;
use fairlead_lab::links::{self, Route, RouteAction};
use fairlead_lab::netns::NetNs;
use serde_json::{Value, json};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_fairlead");

fn main() -> ExitCode {
    let role = match fairlead_lab::role() {
        Ok(role) => role,
        Err(e) => panic!("{e}"),
    };
    if std::env::args().any(|argument| argument == "--list") {
        println!("the_plugin_captures_pods_that_are_injected: test");
        return ExitCode::SUCCESS;
    }
    if !matches!(role, Role::Inside(_)) && !nix::unistd::Uid::effective().is_root() {
        return match fairlead_lab::enter_with(Vec::new(), Vec::new()) {
            Ok(code) => ExitCode::from(code as u8),
            Err(e) => panic!("{e}"),
        };
    }
    scenario();
    println!("\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n");
    ExitCode::SUCCESS
}

/// A pod's namespace with a way out, as the plugins before this one leave it.
fn pod() -> (NetNs, NetNs) {
    let (pod, node) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    let inside = pod.clone();
    node.run(move || {
        links::bridge("br0").unwrap();
        links::set_up("br0", true).unwrap();
        links::veth("v0", "br0", "eth0", inside.as_fd()).unwrap();
    })
    .unwrap();
    pod.run(|| {
        links::set_up("eth0", true).unwrap();
        links::add_addresses("eth0", &["10.9.0.2".parse().unwrap()]).unwrap();
        let router = "10.9.0.1".parse().unwrap();
        let neighbour = RouteAction::Link { device: "eth0".into(), source: None };
        let outside = RouteAction::Via { device: "eth0".into(), router, source: None };
        let to = |text: &str, action| Route { to: text.parse().unwrap(), action };
        links::add_routes(&[to("10.9.0.1/32", neighbour), to("0.0.0.0/0", outside)]).unwrap();
    })
    .unwrap();
    (pod, node)
}

/// Runs the plugin for a pod with these annotations.
fn plugin(command: &str, pod: &NetNs, annotations: &Value) -> Output {
    let config = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "fairlead-cni", "excludeNamespaces": ["kube-system"],
        "runtimeConfig": { "io.kubernetes.cri.pod-annotations": annotations },
        "prevResult": { "cniVersion": "1.0.0", "interfaces": [{ "name": "eth0" }] },
    });
    let mut child = Command::new(BINARY)
        .arg0("/opt/cni/bin/fairlead-cni")
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "c")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", format!("/proc/{}/fd/{}", std::process::id(), pod.as_fd().as_raw_fd()))
        .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=u")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Runs `fairlead capture` in the pod; whether it ended with 0.
fn capture(pod: &NetNs, argument: &'static str) -> bool {
    let run = move || Command::new(BINARY).args(["capture", argument]).output().unwrap();
    pod.run(run).unwrap().status.success()
}

fn result(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn scenario() {
    let (pod, _node) = pod();
    let injected = json!({ "sidecar.istio.io/status": "{}" });
    let other = json!({ "kubernetes.io/config.source": "api" });
    let previous = json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": "eth0" }] });

    let added = plugin("ADD", &pod, &other);
    assert!(added.status.success() && result(&added) == previous, "{added:?}");
    assert!(!capture(&pod, "--verify"), "a pod without a proxy is left alone");

    let added = plugin("ADD", &pod, &injected);
    assert!(added.status.success() && result(&added) == previous, "{added:?}");
    assert!(capture(&pod, "--verify"));
    assert!(plugin("CHECK", &pod, &injected).status.success());

    assert!(capture(&pod, "--undo"));
    let checked = plugin("CHECK", &pod, &injected);
    assert_eq!((checked.status.code(), &result(&checked)["code"]), (Some(1), &json!(100)), "{checked:?}");

    // What the injector left, and what cannot be followed.
    let arguments = json!(["--outbound-cidrs", "", "--inbound-ports", "80"]).to_string();
    let added = plugin("ADD", &pod, &json!({ "sidecar.istio.io/status": "{}", "fairlead.dev/capture": arguments }));
    assert!(added.status.success(), "{added:?}");
    assert!(!capture(&pod, "--verify"), "nothing that leaves is captured");
    let bad = json!({ "sidecar.istio.io/status": "{}", "traffic.sidecar.istio.io/excludeOutboundPorts": "x" });
    let added = plugin("ADD", &pod, &bad);
    let said = result(&added);
    assert_eq!((added.status.code(), &said["code"]), (Some(1), &json!(101)), "{said}");
    assert!(
        said["msg"].as_str().unwrap().contains("shop/web-1: annotation traffic.sidecar.istio.io/excludeOutboundPorts")
    );

    let deleted = plugin("DEL", &pod, &injected);
    assert!(deleted.status.success() && deleted.stdout.is_empty(), "{deleted:?}");
    println!("test the_plugin_captures_pods_that_are_injected ... ok");
}
