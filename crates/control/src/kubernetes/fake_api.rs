//! An API server in memory, for tests: objects, versions, watches, server-side apply as far as it is used here, token reviews.
//!
//! It is a service of the client's own kind, so there is no socket and no time in it.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::channel::mpsc;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// `group/version` or `v1`, and the plural.
type Kind = (String, String);
/// Namespace and name.
type Name = (String, String);

/// One way to the server; clones and [`FakeApi::another_way`] lead to the same objects.
#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    away: Arc<AtomicBool>,
    /// Writes wait while it is closed.
    gate: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<Kind, BTreeMap<Name, Value>>,
    watches: Vec<(Kind, Option<String>, mpsc::UnboundedSender<Value>)>,
    /// Status of a token review, by token.
    reviews: BTreeMap<String, Value>,
    documents: BTreeMap<String, Value>,
    /// What is refused: part of a path, status code, how often yet.
    refusals: Vec<(String, u16, usize)>,
    /// Method and path of each request.
    requests: Vec<String>,
}

impl FakeApi {
    pub fn new() -> Self {
        Self { state: Arc::default(), away: Arc::default(), gate: Arc::new(watch::Sender::new(true)) }
    }

    /// To the same objects; it can be away while this one is not.
    pub fn another_way(&self) -> Self {
        Self { away: Arc::default(), gate: Arc::new(watch::Sender::new(true)), ..self.clone() }
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        kube::Client::new(
            tower::service_fn(move |request: Request<Body>| {
                let api = api.clone();
                async move { api.answer(request).await }
            }),
            "default",
        )
    }

    /// No request is answered by this way, and its watches end.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
        if away {
            self.state.lock().watches.clear();
        }
    }

    /// While closed, writes are held before they take effect.
    pub fn set_open(&self, open: bool) {
        self.gate.send_replace(open);
    }

    /// What a review of this token says.
    pub fn set_review(&self, token: &str, status: Value) {
        self.state.lock().reviews.insert(token.into(), status);
    }

    /// The next so many requests whose path has this part are answered with an error.
    pub fn refuse(&self, part: &str, code: u16, times: usize) {
        let mut state = self.state.lock();
        state.refusals.retain(|(refused, ..)| refused != part);
        state.refusals.push((part.into(), code, times));
    }

    /// What a path that holds no object says.
    pub fn set_document(&self, path: &str, document: Value) {
        self.state.lock().documents.insert(path.into(), document);
    }

    pub fn requests(&self, part: &str) -> usize {
        self.state.lock().requests.iter().filter(|request| request.contains(part)).count()
    }

    pub fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let state = self.state.lock();
        state.objects.get(&(group.into(), plural.into()))?.get(&(namespace.into(), name.into())).cloned()
    }

    pub fn put(&self, group: &str, plural: &str, namespace: &str, name: &str, mut object: Value) {
        let kind = (group.to_owned(), plural.to_owned());
        object["metadata"]["name"] = json!(name);
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        self.state.lock().store(&kind, (namespace.into(), name.into()), Some(object));
    }

    pub fn delete(&self, group: &str, plural: &str, namespace: &str, name: &str) {
        self.state.lock().store(&(group.into(), plural.into()), (namespace.into(), name.into()), None);
    }

    async fn answer(&self, request: Request<Body>) -> Result<Reply, std::io::Error> {
        let gone = || Err(std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused"));
        if self.away.load(Ordering::SeqCst) {
            return gone();
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
        let path = parts.uri.path().to_owned();
        self.state.lock().requests.push(format!("{} {path}", parts.method));
        if parts.method != Method::GET {
            let mut gate = self.gate.subscribe();
            let _ = gate.wait_for(|open| *open).await;
            if self.away.load(Ordering::SeqCst) {
                return gone();
            }
        }
        Ok(self.state.lock().handle(&parts.method, &path, parts.uri.query().unwrap_or_default(), body))
    }
}

impl State {
    fn handle(&mut self, method: &Method, path: &str, query: &str, body: Value) -> Reply {
        let refused = self.refusals.iter_mut().find(|(part, _, times)| path.contains(part.as_str()) && *times > 0);
        if let Some((_, code, times)) = refused {
            *times -= 1;
            return refusal(StatusCode::from_u16(*code).unwrap(), "Refused");
        }
        if let Some(document) = self.documents.get(path) {
            return json_reply(StatusCode::OK, document);
        }
        if path.ends_with("/tokenreviews") {
            let token = body["spec"]["token"].as_str().unwrap_or_default();
            let status = self.reviews.get(token).cloned().unwrap_or_else(|| json!({"authenticated": false}));
            let answer = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
                "spec": body["spec"], "status": status});
            return json_reply(StatusCode::CREATED, &answer);
        }
        let Some((kind, namespace, name)) = parse(path) else { return refusal(StatusCode::NOT_FOUND, "NotFound") };
        let query: BTreeMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.into(), v.replace("%3D", "=").replace("%2F", "/").replace("%2C", ",")))
            .collect();
        let Some(name) = name else {
            return match *method {
                Method::GET if query.get("watch").is_some_and(|w| w == "true" || w == "1") => {
                    self.watch(kind, namespace, &query)
                }
                Method::GET => self.list(&kind, namespace.as_deref(), &query),
                Method::POST => {
                    let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                    let key = (namespace.unwrap_or_default(), name);
                    if self.find(&kind, &key).is_some() {
                        return refusal(StatusCode::CONFLICT, "AlreadyExists");
                    }
                    json_reply(StatusCode::CREATED, &self.store(&kind, key, Some(body)))
                }
                _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            };
        };
        let key = (namespace.unwrap_or_default(), name);
        let known = self.find(&kind, &key).cloned();
        match (method.as_str(), known) {
            ("GET", Some(object)) => json_reply(StatusCode::OK, &object),
            ("PUT", Some(object)) => {
                let precondition = &body["metadata"]["resourceVersion"];
                if !precondition.is_null() && *precondition != object["metadata"]["resourceVersion"] {
                    return refusal(StatusCode::CONFLICT, "Conflict");
                }
                json_reply(StatusCode::OK, &self.store(&kind, key, Some(body)))
            }
            ("PATCH", known) => {
                let mut object = known.unwrap_or_else(|| json!({"metadata": {"name": key.1, "namespace": key.0}}));
                merge(&mut object, body);
                json_reply(StatusCode::OK, &self.store(&kind, key, Some(object)))
            }
            ("DELETE", Some(object)) => {
                self.store(&kind, key, None);
                json_reply(StatusCode::OK, &object)
            }
            _ => refusal(StatusCode::NOT_FOUND, "NotFound"),
        }
    }

    fn find(&self, kind: &Kind, key: &Name) -> Option<&Value> {
        self.objects.get(kind)?.get(key)
    }

    fn list(&self, kind: &Kind, namespace: Option<&str>, query: &BTreeMap<String, String>) -> Reply {
        let all = self.objects.get(kind).into_iter().flatten();
        let inside = all.filter(|((ns, _), _)| namespace.is_none_or(|wanted| wanted == ns));
        let items: Vec<&Value> = inside.map(|(_, object)| object).filter(|o| selected(o, query)).collect();
        let metadata = json!({"resourceVersion": self.version.to_string()});
        json_reply(StatusCode::OK, &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
    }

    /// Everything after a list made now: tests write only after they were heard, or before.
    fn watch(&mut self, kind: Kind, namespace: Option<String>, query: &BTreeMap<String, String>) -> Reply {
        let (sender, receiver) = mpsc::unbounded();
        let since = query.get("resourceVersion").and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        for ((ns, _), object) in self.objects.get(&kind).into_iter().flatten() {
            let version = object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
            if version.is_some_and(|v| v > since) && namespace.as_ref().is_none_or(|wanted| wanted == ns) {
                let _ = sender.unbounded_send(json!({"type": "ADDED", "object": object}));
            }
        }
        self.watches.push((kind, namespace, sender));
        let query = query.clone();
        let lines = receiver.filter(move |event| std::future::ready(selected(&event["object"], &query)));
        let frames = lines.map(|event| Ok(Frame::data(Bytes::from(format!("{event}\n")))));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }

    fn store(&mut self, kind: &Kind, key: Name, object: Option<Value>) -> Value {
        self.version += 1;
        let objects = self.objects.entry(kind.clone()).or_default();
        let before = objects.get(&key).cloned();
        let (event, object) = match (object, before) {
            (Some(mut object), before) => {
                object["metadata"]["resourceVersion"] = json!(self.version.to_string());
                if !key.0.is_empty() {
                    object["metadata"]["namespace"] = json!(key.0);
                }
                objects.insert(key.clone(), object.clone());
                (if before.is_some() { "MODIFIED" } else { "ADDED" }, object)
            }
            (None, Some(mut before)) => {
                objects.remove(&key);
                before["metadata"]["resourceVersion"] = json!(self.version.to_string());
                ("DELETED", before)
            }
            (None, None) => return Value::Null,
        };
        let line = json!({"type": event, "object": object});
        self.watches.retain(|(watched, namespace, sender)| {
            let concerns = watched == kind && namespace.as_ref().is_none_or(|wanted| *wanted == key.0);
            !concerns || sender.unbounded_send(line.clone()).is_ok()
        });
        object
    }
}

/// By metadata.name, and by labels' equality: more is not asked here.
fn selected(object: &Value, query: &BTreeMap<String, String>) -> bool {
    let named = query.get("fieldSelector").and_then(|s| s.strip_prefix("metadata.name="));
    let mut labels =
        query.get("labelSelector").into_iter().flat_map(|s| s.split(',')).filter_map(|s| s.split_once('='));
    named.is_none_or(|name| object["metadata"]["name"] == name)
        && labels.all(|(label, value)| object["metadata"]["labels"][label] == value)
}

fn parse(path: &str) -> Option<(Kind, Option<String>, Option<String>)> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, rest) = match segments.split_first()? {
        (&"api", rest) => (rest.first()?.to_string(), rest.get(1..)?),
        (&"apis", rest) => (format!("{}/{}", rest.first()?, rest.get(1)?), rest.get(2..)?),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
        rest => (None, rest),
    };
    let kind = (group, (*rest.first()?).to_owned());
    Some((kind, namespace, rest.get(1).map(|name| (*name).to_owned())))
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn json_reply(status: StatusCode, value: &Value) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *reply.status_mut() = status;
    reply
}

fn refusal(status: StatusCode, reason: &str) -> Reply {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": reason, "code": status.as_u16()});
    json_reply(status, &body)
}
