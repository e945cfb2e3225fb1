//! What the clients of a running lab say to it, and what it says back: JSON, one document a line.
//!
//! A client sends one request; the lab answers with any number of `progress` lines and then one `done` or `error`. Invariant: the
//! connection ends with the answer.

use std::io;
use std::path::Path;
use std::time::Duration;

use fairlead_calls::Answer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// A verb.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Request {
    /// Kill processes; they stay away until healed.
    Kill {
        /// CLUSTER, CLUSTER/control, CLUSTER/east-west[@ADDRESS] or a workload (its program).
        target: String,
        /// Only this process (`program`, `proxy`).
        process: Option<String>,
    },
    /// Restart processes.
    Restart {
        /// As of `kill`.
        target: String,
    },
    /// Cut the link between two: connections are reset.
    Cut {
        /// One side.
        a: String,
        /// The other.
        b: String,
    },
    /// Lose the packets of one, or between two.
    Blackhole {
        /// Whose.
        target: String,
        /// Only those between the two.
        other: Option<String>,
    },
    /// Make whole: one target, or everything.
    Heal {
        /// None: everything.
        target: Option<String>,
    },
    /// The program is not ready, whatever it answers.
    Unhealthy {
        /// A workload or service.
        target: String,
    },
    /// No new requests.
    Drain {
        /// A cluster, workload or service.
        target: String,
        /// End the draining.
        off: bool,
    },
    /// Control planes do not hear from this one.
    Freeze {
        /// A cluster.
        target: String,
    },
    /// Revoke a cluster.
    Detach {
        /// The cluster.
        target: String,
        /// The cluster whose control plane is asked.
        by: Option<String>,
        /// Only there.
        here: bool,
    },
    /// How programs answer; None: as always.
    Answers {
        /// A workload or service.
        target: String,
        /// 503, grpc-14, reset, a delay.
        answer: Option<Answer>,
    },
    /// What runs, what is broken.
    Status,
    /// A page of a proxy's admin interface.
    Admin {
        /// A workload.
        target: String,
        /// `/stats`, `/clusters`, ...
        path: String,
    },
    /// One call.
    Call(CallRequest),
    /// Load.
    Load {
        /// What is sent.
        #[serde(flatten)]
        call: CallRequest,
        /// Requests a second.
        rate: f64,
        /// Seconds.
        seconds: f64,
    },
    /// Streams that stay open.
    Hold {
        /// What is opened.
        #[serde(flatten)]
        call: CallRequest,
        /// At once.
        streams: usize,
        /// Seconds between two messages of a stream.
        every: f64,
        /// Seconds.
        seconds: f64,
    },
    /// The mesh's call tables.
    Test {
        /// Only calls whose `why` contains this.
        only: Option<String>,
    },
    /// End the lab.
    Down,
}

/// A call that is not in a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CallRequest {
    /// `cluster/namespace/workload` or `outside`.
    pub from: String,
    /// `METHOD URL` or URL.
    pub request: String,
    /// Request headers.
    #[serde(default)]
    pub headers: std::collections::BTreeMap<String, String>,
    /// Request body.
    #[serde(default)]
    pub body: Option<String>,
    /// HTTP version.
    #[serde(default)]
    pub http: Option<String>,
}

/// A line from the lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// What happens meanwhile.
    Progress(String),
    /// Done; what came of it.
    Done(Value),
    /// It could not be done.
    Error(Refusal),
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
#[error("{reason}")]
pub struct Refusal {
    /// For people.
    pub reason: String,
    /// The question was wrong (a name that nothing has, a value out of range), not the state of the mesh.
    pub wrong_words: bool,
}

/// The longest line; results of load over an hour are some megabytes.
const LONGEST: u64 = 256 << 20;

/// After so long without a word the user is told that nothing hangs.
const SILENCE: Duration = Duration::from_secs(2);

/// Sends a request to the lab at `socket`. `progress` is told its lines. The inner error is the lab's own answer.
pub async fn ask(
    socket: &Path,
    request: &Request,
    mut progress: impl FnMut(&str),
) -> io::Result<Result<Value, Refusal>> {
    let mut stream = UnixStream::connect(socket).await?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut lines = BufReader::new(tokio::io::AsyncReadExt::take(stream, LONGEST)).lines();
    let takes_its_time = matches!(request, Request::Load { .. } | Request::Hold { .. } | Request::Test { .. });
    if !takes_its_time && tokio::time::timeout(SILENCE, lines.get_mut().fill_buf()).await.is_err() {
        progress("waiting for the mesh, which may still be starting");
    }
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            Reply::Progress(text) => progress(&text),
            Reply::Done(value) => return Ok(Ok(value)),
            Reply::Error(text) => return Ok(Err(text)),
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the lab ended before it answered"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_readable_lines() {
        let line = serde_json::to_string(&Request::Cut { a: "east".into(), b: "west".into() }).unwrap();
        assert_eq!(line, r#"{"verb":"cut","a":"east","b":"west"}"#);
        let load: Request = serde_json::from_str(
            r#"{"verb":"load","from":"east/shop/frontend","request":"GET http://a/","rate":200,"seconds":60}"#,
        )
        .unwrap();
        assert!(
            matches!(&load, Request::Load { call, rate, .. } if call.from == "east/shop/frontend" && *rate == 200.0)
        );
        assert_eq!(serde_json::from_str::<Request>(&serde_json::to_string(&load).unwrap()).unwrap(), load);
        assert!(serde_json::from_str::<Request>(r#"{"verb":"explode"}"#).is_err());
        let answers = Request::Answers { target: "a".into(), answer: Some(Answer::Delay { delay: "2s".into() }) };
        assert_eq!(serde_json::from_str::<Request>(&serde_json::to_string(&answers).unwrap()).unwrap(), answers);
    }
}
