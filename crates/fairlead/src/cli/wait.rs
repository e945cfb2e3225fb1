//! `fairlead wait`: holds a pod's program back until its sidecar is ready.
//!
//! Run by the kubelet in the sidecar's own container, as its `postStart` hook: an image without a shell has nothing else for it.
//! Invariant: it ends with 0 only after the proxy has said that it is ready.

use anyhow::bail;
use clap::Args;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// For one answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Wait until a proxy on this machine is ready.
///
/// Example: fairlead wait --status 127.0.0.1:15021 --timeout 1m
#[derive(Args, Debug)]
pub struct WaitArgs {
    /// The proxy's status address.
    #[arg(long, default_value = "127.0.0.1:15021")]
    status: SocketAddr,
    /// Give up after this.
    #[arg(long, default_value = "2m", value_parser = crate::control::duration)]
    timeout: Duration,
}

pub fn run(args: &WaitArgs) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    loop {
        let answer = ask(args.status);
        match answer {
            Ok(200) => return Ok(ExitCode::SUCCESS),
            _ if begun.elapsed() < args.timeout => std::thread::sleep(PAUSE),
            Ok(status) => bail!("the proxy at {} is not ready: it says {status}; see its log", args.status),
            Err(error) => bail!("no proxy answers at {}: {error}; see its log", args.status),
        }
    }
}

fn ask(address: SocketAddr) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    let status = std::str::from_utf8(&head).ok().and_then(|head| head.rsplit(' ').next()?.parse().ok());
    status.ok_or_else(|| std::io::Error::other("no HTTP answer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A proxy that is ready at the third question.
    #[test]
    fn waits_until_it_is_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let status = listener.local_addr().unwrap();
        let proxy = std::thread::spawn(move || {
            for code in ["503 Service Unavailable", "503 Service Unavailable", "200 OK"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 64];
                let _ = stream.read(&mut request).unwrap();
                stream.write_all(format!("HTTP/1.1 {code}\r\ncontent-length: 0\r\n\r\n").as_bytes()).unwrap();
            }
        });
        run(&WaitArgs { status, timeout: Duration::from_secs(60) }).unwrap();
        proxy.join().unwrap();
        let error = run(&WaitArgs { status, timeout: Duration::ZERO }).unwrap_err();
        assert!(error.to_string().contains("no proxy answers"), "{error}");
    }
}
