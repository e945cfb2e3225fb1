//! The program at the end: the echo contract, or what `given.answers` says.
//!
//! Invariant: a program that is down has nobody listening; one that listens answers everything (docs/echo.md).

use crate::arrival::{Arrival, Failure, last_hop, received};
use crate::wire::{HttpRequest, Payload};
use crate::world::World;
use fairlead_calls::expect::Response;
use fairlead_calls::given::duration;
use fairlead_calls::{Answer, Outcome};
use fairlead_model::mesh::Workload;
use std::time::Duration;

/// How the request came to the program's proxy, or to the program itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastHop {
    pub tls: bool,
    pub peer: Option<String>,
    /// The HTTP version towards the program may differ from the caller's.
    pub version: Option<&'static str>,
}

impl World {
    /// What the program of `workload` does with a payload on `port`.
    pub(crate) fn program(&self, workload: &Workload, port: u16, payload: &Payload, hop: &LastHop) -> Vec<Arrival> {
        let name = workload.key.to_string();
        if self.conditions.is_down(&workload.key) || !self.listens(workload, port) {
            return vec![Arrival::failed(Failure::Refused)];
        }
        let own_tls = matches!(payload, Payload::ProgramTls { .. });
        let mut outcome = Outcome {
            to: Some(name.clone()),
            tls: Some(last_hop(hop.tls || own_tls, hop.peer.is_some())),
            seen_as: hop.peer.clone(),
            ..Outcome::default()
        };
        let answer = self.conditions.answers.get(&name);
        if matches!(answer, Some(Answer::Word(word)) if word == "reset") {
            return vec![Arrival { outcome, ..Arrival::failed(Failure::Closed) }];
        }
        match payload {
            Payload::Http(request) => http(&mut outcome, request, port, hop, answer),
            Payload::ProgramTls { inside: Some(request), .. } => {
                http(&mut outcome, request, port, &LastHop { version: None, ..hop.clone() }, answer);
            }
            Payload::Bytes | Payload::ProgramTls { inside: None, .. } => {
                outcome.status = "ok".into();
                outcome.received = Some(received("", "", "", port, "tcp"));
            }
        }
        let delay = match answer {
            Some(Answer::Delay { delay }) => duration(delay).unwrap_or_default(),
            _ => Duration::ZERO,
        };
        vec![Arrival { share: 1.0, outcome, delay, ..Arrival::default() }]
    }

    /// Ports that its object declares, and those that services send to it; a Pod that tells of none is taken to listen everywhere.
    fn listens(&self, workload: &Workload, port: u16) -> bool {
        workload.ports.contains_key(&port)
            || match self.written.ports.get(&workload.key) {
                Some(declared) => declared.contains(&port),
                None => workload.ports.is_empty(),
            }
    }
}

fn http(outcome: &mut Outcome, request: &HttpRequest, port: u16, hop: &LastHop, answer: Option<&Answer>) {
    let version = hop.version.unwrap_or(request.version);
    let protocol = if request.grpc { "grpc".to_owned() } else { format!("http/{version}") };
    let mut seen = received(&request.method, &request.path, &request.authority, port, &protocol);
    for name in request.headers.keys() {
        let values: Vec<_> =
            request.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
        seen.headers.insert(name.to_string(), Some(values.join(", ")));
    }
    outcome.received = Some(seen);
    outcome.status = "200".into();
    outcome.grpc_status = request.grpc.then_some(0);
    let mut response = Response::default();
    let kind = if request.grpc { "application/grpc" } else { "application/json" };
    response.headers.insert("content-type".into(), Some(kind.into()));
    outcome.response = Some(response);
    match answer {
        Some(Answer::Status(status)) if request.grpc => {
            outcome.grpc_status = Some(if *status == 503 { 14 } else { 13 })
        }
        Some(Answer::Status(status)) => outcome.status = status.to_string(),
        Some(Answer::Word(word)) => {
            if let Some(code) = word.strip_prefix("grpc-").and_then(|c| c.parse().ok()) {
                outcome.grpc_status = request.grpc.then_some(code);
            } else if word.parse::<u16>().is_ok() {
                outcome.status.clone_from(word);
            }
        }
        Some(Answer::Delay { .. }) | None => {}
    }
}
