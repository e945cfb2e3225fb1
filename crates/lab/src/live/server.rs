//! The lab's own socket: takes verbs from `fairlead lab` while the mesh runs.
//!
//! Invariant: a verb that is refused changes nothing and says which name or value was wrong; tests and changes of conditions run one
//! at a time, load and single calls beside them.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use fairlead_calls::{Call, Expect, Given, Request as Asked, RequestKind, TableCall};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Notify, mpsc};

use super::admin;
use super::caller::Connections;
use super::conditions::Needs;
use super::hold;
use super::lab::{Lab, LabError};
use super::layout::Layout;
use super::load;
use super::protocol::{CallRequest, Refusal, Reply, Request};
use super::start::Progress;
use super::verbs;
use super::{prepare, runner};
use crate::process::State;

/// A request longer than this is refused.
const LONGEST: u64 = 1 << 20;

/// Turns what calls got into what `fairlead test` prints: only the binary knows how to read tables and compare.
pub type Judge = Arc<dyn Fn(Vec<runner::Ran>) -> Result<Value, String> + Send + Sync>;
/// Reads the mesh's call tables anew: all calls, or those that `--only` leaves.
pub type Tables = Arc<dyn Fn(Option<&str>) -> Result<Vec<TableCall>, String> + Send + Sync>;

/// Serves a running lab.
#[derive(Clone)]
pub struct Server {
    lab: Lab,
    tables: Tables,
    judge: Judge,
    /// Told when someone asks for the end.
    end: Arc<Notify>,
    one_at_a_time: Arc<Mutex<()>>,
}

/// Binds the lab's socket. Early: who asks while the mesh starts waits for it instead of being turned away.
///
/// # Errors
/// The socket cannot be bound.
pub fn bind(layout: &Layout) -> io::Result<UnixListener> {
    let path = layout.socket();
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl Server {
    /// A server of a lab that runs.
    pub fn new(lab: Lab, tables: Tables, judge: Judge) -> Self {
        Self { lab, tables, judge, end: Arc::default(), one_at_a_time: Arc::default() }
    }

    /// Resolves when `down` was asked.
    pub async fn ended(&self) {
        self.end.notified().await;
    }

    /// Serves until dropped.
    ///
    /// # Errors
    /// The socket fails.
    pub async fn serve(self, listener: UnixListener) -> io::Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            let server = self.clone();
            tokio::spawn(async move {
                if let Err(e) = server.connection(stream).await {
                    tracing::debug!("a client of the lab: {e}");
                }
            });
        }
    }

    async fn connection(&self, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut read = BufReader::new(read.take(LONGEST));
        read.read_line(&mut line).await?;
        let request: Result<Request, serde_json::Error> = serde_json::from_str(&line);
        let measures = matches!(request, Ok(Request::Load { .. } | Request::Hold { .. }));
        let (sender, mut replies) = mpsc::unbounded_channel();
        let server = self.clone();
        let work = async move {
            let done = match request {
                Ok(request) => {
                    let told = sender.clone();
                    let progress: Progress = Arc::new(move |text| drop(told.send(Reply::Progress(text))));
                    server.answer(request, progress).await
                }
                Err(e) => Err(Refusal { reason: format!("no request: {e}"), wrong_words: true }),
            };
            let _ = sender.send(done.map_or_else(Reply::Error, Reply::Done));
        };
        let work = tokio::spawn(work);
        // A change goes on when the client has gone: half of it would be worse. A measurement is nobody's then.
        let gone = async {
            match measures {
                true => drop(read.read(&mut [0]).await),
                false => std::future::pending().await,
            }
        };
        tokio::pin!(gone);
        loop {
            let reply = tokio::select! {
                reply = replies.recv() => reply,
                () = &mut gone => {
                    work.abort();
                    return Ok(());
                }
            };
            let Some(reply) = reply else { break };
            let mut line = serde_json::to_vec(&reply)?;
            line.push(b'\n');
            write.write_all(&line).await?;
            if !matches!(reply, Reply::Progress(_)) {
                break;
            }
        }
        write.shutdown().await
    }

    async fn answer(&self, request: Request, progress: Progress) -> Result<Value, Refusal> {
        let words = |e: LabError| Refusal { wrong_words: e.is_wrong_words(), reason: e.to_string() };
        // Only what is asked can be wrong with a call before it is made.
        let asked = |reason: String| Refusal { reason, wrong_words: true };
        let lab = &self.lab;
        match request {
            Request::Status => Ok(status(lab).await),
            Request::Admin { target, path } => self.admin(&target, &path).await.map_err(words),
            Request::Call(call) => self.call(&call).await.map_err(asked),
            Request::Load { call, rate, seconds } => self.load(&call, rate, seconds).await.map_err(asked),
            Request::Hold { call, streams, every, seconds } => {
                self.hold(&call, streams, every, seconds).await.map_err(asked)
            }
            Request::Test { only } => self.test(only.as_deref(), progress).await.map_err(asked),
            Request::Down => {
                self.end.notify_one();
                Ok(json!({"down": true}))
            }
            change => {
                let _one = self.one_at_a_time.lock().await;
                let done = verbs::change(lab, change).await.map_err(words)?;
                Ok(json!({"done": done, "broken": lab.broken().await}))
            }
        }
    }

    /// All calls of the tables, or those that `only` leaves.
    pub async fn test(&self, only: Option<&str>, progress: Progress) -> Result<Value, String> {
        let _one = self.one_at_a_time.lock().await;
        let chosen = (self.tables)(only)?;
        let ran = runner::run(&self.lab, &chosen, progress).await.map_err(|e| e.to_string())?;
        (self.judge)(ran)
    }

    async fn call(&self, asked: &CallRequest) -> Result<Value, String> {
        let call = table_call(asked)?;
        let caller = one_caller(&self.lab, &asked.from)?;
        let (plan, _, _) = prepare::plan(&self.lab, &caller, &call)?;
        let seen = plan.call(&mut Connections::new()).await;
        Ok(json!({
            "from": caller,
            "status": seen.status.parse::<u16>().map_or_else(|_| json!(seen.status), |n| json!(n)),
            "grpc-status": seen.grpc_status,
            "headers": seen.headers,
            "body": serde_json::from_slice::<Value>(&seen.body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&seen.body))),
            "resolves": seen.resolves,
            "request-id": seen.request_id,
            "milliseconds": seen.took.as_secs_f64() * 1000.0,
            "reason": seen.reason,
        }))
    }

    async fn admin(&self, target: &str, path: &str) -> Result<Value, LabError> {
        if !path.starts_with('/') {
            return Err(LabError::Unknown(format!("{path}: a path begins with /, for example /stats")));
        }
        let found = self.lab.able(target, Needs::Proxy)?;
        let [workload] = Vec::from_iter(found).try_into().map_err(|all: Vec<String>| {
            LabError::Unknown(format!("{target} is {} workloads: {}", all.len(), all.join(", ")))
        })?;
        let page = admin::proxy(self.lab.handle(), &workload, "GET", path).await?;
        Ok(json!({"workload": workload, "page": String::from_utf8_lossy(&page)}))
    }

    async fn load(&self, asked: &CallRequest, rate: f64, seconds: f64) -> Result<Value, String> {
        if !(rate > 0.0 && rate <= 20_000.0) {
            return Err(format!("--rate {rate}: between 0 and 20000 requests a second"));
        }
        let time = Duration::try_from_secs_f64(seconds).map_err(|_| format!("--for {seconds}: no time"))?;
        let caller = one_caller(&self.lab, &asked.from)?;
        let (plan, _, _) = prepare::plan(&self.lab, &caller, &table_call(asked)?)?;
        let report = load::run(&load::Load { plan, rate, time }).await;
        serde_json::to_value(&report).map_err(|e| e.to_string())
    }

    async fn hold(&self, asked: &CallRequest, streams: usize, every: f64, seconds: f64) -> Result<Value, String> {
        if !(1..=1000).contains(&streams) {
            return Err(format!("--streams {streams}: 1 to 1000"));
        }
        let positive = |name: &str, value: f64| match Duration::try_from_secs_f64(value) {
            Ok(time) if !time.is_zero() => Ok(time),
            _ => Err(format!("--{name} {value}: no time")),
        };
        let (every, time) = (positive("every", every)?, positive("for", seconds)?);
        let caller = one_caller(&self.lab, &asked.from)?;
        let (plan, _, _) = prepare::plan(&self.lab, &caller, &table_call(asked)?)?;
        if !matches!(plan.request.kind, RequestKind::Tcp | RequestKind::Grpc) {
            return Err(format!("{}: only tcp and grpc requests are streams that stay open", asked.request));
        }
        let held = hold::run(&hold::Hold { plan, streams, every, time }).await;
        serde_json::to_value(&held).map_err(|e| e.to_string())
    }
}

fn one_caller(lab: &Lab, name: &str) -> Result<String, String> {
    let found = lab.names().callers(name)?;
    found.into_iter().next().ok_or_else(|| format!("{name} is no workload"))
}

fn table_call(asked: &CallRequest) -> Result<TableCall, String> {
    let request = Asked::parse(&asked.request)?;
    let client = asked
        .http
        .as_ref()
        .map(|http| fairlead_calls::Client { http: Some(http.clone()), ..fairlead_calls::Client::default() });
    let call = Call {
        why: String::new(),
        from: asked.from.clone(),
        request: asked.request.clone(),
        at: None,
        headers: asked.headers.clone(),
        body: asked.body.clone(),
        client,
        given: Given::default(),
        times: None,
        tolerance: None,
        expect: Expect::default(),
    };
    if let Some(field) = call.undecidable_field() {
        return Err(format!("{field} is not sent by this version"));
    }
    Ok(TableCall { index: 0, file: String::new(), line: 0, call, request })
}

async fn status(lab: &Lab) -> Value {
    let process = |p: crate::process::Status| {
        let state = match p.state {
            State::Starting => "starting".to_owned(),
            State::Ready => "ready".to_owned(),
            State::Stopped => "stopped".to_owned(),
            State::Ended { how, .. } => format!("ended: {how}"),
        };
        json!({"owner": p.owner, "name": p.name, "pid": p.pid, "state": state, "starts": p.starts, "log": p.log})
    };
    let sockets: serde_json::Map<String, Value> =
        lab.spec().clusters.keys().map(|c| (c.clone(), json!(lab.layout().admin(c)))).collect();
    json!({
        "mesh": lab.spec().name,
        "directory": lab.spec().directory,
        "state": lab.layout().root(),
        "broken": lab.broken().await,
        "sockets": sockets,
        "addresses": lab.addresses(),
        "processes": lab.handle().processes().into_iter().map(process).collect::<Vec<_>>(),
    })
}
