//! Resources as text that a person can review: JSON with the constant parts cut, small things on one line.

use fairlead_xdsgen::Generated;
use fairlead_xdsgen::json::Descriptors;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;

const WIDTH: usize = 150;

pub fn render(resources: &[Arc<Generated>], descriptors: &Descriptors, show: &[String]) -> String {
    let mut sorted: Vec<_> = resources.iter().map(|r| (r.kind, r.name.to_string(), r)).collect();
    sorted.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let mut text = String::new();
    for (kind, name, resource) in sorted {
        let kind = kind.url().rsplit('.').next().unwrap_or_default().to_owned();
        let shown = |prefix: &String| format!("{kind} {name}").starts_with(prefix.as_str());
        if !show.is_empty() && !show.iter().any(shown) {
            continue;
        }
        let mut json = descriptors.any(&resource.body).unwrap_or_else(|e| panic!("{name}: {e}"));
        for key in ["@type", "name", "cluster_name"] {
            json.as_object_mut().map(|o| o.remove(key));
        }
        let _ = writeln!(text, "{kind} {name}");
        yaml(&shorten(json), 1, &mut text);
    }
    text
}

fn shorten(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            if let Some(source) = fields.get("sds_config").filter(|s| s["api_config_source"].is_object()) {
                let _ = source;
                return json!(format!("SDS {}", fields["name"].as_str().unwrap_or_default()));
            }
            let mut out = serde_json::Map::new();
            for (key, value) in fields {
                if let Some(condensed) = condense(&key, &value) {
                    out.insert(key, condensed);
                    continue;
                }
                let value = match key.as_str() {
                    // The same everywhere; covered by the test that looks at one in full.
                    "access_log" | "tls_params" | "set_current_client_cert_details" | "upgrade_configs" => continue,
                    "eds_cluster_config" | "config_source" => json!("ADS"),
                    "circuit_breakers" if limits_lifted(&value) => continue,
                    "@type" => {
                        let name = value.as_str().unwrap_or_default();
                        json!(name.rsplit('.').next())
                    }
                    _ => shorten(value),
                };
                out.insert(key, value);
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(shorten).collect()),
        other => other,
    }
}

/// The constant parts of TLS, retries and endpoints in one line each.
fn condense(key: &str, value: &Value) -> Option<Value> {
    match key {
        "transport_socket_matches" => {
            let context = &value[0]["transport_socket"]["typed_config"];
            let disabled = &value[1]["transport_socket"]["name"];
            assert_eq!((value.as_array()?.len(), disabled.as_str()?), (2, "envoy.transport_sockets.raw_buffer"));
            Some(json!(format!("tlsMode istio: {}; disabled: raw_buffer", tls(context))))
        }
        "transport_socket" => Some(json!(tls(&value["typed_config"]))),
        "retry_policy" if !value["retriable_request_headers"].is_null() => {
            Some(json!(format!("safe methods, {} x {}", value["num_retries"], value["retry_on"])))
        }
        "lb_endpoints" => Some(json!(value.as_array()?.iter().map(endpoint).collect::<Vec<_>>())),
        _ => None,
    }
}

fn tls(context: &Value) -> String {
    let common = &context["common_tls_context"];
    let alpn: Vec<&str> = common["alpn_protocols"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut text =
        format!("{} [{}]", context["@type"].as_str().and_then(|t| t.rsplit('.').next()).unwrap_or("?"), alpn.join(" "));
    let combined = &common["combined_validation_context"];
    for (key, value) in [
        ("certificate", &common["tls_certificate_sds_secret_configs"][0]["name"]),
        ("roots", &common["validation_context_sds_secret_config"]["name"]),
        ("roots", &combined["validation_context_sds_secret_config"]["name"]),
        ("sni", &context["sni"]),
        ("auto_host_sni", &context["auto_host_sni"]),
        ("client_certificate", &context["require_client_certificate"]),
        ("names", &combined["default_validation_context"]["match_typed_subject_alt_names"]),
    ] {
        if !value.is_null() {
            let _ = write!(text, " {key}={value}");
        }
    }
    text
}

fn endpoint(host: &Value) -> String {
    let address = &host["endpoint"]["address"];
    let (socket, internal) = (&address["socket_address"], &address["envoy_internal_address"]);
    let mut text = if internal.is_null() {
        format!("{}:{}", socket["address"].as_str().unwrap_or("?"), socket["port_value"])
    } else {
        format!(
            "{} {}",
            internal["server_listener_name"].as_str().unwrap_or("?"),
            internal["endpoint_id"].as_str().unwrap_or("?")
        )
    };
    let _ = write!(text, " {}", host["health_status"].as_str().unwrap_or("-"));
    if let Some(weight) = host["load_balancing_weight"].as_u64() {
        let _ = write!(text, " weight {weight}");
    }
    if let Some(sni) = host["endpoint"]["hostname"].as_str() {
        let _ = write!(text, " sni {sni}");
    }
    for (_, part) in host["metadata"]["filter_metadata"].as_object().into_iter().flatten() {
        let fields: Vec<String> =
            part.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("?"))).collect();
        let _ = write!(text, " {{{}}}", fields.join(" "));
    }
    text
}

fn limits_lifted(value: &Value) -> bool {
    let thresholds = value["thresholds"][0].as_object();
    thresholds.is_some_and(|t| t.len() == 4 && t.values().all(|v| v.as_u64() == Some(u32::MAX.into())))
}

fn yaml(value: &Value, depth: usize, text: &mut String) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                item(&format!("{pad}{key}:"), value, depth, text);
            }
        }
        Value::Array(items) => {
            for value in items {
                item(&format!("{pad}-"), value, depth, text);
            }
        }
        other => {
            let _ = writeln!(text, "{pad}{other}");
        }
    }
}

fn item(head: &str, value: &Value, depth: usize, text: &mut String) {
    let inline = value.to_string();
    let small = !value.is_object() && !value.is_array();
    if small || head.len() + inline.len() < WIDTH {
        let _ = writeln!(text, "{head} {inline}");
    } else {
        let _ = writeln!(text, "{head}");
        yaml(value, depth + 1, text);
    }
}
