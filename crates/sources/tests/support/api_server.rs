//! An API server for tests: lists, pages, streams, watches, bookmarks, expires, denies, hangs, restarts, and is written to.
//!
//! Never checks objects; a patch takes the place of what it names at the top (as much of server-side apply as is needed here). It is on a loopback port that the system chose and keeps over a restart. Invariant: everything it says of
//! versions is what Kubernetes documents (410 for what is too old, `initial-events-end` after a streamed list).
#![allow(dead_code)]

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use fairlead_resources::Kind;
use fairlead_resources::yaml::{Node, compose, documents};
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
    let method = request.method().to_string();
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

/// Which objects a request is about.
#[derive(Clone)]
struct Wanted {
    path: String,
    namespace: Option<String>,
    name: Option<String>,
    /// `key=value`
    labels: Vec<String>,
}

impl Wanted {
    fn has(&self, object: &Value) -> bool {
        let is = |wanted: &Option<String>, key: &str| {
            wanted.as_ref().is_none_or(|wanted| object["metadata"][key].as_str() == Some(wanted))
        };
        let labelled = self.labels.iter().all(|label| {
            let (key, value) = label.split_once('=').unwrap();
            object["metadata"]["labels"][key] == value
        });
        labelled && is(&self.namespace, "namespace") && is(&self.name, "name")
    }
}

async fn objects(
    handle: &Handle,
    path: &str,
    namespace: Option<&str>,
    name: Option<&str>,
    query: &BTreeMap<String, String>,
) -> Response {
    let plural = path.rsplit('/').next().unwrap().to_owned();
    let watches = query.get("watch").is_some_and(|v| v == "true");
    let verb = if watches {
        "watch"
    } else if name.is_some() {
        "get"
    } else {
        "list"
    };
    let field = query.get("fieldSelector").and_then(|f| f.strip_prefix("metadata.name=")).map(str::to_owned);
    let wanted = Wanted {
        path: path.to_owned(),
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned).or(field),
        labels: query.get("labelSelector").map(|l| l.split("%2C").map(str::to_owned).collect()).unwrap_or_default(),
    };
    let streams = query.get("sendInitialEvents").is_some_and(|v| v == "true");
    {
        let cluster = handle.cluster();
        if cluster.denied.contains(&(verb.to_owned(), plural.clone())) {
            let message = format!("{plural} is forbidden: User \"test\" cannot {verb} resource \"{plural}\"");
            return failure(403, "Forbidden", &message);
        }
        if let Some(code) = cluster.failing.get(&plural) {
            return failure(*code, "InternalError", "conversion webhook failed");
        }
        if !cluster.resources.contains_key(path) {
            return failure(404, "NotFound", "the server could not find the requested resource");
        }
        if streams && cluster.streaming == Streaming::Refused {
            let message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList \
                           feature gate is enabled";
            return failure(422, "Invalid", message);
        }
        if verb == "get" {
            let found = cluster.objects.iter().find(|((at, ..), object)| at == path && wanted.has(object));
            return match found {
                Some((_, object)) => axum::Json(object.clone()).into_response(),
                None => failure(404, "NotFound", "not found"),
            };
        }
        if verb == "list" {
            return list(&cluster, &wanted, query);
        }
    }
    let from = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
    let (lines, stream) = mpsc::channel::<Result<String, std::io::Error>>(64);
    let seconds = query.get("timeoutSeconds").and_then(|v| v.parse().ok()).unwrap_or(60);
    tokio::spawn(follow(handle.clone(), wanted, streams, from, Duration::from_secs(seconds), lines));
    Response::new(Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(stream)))
}

fn list(cluster: &Cluster, wanted: &Wanted, query: &BTreeMap<String, String>) -> Response {
    let limit = query.get("limit").and_then(|v| v.parse().ok()).unwrap_or(usize::MAX);
    let (version, skip) = match query.get("continue").map(|token| token.split_once('-').unwrap()) {
        Some((version, skip)) => (version.parse::<u64>().unwrap(), skip.parse::<usize>().unwrap()),
        None => (cluster.version, 0),
    };
    if version < cluster.floor {
        return failure(410, "Expired", "the provided continue parameter is too old");
    }
    let all: Vec<&Value> =
        cluster.objects.iter().filter(|((at, ..), o)| *at == wanted.path && wanted.has(o)).map(|(_, o)| o).collect();
    let page: Vec<Value> = all
        .iter()
        .skip(skip)
        .take(limit)
        .map(|object| {
            // Items of a list do not say what they are.
            let mut object = (*object).clone();
            object.as_object_mut().unwrap().retain(|key, _| key != "kind" && key != "apiVersion");
            object
        })
        .collect();
    let end = skip + page.len();
    let more = if end < all.len() { format!("{version}-{end}") } else { String::new() };
    let metadata = json!({"resourceVersion": version.to_string(), "continue": more});
    axum::Json(json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": page})).into_response()
}

async fn follow(
    handle: Handle,
    wanted: Wanted,
    streams: bool,
    from: u64,
    life: Duration,
    lines: mpsc::Sender<Result<String, std::io::Error>>,
) {
    let end = tokio::time::Instant::now() + life;
    let mut changed = handle.changed.subscribe();
    let mut at = from;
    let mut first = Vec::new();
    if streams || from == 0 {
        let cluster = handle.cluster();
        let objects = cluster.objects.iter().filter(|((path, ..), o)| *path == wanted.path && wanted.has(o));
        first.extend(objects.map(|(_, o)| json!({"type": "ADDED", "object": o})));
        at = cluster.version;
        if cluster.streaming == Streaming::Served {
            let metadata =
                json!({"resourceVersion": at.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}});
            first.push(json!({"type": "BOOKMARK", "object": {"kind": "X", "apiVersion": "v1", "metadata": metadata}}));
        }
    }
    for line in first {
        if lines.send(Ok(format!("{line}\n"))).await.is_err() {
            return;
        }
    }
    loop {
        let (news, over) = {
            let cluster = handle.cluster();
            if cluster.frozen {
                (Vec::new(), false)
            } else if at < cluster.floor {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired",
                    "code": 410, "message": "too old resource version", "metadata": {}});
                (vec![json!({"type": "ERROR", "object": status})], true)
            } else {
                let of = cluster.log.iter().filter(|(v, path, _, o)| *v > at && *path == wanted.path && wanted.has(o));
                let mut news: Vec<Value> = of.map(|(_, _, kind, o)| json!({"type": kind, "object": o})).collect();
                if news.is_empty() && cluster.version > at {
                    let metadata = json!({"resourceVersion": cluster.version.to_string()});
                    let object = json!({"kind": "X", "apiVersion": "v1", "metadata": metadata});
                    news.push(json!({"type": "BOOKMARK", "object": object}));
                }
                at = cluster.version;
                (news, !cluster.resources.contains_key(&wanted.path))
            }
        };
        for line in news {
            if lines.send(Ok(format!("{line}\n"))).await.is_err() {
                return;
            }
        }
        if over {
            return;
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(end) => return,
            () = lines.closed() => return,
        }
    }
}
