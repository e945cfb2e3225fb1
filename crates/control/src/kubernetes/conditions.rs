//! What is wrong with an object, written where its author looks: `status.conditions` of configuration objects, and Events.
//!
//! By the holder of the lease, with server-side apply, only where something is to be said or is not true any more, and slowly. Never
//! decides anything. Invariant: conditions of others stay; an object is written again only if its status is to read otherwise.

use super::lease::Leadership;
use crate::event::Event;
use fairlead_model::{ClusterId, Diagnostic, diagnostic::Severity};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::runtime::events::{Event as Told, EventType, Recorder, Reporter};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// The condition's type.
pub const ACCEPTED: &str = "Accepted";
const MANAGER: &str = "fairlead-status";
/// Between two looks at what is wrong.
const PERIOD: Duration = Duration::from_secs(1);
/// Between two writes.
const PAUSE: Duration = Duration::from_millis(100);
/// An object with findings is looked at again after this: its author may have changed it without changing them.
const AGAIN: Duration = Duration::from_secs(60);
/// One request.
const LIMIT: Duration = Duration::from_secs(3);
/// A status is read by people.
const LONGEST: usize = 4096;

/// Kinds whose status is ours to write: group, version, kind, plural.
const WRITTEN: &[(&str, &str, &str, &str)] = &[
    ("networking.istio.io", "v1", "VirtualService", "virtualservices"),
    ("networking.istio.io", "v1", "DestinationRule", "destinationrules"),
    ("networking.istio.io", "v1", "Gateway", "gateways"),
    ("networking.istio.io", "v1", "ServiceEntry", "serviceentries"),
    ("networking.istio.io", "v1", "WorkloadEntry", "workloadentries"),
    ("networking.istio.io", "v1", "Sidecar", "sidecars"),
    ("security.istio.io", "v1", "PeerAuthentication", "peerauthentications"),
    ("security.istio.io", "v1", "RequestAuthentication", "requestauthentications"),
    ("security.istio.io", "v1", "AuthorizationPolicy", "authorizationpolicies"),
    ("fairlead.dev", "v1alpha1", "Mesh", "meshes"),
    ("fairlead.dev", "v1alpha1", "Peer", "peers"),
];

/// An object: its row of [`WRITTEN`], namespace and name.
type Target = (usize, String, String);

/// What is said of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    severity: Severity,
    code: String,
    text: String,
}

/// By object of this cluster, worst first.
fn findings(diagnostics: &[Diagnostic], cluster: &ClusterId) -> BTreeMap<Target, Vec<Finding>> {
    let mut found: BTreeMap<Target, Vec<Finding>> = BTreeMap::new();
    for diagnostic in diagnostics.iter().filter(|d| d.object.cluster == *cluster) {
        let object = &diagnostic.object;
        let Some(row) = WRITTEN.iter().position(|(_, _, kind, _)| *object.kind == **kind) else { continue };
        let at = if diagnostic.path.is_empty() { String::new() } else { format!(" {}:", diagnostic.path) };
        let hint = if diagnostic.hint.is_empty() { String::new() } else { format!(" ({})", diagnostic.hint) };
        let text = format!("{}{at} {}{hint}", diagnostic.code, diagnostic.message);
        let finding = Finding { severity: diagnostic.severity, code: diagnostic.code.to_string(), text };
        found.entry((row, object.namespace.to_string(), object.name.to_string())).or_default().push(finding);
    }
    found.values_mut().for_each(|list| list.sort_by_key(|finding| finding.severity));
    found
}

/// The status to write, if the object's is to read otherwise.
fn status(object: &Value, findings: &[Finding], now: Timestamp) -> Option<Value> {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
    let refused = findings.iter().any(|f| f.severity == Severity::Error);
    let (state, reason) = match (refused, findings.is_empty()) {
        (true, _) => ("False", "Refused"),
        (false, false) => ("True", "AcceptedWithFindings"),
        (false, true) => ("True", "Accepted"),
    };
    let mut message = findings.iter().map(|f| f.text.as_str()).collect::<Vec<_>>().join("\n");
    if let Some((end, _)) = message.char_indices().nth(LONGEST) {
        message.truncate(end);
        message.push('…');
    }
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let (ours, mut others): (Vec<Value>, Vec<Value>) = conditions.into_iter().partition(|c| c["type"] == ACCEPTED);
    let before = ours.first();
    if before.is_none() && findings.is_empty() {
        return None;
    }
    let same = |field: &str, value: &Value| before.is_some_and(|before| before[field] == *value);
    let (state, reason, message) = (json!(state), json!(reason), json!(message));
    let is_same = same("status", &state) && same("reason", &reason) && same("message", &message);
    if is_same && object["status"]["observedGeneration"] == json!(generation) {
        return None;
    }
    let since = before.filter(|b| b["status"] == state).map(|before| before["lastTransitionTime"].clone());
    let since = since.filter(Value::is_string).unwrap_or_else(|| json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
    others.push(json!({"type": ACCEPTED, "status": state, "reason": reason, "message": message,
        "observedGeneration": generation, "lastTransitionTime": since}));
    let level = |severity| match severity {
        Severity::Error => "ERROR",
        Severity::Warning => "WARNING",
        Severity::Info => "INFO",
    };
    // Istio's analysis messages have no text of their own.
    let analysed = |f: &Finding| json!({"type": {"code": f.code, "name": f.text}, "level": level(f.severity)});
    let messages: Vec<Value> = findings.iter().take(20).map(analysed).collect();
    Some(json!({"observedGeneration": generation, "conditions": others, "validationMessages": messages}))
}

/// For ever, while this replica holds the lease.
pub async fn keep(
    client: kube::Client,
    namespace: String,
    cluster: ClusterId,
    mut leadership: Leadership,
    events: mpsc::UnboundedSender<Event>,
) {
    let reporter = Reporter { controller: MANAGER.into(), instance: None };
    let recorder = Recorder::new(client.clone(), reporter);
    let writer = Writer { client, namespace, recorder };
    loop {
        leadership.gained().await;
        let work = writer.work(&cluster, &events);
        if leadership.while_held(work).await.is_some() {
            return; // the owner is gone
        }
    }
}

struct Writer {
    client: kube::Client,
    /// The system namespace, where our own kinds are.
    namespace: String,
    recorder: Recorder,
}

impl Writer {
    async fn work(&self, cluster: &ClusterId, events: &mpsc::UnboundedSender<Event>) {
        // What was written of each object, and when; those that another holder wrote of are to be looked at once.
        let mut written: BTreeMap<Target, (Vec<Finding>, Instant)> = BTreeMap::new();
        let mut stale: Vec<Target> = self.flagged().await;
        loop {
            let Some(found) = told(events).await else { return };
            let found = found.map(|diagnostics| findings(&diagnostics, cluster)).unwrap_or_default();
            let gone = written.keys().filter(|target| !found.contains_key(*target)).cloned();
            stale.extend(gone);
            for target in std::mem::take(&mut stale).into_iter().filter(|target| !found.contains_key(target)) {
                if self.write(&target, &[]).await.is_err() {
                    stale.push(target);
                } else {
                    written.remove(&target);
                }
                tokio::time::sleep(PAUSE).await;
            }
            for (target, findings) in found {
                let is_said = |(said, at): &(Vec<Finding>, Instant)| *said == findings && at.elapsed() < AGAIN;
                if written.get(&target).is_some_and(is_said) {
                    continue;
                }
                if let Err(e) = self.write(&target, &findings).await {
                    tracing::debug!("the status of {}/{} is not written yet: {e}", target.1, target.2);
                } else {
                    written.insert(target, (findings, Instant::now()));
                }
                tokio::time::sleep(PAUSE).await;
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Objects whose status says something of ours.
    async fn flagged(&self) -> Vec<Target> {
        let mut flagged = Vec::new();
        for row in 0..WRITTEN.len() {
            let Some(resource) = resource(row) else { continue };
            let api: Api<DynamicObject> = match resource.group == "fairlead.dev" {
                true => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
                false => Api::all_with(self.client.clone(), &resource),
            };
            let list = limited(async { api.list(&ListParams::default()).await }).await;
            for object in list.map(|list| list.items).unwrap_or_default() {
                let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
                if conditions.iter().any(|c| c["type"] == ACCEPTED && c["reason"] != "Accepted") {
                    let metadata = object.metadata;
                    flagged.push((row, metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default()));
                }
            }
        }
        flagged
    }

    async fn write(&self, target: &Target, findings: &[Finding]) -> Result<(), kube::Error> {
        let (row, namespace, name) = target;
        let Some(resource) = resource(*row) else { return Ok(()) };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let Some(object) = limited(async { api.get_opt(name).await }).await? else { return Ok(()) };
        let as_json = serde_json::to_value(&object).map_err(kube::Error::SerdeError)?;
        let Some(status) = status(&as_json, findings, Timestamp::now()) else { return Ok(()) };
        let patch = json!({"apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"name": name, "namespace": namespace}, "status": status});
        let params = PatchParams::apply(MANAGER).force();
        limited(async { api.patch_status(name, &params, &Patch::Apply(&patch)).await }).await?;
        if let Some(worst) = findings.first().filter(|f| f.severity == Severity::Error) {
            let told = Told {
                type_: EventType::Warning,
                reason: "Refused".into(),
                note: Some(worst.text.chars().take(1000).collect()),
                action: "Validate".into(),
                secondary: None,
            };
            let about = ObjectReference {
                api_version: Some(resource.api_version.clone()),
                kind: Some(resource.kind.clone()),
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                uid: object.metadata.uid,
                ..ObjectReference::default()
            };
            // An event is a courtesy: the condition says it all.
            if let Err(e) = limited(self.recorder.publish(&told, &about)).await {
                tracing::debug!("no event about {namespace}/{name}: {e}");
            }
        }
        Ok(())
    }
}

fn resource(row: usize) -> Option<ApiResource> {
    let (group, version, kind, plural) = WRITTEN.get(row)?;
    Some(ApiResource {
        group: (*group).into(),
        version: (*version).into(),
        api_version: format!("{group}/{version}"),
        kind: (*kind).into(),
        plural: (*plural).into(),
    })
}

/// What the owner says is wrong; `Some(None)` before the first resolution, `None` when it is gone.
async fn told(events: &mpsc::UnboundedSender<Event>) -> Option<Option<std::sync::Arc<Vec<Diagnostic>>>> {
    let (reply, answer) = oneshot::channel();
    let question = move |world: &crate::world::World| {
        let _ = reply.send(world.resolved.as_ref().map(|resolved| resolved.diagnostics.clone()));
    };
    events.send(Event::Ask(Box::new(question))).ok()?;
    answer.await.ok()
}

async fn limited<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    let silent = |_| kube::Error::Service("no answer in 3 s".into());
    tokio::time::timeout(LIMIT, request).await.map_err(silent)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::fake_api::FakeApi;
    use fairlead_model::{ObjectKey, Origin};

    fn diagnostic(severity: Severity, name: &str, message: &str) -> Diagnostic {
        let object = ObjectKey::new("east", "VirtualService", "shop", name);
        let at = Origin { object, path: "spec.http[0]".into(), file: "".into(), line: 0 };
        Diagnostic::new(severity, "FL0201", at, message).hint("leave it out")
    }

    fn of(diagnostics: &[Diagnostic]) -> Vec<Finding> {
        findings(diagnostics, &"east".into()).into_values().next().unwrap_or_default()
    }

    #[test]
    fn a_status_says_what_analyze_says_and_keeps_what_others_say() {
        let now = Timestamp::UNIX_EPOCH;
        let bad = [diagnostic(Severity::Warning, "a", "odd"), diagnostic(Severity::Error, "a", "mirror is not there")];
        let mut object = json!({"metadata": {"generation": 3}, "status": {"conditions": [{"type": "Reconciled", "status": "True"}]}});
        let first = status(&object, &of(&bad), now).unwrap();
        assert_eq!(first["conditions"][0]["type"], "Reconciled");
        let ours = &first["conditions"][1];
        assert_eq!((&ours["status"], &ours["reason"]), (&json!("False"), &json!("Refused")));
        let message = ours["message"].as_str().unwrap();
        assert!(message.starts_with("FL0201 spec.http[0]: mirror is not there (leave it out)\n"), "{message}");
        assert_eq!(
            (&ours["observedGeneration"], &ours["lastTransitionTime"]),
            (&json!(3), &json!("1970-01-01T00:00:00Z"))
        );
        assert_eq!(first["validationMessages"][0]["level"], "ERROR");
        // Nothing new: nothing is written.
        object["status"] = first;
        assert_eq!(status(&object, &of(&bad), Timestamp::now()), None);
        // Another edit with the same fault: only the generation.
        object["metadata"]["generation"] = json!(4);
        let again = status(&object, &of(&bad), Timestamp::now()).unwrap();
        assert_eq!(again["conditions"][1]["lastTransitionTime"], "1970-01-01T00:00:00Z");
        // Mended.
        object["status"] = again;
        let mended = status(&object, &[], Timestamp::now()).unwrap();
        assert_eq!((&mended["conditions"][1]["status"], &mended["validationMessages"]), (&json!("True"), &json!([])));
        // Of what was never wrong nothing is said.
        assert_eq!(status(&json!({"metadata": {"generation": 1}}), &[], now), None);
    }

    #[test]
    fn only_objects_of_this_cluster_and_of_kinds_with_a_status() {
        let mut other = diagnostic(Severity::Error, "a", "x");
        other.object = ObjectKey::new("west", "VirtualService", "shop", "a");
        let mut pod = diagnostic(Severity::Error, "p", "x");
        pod.object = ObjectKey::new("east", "Pod", "shop", "p");
        assert!(findings(&[other, pod], &"east".into()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_object_says_so_until_it_is_mended() {
        const GROUP: &str = "networking.istio.io/v1";
        let api = FakeApi::new();
        for name in ["bad", "good", "old"] {
            api.put(
                GROUP,
                "virtualservices",
                "shop",
                name,
                json!({"apiVersion": GROUP, "kind": "VirtualService",
                "metadata": {"generation": 1, "uid": name}, "spec": {}}),
            );
        }
        // Left by a holder before.
        let old = api.get(GROUP, "virtualservices", "shop", "old").unwrap();
        let mut old = old;
        old["status"] =
            json!({"conditions": [{"type": ACCEPTED, "status": "False", "reason": "Refused", "message": "x"}]});
        api.put(GROUP, "virtualservices", "shop", "old", old);
        let recorder = Recorder::new(api.client(), Reporter { controller: MANAGER.into(), instance: None });
        let writer = Writer { client: api.client(), namespace: "fairlead-system".into(), recorder };
        let accepted = |name: &str| {
            let object = api.get(GROUP, "virtualservices", "shop", name).unwrap();
            object["status"]["conditions"].as_array().and_then(|c| c.first()).map(|c| c["status"].clone())
        };
        assert_eq!(writer.flagged().await, [(0, "shop".to_owned(), "old".to_owned())]);
        let bad = (0, "shop".to_owned(), "bad".to_owned());
        writer.write(&bad, &of(&[diagnostic(Severity::Error, "bad", "mirror")])).await.unwrap();
        assert_eq!((accepted("bad"), accepted("good")), (Some(json!("False")), None));
        assert_eq!(api.requests("/events"), 1);
        let writes = api.requests("PATCH");
        writer.write(&bad, &of(&[diagnostic(Severity::Error, "bad", "mirror")])).await.unwrap();
        assert_eq!(api.requests("PATCH"), writes, "the same is not written twice");
        writer.write(&(0, "shop".to_owned(), "old".to_owned()), &[]).await.unwrap();
        assert_eq!(accepted("old"), Some(json!("True")));
        writer.write(&(0, "shop".to_owned(), "gone".to_owned()), &[]).await.unwrap();
    }
}
