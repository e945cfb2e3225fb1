//! Real control planes in one process: each on its own runtime, so that one can be killed with all its tasks and started again.
#![allow(dead_code)]

pub mod envoy;
pub mod proxy;

use fairlead_control::{ControlOptions, ControlTimings, KubernetesOptions, Listeners, Source};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Nothing here takes long; a machine under load may.
pub const SOON: Duration = Duration::from_secs(30);

/// Of an API server, with one context, `only`.
pub fn kubeconfig(address: &str, user: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "only",
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "only", "context": {"cluster": "c", "user": "u"}}],
    })
}

/// A mesh directory and the state of its control planes.
pub struct Mesh {
    pub folder: tempfile::TempDir,
}

/// One cluster's control plane, running or not.
pub struct Plane {
    pub cluster: String,
    pub address: String,
    directory: PathBuf,
    admin: PathBuf,
    /// Folder of its state.
    state: PathBuf,
    listener: TcpListener,
    pub timings: ControlTimings,
    source: Source,
    /// A CA in Istio's layout.
    pub cacerts: Option<PathBuf>,
    /// What it says of its address; by default where it listens.
    advertise: Vec<String>,
    /// Where `/ready` and `/metrics` are.
    status: TcpListener,
    runtime: Option<Runtime>,
}

impl Mesh {
    pub fn new(mesh_yaml: &str) -> Self {
        // The first test of a process sets it; the others find it set.
        let _ = fairlead_runtime::logging::init(fairlead_runtime::logging::Format::Text, "error");
        let mesh = Self { folder: tempfile::tempdir().unwrap() };
        mesh.write("mesh.yaml", mesh_yaml);
        mesh
    }

    /// Writes a file as editors do: beside, then renamed.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let fresh = path.with_extension("tmp");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
    }

    /// For a control plane on the API server at that address, whose context is named `only`.
    pub fn on_api_server(&self, address: &str) -> KubernetesOptions {
        let file = self.folder.path().join("kubeconfig");
        std::fs::write(&file, kubeconfig(address, json!({"token": "secret"})).to_string()).unwrap();
        KubernetesOptions { namespace: "fairlead-system".into(), kubeconfig: Some(file), context: None, home: None }
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    pub fn start(&self, cluster: &str) -> Plane {
        self.start_with(cluster, ControlTimings::default())
    }

    pub fn start_with(&self, cluster: &str, timings: ControlTimings) -> Plane {
        let mut plane = self.plane(cluster, timings, Source::Directory(self.folder.path().to_owned()));
        plane.advertise = vec![plane.address.clone()];
        plane.start();
        plane
    }

    /// One that tells nobody where to dial.
    pub fn start_undiallable(&self, cluster: &str) -> Plane {
        let source = Source::Directory(self.folder.path().to_owned());
        let mut plane = self.plane(cluster, ControlTimings::default(), source);
        plane.start();
        plane
    }

    /// One that is not started yet.
    pub fn plane(&self, cluster: &str, timings: ControlTimings, source: Source) -> Plane {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Plane {
            cluster: cluster.into(),
            address: listener.local_addr().unwrap().to_string(),
            directory: self.folder.path().to_owned(),
            admin: self.folder.path().join(format!("{cluster}.sock")),
            state: self.folder.path().join(format!("state-{cluster}")),
            listener,
            timings,
            source,
            cacerts: None,
            advertise: Vec::new(),
            status: TcpListener::bind("127.0.0.1:0").unwrap(),
            runtime: None,
        }
    }
}

impl Plane {
    /// The same as a replica of its own: another pod of the same cluster.
    pub fn replica(mut self, name: &str) -> Self {
        self.admin = self.directory.join(format!("{name}.sock"));
        self.state = self.directory.join(format!("state-{name}"));
        self
    }

    /// Takes away what it has, as when its pod is gone.
    pub fn lose(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.state).unwrap();
    }

    /// Starts it on its address and state; waits until it is ready.
    pub fn start(&mut self) {
        self.launch();
        self.until("/ready", "ready", |ready| ready["ready"] == true);
    }

    /// Starts it without waiting.
    pub fn launch(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let cloned = |listener: &TcpListener| {
            let listener = listener.try_clone().unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        let (listener, status) = (cloned(&self.listener), cloned(&self.status));
        let options = ControlOptions {
            cluster: self.cluster.clone(),
            source: self.source.clone(),
            status: None,
            webhook: None,
            injection: None,
            listen: Vec::new(),
            advertise: self.advertise.clone(),
            admin: self.admin.clone(),
            state: self.state.clone(),
            cacerts: self.cacerts.clone(),
            certificate_lifetime: Duration::from_secs(3600),
            timings: self.timings,
        };
        runtime.spawn(async move {
            let proxies = vec![tokio::net::TcpListener::from_std(listener).unwrap()];
            let status = Some(tokio::net::TcpListener::from_std(status).unwrap());
            let listeners = Listeners { proxies, status, ..Listeners::default() };
            let served = fairlead_control::serve(options, listeners, std::future::pending()).await;
            panic!("the control plane ended: {served:?}");
        });
        self.runtime = Some(runtime);
    }

    /// Ends it at once, with all its connections. Its port stays taken and silent, as that of a frozen host.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }

    pub fn get(&self, path: &str) -> Value {
        self.ask("GET", path, None).unwrap_or(Value::Null)
    }

    pub fn post(&self, path: &str, body: Value) -> Value {
        self.ask("POST", path, Some(body)).unwrap()
    }

    /// Status and text of what kubelets and scrapers ask.
    pub fn status(&self, path: &str) -> (u16, String) {
        let mut stream = std::net::TcpStream::connect(self.status.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: status\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> std::io::Result<Value> {
        let mut stream = UnixStream::connect(&self.admin)?;
        stream.set_read_timeout(Some(SOON))?;
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no answer"))?;
        Ok(serde_json::from_str(body).unwrap_or(Value::String(body.to_owned())))
    }

    /// Asks until the answer is as wanted.
    pub fn until(&self, path: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.get(path);
            if wanted(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < SOON, "{}: {path} never became {what}: {answer:#}", self.cluster);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Joins the mesh of `other`.
    pub fn join(&self, other: &Plane) {
        let token = other.post("/token", json!({}))["token"].clone();
        let joined = self.post("/join", json!({"token": token}));
        assert_eq!(joined["joined"], other.cluster, "{joined}");
    }

    /// Rows of a listing whose field has a value.
    pub fn rows(&self, path: &str, field: &str, value: &str) -> Vec<Value> {
        rows(&self.get(path), field, value)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

pub fn rows(listing: &Value, field: &str, value: &str) -> Vec<Value> {
    listing.as_array().into_iter().flatten().filter(|row| row[field] == value).cloned().collect()
}

/// A Service on one port, its one workload, and whether it is exported (to whom).
pub fn service(name: &str, address: &str, export: Option<&str>) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}-1, namespace: shop}}\n\
         spec: {{address: {address}, labels: {{app: {name}}}, serviceAccount: {name}}}\n"
    );
    if let Some(audience) = export {
        let annotations = if audience.is_empty() {
            String::new()
        } else {
            format!(", annotations: {{fairlead.dev/export-to: {audience:?}}}")
        };
        text.push_str(&format!(
            "---\napiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\nmetadata: {{name: {name}, namespace: shop{annotations}}}\n"
        ));
    }
    text
}
