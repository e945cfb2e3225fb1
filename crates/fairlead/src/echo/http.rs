//! HTTP/1.1, HTTP/2 and gRPC answers.
//!
//! Invariant: the request body is read to its end before the answer's end, so that a proxy that retries never sees a half-read
//! request succeed; a gRPC request of several messages gets one message for each.

use super::Program;
use super::answer::Answer;
use super::record::{Arrival, Record, caller};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

type Body = BoxBody<Bytes, Infallible>;

/// Closes the connection instead of answering.
#[derive(Debug)]
struct Reset;
impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("told to reset")
    }
}
impl std::error::Error for Reset {}

pub async fn serve_http1<S>(stream: S, arrival: Arrival, program: Arc<Program>) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, arrival, program.clone()));
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    Ok(())
}

pub async fn serve_http2<S>(stream: S, arrival: Arrival, program: Arc<Program>) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, arrival, program.clone()));
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

async fn answer(request: Request<Incoming>, arrival: Arrival, program: Arc<Program>) -> Result<Response<Body>, Reset> {
    let grpc = request.headers().get("content-type").is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
    match program.answers.current() {
        Answer::Reset => return Err(Reset),
        Answer::Delay(delay) => tokio::time::sleep(delay).await,
        Answer::Status(status) if !grpc => {
            let _ = request.into_body().collect().await;
            let mut response = Response::new(full(format!("told to answer {status}\n").into()));
            *response.status_mut() =
                hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
            return Ok(response);
        }
        Answer::Grpc(code) if grpc => return Ok(grpc_error(code)),
        Answer::Status(status) if grpc => {
            return Ok(grpc_error(if status == 503 { 14 } else { 13 }));
        }
        _ => {}
    }
    let protocol = match (grpc, request.version()) {
        (true, _) => "grpc",
        (false, Version::HTTP_2) => "http/2",
        (false, Version::HTTP_10) => "http/1.0",
        _ => "http/1.1",
    };
    let json = describe(&request, program.workload.record(arrival, protocol));
    if grpc { Ok(grpc_answer(request.into_body(), json)) } else { Ok(plain_answer(request.into_body(), json).await) }
}

fn describe(request: &Request<Incoming>, mut record: Record<'_>) -> Bytes {
    record.method = request.method().to_string();
    record.path = request.uri().path_and_query().map_or_else(|| "/".into(), ToString::to_string);
    record.authority = request
        .uri()
        .authority()
        .map(ToString::to_string)
        .or_else(|| request.headers().get("host").and_then(|h| h.to_str().ok()).map(str::to_owned))
        .unwrap_or_default();
    record.headers = headers(request.headers());
    record.caller = record.headers.get("x-forwarded-client-cert").and_then(|x| caller(x));
    serde_json::to_vec(&record).map(Bytes::from).unwrap_or_default()
}

fn headers(map: &HeaderMap) -> BTreeMap<String, String> {
    let mut joined: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in map {
        let value = String::from_utf8_lossy(value.as_bytes());
        joined
            .entry(name.to_string())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    joined
}

async fn plain_answer(body: Incoming, json: Bytes) -> Response<Body> {
    let _ = body.collect().await;
    let mut response = Response::new(full(json));
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}

/// One message for each that arrives (one in all for an empty stream), then `grpc-status: 0` in the trailers.
fn grpc_answer(mut body: Incoming, json: Bytes) -> Response<Body> {
    let (tx, rx) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(4);
    let framed = grpc_message(&json);
    tokio::spawn(async move {
        let mut buffer = BytesMut::new();
        let mut answered = false;
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            buffer.extend_from_slice(&data);
            while let Some(length) = message_length(&buffer) {
                let _ = buffer.split_to(length);
                answered = true;
                if tx.send(Ok(Frame::data(framed.clone()))).await.is_err() {
                    return;
                }
            }
        }
        if !answered {
            let _ = tx.send(Ok(Frame::data(framed))).await;
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", hyper::header::HeaderValue::from_static("0"));
        let _ = tx.send(Ok(Frame::trailers(trailers))).await;
    });
    let stream = tokio_stream::wrappers::ReceiverStream::new(rx);
    let mut response = Response::new(StreamBody::new(stream).boxed());
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/grpc"));
    response
}

fn grpc_error(code: u32) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert("content-type", hyper::header::HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", code.into());
    headers.insert("grpc-message", hyper::header::HeaderValue::from_static("told to fail"));
    response
}

/// Length of the first whole message with its 5-byte prefix, if it is there.
fn message_length(buffer: &[u8]) -> Option<usize> {
    let prefix: [u8; 4] = buffer.get(1..5)?.try_into().ok()?;
    let length = u32::from_be_bytes(prefix) as usize + 5;
    (buffer.len() >= length).then_some(length)
}

fn grpc_message(json: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(json.len() + 5);
    framed.put_u8(0);
    framed.put_u32(json.len() as u32);
    framed.put_slice(json);
    framed.freeze()
}

fn full(bytes: Bytes) -> Body {
    http_body_util::Full::new(bytes).boxed()
}
