//! The rules of the `restricted` Pod Security level (which holds `baseline`'s), as its published table has them.

use super::changes::list;
use serde_json::Value;

const VOLUMES: &[&str] =
    &["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
];

/// Every rule that the pod breaks.
pub fn violations(pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    let mut found = Vec::new();
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec[host] == Value::Bool(true) {
            found.push(format!("{host} is set"));
        }
    }
    for volume in list(spec, "volumes") {
        let source = volume.as_object().unwrap().keys().find(|key| *key != "name").unwrap();
        if !VOLUMES.contains(&source.as_str()) {
            found.push(format!("volume {} is a {source}", volume["name"]));
        }
    }
    for sysctl in list(&spec["securityContext"], "sysctls") {
        if !SYSCTLS.contains(&sysctl["name"].as_str().unwrap()) {
            found.push(format!("sysctl {}", sysctl["name"]));
        }
    }
    context(&spec["securityContext"], "pod", &mut found);
    for container in list(spec, "initContainers").into_iter().chain(list(spec, "containers")) {
        of_container(container, &spec["securityContext"], &mut found);
    }
    found
}

fn of_container(container: &Value, pod: &Value, found: &mut Vec<String>) {
    let name = container["name"].as_str().unwrap();
    let own = &container["securityContext"];
    context(own, name, found);
    let either = |field: &str| if own[field].is_null() { &pod[field] } else { &own[field] };
    if either("runAsNonRoot") != &Value::Bool(true) {
        found.push(format!("{name}: runAsNonRoot is not true"));
    }
    if own["allowPrivilegeEscalation"] != Value::Bool(false) {
        found.push(format!("{name}: allowPrivilegeEscalation is not false"));
    }
    if own["privileged"] == Value::Bool(true) {
        found.push(format!("{name}: privileged"));
    }
    if !list(&own["capabilities"], "drop").iter().any(|dropped| *dropped == "ALL") {
        found.push(format!("{name}: does not drop ALL"));
    }
    for added in list(&own["capabilities"], "add").iter().filter(|added| **added != "NET_BIND_SERVICE") {
        found.push(format!("{name}: adds {added}"));
    }
    let profile = either("seccompProfile");
    if !["RuntimeDefault", "Localhost"].contains(&profile["type"].as_str().unwrap_or_default()) {
        found.push(format!("{name}: seccompProfile is {profile}"));
    }
    if !["Default", ""].contains(&own["procMount"].as_str().unwrap_or_default()) {
        found.push(format!("{name}: procMount"));
    }
    for port in list(container, "ports") {
        if port["hostPort"].as_u64().unwrap_or_default() != 0 {
            found.push(format!("{name}: a host port"));
        }
    }
}

fn context(context: &Value, of: &str, found: &mut Vec<String>) {
    if context["runAsUser"] == 0 {
        found.push(format!("{of}: runs as root"));
    }
    if context["windowsOptions"]["hostProcess"] == Value::Bool(true) {
        found.push(format!("{of}: a host process"));
    }
    let linux = &context["seLinuxOptions"];
    let kinds = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    if !kinds.contains(&linux["type"].as_str().unwrap_or_default())
        || linux.get("user").is_some()
        || linux.get("role").is_some()
    {
        found.push(format!("{of}: seLinuxOptions"));
    }
    if context["appArmorProfile"]["type"] == "Unconfined" {
        found.push(format!("{of}: AppArmor is off"));
    }
}

#[test]
fn the_rules_find_what_breaks_them() {
    let case = |text: &str| -> Value { serde_saphyr::from_str(text).unwrap() };
    let good = "spec: {securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, containers: [{name: a, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}";
    assert_eq!(violations(&case(good)), [""; 0]);
    for (from, to) in [
        ("runAsNonRoot: true", "runAsNonRoot: false"),
        ("runAsNonRoot: true", "runAsNonRoot: true, runAsUser: 0"),
        ("type: RuntimeDefault", "type: Unconfined"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"),
        ("drop: [ALL]", "drop: [NET_RAW]"),
        ("drop: [ALL]", "drop: [ALL], add: [NET_ADMIN]"),
        ("spec: {", "spec: {hostNetwork: true, "),
        ("spec: {", "spec: {volumes: [{name: x, hostPath: {path: /}}], "),
        ("name: a,", "name: a, ports: [{containerPort: 1, hostPort: 1}],"),
    ] {
        assert!(good.contains(from));
        assert_eq!(violations(&case(&good.replacen(from, to, 1))).len(), 1, "{to}");
    }
}
