//! The Helm chart: the same objects, with template expressions where values go.
//!
//! Made by rendering values that are marks and putting expressions in their place, so that no object is written twice. Invariant:
//! for equal values `helm template` and [`crate::render`] give equal objects (`xtask/src/cluster/chart.rs` compares them by Helm).

use crate::values::{CniValues, ControlValues, DEFAULT_REVISION, GatewayValues, MeshValues, Values};
use crate::{cni, control, crds, gateway, rbac, revision, webhooks};
use serde_json::{Value, json};

/// Number of replicas that marks the control plane's; the gateway's is the next.
const REPLICAS: u32 = 41_001;
/// Key of an object that stands for a resources value.
const RESOURCES: &str = "zz-resources";

/// Key of an object that stands for any other value that is no text.
const WHOLE: &str = "zz-whole";

/// Marks in strings, and what stands there in the chart; the first that fits counts.
const MARKS: &[(&str, &str)] = &[
    ("fairlead-revision-tag-zz-tag", "fairlead-revision-tag-{{ . }}"),
    ("zz-cluster.zz-domain", "{{ include \"fairlead.trustDomain\" $ }}"),
    ("zz-domain", "{{ $.Values.mesh.trustDomain }}"),
    ("zz-cluster", "{{ $.Values.cluster }}"),
    ("zz-network", "{{ include \"fairlead.network\" $ }}"),
    ("-zz-rev", "{{ include \"fairlead.suffix\" $ }}"),
    ("zz-rev", "{{ $.Values.revision }}"),
    ("zz-tag", "{{ . }}"),
    ("zz-image", "{{ $.Values.image }}"),
    ("zz-pull", "{{ $.Values.imagePullPolicy }}"),
    ("/zz-bin", "{{ $.Values.cni.binDir }}"),
    ("/zz-conf", "{{ $.Values.cni.confDir }}"),
    ("zz-service-type", "{{ include \"fairlead.serviceType\" $ }}"),
    ("zz-profile", "{{ $.Values.mesh.profile }}"),
    ("zz-trust", "{{ $.Values.mesh.trust }}"),
    ("zz-admission", "{{ $.Values.mesh.admission }}"),
    ("zz-security", "{{ ternary \"privileged\" \"restricted\" $.Values.cni.enabled }}"),
];

const HEAD: &str = r#"{{- /* Written by `cargo xtask golden` from crates/install; change that. */ -}}
{{- define "fairlead.suffix" -}}
{{- if ne .Values.revision "default" }}-{{ .Values.revision }}{{ end -}}
{{- end -}}
{{- define "fairlead.network" -}}
{{- .Values.network | default .Values.cluster -}}
{{- end -}}
{{- define "fairlead.trustDomain" -}}
{{- if eq .Values.mesh.trust "perCluster" }}{{ .Values.cluster }}.{{ end }}{{ .Values.mesh.trustDomain -}}
{{- end -}}
{{- define "fairlead.serviceType" -}}
{{- get (dict "loadbalancer" "LoadBalancer" "nodeport" "NodePort" "none" "ClusterIP") .Values.expose -}}
{{- end -}}
{{- $_ := required "cluster: name this cluster: --set cluster=east" .Values.cluster -}}
"#;

const STORED: &str = r#"{{ omit $.Values "global" | toJson | quote }}"#;
const SETTINGS: &str = r#"{{ mergeOverwrite (dict "revision" $.Values.revision "tags" $.Values.tags "systemNamespace" "fairlead-system" "controlAddress" (printf "fairlead-control%s.fairlead-system.svc:15012" (include "fairlead.suffix" $)) "cni" $.Values.cni.enabled "image" $.Values.image "imagePullPolicy" $.Values.imagePullPolicy) $.Values.injection | toJson | quote }}"#;

/// `templates/fairlead.yaml`.
pub fn template() -> String {
    let values = marked();
    let default = Values { revision: DEFAULT_REVISION.into(), ..values.clone() };
    let mut text = HEAD.to_owned();
    let mut put = |objects: Vec<Value>| {
        for object in objects {
            text.push_str("---\n");
            emit(&edited(object), 0, &mut text);
        }
    };
    put(control::shared(&values));
    put(rbac::objects(&values));
    put(control::own(&values));
    put(vec![json!("{{- if $.Values.cni.enabled }}")]);
    put(cni::objects(&values));
    put(vec![json!("{{- end }}\n{{- if eq $.Values.revision \"default\" }}")]);
    put(webhooks::objects(&default));
    put(vec![json!("{{- else }}")]);
    put(webhooks::objects(&values));
    put(vec![json!("{{- end }}\n{{- range $.Values.tags }}\n{{- if eq . \"default\" }}")]);
    put(revision::objects(&Values { tags: vec![DEFAULT_REVISION.into()], ..values.clone() }));
    put(vec![json!("{{- else }}")]);
    put(revision::objects(&values));
    put(vec![json!("{{- end }}\n{{- end }}\n{{- if $.Values.gateway.enabled }}")]);
    put(gateway::objects(&values));
    put(vec![json!("{{- end }}")]);
    // A control line is no document of its own.
    text.replace("---\n{{-", "{{-")
}

/// `values.yaml`: the defaults.
pub fn values() -> String {
    let mut text =
        "# Every value, with its default; docs/kubernetes.md says what they mean. Only `cluster` must be given.\n"
            .to_owned();
    emit(&Values::default().tree(), 0, &mut text);
    text
}

/// `crds/fairlead.yaml`; Helm installs definitions only where they are absent.
pub fn definitions() -> String {
    let mut text = String::new();
    for object in crds::all() {
        text.push_str("---\n");
        emit(&object, 0, &mut text);
    }
    text
}

fn marked() -> Values {
    Values {
        cluster: "zz-cluster".into(),
        network: "zz-network".into(),
        revision: "zz-rev".into(),
        tags: vec!["zz-tag".into()],
        image: "zz-image".into(),
        image_pull_secrets: json!({WHOLE: "imagePullSecrets"}),
        node_selector: json!({WHOLE: "nodeSelector"}),
        tolerations: json!({WHOLE: "tolerations"}),
        mesh: MeshValues { trust_domain: "zz-domain".into(), ..MeshValues::default() },
        control: ControlValues { replicas: REPLICAS, resources: json!({RESOURCES: "control"}) },
        gateway: GatewayValues { enabled: true, replicas: REPLICAS + 1, resources: json!({RESOURCES: "gateway"}) },
        cni: CniValues { enabled: true, bin_dir: "/zz-bin".into(), conf_dir: "/zz-conf".into() },
        ..Values::default()
    }
}

/// Marks for what is not text in [`Values`].
fn edited(mut object: Value) -> Value {
    if object.is_string() {
        return object;
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let of = |kind: &str| object["kind"] == kind;
    if of("Namespace") {
        object["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = json!("zz-security");
    } else if of("Mesh") {
        for (field, mark) in [("profile", "zz-profile"), ("trust", "zz-trust"), ("admission", "zz-admission")] {
            object["spec"][field] = json!(mark);
        }
    } else if of("Service") && [control::PEERING, gateway::EAST_WEST].contains(&name.as_str()) {
        object["spec"]["type"] = json!("zz-service-type");
    }
    let containers = object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        container["imagePullPolicy"] = json!("zz-pull");
    }
    object
}

/// Block YAML; strings are quoted as JSON's, which is YAML too.
fn emit(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::String(line) if line.starts_with("{{-") => out.push_str(&format!("{line}\n")),
        Value::Object(map) => {
            for (key, inner) in map {
                let mark = replaced(key);
                let key = if mark == *key { plain(key) } else { format!("\"{mark}\"") };
                let written = match (key.as_str(), scalar(inner)) {
                    (control::INJECTION_KEY, _) => Some(SETTINGS.to_owned()),
                    (crate::values::VALUES_KEY, _) => Some(STORED.to_owned()),
                    (_, scalar) => scalar,
                };
                match written {
                    Some(text) => out.push_str(&format!("{pad}{key}: {text}\n")),
                    None => {
                        out.push_str(&format!("{pad}{key}:\n"));
                        emit(inner, indent + 2, out);
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                // Names of all tags, in a list: one mark stands for as many as there are.
                if item == "fairlead-revision-tag-zz-tag" {
                    out.push_str(&format!(
                        "{pad}{{{{- range $.Values.tags }}}}\n{pad}- \"fairlead-revision-tag-{{{{ . }}}}\"\n{pad}{{{{- end }}}}\n"
                    ));
                    continue;
                }
                match scalar(item) {
                    Some(text) => out.push_str(&format!("{pad}- {text}\n")),
                    None => {
                        let mut inner = String::new();
                        emit(item, indent + 2, &mut inner);
                        out.push_str(&format!("{pad}- {}", inner.trim_start()));
                    }
                }
            }
        }
        other => out.push_str(&format!("{pad}{}\n", scalar(other).unwrap_or_default())),
    }
}

/// The text of what fits on its line; `None`: a block follows.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Object(map) if map.is_empty() => Some("{}".into()),
        Value::Object(map) => match (map.get(RESOURCES), map.get(WHOLE)) {
            (Some(of), _) => Some(format!("{{{{ toJson $.Values.{}.resources }}}}", of.as_str()?)),
            (_, Some(value)) => Some(format!("{{{{ toJson $.Values.{} }}}}", value.as_str()?)),
            _ => None,
        },
        Value::Array(items) if items.is_empty() => Some("[]".into()),
        Value::Array(_) => None,
        Value::String(text) => Some(replaced(&json!(text).to_string())),
        Value::Number(n) if n.as_u64() == Some(REPLICAS.into()) => Some("{{ $.Values.control.replicas }}".into()),
        Value::Number(n) if n.as_u64() == Some((REPLICAS + 1).into()) => Some("{{ $.Values.gateway.replicas }}".into()),
        other => Some(other.to_string()),
    }
}

/// Keys need quotes only where they could be read as something else.
fn plain(key: &str) -> String {
    let simple = key.chars().all(|c| c.is_ascii_alphanumeric() || "./-_".contains(c))
        && key.starts_with(|c: char| c.is_ascii_alphabetic());
    if simple { key.to_owned() } else { json!(key).to_string() }
}

fn replaced(text: &str) -> String {
    let mut text = text.to_owned();
    for (mark, expression) in MARKS {
        text = text.replace(mark, expression);
    }
    text
}
