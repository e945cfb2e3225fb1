//! The upstream: answers every request with the same 1 KB, on one thread, with as little work as possible.
//!
//! Invariant: it answers exactly as many times as it saw the end of a head; it expects no request bodies.

use super::process;
use clap::Args;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

#[derive(Args, Clone, Debug)]
pub struct UpstreamArgs {
    #[arg(long)]
    cpu: usize,
}

/// Bytes of the body.
pub const BODY: usize = 1024;

const LISTENER: u64 = u64::MAX;

struct Peer {
    socket: TcpStream,
    /// How much of `\r\n\r\n` was seen at the end of the last read.
    matched: usize,
}

/// Serves until it is killed; the address is the first line of its output.
pub fn run(args: &UpstreamArgs) -> anyhow::Result<ExitCode> {
    process::pin(args.cpu)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let response = response();
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), None)?;
        for event in &events {
            let id = event.data.u64();
            if id == LISTENER {
                while let Ok((socket, _)) = listener.accept() {
                    socket.set_nonblocking(true)?;
                    socket.set_nodelay(true)?;
                    let at = peers.iter().position(Option::is_none).unwrap_or(peers.len());
                    epoll::add(&poll, &socket, EventData::new_u64(at as u64), EventFlags::IN)?;
                    let peer = Some(Peer { socket, matched: 0 });
                    if at == peers.len() { peers.push(peer) } else { peers[at] = peer }
                }
                continue;
            }
            let Some(slot) = peers.get_mut(id as usize) else { continue };
            if slot.as_mut().is_some_and(|peer| !peer.serve(&mut buffer, &response)) {
                // Closing takes it out of the poll set.
                *slot = None;
            }
        }
    }
}

impl Peer {
    /// `false`: the connection is over.
    fn serve(&mut self, buffer: &mut [u8], response: &[u8]) -> bool {
        let n = match self.socket.read(buffer) {
            Ok(0) => return false,
            Ok(n) => n,
            Err(e) => return e.kind() == ErrorKind::WouldBlock,
        };
        for byte in &buffer[..n] {
            self.matched = match (self.matched, byte) {
                (0 | 2, b'\r') => self.matched + 1,
                (1, b'\n') => 2,
                (3, b'\n') => {
                    if self.socket.write_all(response).is_err() {
                        return false;
                    }
                    0
                }
                (_, b'\r') => 1,
                _ => 0,
            };
        }
        true
    }
}

fn response() -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nserver: bench\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         content-type: application/octet-stream\r\ncontent-length: {BODY}\r\n\r\n"
    );
    let mut response = head.into_bytes();
    response.resize(response.len() + BODY, b'x');
    response
}
