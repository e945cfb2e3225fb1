//! What the API server for tests answers to those who read: lists, whole or in pages, streams, watches.
//!
//! Invariant: a watch tells everything after the version it names, or 410.

use super::*;

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

pub async fn objects(
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
