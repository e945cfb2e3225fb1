//! Injection of YAML documents: `fairlead inject`.
//!
//! Pods, and what makes pods, get the sidecar into their template; every other document stays as it was written, byte for byte.
//! A `Namespace` among the documents tells the labels of the objects in it. Invariant: what is refused is written as it was.

use super::fields::text;
use super::{Decision, InjectSettings, Namespace, inject};
use fairlead_model::Diagnostic;
use fairlead_resources::yaml::documents;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What happened to one pod or template.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// `kind namespace/name`.
    pub object: String,
    pub outcome: Outcome,
    pub diagnostics: Vec<Diagnostic>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Injected,
    /// And why.
    Skipped(String),
    Refused,
}

/// Why the text could not be read at all.
#[derive(Debug, thiserror::Error)]
#[error("the document that begins on line {line} is no YAML: {reason}")]
pub struct Unreadable {
    pub line: u32,
    pub reason: String,
}

/// Namespace labels by name.
type Known = BTreeMap<String, BTreeMap<String, String>>;

/// Injects every pod in `input`. `namespace` is the one of objects that name none; `labels` are those of namespaces that are not
/// among the documents, `None`: they count as selected.
///
/// # Errors
/// [`Unreadable`], and then nothing is done.
pub fn inject_documents(
    input: &str,
    namespace: &str,
    labels: Option<&BTreeMap<String, String>>,
    settings: &InjectSettings,
) -> Result<(String, Vec<Report>), Unreadable> {
    let mut parsed = Vec::new();
    for document in documents(input) {
        let value: Value = serde_saphyr::from_str(document.text)
            .map_err(|error| Unreadable { line: document.first_line, reason: error.to_string() })?;
        parsed.push((document.text, value));
    }
    let mut known = Known::new();
    for (_, value) in &parsed {
        learn(value, &mut known);
    }
    let mut work = Work { namespace, labels, known: &known, settings, reports: Vec::new() };
    let mut output = String::new();
    for (text, value) in &parsed {
        let mut changed = value.clone();
        work.object(&mut changed);
        // A document's text has its marker line, but for the first.
        if !output.is_empty() && !text.starts_with("---") {
            output.push_str("---\n");
        }
        if changed == *value {
            output.push_str(text);
        } else {
            if text.starts_with("---") {
                output.push_str("---\n");
            }
            let written = serde_saphyr::to_string(&changed);
            output.push_str(&written.map_err(|error| Unreadable { line: 1, reason: error.to_string() })?);
        }
        if !output.ends_with('\n') {
            output.push('\n');
        }
    }
    Ok((output, work.reports))
}

fn learn(value: &Value, known: &mut Known) {
    for item in value["items"].as_array().into_iter().flatten() {
        learn(item, known);
    }
    if text(value, "kind") == Some("Namespace")
        && let Some(name) = text(&value["metadata"], "name")
    {
        let labels = value["metadata"]["labels"].as_object().into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
        known.insert(name.to_owned(), labels);
    }
}

struct Work<'a> {
    namespace: &'a str,
    labels: Option<&'a BTreeMap<String, String>>,
    known: &'a Known,
    settings: &'a InjectSettings,
    reports: Vec<Report>,
}

impl Work<'_> {
    fn object(&mut self, object: &mut Value) {
        let kind = text(object, "kind").unwrap_or_default().to_owned();
        if kind.ends_with("List")
            && let Some(items) = object.get_mut("items").and_then(Value::as_array_mut)
        {
            for item in items {
                self.object(item);
            }
            return;
        }
        let path = match kind.as_str() {
            "Pod" => "",
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
                "/spec/template"
            }
            "CronJob" => "/spec/jobTemplate/spec/template",
            _ => return,
        };
        let name = text(&object["metadata"], "name").unwrap_or_default().to_owned();
        let namespace = text(&object["metadata"], "namespace").unwrap_or(self.namespace).to_owned();
        let Some(template) = object.pointer_mut(path) else { return };
        if let Some(injected) = self.template(template, &kind, &name, &namespace) {
            *template = injected;
        }
    }

    /// The template as a pod of its maker's name, and what comes of it.
    fn template(&mut self, template: &Value, kind: &str, name: &str, namespace: &str) -> Option<Value> {
        let mut pod = template.clone();
        let is_pod = kind == "Pod";
        if !is_pod {
            if !pod["metadata"].is_object() {
                pod["metadata"] = json!({});
            }
            pod["kind"] = json!(kind);
            pod["metadata"]["name"] = json!(name);
        }
        let labels = self.known.get(namespace).or(self.labels);
        let decision = inject(&pod, Namespace { name: namespace, labels }, self.settings);
        let (injected, outcome, diagnostics) = match decision {
            Decision::Inject { pod, warnings } => (Some(pod), Outcome::Injected, warnings),
            Decision::Skip { reason, warnings } => (None, Outcome::Skipped(reason.to_string()), warnings),
            Decision::Refuse { diagnostics } => (None, Outcome::Refused, diagnostics),
        };
        self.reports.push(Report { object: format!("{kind} {namespace}/{name}"), outcome, diagnostics });
        let mut injected = injected?;
        if !is_pod && let Some(fields) = injected.as_object_mut() {
            fields.remove("kind");
            if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("name");
            }
        }
        Some(injected)
    }
}
