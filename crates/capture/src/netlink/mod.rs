//! Talking to the kernel's network configuration without any installed tool.
//!
//! `message` encodes, `socket` sends a batch and turns the answer into an error that says what was asked. Nothing here knows
//! what a bridge or a rule is; `links` and `rules` do. Invariant: a batch is sent in one system call, and its outcome is known
//! when the call returns (the kernel answers both rtnetlink and nf_tables requests before `sendmsg` returns).

mod message;
mod socket;

pub use message::{Attributes, Batch};
pub use socket::{NetlinkError, Protocol, Socket};
