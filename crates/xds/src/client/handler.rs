//! What becomes of resources on the asking side: they are handed over, and each may be refused.

use crate::{Name, Resource};

/// Takes resources into use.
pub trait Handler: Send + 'static {
    /// Takes a change. Returns the resources it refuses; of each the last good version must stay in use, and the
    /// server is told. What is not refused counts as taken when this returns, and is then acked.
    ///
    /// An update can repeat what is known already: after a new stream, or when a server sends more than it needs to.
    fn apply(&mut self, update: Update<'_>) -> Vec<Rejection>;
}

/// One change of one type.
#[derive(Clone, Debug)]
pub struct Update<'a> {
    /// Type of the resources.
    pub type_url: &'a str,
    /// New and changed resources, in the order sent.
    pub upserts: &'a [Resource],
    /// Names that do not exist, whether or not they ever did: who waits for one of them can stop.
    pub removed: &'a [Name],
    /// Why some of the removed cannot be had.
    pub unavailable: &'a [Unavailable],
    /// Whether this comes from what an earlier process kept, not from a server.
    pub restored: bool,
}

/// A resource refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Which one.
    pub name: Name,
    /// Why, for the operators of the server.
    pub reason: String,
}

/// A resource the server cannot give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// Which one.
    pub name: Name,
    /// A gRPC status code.
    pub code: i32,
    /// The server's words.
    pub message: String,
}

impl Rejection {
    /// Refuses a resource.
    pub fn new(name: impl Into<Name>, reason: impl Into<String>) -> Self {
        Rejection { name: name.into(), reason: reason.into() }
    }
}
