//! Sockets and framing for the data plane: listeners, original destination, sniffing, TLS, HTTP/1 and HTTP/2 by
//! hyper's connection-level API, upstream pools and the TCP relay.
//!
//! It knows no routes, no policies and no xDS: what to accept, whom to trust and where to dial is handed in. Invariant:
//! every limit on what a stranger can send (hello size, head size, time to finish a head) is enforced here, below hyper.

pub mod client_hello;
pub mod dial;
pub mod executor;
pub mod head_guard;
pub mod head_scan;
pub mod limits;
pub mod listener;
pub mod pool;
pub mod relay;
pub mod sniff;
pub mod socket;
pub mod stream;
pub mod tls;
pub mod upstream;

pub use client_hello::ClientHello;
pub use dial::{DialError, DialOptions, dial};
pub use executor::LocalExecutor;
pub use head_guard::{GuardSignals, HeadGuard};
pub use limits::HttpLimits;
pub use listener::{Accepted, Listener};
pub use pool::{Pool, Sender};
pub use relay::{RelayEnd, RelayOutcome, relay};
pub use sniff::{HttpKind, SniffWant, Sniffed, sniff};
pub use stream::{Raw, Socket, Stream};
pub use tls::{TlsError, TlsFacts};
pub use upstream::{HandshakeError, Protocol, handshake_http1, handshake_http2};
