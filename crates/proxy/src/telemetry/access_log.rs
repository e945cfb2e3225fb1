//! Access logs: formats per listener, lines buffered per worker, one writer per file.
//!
//! Writing never blocks a request: full buffers go to a thread of their own. Invariant: lines are never cut or mixed.

use super::Telemetry;
use super::format::{Captured, ENVOY_DEFAULT, Format};
use super::record::RequestRecord;
use super::tcp_record::TcpRecord;
use crate::options::AccessLogTarget;
use fairlead_engine::listener::AccessLog;
use http::HeaderMap;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

/// Bytes of a worker's buffer that make it go out at once; else it goes out with the housekeeping tick.
const FLUSH_AT: usize = 16 * 1024;
/// Buffers waiting for a slow file; more are dropped rather than held in memory.
const QUEUE: usize = 256;

/// Where all workers' lines go.
#[derive(Clone)]
pub struct LogSink {
    target: AccessLogTarget,
    writers: Arc<Mutex<HashMap<PathBuf, SyncSender<Vec<u8>>>>>,
}

/// The logs of one listener on one worker.
pub struct Logger {
    logs: Vec<Log>,
}

struct Log {
    format: Format,
    buffer: Rc<LogBuffer>,
}

/// Lines of one file not yet handed over.
pub struct LogBuffer {
    lines: RefCell<Vec<u8>>,
    writer: SyncSender<Vec<u8>>,
}

/// A worker's loggers by configuration.
#[derive(Default)]
pub struct LogPlan {
    loggers: RefCell<HashMap<Vec<AccessLogKey>, Option<Rc<Logger>>>>,
    buffers: RefCell<HashMap<PathBuf, Rc<LogBuffer>>>,
}

type AccessLogKey = (Arc<str>, Option<Arc<str>>);

impl LogSink {
    pub fn new(target: AccessLogTarget) -> Self {
        Self { target, writers: Arc::default() }
    }

    fn path_of(&self, log: &AccessLog) -> Option<PathBuf> {
        match &self.target {
            AccessLogTarget::Off => None,
            AccessLogTarget::File(path) => Some(path.clone()),
            AccessLogTarget::AsConfigured => Some(PathBuf::from(&*log.path)),
        }
    }

    fn writer(&self, path: &Path) -> SyncSender<Vec<u8>> {
        let mut writers = self.writers.lock();
        writers.entry(path.to_owned()).or_insert_with(|| spawn_writer(path.to_owned())).clone()
    }
}

impl LogPlan {
    /// The logger of these configurations; `None` when nothing is logged.
    pub fn logger(&self, sink: &LogSink, logs: &[AccessLog]) -> Option<Rc<Logger>> {
        if logs.is_empty() || sink.target == AccessLogTarget::Off {
            return None;
        }
        let key: Vec<AccessLogKey> = logs.iter().map(|log| (log.path.clone(), log.format.clone())).collect();
        if let Some(known) = self.loggers.borrow().get(&key) {
            return known.clone();
        }
        let build = |log: &AccessLog| {
            let path = sink.path_of(log)?;
            let format = Format::parse(log.format.as_deref().unwrap_or(ENVOY_DEFAULT));
            Some(Log { format, buffer: self.buffer(sink, &path) })
        };
        let built: Vec<Log> = logs.iter().filter_map(build).collect();
        let logger = (!built.is_empty()).then(|| Rc::new(Logger { logs: built }));
        self.loggers.borrow_mut().insert(key, logger.clone());
        logger
    }

    /// Hands everything buffered to the writers.
    pub fn flush(&self) {
        for buffer in self.buffers.borrow().values() {
            buffer.flush();
        }
    }

    fn buffer(&self, sink: &LogSink, path: &Path) -> Rc<LogBuffer> {
        let mut buffers = self.buffers.borrow_mut();
        let make = || Rc::new(LogBuffer { lines: RefCell::default(), writer: sink.writer(path) });
        buffers.entry(path.to_owned()).or_insert_with(make).clone()
    }
}

impl Logger {
    /// Keeps what the formats show of a request.
    pub fn capture_request(
        &self,
        method: &str,
        path: &str,
        authority: &str,
        scheme: &str,
        headers: &HeaderMap,
    ) -> Vec<Captured> {
        self.logs.iter().map(|log| log.format.capture_request(method, path, authority, scheme, headers)).collect()
    }

    /// Keeps what the formats show of a response.
    pub fn capture_response(&self, headers: &HeaderMap) -> Vec<Captured> {
        self.logs.iter().map(|log| log.format.capture_response(headers)).collect()
    }

    pub(super) fn write_http(&self, _telemetry: &Telemetry, record: &RequestRecord) {
        let nothing = Captured::default();
        for (i, log) in self.logs.iter().enumerate() {
            let request = record.captured_request.get(i).unwrap_or(&nothing);
            let response = record.captured_response.get(i).unwrap_or(&nothing);
            log.buffer.line(|out| log.format.write(&Story::Http(record), request, response, out));
        }
    }

    pub(super) fn write_tcp(&self, _telemetry: &Telemetry, record: &TcpRecord) {
        let nothing = Captured::default();
        for log in &self.logs {
            log.buffer.line(|out| log.format.write(&Story::Tcp(record), &nothing, &nothing, out));
        }
    }
}

/// What a line is about.
pub enum Story<'a> {
    Http(&'a RequestRecord),
    Tcp(&'a TcpRecord),
}

impl LogBuffer {
    fn line(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut lines = self.lines.borrow_mut();
        write(&mut lines);
        if lines.last() != Some(&b'\n') {
            lines.push(b'\n');
        }
        if lines.len() >= FLUSH_AT {
            drop(lines);
            self.flush();
        }
    }

    fn flush(&self) {
        let lines = std::mem::take(&mut *self.lines.borrow_mut());
        if !lines.is_empty() && self.writer.try_send(lines).is_err() {
            tracing::warn!("access log lines dropped: the file is too slow");
        }
    }
}

fn spawn_writer(path: PathBuf) -> SyncSender<Vec<u8>> {
    let (sender, receiver) = sync_channel::<Vec<u8>>(QUEUE);
    let spawned = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
        // Not opened for `/dev/stdout`: in a pipe or socket the device file cannot be opened again.
        let mut file: Box<dyn Write> = match path.to_str() {
            Some("/dev/stdout") => Box::new(std::io::stdout()),
            Some("/dev/stderr") => Box::new(std::io::stderr()),
            _ => match OpenOptions::new().create(true).append(true).open(&path) {
                Ok(file) => Box::new(file),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "access log cannot be opened");
                    return;
                }
            },
        };
        while let Ok(lines) = receiver.recv() {
            if let Err(error) = file.write_all(&lines).and_then(|()| file.flush()) {
                tracing::warn!(path = %path.display(), %error, "access log not written");
            }
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "access log thread not started");
    }
    sender
}
