//! Streams that stay open: a TCP connection that trades lines, a gRPC stream that trades messages.
//!
//! Invariant: what arrives is kept in order, so that an end is seen whether or not an answer is waited for.

use std::collections::VecDeque;
use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use fairlead_calls::RequestKind;
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{Failure, Plan, Seen, Stream, http};

/// An answer longer than this ends the stream; echo answers are a few kilobytes.
const LONGEST: usize = 256 * 1024;

/// An open stream.
pub struct LongStream {
    speaks: Speaks,
    /// What has arrived and is no whole answer yet.
    partial: BytesMut,
    answers: VecDeque<Vec<u8>>,
    message: Bytes,
}

enum Speaks {
    Lines(ReadHalf<Stream>, WriteHalf<Stream>),
    Grpc(Box<Incoming>, Sender<Bytes, Infallible>),
}

impl Plan {
    /// Opens a stream that stays open. Errors say why there is none.
    pub async fn open(&self) -> Result<LongStream, String> {
        tokio::time::timeout(super::DEADLINE, self.opened())
            .await
            .map_err(|_| format!("not open within {:?}", super::DEADLINE))?
            .map_err(|f| format!("{}: {}", f.status, f.reason))
    }

    async fn opened(&self) -> Result<LongStream, Failure> {
        let mut seen = Seen { request_id: super::request_id(), ..Seen::default() };
        let body = self.body.clone().unwrap_or_else(|| "fairlead".into());
        let (speaks, message) = match self.request.kind {
            RequestKind::Tcp | RequestKind::Tls => {
                let (read, write) = tokio::io::split(self.connect(&mut seen).await?);
                (Speaks::Lines(read, write), Bytes::from(format!("{body}\n")))
            }
            RequestKind::Grpc => {
                let message = http::message(body.as_bytes());
                let stream = self.connect(&mut seen).await?;
                let io = TokioIo::new(stream);
                let (mut sender, connection) =
                    http2::handshake(TokioExecutor::new(), io).await.map_err(Failure::cut)?;
                tokio::spawn(connection);
                let (mut messages, channel) = Channel::<Bytes, Infallible>::new(4);
                let request = http::request(self, true, &seen)?.map(|_| channel);
                // Before the head's answer, which a program may hold back until it has a message.
                messages.send_data(message.clone()).await.map_err(|_| Failure::new("reset", "closed"))?;
                let response = sender.send_request(request).await.map_err(Failure::cut)?;
                if response.status() != 200 || response.headers().contains_key("grpc-status") {
                    let code = response.headers().get("grpc-status").map_or("", |c| c.to_str().unwrap_or_default());
                    return Err(Failure::new("reset", format!("answered {} grpc-status {code}", response.status())));
                }
                let mut stream = LongStream {
                    speaks: Speaks::Grpc(Box::new(response.into_body()), messages),
                    partial: BytesMut::new(),
                    answers: VecDeque::new(),
                    message,
                };
                while stream.answers.pop_front().is_none() {
                    stream.receive().await.map_err(|reason| Failure::new("reset", reason))?;
                }
                return Ok(stream);
            }
            _ => return Err(Failure::new("refused", "only tcp and grpc requests are streams")),
        };
        Ok(LongStream { speaks, partial: BytesMut::new(), answers: VecDeque::new(), message })
    }
}

impl LongStream {
    /// One message out, its answer back.
    pub async fn exchange(&mut self) -> Result<Vec<u8>, String> {
        match &mut self.speaks {
            Speaks::Lines(_, write) => {
                write.write_all(&self.message).await.map_err(|e| e.to_string())?;
                write.flush().await.map_err(|e| e.to_string())?;
            }
            Speaks::Grpc(_, messages) => {
                messages.send_data(self.message.clone()).await.map_err(|_| "the stream was reset".to_owned())?;
            }
        }
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(answer);
            }
            self.receive().await?;
        }
    }

    /// Waits for its end, and says what it was; never returns while it lasts.
    pub async fn ended(&mut self) -> String {
        loop {
            if let Err(reason) = self.receive().await {
                return reason;
            }
        }
    }

    /// Takes in what arrives. Cancel-safe: nothing is read and then lost.
    async fn receive(&mut self) -> Result<(), String> {
        match &mut self.speaks {
            Speaks::Lines(read, _) => {
                if read.read_buf(&mut self.partial).await.map_err(|e| e.to_string())? == 0 {
                    return Err("closed".into());
                }
                while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
                    self.answers.push_back(self.partial.split_to(end + 1).to_vec());
                }
            }
            Speaks::Grpc(body, _) => {
                let frame = match body.frame().await {
                    Some(frame) => frame.map_err(|e| e.to_string())?,
                    None => return Err("closed".into()),
                };
                match frame.into_data() {
                    Ok(data) => self.partial.extend_from_slice(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        let code = trailers.get("grpc-status").map_or("none", |c| c.to_str().unwrap_or("unreadable"));
                        return Err(format!("ended with grpc-status {code}"));
                    }
                }
                while let Some(length) = whole(&self.partial) {
                    let answer = self.partial.split_to(length);
                    self.answers.push_back(answer.get(5..).unwrap_or_default().to_vec());
                }
            }
        }
        if self.partial.len() > LONGEST {
            return Err(format!("an answer of more than {LONGEST} bytes"));
        }
        Ok(())
    }
}

/// Length of the first message with its prefix, once all of it is there.
fn whole(buffer: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(buffer.get(1..5)?.try_into().ok()?) as usize + 5;
    (buffer.len() >= length).then_some(length)
}
