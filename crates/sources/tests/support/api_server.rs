//! An API server for tests: lists, pages, streams, watches, bookmarks, expires, denies, hangs, restarts, and is written to.
//!
//! Never checks objects; a patch takes the place of what it names at the top (as much of server-side apply as is needed here). It is on a loopback port that the system chose and keeps over a restart. Invariant: everything it says of
//! versions is what Kubernetes documents (410 for what is too old, `initial-events-end` after a streamed list).
#![allow(dead_code)]

mod lists;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use fairlead_resources::Kind;
use fairlead_resources::yaml::{Node, compose, documents};
use lists::objects;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

/// What it does with the wish for a streamed list.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Streaming {
    #[default]
    Served,
    /// As an API server without the feature does.
    Refused,
    /// As a server does that does not know the wish.
    Ignored,
}

#[derive(Default)]
pub struct Cluster {
    version: u64,
    /// Versions before this are forgotten.
    floor: u64,
    /// `api/v1/pods` and the like, to kind and apiVersion.
    resources: BTreeMap<String, (String, String)>,
    /// By resource, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    log: Vec<(u64, String, &'static str, Value)>,
    /// Verb and plural.
    pub denied: BTreeSet<(String, String)>,
    /// Plurals of which nothing is answered.
    pub hanging: BTreeSet<String>,
    /// Plurals that fail with this code.
    pub failing: BTreeMap<String, u16>,
    pub streaming: Streaming,
    /// Bearer tokens that are let in; all requests, while there is no list.
    pub tokens: Option<BTreeSet<String>>,
    /// What the next requests for a token are given; it is let in from then on.
    pub next_tokens: Vec<String>,
    pub unready: bool,
    pub frozen: bool,
    /// Paths and queries asked for.
    pub asked: Vec<String>,
}

#[derive(Clone)]
pub struct Handle {
    cluster: Arc<Mutex<Cluster>>,
    changed: Arc<watch::Sender<u64>>,
}

pub struct ApiServer {
    handle: Handle,
    listener: TcpListener,
    runtime: Option<Runtime>,
}

impl ApiServer {
    /// With every kind that is known, but for those of `without`.
    pub fn start(without: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cluster = Cluster { version: 1, ..Cluster::default() };
        let handle = Handle { cluster: Arc::new(Mutex::new(cluster)), changed: Arc::new(watch::Sender::new(0)) };
        for kind in Kind::ALL.iter().filter(|kind| !without.contains(&kind.as_str())) {
            handle.define(kind.as_str(), 0);
        }
        let leases = ("Lease".to_owned(), "coordination.k8s.io/v1".to_owned());
        handle.cluster().resources.insert("apis/coordination.k8s.io/v1/leases".into(), leases);
        let mut server = Self { handle, listener, runtime: None };
        server.up();
        server
    }

    pub fn address(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// All connections end, and nobody answers new ones; what it holds stays.
    pub fn down(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub fn up(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = self.listener.try_clone().unwrap();
        listener.set_nonblocking(true).unwrap();
        let router = Router::new().fallback(answer).with_state(self.handle.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        self.runtime = Some(runtime);
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.down();
    }
}

impl Handle {
    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Cluster)) {
        change(&mut self.cluster());
        self.wake();
    }

    /// Wakes those who wait for something to be otherwise.
    pub fn wake(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// A kind is served from now on, at the version at this place in its list (0 is the newest).
    pub fn define(&self, kind: &str, version: usize) {
        let (path, api_version) = resource(kind, version);
        self.change(|cluster| drop(cluster.resources.insert(path, (kind.to_owned(), api_version))));
    }

    /// A kind is not served any more, as when its CustomResourceDefinition is deleted.
    pub fn undefine(&self, kind: &str) {
        self.change(|cluster| {
            cluster.resources.retain(|_, (served, _)| served != kind);
            cluster.objects.retain(|_, object| object["kind"] != kind);
        });
    }

    /// Objects of YAML documents, made or replaced.
    pub fn apply(&self, yaml: &str) {
        for document in documents(yaml) {
            let node: Node = compose(document).unwrap();
            self.put(serde_json::to_value(&node).unwrap());
        }
    }

    pub fn put(&self, mut object: Value) {
        self.change(|cluster| {
            let kind = object["kind"].as_str().unwrap().to_owned();
            let (path, (_, api_version)) = cluster
                .resources
                .iter()
                .find(|(_, (served, _))| *served == kind)
                .map(|(path, served)| (path.clone(), served.clone()))
                .unwrap_or_else(|| panic!("{kind} is not served"));
            object["apiVersion"] = json!(api_version);
            cluster.version += 1;
            object["metadata"]["resourceVersion"] = json!(cluster.version.to_string());
            object["metadata"]["managedFields"] = json!([{"manager": "test", "fieldsV1": {"f:spec": {}}}]);
            let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
            let key = (path.clone(), text("namespace"), text("name"));
            let event = if cluster.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
            cluster.objects.insert(key, object.clone());
            cluster.log.push((cluster.version, path, event, object));
        });
    }

    /// `Kind/namespace/name`
    pub fn delete(&self, key: &str) {
        let [kind, namespace, name] = key.split('/').collect::<Vec<_>>()[..] else { panic!("{key}") };
        self.change(|cluster| {
            cluster.version += 1;
            let (path, _) = cluster.resources.iter().find(|(_, (served, _))| served == kind).unwrap();
            let path = path.clone();
            let key = (path.clone(), namespace.to_owned(), name.to_owned());
            let mut object = cluster.objects.remove(&key).unwrap_or_else(|| panic!("no {key:?}"));
            object["metadata"]["resourceVersion"] = json!(cluster.version.to_string());
            cluster.log.push((cluster.version, path, "DELETED", object));
        });
    }

    /// Objects that go without anybody being told, as while nobody watches and history is compacted.
    pub fn lose(&self, key: &str) {
        self.delete(key);
        self.change(|cluster| drop(cluster.log.pop()));
        self.expire();
    }

    /// Everything until now is too old to go on from.
    pub fn expire(&self) {
        self.change(|cluster| {
            cluster.version += 1;
            cluster.floor = cluster.version;
            cluster.log.clear();
        });
    }
}

/// The path and apiVersion of a kind.
fn resource(kind: &str, version: usize) -> (String, String) {
    let kind = Kind::ALL.iter().find(|k| k.as_str() == kind).unwrap_or_else(|| panic!("{kind}?"));
    let version = kind.versions()[version];
    let lower = kind.as_str().to_lowercase();
    let plural = match lower.strip_suffix('y') {
        Some(stem) if lower != "gateway" => format!("{stem}ies"),
        _ if lower.ends_with('h') => format!("{lower}es"),
        _ => format!("{lower}s"),
    };
    match kind.group() {
        "" => (format!("api/{version}/{plural}"), version.to_owned()),
        group => (format!("apis/{group}/{version}/{plural}"), format!("{group}/{version}")),
    }
}

async fn answer(State(handle): State<Handle>, request: Request) -> Response {
    let (path, query) = (request.uri().path().trim_matches('/').to_owned(), request.uri().query().unwrap_or_default());
    handle.cluster().asked.push(format!("{path}?{query}"));
    let query: BTreeMap<String, String> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.replace("%3D", "=").replace("%2F", "/")))
        .collect();
    let parts: Vec<&str> = path.split('/').collect();
    let plural = |cluster: &Cluster| parts.iter().any(|part| cluster.hanging.contains(*part));
    let mut changed = handle.changed.subscribe();
    while {
        let cluster = handle.cluster();
        cluster.frozen || plural(&cluster)
    } {
        changed.changed().await.unwrap();
    }
    let bearer = request.headers().get("authorization").and_then(|h| h.to_str().ok()?.strip_prefix("Bearer "));
    if let Some(tokens) = &handle.cluster().tokens
        && !bearer.is_some_and(|bearer| tokens.contains(bearer))
    {
        return failure(401, "Unauthorized", "Unauthorized");
    }
    let method = request.method().to_string();
    if let ("POST", [.., "serviceaccounts", _, "token"]) = (method.as_str(), parts.as_slice()) {
        return issue(&mut handle.cluster());
    }
    if method != "GET" {
        let body = axum::body::to_bytes(request.into_body(), 1 << 22).await.unwrap();
        return write(&handle, &method, &parts, serde_json::from_slice(&body).unwrap_or_default());
    }
    match parts.as_slice() {
        ["readyz"] if handle.cluster().unready => {
            failure(500, "InternalError", "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed")
        }
        ["readyz"] => "ok".into_response(),
        ["apis"] => groups(&handle.cluster()),
        ["apis", group, version] => resources(&handle.cluster(), &format!("{group}/{version}")),
        ["api", _, "namespaces"] => objects(&handle, &path, None, None, &query).await,
        [root @ .., "namespaces", namespace, plural] => {
            objects(&handle, &format!("{}/{plural}", root.join("/")), Some(namespace), None, &query).await
        }
        [root @ .., "namespaces", namespace, plural, name] => {
            objects(&handle, &format!("{}/{plural}", root.join("/")), Some(namespace), Some(name), &query).await
        }
        _ => objects(&handle, &path, None, None, &query).await,
    }
}

fn failure(code: u16, reason: &str, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response()
}

/// A token of a service account.
fn issue(cluster: &mut Cluster) -> Response {
    if cluster.next_tokens.is_empty() {
        return failure(403, "Forbidden", "no token is to be had");
    }
    let token = cluster.next_tokens.remove(0);
    if let Some(tokens) = &mut cluster.tokens {
        tokens.insert(token.clone());
    }
    let status = json!({"token": token, "expirationTimestamp": "2100-01-01T00:00:00Z"});
    let answer = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
        "spec": {"audiences": []}, "status": status});
    (StatusCode::CREATED, axum::Json(answer)).into_response()
}

fn groups(cluster: &Cluster) -> Response {
    let mut groups: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (_, api_version) in cluster.resources.values() {
        if let Some((group, _)) = api_version.split_once('/') {
            groups.entry(group).or_default().insert(api_version);
        }
    }
    let version = |name: &&str| json!({"groupVersion": name, "version": name.split_once('/').unwrap().1});
    let groups: Vec<Value> = groups
        .into_iter()
        .map(|(name, versions)| json!({"name": name, "versions": versions.iter().map(version).collect::<Vec<_>>()}))
        .collect();
    axum::Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})).into_response()
}

fn resources(cluster: &Cluster, api_version: &str) -> Response {
    let of = cluster.resources.iter().filter(|(_, (_, served))| served == api_version);
    let resources: Vec<Value> = of
        .map(|(path, (kind, _))| {
            let name = path.rsplit('/').next().unwrap();
            json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["list", "watch"]})
        })
        .collect();
    if resources.is_empty() {
        return failure(404, "NotFound", "the server could not find the requested resource");
    }
    axum::Json(json!({"kind": "APIResourceList", "groupVersion": api_version, "resources": resources})).into_response()
}

/// Creates, replaces, patches or deletes one object.
fn write(handle: &Handle, method: &str, parts: &[&str], mut body: Value) -> Response {
    let (root, namespace, plural, name) = match parts {
        [root @ .., "namespaces", namespace, plural, name] => (root, *namespace, *plural, (*name).to_owned()),
        [root @ .., "namespaces", namespace, plural] => {
            (root, *namespace, *plural, body["metadata"]["name"].as_str().unwrap_or_default().to_owned())
        }
        _ => return failure(403, "Forbidden", "only objects in namespaces are written here"),
    };
    let path = format!("{}/{plural}", root.join("/"));
    let Some((kind, _)) = handle.cluster().resources.get(&path).cloned() else {
        return failure(404, "NotFound", "the server could not find the requested resource");
    };
    let key = (path, namespace.to_owned(), name.clone());
    let held = handle.cluster().objects.get(&key).cloned();
    let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    body["kind"] = json!(kind);
    body["metadata"]["namespace"] = json!(namespace);
    body["metadata"]["name"] = json!(name);
    match (method, held) {
        ("POST", Some(_)) => return failure(409, "AlreadyExists", "it already exists"),
        ("PUT" | "DELETE", None) => return failure(404, "NotFound", "not found"),
        ("PUT", Some(held)) if version(&body).is_some_and(|v| Some(v) != version(&held)) => {
            return failure(409, "Conflict", "the object has been modified");
        }
        ("DELETE", Some(held)) => {
            handle.delete(&format!("{kind}/{namespace}/{name}"));
            return axum::Json(held).into_response();
        }
        ("PATCH", Some(mut held)) => {
            for (key, value) in body.as_object().unwrap().iter().filter(|(key, _)| *key != "metadata") {
                held[key] = value.clone();
            }
            handle.put(held);
        }
        _ => handle.put(body),
    }
    axum::Json(handle.cluster().objects[&key].clone()).into_response()
}
