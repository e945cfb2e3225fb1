//! `/validate`: one object, checked as `analyze` checks it.
//!
//! Reading, validating, what is not implemented, and of resolving what the object shows by itself. References to other objects are not
//! looked at: those may come a moment later, and `analyze` and the status tell of them. Deletions, status and changes that touch
//! nothing of what an object says pass always, so that a bad object can be got rid of. Invariant: refused is what has an error.

use super::admission::{Answer, Request};
use fairlead_model::{ClusterId, Diagnostic};
use fairlead_resolve::{ClusterInput, ObjectRef, Observed, analyze};
use fairlead_resources::fairlead::{Mesh, Profile};
use fairlead_resources::yaml::Node;
use fairlead_resources::{codes, decode_object};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Findings of resolving that need no other object.
const ALONE: &[&str] = &[
    analyze::codes::NO_ROOTS,
    analyze::codes::NO_ROOTS_PORT,
    analyze::codes::REFUSED,
    analyze::codes::UNREACHABLE_RULE,
    analyze::codes::USELESS_MATCH,
    analyze::codes::WITHOUT_EFFECT,
];

/// Kept by the API server, not written by people.
const BOOKKEEPING: &[&str] = &["managedFields", "resourceVersion", "generation", "finalizers", "ownerReferences"];

/// Checks objects of a cluster.
pub struct Validator {
    cluster: ClusterId,
}

impl Validator {
    pub fn new(cluster: &str) -> Self {
        Self { cluster: cluster.into() }
    }

    /// The answer in a mesh of this profile.
    pub fn answer(&self, request: &Request, profile: Profile) -> Answer {
        let writes = matches!(request.operation.as_str(), "CREATE" | "UPDATE");
        if !writes || !request.sub_resource.is_empty() || is_leaving(&request.object) || is_the_same(request) {
            return Answer::default();
        }
        let mut found = match self.check(&request.object, profile) {
            Ok(found) => found,
            Err(why) => return Answer::refused(why),
        };
        found.sort();
        found.dedup();
        let (errors, rest): (Vec<_>, Vec<_>) = found.into_iter().partition(Diagnostic::is_error);
        let answer = if errors.is_empty() {
            Answer::default()
        } else {
            let why: Vec<String> = errors.iter().map(explained).collect();
            Answer::refused(why.join("\n"))
        };
        let rest: Vec<_> = rest.into_iter().filter(Diagnostic::is_warning).collect();
        answer.warning(&rest)
    }

    fn check(&self, object: &Value, profile: Profile) -> Result<Vec<Diagnostic>, String> {
        let text = object.to_string();
        let node: Node = serde_json::from_str(&text).map_err(|error| format!("the object cannot be read: {error}"))?;
        let decoding = decode_object(&self.cluster, &node);
        let mut found = decoding.diagnostics;
        let file: Arc<str> = Arc::default();
        let objects: Vec<ObjectRef<'_>> =
            decoding.objects.iter().map(|decoded| ObjectRef { decoded, file: &file }).collect();
        let mut mesh = Mesh::default();
        mesh.spec.profile = profile;
        let settings = fairlead_resolve::settings("mesh", Some(&mesh), &BTreeSet::from([self.cluster.clone()]), &[]);
        let observed = Observed::default();
        let input =
            ClusterInput { cluster: &self.cluster, settings: &settings, objects: &objects, observed: &observed };
        let (_, resolved) = fairlead_resolve::cluster(&input);
        found.extend(resolved.into_iter().filter(|one| ALONE.contains(&&*one.code)));
        Ok(found)
    }
}

/// With the code's remedy where the finding has no hint of its own.
fn explained(found: &Diagnostic) -> String {
    let reading = codes::ALL.iter().map(|code| (code.code, code.remedy));
    let resolving = analyze::codes::ALL.iter().map(|code| (code.code, code.remedy));
    let remedy = reading.chain(resolving).find(|(code, _)| *code == &*found.code && found.hint.is_empty());
    remedy.map_or_else(|| found.to_string(), |(_, remedy)| format!("{found}\n    {remedy}"))
}

/// Somebody waits for it to be gone: only finalizers can still change.
fn is_leaving(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Whether an update leaves all that the object says as it was.
fn is_the_same(request: &Request) -> bool {
    request.operation == "UPDATE" && said(&request.object) == said(&request.old_object)
}

fn said(object: &Value) -> Map<String, Value> {
    let mut said = object.as_object().cloned().unwrap_or_default();
    said.remove("status");
    if let Some(metadata) = said.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| !BOOKKEEPING.contains(&key.as_str()));
    }
    said
}
