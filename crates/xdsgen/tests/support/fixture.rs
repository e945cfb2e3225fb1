//! A small resolved mesh written in YAML: model types with every unwritten field at a plain default.

use super::values::{durations, over, seconds, typed};
use fairlead_model::mesh::{Member, ResolvedMesh, Workload};
use fairlead_model::{ProxyDescription, Service};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub struct Fixture {
    pub why: String,
    pub mesh: ResolvedMesh,
    /// By the name of their golden.
    pub proxies: BTreeMap<String, ProxyDescription>,
    /// Resources shown in goldens, by leading part of their name; empty: all.
    pub show: Vec<String>,
}

impl Fixture {
    pub fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        Self::parse(&text)
    }

    pub fn parse(text: &str) -> Self {
        let root: Value = serde_saphyr::from_str(text).expect("the fixture is YAML");
        let cluster = root["cluster"].as_str().unwrap_or("east").to_owned();
        let profile = root["settings"]["profile"].as_str().unwrap_or("fairlead").to_owned();
        let list = |key: &str| root[key].as_array().cloned().unwrap_or_default();
        let mut services = BTreeMap::new();
        for written in list("services") {
            let service: Service = typed(service(written, &cluster));
            services.insert(service.key.clone(), Arc::new(service));
        }
        let mut workloads = BTreeMap::new();
        for written in list("workloads") {
            let workload: Workload = typed(workload(written, &cluster));
            workloads.insert(workload.key.clone(), Arc::new(workload));
        }
        let mut members = BTreeMap::new();
        for written in list("members") {
            let member: Member = typed(member(written));
            members.insert(member.cluster.clone(), Arc::new(member));
        }
        let mesh = ResolvedMesh {
            generation: 1,
            cluster: cluster.as_str().into(),
            settings: Arc::new(typed(over(settings(&profile), root["settings"].clone()))),
            members,
            services,
            workloads: Arc::new(workloads),
            routes: list("routes").into_iter().map(|r| Arc::new(typed(route_set(r)))).collect(),
            gateways: list("gateways").into_iter().map(|g| Arc::new(typed(gateway(g)))).collect(),
        };
        let proxies = root["proxies"].as_object().cloned().unwrap_or_default();
        let proxies = proxies.into_iter().map(|(name, p)| (name, typed(proxy(p, &cluster)))).collect();
        Self {
            why: root["why"].as_str().unwrap_or_default().to_owned(),
            mesh,
            proxies,
            show: typed(root.get("show").cloned().unwrap_or(json!([]))),
        }
    }
}

fn settings(profile: &str) -> Value {
    let istio = profile == "istio";
    json!({
        "name": "shop", "profile": profile, "trust": if istio { "shared" } else { "perCluster" },
        "trust_domain": if istio { "cluster.local" } else { "shop.mesh" }, "trust_domain_aliases": [],
        "export": if istio { "all" } else { "explicit" }, "cluster_local_names": "span",
        "locality": if istio { "istio" } else { "preferLocal" }, "clusters": {}, "domain": "cluster.local",
        "root_namespace": "istio-system", "auto_mtls": true, "outbound": "allowAny", "connect_timeout": seconds(10),
        "default_retries": null, "path_normalization": "base", "cluster_local_hosts": [], "trusted_proxies": 0,
        "locality_policy": {"enabled": true, "distribute": [], "failover": [], "failover_priority": []},
    })
}

fn member(written: Value) -> Value {
    let cluster = written["cluster"].as_str().expect("a member has a cluster").to_owned();
    let gateways = written["gateways"].as_array().cloned().unwrap_or_default();
    let gateways: Vec<Value> = gateways
        .into_iter()
        .map(|address| match address {
            Value::String(address) => json!({
                "network": format!("{cluster}-net"), "address": address,
                "workload": {"cluster": cluster, "namespace": "fairlead-system", "name": "east-west"}
            }),
            other => other,
        })
        .collect();
    let default = json!({
        "state": "active", "trust_domain": format!("{cluster}.shop.mesh"), "networks": [format!("{cluster}-net")],
        "locality": {}, "stale": false, "unreachable": false,
    });
    let mut member = over(default, written);
    member["gateways"] = json!(gateways);
    member
}

fn locality(value: Value) -> Value {
    match value {
        Value::String(text) => json!(fairlead_model::ids::Locality::parse(&text)),
        Value::Null => json!({}),
        other => other,
    }
}

fn origin(kind: &str, namespace: &str, name: &str) -> Value {
    json!({
        "object": {"cluster": "east", "kind": kind, "namespace": namespace, "name": name},
        "path": "", "file": "mesh.yaml", "line": 1
    })
}

fn service(written: Value, cluster: &str) -> Value {
    let namespace = written["namespace"].as_str().unwrap_or("shop").to_owned();
    let name = written["name"].as_str().unwrap_or_default().to_owned();
    let host = match written["host"].as_str() {
        Some(host) => host.to_owned(),
        None => format!("{name}.{namespace}.svc.cluster.local"),
    };
    let ports: Vec<Value> = written["ports"]
        .as_object()
        .expect("a service has ports: {number: protocol}")
        .iter()
        .map(|(number, protocol)| {
            json!({"number": number.parse::<u16>().expect("a port"), "name": format!("p{number}"), "protocol": protocol})
        })
        .collect();
    let numbers: Vec<u16> = ports.iter().map(|p| p["number"].as_u64().unwrap_or_default() as u16).collect();
    let endpoints: Vec<Value> = written["endpoints"]
        .as_array()
        .cloned()
        .unwrap_or_default()
        .into_iter()
        .map(|e| endpoint(e, cluster, &namespace, &numbers))
        .collect();
    let default = json!({
        "source": "kubernetes", "vips": [], "cidrs": [], "headless": false, "resolution": "endpoints",
        "external": false, "visibility": "public", "exported": [], "clusters": [cluster],
        "traffic_distribution": null, "labels": {}, "subject_alt_names": [], "policies": [],
        "origins": [origin("Service", &namespace, &name)], "name": if name.is_empty() { &host } else { &name },
    });
    let mut service = over(default, durations(written));
    service["policies"] = service["policies"]
        .as_array()
        .cloned()
        .unwrap_or_default()
        .into_iter()
        .map(|policy| scoped_policy(policy, &namespace))
        .collect();
    let fields = service.as_object_mut().expect("a mapping");
    fields.remove("namespace");
    fields.remove("host");
    fields.insert("key".to_owned(), json!({"namespace": namespace, "host": host}));
    fields.insert("ports".to_owned(), json!(ports));
    fields.insert("endpoints".to_owned(), json!(endpoints));
    service
}

/// `CLUSTER/NAME` or a mapping with `name`.
fn endpoint(written: Value, own: &str, namespace: &str, ports: &[u16]) -> Value {
    let cluster = written["cluster"].as_str().unwrap_or(own).to_owned();
    let name = written["name"].as_str().expect("an endpoint has a name").to_owned();
    let mtls = written["mtls"].as_bool().unwrap_or(true);
    let account = written["account"].as_str().unwrap_or("default").to_owned();
    let port_map: Map<String, Value> = ports.iter().map(|p| (p.to_string(), json!(p))).collect();
    let mut labels = written["labels"].as_object().cloned().unwrap_or_default();
    let place = locality(written["locality"].clone());
    for (key, value) in [
        ("topology.istio.io/cluster", json!(cluster)),
        (
            "topology.istio.io/network",
            json!(written["network"].as_str().map_or(format!("{cluster}-net"), str::to_owned)),
        ),
        ("topology.kubernetes.io/region", place["region"].clone()),
        ("topology.kubernetes.io/zone", place["zone"].clone()),
    ] {
        if value.as_str().is_some_and(|v| !v.is_empty()) {
            labels.insert(key.to_owned(), value);
        }
    }
    json!({
        "id": format!("{:x}", name.bytes().chain(cluster.bytes()).fold(7u64, |h, b| h.wrapping_mul(31) + u64::from(b))),
        "workload": {"cluster": cluster, "namespace": namespace, "name": name},
        "network": written["network"].as_str().map_or(format!("{cluster}-net"), str::to_owned),
        "locality": place,
        "address": written["address"],
        "additional_addresses": written.get("additionalAddresses").cloned().unwrap_or(json!([])),
        "hostname": written["hostname"],
        "ports": written.get("ports").cloned().unwrap_or(Value::Object(port_map)),
        "labels": labels,
        "identity": mtls.then(|| format!("spiffe://{cluster}.shop.mesh/ns/{namespace}/sa/{account}")),
        "mutual_tls": if mtls { ports.to_vec() } else { Vec::new() },
        "weight": written["weight"].as_u64().unwrap_or(1),
        "health": written["health"].as_str().unwrap_or("healthy"),
    })
}

fn blocks(written: Value) -> Value {
    let default = json!({
        "balancing": "leastRequest", "locality": null, "outlier": null, "tls": null,
        "pool": {
            "max_connections": null, "connect_timeout": null, "tcp_keepalive": null, "max_connection_duration": null,
            "tcp_idle_timeout": null, "http1_max_pending_requests": null, "http2_max_requests": null,
            "max_requests_per_connection": null, "max_retries": null, "http_idle_timeout": null,
            "max_concurrent_streams": null, "h2_upgrade": "default", "use_client_protocol": false
        }
    });
    let mut blocks = over(default, written);
    if blocks["locality"].is_object() {
        let below = json!({"enabled": true, "distribute": [], "failover": [], "failover_priority": []});
        blocks["locality"] = over(below, blocks["locality"].take());
    }
    if blocks["outlier"].is_object() {
        let below = json!({
            "consecutive_5xx": 5, "consecutive_gateway_errors": 0, "split_local_origin_errors": false,
            "consecutive_local_origin_failures": 5, "interval": seconds(10), "base_ejection_time": seconds(30),
            "max_ejection_percent": 10, "min_health_percent": 0
        });
        blocks["outlier"] = over(below, blocks["outlier"].take());
    }
    blocks
}

fn traffic_policy(written: &Value) -> Value {
    let ports = written["ports"].as_object().cloned().unwrap_or_default();
    let ports: Map<String, Value> = ports.into_iter().map(|(port, b)| (port, blocks(b))).collect();
    json!({"default": blocks(written["default"].clone()), "ports": ports})
}

fn scoped_policy(written: Value, namespace: &str) -> Value {
    let name = written["name"].as_str().unwrap_or("rule").to_owned();
    let subsets = written["subsets"].as_object().cloned().unwrap_or_default();
    let subsets: Map<String, Value> = subsets
        .into_iter()
        .map(|(subset, written)| {
            let value = json!({
                "labels": written["labels"], "policy": traffic_policy(&written["policy"]),
                "origin": origin("DestinationRule", namespace, &name)
            });
            (subset, value)
        })
        .collect();
    json!({
        "namespaces": written["namespaces"], "labels": written.get("labels").cloned().unwrap_or(json!({})),
        "policy": {
            "policy": traffic_policy(&written["policy"]), "subsets": subsets,
            "origins": [origin("DestinationRule", namespace, &name)]
        }
    })
}

fn workload(written: Value, cluster: &str) -> Value {
    let namespace = written["namespace"].as_str().unwrap_or("shop").to_owned();
    let name = written["name"].as_str().expect("a workload has a name").to_owned();
    let ports: Map<String, Value> = written["ports"]
        .as_object()
        .cloned()
        .unwrap_or_default()
        .into_iter()
        .map(|(port, service)| {
            let list: Vec<Value> = match service.as_str() {
                Some(service) => {
                    let (host, number) = service.rsplit_once(':').expect("host:port");
                    vec![json!([{"namespace": namespace, "host": host}, number.parse::<u16>().expect("a port")])]
                }
                None => Vec::new(),
            };
            (port, json!(list))
        })
        .collect();
    let policies: Vec<Value> =
        written["policies"].as_array().cloned().unwrap_or_default().into_iter().map(policy).collect();
    let default = json!({
        "network": format!("{cluster}-net"), "addresses": [], "labels": {}, "service_account": "default",
        "identity": null, "sidecar": true, "gateway": null, "origin": null,
        "security": {"mtls": "permissive", "port_mtls": {}, "mtls_origins": []},
    });
    let mut workload = over(default, written);
    workload["key"] = json!({"cluster": cluster, "namespace": namespace, "name": name});
    workload["locality"] = locality(workload["locality"].take());
    workload["ports"] = Value::Object(ports);
    workload["security"]["policies"] = json!(policies);
    workload
}

fn policy(written: Value) -> Value {
    let name = written["name"].as_str().expect("a policy has a name").to_owned();
    let rules = written["rules"].as_array().cloned().unwrap_or_default();
    let condition = |c: Value| over(json!({"values": [], "not_values": []}), c);
    let lists = |v: &Value| -> Vec<Value> {
        let entries = v.as_array().cloned().unwrap_or_default();
        let of =
            |e: Value| json!(e.as_array().cloned().unwrap_or_default().into_iter().map(condition).collect::<Vec<_>>());
        entries.into_iter().map(of).collect()
    };
    let rules: Vec<Value> = rules
        .into_iter()
        .map(|rule| {
            let when = rule["when"].as_array().cloned().unwrap_or_default();
            json!({
                "origin": null, "from": lists(&rule["from"]), "to": lists(&rule["to"]),
                "when": when.into_iter().map(condition).collect::<Vec<_>>(),
                "never": rule["never"].as_bool().unwrap_or(false)
            })
        })
        .collect();
    json!({
        "origin": origin("AuthorizationPolicy", "shop", &name), "action": written["action"], "rules": rules,
        "dry_run": written["dry_run"].as_bool().unwrap_or(false)
    })
}

fn route_set(written: Value) -> Value {
    let written = durations(written);
    let namespace = written["namespace"].as_str().unwrap_or("shop").to_owned();
    let name = written["name"].as_str().unwrap_or("routes").to_owned();
    let at = |path: String| {
        let mut origin = origin("VirtualService", &namespace, &name);
        origin["path"] = json!(path);
        origin
    };
    let headers =
        || json!({"request": {"set": {}, "add": {}, "remove": []}, "response": {"set": {}, "add": {}, "remove": []}});
    let backend = |b: Value, origin: &Value| {
        over(json!({"subset": null, "port": null, "weight": 0, "headers": headers(), "origin": origin}), b)
    };
    let backends = |list: &Value, origin: &Value| -> Vec<Value> {
        list.as_array().cloned().unwrap_or_default().into_iter().map(|b| backend(b, origin)).collect()
    };
    let list = |key: &str| written[key].as_array().cloned().unwrap_or_default();
    let http: Vec<Value> = list("http")
        .into_iter()
        .enumerate()
        .map(|(i, rule)| {
            let origin = at(format!("spec.http[{i}]"));
            let matches: Vec<Value> = rule["matches"].as_array().cloned().unwrap_or_default().into_iter().map(|m| {
                over(json!({
                    "name": "", "uri": null, "ignore_uri_case": false, "scheme": null, "method": null, "authority": null,
                    "headers": {}, "without_headers": {}, "query": {}, "port": null, "source_labels": {},
                    "source_namespace": null, "gateways": []
                }), m)
            }).collect();
            let action = if rule["redirect"].is_object() {
                let below = json!({"uri": null, "authority": null, "scheme": null, "port": "protocol", "status": 301});
                json!({"redirect": over(below, rule["redirect"].clone())})
            } else if rule["respond"].is_object() {
                let body: Vec<u8> = rule["respond"]["body"].as_str().unwrap_or_default().bytes().collect();
                json!({"respond": {"status": rule["respond"]["status"], "body": body}})
            } else if rule["refused"].is_string() {
                json!({"refused": {"reason": rule["refused"]}})
            } else {
                json!({"route": backends(&rule["route"], &origin)})
            };
            let retries = if rule["retries"].is_object() {
                over(json!({
                    "attempts": 2, "per_try_timeout": null, "retry_on": "", "backoff": null,
                    "retry_remote_localities": false, "ignore_previous_hosts": true
                }), rule["retries"].clone())
            } else {
                Value::Null
            };
            json!({
                "name": rule["name"].as_str().unwrap_or_default(), "origin": origin, "matches": matches, "action": action,
                "timeout": rule["timeout"], "retries": retries, "headers": over(headers(), rule["headers"].clone()),
                "rewrite": rule["rewrite"], "fault": rule["fault"]
            })
        })
        .collect();
    let l4 = |key: &str| -> Vec<Value> {
        list(key)
            .into_iter()
            .enumerate()
            .map(|(i, rule)| {
                let origin = at(format!("spec.{key}[{i}]"));
                let matches: Vec<Value> = rule["matches"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default()
                    .into_iter()
                    .map(|m| {
                        over(
                            json!({
                                "sni_hosts": [], "destination_subnets": [], "port": null, "source_labels": {},
                                "source_namespace": null, "gateways": []
                            }),
                            m,
                        )
                    })
                    .collect();
                json!({"origin": origin, "matches": matches, "backends": backends(&rule["route"], &origin)})
            })
            .collect()
    };
    json!({
        "origin": at(String::new()), "namespace": namespace, "hosts": written["hosts"],
        "gateways": written.get("gateways").cloned().unwrap_or(json!(["mesh"])),
        "visibility": written.get("visibility").cloned().unwrap_or(json!("public")),
        "http": http, "tls": l4("tls"), "tcp": l4("tcp")
    })
}

fn gateway(written: Value) -> Value {
    let namespace = written["namespace"].as_str().unwrap_or("shop").to_owned();
    let name = written["name"].as_str().unwrap_or("gateway").to_owned();
    let servers: Vec<Value> = written["servers"]
        .as_array()
        .cloned()
        .unwrap_or_default()
        .into_iter()
        .map(|s| {
            let hosts = s["hosts"].as_array().cloned().unwrap_or_default();
            let hosts: Vec<Value> =
                hosts.into_iter().map(|h| if h.is_string() { json!([null, h]) } else { h }).collect();
            let mut server =
                over(json!({"origin": origin("Gateway", &namespace, &name), "name": "", "bind": null, "tls": null}), s);
            server["hosts"] = json!(hosts);
            server
        })
        .collect();
    json!({
        "origin": origin("Gateway", &namespace, &name), "namespace": namespace, "name": name,
        "selector": written.get("selector").cloned().unwrap_or(json!({})), "servers": servers
    })
}

fn proxy(written: Value, cluster: &str) -> Value {
    let namespace = written["namespace"].as_str().unwrap_or("shop").to_owned();
    let name = written["name"].as_str().expect("a proxy has a workload name").to_owned();
    let default = json!({
        "workload": {"cluster": cluster, "namespace": namespace, "name": name}, "role": "sidecar", "client": "fairlead",
        "network": format!("{cluster}-net"), "addresses": [], "labels": {}, "service_account": "default",
        "identity": format!("spiffe://{cluster}.shop.mesh/ns/{namespace}/sa/default"),
    });
    let mut proxy = over(default, written);
    proxy["locality"] = locality(proxy["locality"].take());
    proxy
}
