//! Ways to a server: anything that gives a byte stream, and the channel on top of it.
//!
//! TLS, proxies and gateways are the connector's business. A channel made here may carry any service, not only
//! discovery.

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Error, Uri};

/// A byte stream.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Any byte stream.
pub type Io = Box<dyn Transport>;

/// Connects to a server, named as the configuration names it.
pub type Connect = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Io>> + Send + Sync>;

/// Timings of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelOptions {
    /// Bound on connecting, handshakes included.
    pub connect_timeout: Duration,
    /// How often a silent connection is asked whether it lives.
    pub ping_interval: Duration,
    /// How long the answer may take; then the connection is dead.
    pub ping_timeout: Duration,
}

impl Default for ChannelOptions {
    /// 3 s to connect; a silently dead server is found within 8 s, well inside the 15 s lease of a peer.
    fn default() -> Self {
        ChannelOptions {
            connect_timeout: Duration::from_secs(3),
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(3),
        }
    }
}

/// Makes a [`Connect`] of a function that returns a future of any byte stream.
pub fn connector<F, R, T>(connect: F) -> Connect
where
    F: Fn(String) -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<T>> + Send + 'static,
    T: Transport + 'static,
{
    Arc::new(move |server| {
        let connecting = connect(server);
        Box::pin(async move { Ok(Box::new(connecting.await?) as Io) })
    })
}

/// Connects and makes a channel of it. The channel connects anew by itself, to the same server.
///
/// # Errors
/// What the connector or the HTTP/2 preface failed with.
pub async fn channel(server: &str, connect: Connect, options: ChannelOptions) -> Result<Channel, Error> {
    let server = server.to_owned();
    let dial = tower::service_fn(move |_: Uri| {
        let connecting = connect(server.clone());
        async move { connecting.await.map(TokioIo::new) }
    });
    // The URI is only the `:authority` of requests; where to connect is the connector's business.
    Endpoint::from_static("http://fairlead.invalid")
        .connect_timeout(options.connect_timeout)
        .http2_keep_alive_interval(options.ping_interval)
        .keep_alive_timeout(options.ping_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 * 1024 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024)
        .connect_with_connector(dial)
        .await
}
