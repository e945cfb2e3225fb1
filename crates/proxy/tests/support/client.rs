//! Callers.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub type Caller = Client<HttpConnector, Full<Bytes>>;

pub fn caller(h2: bool) -> Caller {
    Client::builder(TokioExecutor::new()).http2_only(h2).build_http()
}

/// An answer and its body, as JSON where it is any.
pub struct Answer {
    pub parts: http::response::Parts,
    pub body: Value,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.parts.status.as_u16()
    }

    pub fn name(&self) -> &str {
        self.body["name"].as_str().unwrap_or_default()
    }
}

pub async fn send(caller: &Caller, request: Request<Full<Bytes>>) -> Answer {
    read(caller.request(request).await.unwrap()).await
}

pub async fn read(response: Response<hyper::body::Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    Answer { parts, body: serde_json::from_slice(&bytes).unwrap_or_else(|_| text()) }
}

pub async fn get(caller: &Caller, at: SocketAddr, path: &str) -> Answer {
    send(caller, Request::get(format!("http://{at}{path}")).body(Full::default()).unwrap()).await
}

pub async fn post(caller: &Caller, at: SocketAddr, body: &'static [u8]) -> Answer {
    send(caller, Request::post(format!("http://{at}/")).body(Full::from(Bytes::from_static(body))).unwrap()).await
}

/// Writes bytes as they are and reads to the end.
pub async fn raw(at: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}
