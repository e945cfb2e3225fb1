//! `fairlead echo`: the program that answers in every mesh directory (docs/echo.md).
//!
//! Any path and any gRPC method answers 200 / OK with a JSON body that tells who answered and what arrived. It knows nothing of
//! the mesh: what it says of the caller is what the proxy in front of it wrote into the request. Invariant: one port serves
//! HTTP/1.1, HTTP/2, gRPC and plain TCP, with and without TLS, told apart by the first bytes.

mod answer;
mod http;
mod record;
mod tcp;
mod tls;

use answer::Answers;
use anyhow::Context as _;
use clap::Args;
use record::Workload;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tls::Tls;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Answer HTTP/1.1, HTTP/2, gRPC and TCP on the given ports, with and without TLS, telling who answered and what arrived.
///
/// Example: fairlead echo --port 9080 --workload east/shop/reviews-v1
/// then:    curl -s http://127.0.0.1:9080/any/path
#[derive(Args, Debug)]
pub struct EchoArgs {
    /// Port to listen on; may be given several times. 0 picks a free one and prints it.
    #[arg(long = "port", required = true)]
    ports: Vec<u16>,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    bind: IpAddr,
    /// Who answers, as CLUSTER/NAMESPACE/WORKLOAD.
    #[arg(long, env = "FAIRLEAD_WORKLOAD", default_value = "local/default/echo")]
    workload: String,
    /// A file that says how to answer while it exists: `503`, `grpc-14`, `reset` or `delay 2s`.
    #[arg(long, env = "FAIRLEAD_ANSWERS")]
    answers: Option<PathBuf>,
    /// Folder of a CA (ca-cert.pem, ca-key.pem) that issues the certificates of TLS connections.
    #[arg(long)]
    issuer: Option<PathBuf>,
    /// A name that those certificates have beside the one asked for: a DNS name or a URI; may be given several times.
    #[arg(long = "name")]
    names: Vec<String>,
}

/// Serves until the process is told to stop (SIGTERM, SIGINT).
pub async fn run(args: EchoArgs) -> anyhow::Result<()> {
    let program = Arc::new(Program {
        workload: Workload::parse(&args.workload)?,
        answers: Answers::new(args.answers),
        tls: Tls::new(args.issuer.as_deref(), args.names)?,
    });
    for port in args.ports {
        let address = SocketAddr::new(args.bind, port);
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        println!("listening on {}", listener.local_addr()?);
        tokio::spawn(serve(listener, program.clone()));
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

struct Program {
    tls: Tls,
    workload: Workload,
    answers: Answers,
}

async fn serve(listener: TcpListener, program: Arc<Program>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let program = program.clone();
                tokio::spawn(async move {
                    if let Err(e) = connection(stream, program).await {
                        tracing::debug!("connection: {e:#}");
                    }
                });
            }
            Err(e) => {
                tracing::warn!("accept: {e}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, program: Arc<Program>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let port = stream.local_addr()?.port();
    let protocol = protocol(&stream).await?;
    let arrival = record::Arrival { port, tls: matches!(protocol, Protocol::Tls) };
    if !matches!(protocol, Protocol::Http2) && matches!(program.answers.current(), answer::Answer::Reset) {
        // A dropped connection with linger 0 is an RST, as a crashing program would send.
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))?;
    }
    match protocol {
        Protocol::Http1 => http::serve_http1(stream, arrival, program).await,
        Protocol::Http2 => http::serve_http2(stream, arrival, program).await,
        Protocol::Tcp => tcp::serve(stream, arrival, &program).await,
        Protocol::Tls => {
            let stream = program.tls.accept(stream).await?;
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let mut stream = BufReader::new(stream);
            let first = stream.fill_buf().await?;
            if http2 || first.starts_with(PREFACE) {
                http::serve_http2(stream, arrival, program).await
            } else if METHODS.iter().any(|m| first.starts_with(m)) {
                http::serve_http1(stream, arrival, program).await
            } else {
                tcp::serve(stream, arrival, &program).await
            }
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0";
const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT "];
/// A TLS record that carries a handshake begins with it.
const HANDSHAKE: u8 = 22;

enum Protocol {
    Http1,
    Http2,
    Tcp,
    Tls,
}

/// Peeks until the first bytes tell the protocol: a TLS handshake, the HTTP/2 preface, an HTTP/1 method, or anything else.
async fn protocol(stream: &TcpStream) -> std::io::Result<Protocol> {
    let mut seen = 0;
    loop {
        let mut first = [0; 16];
        let n = stream.peek(&mut first).await?;
        let bytes = &first[..n];
        if bytes.first() == Some(&HANDSHAKE) {
            return Ok(Protocol::Tls);
        }
        if bytes.starts_with(PREFACE) {
            return Ok(Protocol::Http2);
        }
        if METHODS.iter().any(|m| bytes.starts_with(m)) {
            return Ok(Protocol::Http1);
        }
        let could_become = |word: &[u8]| word.starts_with(bytes) && n < word.len();
        let undecided = could_become(PREFACE) || METHODS.iter().any(|m| could_become(m));
        // No more bytes than before means the peer has ended (or is very slow): what is there is a line.
        if n == 0 || !undecided || n == seen {
            return Ok(Protocol::Tcp);
        }
        seen = n;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
