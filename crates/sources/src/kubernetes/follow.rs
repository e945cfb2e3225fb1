//! One kind, listed and watched for as long as it is served: what its API says, as changes of a table.
//!
//! Never gives part of a list. Invariants: after any failure the watch goes on where it was, or a whole list follows; failures are
//! told with what was tried and why it failed, and tried again with growing pauses.

use super::convert::{Converter, Version};
use super::health::{Health, reason};
use super::kinds::{Place, Watched};
use super::received::Received;
use super::timings::Timings;
use fairlead_model::{ClusterId, ObjectKey};
use futures::{Stream, TryStreamExt as _};
use kube::api::ApiResource;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// What happened to one kind.
#[derive(Debug)]
pub enum Change {
    /// All objects there are.
    Listed(Vec<Version>),
    Applied(Version),
    Gone(ObjectKey),
    Failed(Failure),
}

/// A try that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `list` or `watch`, if that is what may not be done.
    pub denied: Option<&'static str>,
    pub why: String,
}

/// What following a kind needs.
#[derive(Clone)]
pub struct Follower {
    pub client: Client,
    pub cluster: ClusterId,
    /// The system namespace.
    pub namespace: String,
    pub watched: Watched,
    pub resource: ApiResource,
    pub timings: Timings,
    /// Whether versions are kept over restarts.
    pub keep: bool,
    pub health: watch::Receiver<Health>,
    pub changes: mpsc::Sender<(Watched, Change)>,
}

/// After so many failures in a row everything is listed anew, since a watch that stands again says nothing by itself.
const ANEW: u32 = 3;

/// How one stream ended.
enum Ended {
    /// Nobody listens.
    Unwanted,
    /// It is to be begun anew, after a pause if it failed.
    Again { pause: bool },
}

impl Follower {
    /// Follows until nobody listens.
    pub async fn run(mut self) {
        let mut converter = Converter::new(self.cluster.clone(), self.watched.kind);
        let mut state = Tries { streaming: true, failed: 0 };
        loop {
            match self.stream(&mut converter, &mut state).await {
                Ended::Unwanted => return,
                Ended::Again { pause: false } => {}
                Ended::Again { pause: true } => tokio::time::sleep(self.timings.backoff.sample(state.failed)).await,
            }
        }
    }

    fn open(&self, streaming: bool) -> impl Stream<Item = watcher::Result<Event<Received>>> + Send + use<> {
        let api: Api<Received> = match self.watched.place {
            Place::Everywhere => Api::all_with(self.client.clone(), &self.resource),
            Place::System(_) => Api::namespaced_with(self.client.clone(), &self.namespace, &self.resource),
            Place::Named { namespace, .. } => Api::namespaced_with(self.client.clone(), namespace, &self.resource),
        };
        let seconds = u32::try_from(self.timings.watch.as_secs()).unwrap_or(u32::MAX).max(1);
        let mut config = watcher::Config::default().timeout(seconds);
        if streaming {
            config = config.streaming_lists();
        }
        if let Place::System(Some(name)) | Place::Named { name, .. } = self.watched.place {
            config = config.fields(&format!("metadata.name={name}"));
        }
        watcher(api, config)
    }

    async fn stream(&mut self, converter: &mut Converter, tries: &mut Tries) -> Ended {
        let mut stream = std::pin::pin!(self.open(tries.streaming));
        let mut list: Option<Vec<Version>> = Some(Vec::new());
        let mut heard = Instant::now();
        loop {
            let event = tokio::select! {
                event = stream.try_next() => event,
                () = tokio::time::sleep(self.timings.stall), if list.is_some() => {
                    let verb = if tries.streaming { "streaming the list" } else { "listing" };
                    let why = format!("{verb} made no progress for {:?}", self.timings.stall);
                    // Some servers take the wish for a streamed list and never say that it ended.
                    tries.streaming = false;
                    return self.failed(tries, None, why).await;
                }
                changed = self.health.changed() => {
                    if changed.is_err() {
                        return Ended::Unwanted;
                    }
                    match self.health.borrow().back {
                        // The connection is of the time before the outage, and may be as dead as the server was.
                        Some(back) if heard < back => return Ended::Again { pause: false },
                        _ => continue,
                    }
                }
            };
            let change = match event {
                Ok(Some(event)) => self.take(event, converter, &mut list),
                Ok(None) => return Ended::Again { pause: true },
                Err(error) => {
                    heard = Instant::now();
                    if let Some(ended) = self.judge(error, tries).await {
                        return ended;
                    }
                    continue;
                }
            };
            heard = Instant::now();
            let Some(change) = change else { continue };
            tries.failed = 0;
            if !self.tell(change).await {
                return Ended::Unwanted;
            }
        }
    }

    fn take(
        &self,
        event: Event<Received>,
        converter: &mut Converter,
        list: &mut Option<Vec<Version>>,
    ) -> Option<Change> {
        match event {
            Event::Init => {
                *list = Some(Vec::new());
                None
            }
            Event::InitApply(received) => {
                let version = converter.convert(received.into_node(&self.resource), self.keep);
                if let (Some(list), Ok(version)) = (list.as_mut(), version) {
                    list.push(version);
                }
                None
            }
            Event::InitDone => list.take().map(Change::Listed),
            Event::Apply(received) => Some(match converter.convert(received.into_node(&self.resource), self.keep) {
                Ok(version) => Change::Applied(version),
                Err(key) => Change::Gone(key),
            }),
            Event::Delete(received) => Some(Change::Gone(converter.key(&received.node))),
        }
    }

    /// Tells of a failure where it is one. `None`: the same stream goes on.
    async fn judge(&self, error: watcher::Error, tries: &mut Tries) -> Option<Ended> {
        let (verb, status) = match &error {
            watcher::Error::InitialListFailed(kube::Error::Api(status)) => ("list", Some(&**status)),
            watcher::Error::WatchStartFailed(kube::Error::Api(status)) => ("watch", Some(&**status)),
            watcher::Error::WatchError(status) => ("watch", Some(&**status)),
            _ => ("", None),
        };
        match status {
            // What was read is too old to go on from: a whole list follows by itself.
            Some(status) if status.code == 410 => {
                tries.failed += 1;
                tokio::time::sleep(self.timings.backoff.sample(tries.failed)).await;
                return None;
            }
            Some(status) if tries.streaming && refuses_streaming(status) => {
                tries.streaming = false;
                return Some(Ended::Again { pause: false });
            }
            Some(status) if status.is_forbidden() => {
                return Some(self.failed(tries, Some(verb), status.message.clone()).await);
            }
            _ => {}
        }
        let why = status.map_or_else(|| reason(&error), |status| format!("{} {}", status.code, status.message));
        let ended = self.failed(tries, None, why).await;
        if matches!(ended, Ended::Unwanted) || tries.failed >= ANEW {
            return Some(ended);
        }
        tokio::time::sleep(self.timings.backoff.sample(tries.failed)).await;
        None
    }

    async fn failed(&self, tries: &mut Tries, denied: Option<&'static str>, why: String) -> Ended {
        tries.failed += 1;
        let failure = Failure { denied, why };
        if self.tell(Change::Failed(failure)).await { Ended::Again { pause: true } } else { Ended::Unwanted }
    }

    async fn tell(&self, change: Change) -> bool {
        self.changes.send((self.watched, change)).await.is_ok()
    }
}

struct Tries {
    /// Lists by watching, as long as the API server does not refuse.
    streaming: bool,
    /// In a row.
    failed: u32,
}

/// Whether the API server says that it lists no kind by watching.
fn refuses_streaming(status: &kube::core::Status) -> bool {
    (status.is_invalid() || status.code == 400) && status.message.contains("sendInitialEvents")
}
