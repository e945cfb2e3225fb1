//! The protocol sentence by sentence, without I/O, and both shells over a real loopback connection.

// clippy.toml allows these in test functions; here everything is a test, helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bench;
mod delta;
mod live;
mod order;
mod sotw;
