//! A resolved mesh as JSON with readable keys.

use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::endpoint::{Endpoint, WorkloadRef};
use fairlead_model::mesh::{ResolvedMesh, Workload};
use fairlead_model::names::NameTable;
use fairlead_model::security::{Condition, Value as PolicyValue};
use fairlead_model::service::Service;
use fairlead_resolve::{kubernetes_names, names};
use serde_json::{Map, Value, json};

/// Everything a case may look at.
pub fn digest(mesh: &ResolvedMesh, diagnostics: &[Diagnostic]) -> Value {
    let services = mesh.services.values().map(|service| (service.key.to_string(), self::service(service)));
    let workloads =
        mesh.workloads.values().map(|one| (format!("{}/{}", one.key.namespace, one.key.name), workload(one)));
    let members = mesh.members.values().map(|member| {
        let gateways: Vec<Value> = member
            .gateways
            .iter()
            .map(|gateway| json!(format!("{} {} {}", gateway.network, gateway.address, gateway.workload)))
            .collect();
        let shown = json!({
            "state": member.state, "trustDomain": member.trust_domain, "networks": member.networks, "gateways": gateways,
            "stale": member.stale, "unreachable": member.unreachable,
        });
        (member.cluster.to_string(), shown)
    });
    let diagnostics: Vec<Value> = diagnostics
        .iter()
        .map(|one| json!(format!("{:?} {} {} {}", one.severity, one.code, one.object, one.path).trim_end()))
        .collect();
    json!({
        "services": services.collect::<Map<_, _>>(),
        "workloads": workloads.collect::<Map<_, _>>(),
        "members": members.collect::<Map<_, _>>(),
        "routes": mesh.routes.iter().map(|set| serde_json::to_value(&**set).unwrap()).collect::<Vec<_>>(),
        "gateways": mesh.gateways.iter().map(|one| serde_json::to_value(&**one).unwrap()).collect::<Vec<_>>(),
        "names": table(&names(mesh, &viewer(mesh, "shop"))),
        "kubernetesNames": table(&kubernetes_names(mesh)),
        "diagnostics": diagnostics,
    })
}

/// A caller in a namespace that is no workload.
pub fn viewer(mesh: &ResolvedMesh, namespace: &str) -> WorkloadRef {
    WorkloadRef { cluster: mesh.cluster.clone(), namespace: namespace.into(), name: Default::default() }
}

fn service(service: &Service) -> Value {
    let endpoints = service.endpoints.iter().map(|endpoint| (endpoint.workload.to_string(), self::endpoint(endpoint)));
    let ports: Map<String, Value> = service
        .ports
        .iter()
        .map(|port| (port.number.to_string(), serde_json::to_value(port.protocol).unwrap()))
        .collect();
    json!({
        "source": service.source, "ports": ports, "vips": service.vips, "cidrs": service.cidrs, "headless": service.headless,
        "resolution": service.resolution, "external": service.external, "visibility": service.visibility,
        "exported": service.exported, "clusters": service.clusters, "trafficDistribution": service.traffic_distribution,
        "subjectAltNames": service.subject_alt_names, "labels": service.labels,
        "workloads": service.endpoints.iter().map(|endpoint| endpoint.workload.to_string()).collect::<Vec<_>>(),
        "endpoints": endpoints.collect::<Map<_, _>>(),
        "policies": service.policies.iter().map(|policy| serde_json::to_value(policy).unwrap()).collect::<Vec<_>>(),
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "address": endpoint.address, "additionalAddresses": endpoint.additional_addresses, "hostname": endpoint.hostname, "network": endpoint.network, "locality": endpoint.locality.to_string(),
        "ports": endpoint.ports, "labels": endpoint.labels, "identity": endpoint.identity, "mutualTls": endpoint.mutual_tls,
        "weight": endpoint.weight, "health": endpoint.health,
    })
}

fn workload(workload: &Workload) -> Value {
    let policies: Vec<Value> = workload
        .security
        .policies
        .iter()
        .map(|policy| {
            let rules: Vec<Value> = policy
                .rules
                .iter()
                .map(|rule| {
                    let lists = |lists: &Vec<Vec<Condition>>| -> Vec<Vec<String>> {
                        lists.iter().map(|list| list.iter().map(condition).collect()).collect()
                    };
                    let when: Vec<String> = rule.when.iter().map(condition).collect();
                    json!({"from": lists(&rule.from), "to": lists(&rule.to), "when": when, "never": rule.never})
                })
                .collect();
            json!({"origin": policy.origin.to_string(), "action": policy.action, "dryRun": policy.dry_run, "rules": rules})
        })
        .collect();
    let ports: Map<String, Value> = workload
        .ports
        .iter()
        .map(|(port, served)| {
            let served: Vec<String> = served.iter().map(|(key, number)| format!("{key}:{number}")).collect();
            (port.to_string(), json!(served))
        })
        .collect();
    json!({
        "addresses": workload.addresses, "network": workload.network, "locality": workload.locality.to_string(),
        "identity": workload.identity, "sidecar": workload.sidecar, "gateway": workload.gateway, "ports": ports,
        "mtls": workload.security.mtls, "portMtls": workload.security.port_mtls,
        "mtlsOrigins": workload.security.mtls_origins.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "policies": policies, "labels": workload.labels,
    })
}

fn condition(condition: &Condition) -> String {
    let values = |values: &[PolicyValue]| -> Vec<String> { values.iter().map(value).collect() };
    let mut text = format!("{:?} in {}", condition.attribute, values(&condition.values).join(" "));
    if !condition.not_values.is_empty() {
        text.push_str(&format!(" not {}", values(&condition.not_values).join(" ")));
    }
    text
}

fn value(value: &PolicyValue) -> String {
    use fairlead_model::matching::StringMatch;
    match value {
        PolicyValue::Match(StringMatch::Exact(text)) => text.clone(),
        PolicyValue::Match(StringMatch::Prefix(text)) => format!("{text}*"),
        PolicyValue::Match(StringMatch::Suffix(text)) => format!("*{text}"),
        PolicyValue::Match(StringMatch::Regex(text)) => format!("~{text}"),
        PolicyValue::Match(StringMatch::Present) => "*".into(),
        PolicyValue::Cidr(text) | PolicyValue::PathTemplate(text) => text.clone(),
        PolicyValue::Port(port) => port.to_string(),
    }
}

fn table(table: &NameTable) -> Value {
    let names = table.names.iter().map(|(host, entry)| {
        let shown = json!({
            "namespace": entry.namespace, "name": entry.name, "addresses": entry.addresses, "clusters": entry.clusters,
            "ports": entry.ports.iter().map(|(number, _)| number).collect::<Vec<_>>(),
        });
        (host.clone(), shown)
    });
    Value::Object(names.collect())
}
