//! What the programs of a node are told: configuration files and command lines.
//!
//! Pure. Invariant: every program finds its files at its usual paths; they are private to the node (see `node.rs`).

use super::bed::Bed;
use super::plan::{Plan, Shape};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::path::Path;

/// Paths that programs of a node write to or read from by default: each is the cluster's own.
pub const PRIVATE: &[&str] = &[
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/cni/net.d",
    "/etc/containerd",
    "/etc/kubernetes",
    "/opt/cni/bin",
];

/// Image that holds a pod's namespaces.
pub const PAUSE: &str = "testbed.local/pause:1";

const API: &str = "6443";
const ETCD: &str = "http://127.0.0.1:2379";
/// Who signs service account tokens; pods find its keys there.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// `/etc/containerd/config.toml`.
pub fn containerd() -> String {
    // Without CAP_SYS_RESOURCE scores cannot be lowered, and runc fails in trying.
    format!(
        r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"#
    )
}

/// The plugin of the pod network, under a name of its own: [`PTP`].
pub const PTP_NAME: &str = "testbed-ptp";
/// `ptp` waits until the kernel has asked the other end of the pod's link, where only the node is, whether it has the pod's IPv6 address:
/// two seconds for each pod. Here it does not ask.
pub const PTP: &str = r#"#!/bin/sh
if [ "$CNI_COMMAND" = ADD ] && [ -e /proc/sys/net/ipv6 ]; then
  nsenter --net="$CNI_NETNS" sh -c 'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad'
fi
exec "${0%/*}/ptp"
"#;

/// The pod network: `ptp` leads every packet through the node, so that no bridge hides it from the node's rules.
pub fn cni(plan: Plan, cluster: u8) -> Value {
    let (mut ranges, mut routes) = (vec![json!([{"subnet": plan.pods(cluster)}])], vec![json!({"dst": "0.0.0.0/0"})]);
    if plan.has_v6() {
        ranges.push(json!([{"subnet": plan.pods6(cluster)}]));
        routes.push(json!({"dst": "::/0"}));
    }
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": PTP_NAME,
                "mtu": 1500,
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-addresses",
                    "ranges": ranges,
                    "routes": routes,
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// `KubeletConfiguration`.
pub fn kubelet(bed: &Bed, plan: Plan, cluster: u8) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", bed.node_name(cluster)),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": bed.cluster(cluster).join("pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [plan.dns_service(cluster).to_string()],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/kubernetes/resolv.conf",
        "failSwapOn": false,
        "serializeImagePulls": false,
        // Images come from files only; disks of developers' machines are often nearly full.
        "imagePullCredentialsVerificationPolicy": "NeverVerify",
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"},
        // Looking through every volume for its size costs more than all else of an idle kubelet.
        "volumeStatsAggPeriod": "-1m",
    })
}

/// `KubeProxyConfiguration`.
pub fn kube_proxy(bed: &Bed, plan: Plan, cluster: u8) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": format!("c{cluster}"),
        "clientConnection": {"kubeconfig": bed.cluster(cluster).join("kubeconfig")},
        "clusterCIDR": plan.all_pods(cluster),
        "detectLocalMode": "ClusterCIDR",
        // The limits of connection tracking can only be written in the machine's first network namespace.
        "conntrack": {"maxPerCore": 0, "min": 0},
    })
}

/// Pods leave as their node, in shape flat only towards what is no cluster.
pub fn masquerade(plan: Plan, cluster: u8) -> String {
    let table = |family: &str, pods: IpNet, all: IpNet| {
        let to = match plan.shape {
            Shape::Flat => format!("{family} daddr != {all} "),
            Shape::Nonflat => String::new(),
        };
        format!(
            "table {family} testbed {{\n  chain leave {{\n    type nat hook postrouting priority 110;\n    {family} saddr {pods} oifname \"eth0\" {to}masquerade\n  }}\n}}\n"
        )
    };
    let mut rules = table("ip", plan.pods(cluster).into(), plan.all().into());
    if plan.has_v6() {
        rules += &table("ip6", plan.pods6(cluster).into(), plan.all6().into());
    }
    rules
}

/// A program of the control plane or of the node.
#[derive(Debug, Clone)]
pub struct Component {
    pub name: &'static str,
    pub program: String,
    pub words: Vec<String>,
    /// Started only once the API server answers.
    pub needs_api_server: bool,
}

/// All programs of one cluster, in the order of their start.
pub fn components(bed: &Bed, plan: Plan, cluster: u8) -> Vec<Component> {
    let folder = bed.cluster(cluster);
    let file = |path: &str| folder.join(path).display().to_string();
    let nodes: Vec<_> = plan.node_addresses(cluster).iter().map(ToString::to_string).collect();
    let kubeconfig = file("kubeconfig");
    let services = plan.all_services(cluster);
    let etcd = [
        ("data-dir", file("etcd")),
        ("unsafe-no-fsync", "true".into()),
        ("log-level", "warn".into()),
        ("listen-client-urls", ETCD.into()),
        ("advertise-client-urls", ETCD.into()),
        ("listen-peer-urls", "http://127.0.0.1:2380".into()),
    ];
    let api_server = [
        ("etcd-servers", ETCD.into()),
        ("advertise-address", nodes.first().cloned().unwrap_or_default()),
        ("bind-address", if plan.has_v6() { "::".into() } else { "0.0.0.0".into() }),
        ("secure-port", API.into()),
        ("allow-privileged", "true".into()),
        ("authorization-mode", "Node,RBAC".into()),
        ("client-ca-file", file("pki/ca.crt")),
        ("tls-cert-file", file("pki/server.crt")),
        ("tls-private-key-file", file("pki/server.key")),
        // Nobody can resolve the node's name.
        ("kubelet-preferred-address-types", "InternalIP".into()),
        ("kubelet-client-certificate", file("pki/admin.crt")),
        ("kubelet-client-key", file("pki/admin.key")),
        ("service-account-issuer", ISSUER.into()),
        ("service-account-key-file", file("pki/sa.pub")),
        ("service-account-signing-key-file", file("pki/sa.key")),
        ("service-cluster-ip-range", services.clone()),
        ("profiling", "false".into()),
    ];
    let mut controller_manager = vec![
        ("kubeconfig", kubeconfig.clone()),
        ("leader-elect", "false".into()),
        ("root-ca-file", file("pki/ca.crt")),
        ("service-account-private-key-file", file("pki/sa.key")),
        ("use-service-account-credentials", "false".into()),
        ("cluster-signing-cert-file", file("pki/ca.crt")),
        ("cluster-signing-key-file", file("pki/ca.key")),
        ("allocate-node-cidrs", "true".into()),
        ("cluster-cidr", plan.all_pods(cluster)),
        ("node-cidr-mask-size-ipv4", "24".into()),
        ("service-cluster-ip-range", services),
        ("profiling", "false".into()),
    ];
    if plan.has_v6() {
        controller_manager.push(("node-cidr-mask-size-ipv6", "64".into()));
    }
    let scheduler =
        [("kubeconfig", kubeconfig.clone()), ("leader-elect", "false".into()), ("profiling", "false".into())];
    let labels = format!("topology.kubernetes.io/region=region-{cluster},topology.kubernetes.io/zone=zone-{cluster}");
    let kubelet = [
        ("config", "/etc/kubernetes/kubelet.json".into()),
        ("kubeconfig", kubeconfig),
        ("hostname-override", format!("c{cluster}")),
        ("node-ip", nodes.join(",")),
        ("node-labels", labels),
    ];
    let proxy = [("config", "/etc/kubernetes/kube-proxy.json".to_owned())];
    let bin = bed.bin();
    vec![
        component(&bin, "etcd", false, &etcd),
        component(&bin, "kube-apiserver", false, &api_server),
        Component {
            name: "containerd",
            program: "containerd".into(),
            words: vec!["--config".into(), "/etc/containerd/config.toml".into()],
            needs_api_server: false,
        },
        component(&bin, "kube-controller-manager", true, &controller_manager),
        component(&bin, "kube-scheduler", true, &scheduler),
        component(&bin, "kubelet", true, &kubelet),
        component(&bin, "kube-proxy", true, &proxy),
    ]
}

fn component(bin: &Path, name: &'static str, needs_api_server: bool, flags: &[(&str, String)]) -> Component {
    Component {
        name,
        program: bin.join(name).display().to_string(),
        words: flags.iter().map(|(flag, value)| format!("--{flag}={value}")).collect(),
        needs_api_server,
    }
}

#[cfg(test)]
mod tests {
    use super::super::bed::Whose;
    use super::super::plan::Families;
    use super::*;

    #[test]
    fn pods_leave_as_their_node_unless_they_are_routed() {
        let bed = Bed::open(Whose::Developer).unwrap();
        assert!(
            masquerade(bed.plan(Shape::Flat), 1)
                .contains("10.89.10.0/24 oifname \"eth0\" ip daddr != 10.89.0.0/16 masquerade")
        );
        let single = Plan { families: Families::V4, ..bed.plan(Shape::Nonflat) };
        assert!(masquerade(single, 2).contains("10.89.200.0/24 oifname \"eth0\" masquerade"));
        assert!(!masquerade(single, 2).contains("ip6"));
        let dual = Plan { families: Families::V4V6, ..single };
        assert!(masquerade(dual, 2).contains("ip6 saddr fd10:89:0:200::/64 oifname \"eth0\" masquerade"));
        let flat = masquerade(Plan { shape: Shape::Flat, ..dual }, 1);
        assert!(flat.contains("fd10:89:0:10::/64 oifname \"eth0\" ip6 daddr != fd10:89::/32 masquerade"), "{flat}");
    }

    #[test]
    fn programs_of_a_cluster_agree_on_its_ranges() {
        let bed = Bed::open(Whose::Suite(1)).unwrap();
        for families in [Families::V4, Families::V4V6, Families::V6V4] {
            let plan = Plan { families, ..bed.plan(Shape::Flat) };
            let all = components(&bed, plan, 3);
            let with =
                |word: String| -> Vec<_> { all.iter().filter(|c| c.words.contains(&word)).map(|c| c.name).collect() };
            let services = format!("--service-cluster-ip-range={}", plan.all_services(3));
            assert_eq!(with(services), ["kube-apiserver", "kube-controller-manager"]);
            assert_eq!(with(format!("--cluster-cidr={}", plan.all_pods(3))), ["kube-controller-manager"]);
            let nodes: Vec<_> = plan.node_addresses(3).iter().map(ToString::to_string).collect();
            assert_eq!(with(format!("--node-ip={}", nodes.join(","))), ["kubelet"]);
            assert_eq!(with(format!("--advertise-address={}", nodes[0])), ["kube-apiserver"]);
            assert_eq!(kubelet(&bed, plan, 3)["clusterDNS"][0], plan.dns_service(3).to_string());
            let ranges = cni(plan, 3)["plugins"][0]["ipam"]["ranges"].clone();
            let ranges: Vec<_> =
                ranges.as_array().unwrap().iter().filter_map(|one| one[0]["subnet"].as_str()).collect();
            let told = kube_proxy(&bed, plan, 3)["clusterCIDR"].as_str().unwrap().to_owned();
            assert!(
                told.split(',').count() == ranges.len() && ranges.iter().all(|range| told.contains(range)),
                "{told}"
            );
        }
    }
}
