//! What a server of discovery is asked and told: who may have a stream, and what becomes of it.

use super::Encoding;
use crate::{Name, ResourceView};
use fairlead_proto::envoy::core::Node;
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// Number of a stream, unique within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// The views of one stream: each value sent is a new state. When the sender is dropped, the stream ends, which is
/// how a client is put out.
pub type Views = watch::Receiver<Arc<dyn ResourceView>>;

/// Who asks for a stream.
#[derive(Clone, Debug)]
pub struct Hello<C> {
    /// The stream, as events will name it.
    pub stream: StreamId,
    /// What the transport knows of the client, from its certificate: the only thing to be trusted here.
    pub client: C,
    /// What the client says of itself.
    pub node: Node,
    /// The form it wants.
    pub encoding: Encoding,
    /// Freshness of the state it last acked, on whatever server; empty at first.
    pub freshness: String,
}

/// Decides about streams and hears what becomes of them.
#[tonic::async_trait]
pub trait Discovery<C>: Send + Sync + 'static {
    /// A client wants a stream. It is told nothing until this returns.
    async fn connect(&self, hello: Hello<C>) -> Result<Views, Refusal>;

    /// Something happened on a stream that was let in. Called from the stream's task: it must not block.
    fn event(&self, stream: StreamId, event: Event);

    /// A stream that was let in has ended; the last call for it.
    fn disconnected(&self, stream: StreamId, why: Ended);
}

/// Why a client gets no stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It may never have one here (`PERMISSION_DENIED`).
    Denied(String),
    /// It has seen newer state than this server has: it should ask another, or later (`FAILED_PRECONDITION`).
    Stale(String),
    /// This server cannot serve yet, or serves too many (`UNAVAILABLE`).
    Unavailable(String),
}

/// Something that happened on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The client asked for more.
    Subscribed {
        /// Type of the resources.
        type_url: Arc<str>,
        /// Whether it asked for all of the type.
        wildcard: bool,
        /// The names it asked for.
        names: Vec<Name>,
    },
    /// The client no longer wants something.
    Unsubscribed {
        /// Type of the resources.
        type_url: Arc<str>,
        /// Whether it gave up its wish for all of the type.
        wildcard: bool,
        /// The names it gave up.
        names: Vec<Name>,
    },
    /// The client took a response.
    Acked {
        /// Type of the resources.
        type_url: Arc<str>,
        /// Nonce of the response.
        nonce: String,
        /// Generation of the view the response was made from.
        generation: u64,
    },
    /// The client refused a response, or some resources of it, and keeps what it had of those.
    Nacked {
        /// Type of the resources.
        type_url: Arc<str>,
        /// Nonce of the response.
        nonce: String,
        /// Generation of the view the response was made from.
        generation: u64,
        /// The resources refused; empty when the client did not say.
        names: Vec<String>,
        /// The client's words, at most 4 KiB.
        detail: String,
    },
    /// The client has answered for everything of this generation that it asked for: nothing is on its way.
    Settled {
        /// The generation.
        generation: u64,
        /// Resources it refused and still has not got a newer version of.
        rejected: usize,
    },
}

/// Why a stream has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client closed it or went away.
    Client(String),
    /// The client broke a rule or a limit.
    Violation(String),
    /// The views ended.
    Dismissed,
    /// The server is going down.
    Draining,
}

impl Refusal {
    pub(super) fn into_status(self) -> tonic::Status {
        match self {
            Refusal::Denied(why) => tonic::Status::permission_denied(why),
            Refusal::Stale(why) => tonic::Status::failed_precondition(why),
            Refusal::Unavailable(why) => tonic::Status::unavailable(why),
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
