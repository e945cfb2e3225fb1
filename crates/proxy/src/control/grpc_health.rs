//! The question of gRPC's health protocol (`grpc.health.v1.Health/Check`), as a kubelet asks it: plaintext HTTP/2.
//!
//! Must never take anything but SERVING for an answer. Both messages are one field each, written and read here.

use bytes::{BufMut as _, Bytes, BytesMut};
use fairlead_transport::Raw;
use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// An answer is a handful of bytes.
const MAX_BYTES: usize = 4096;
const SERVING: u8 = 1;

/// Asks over `stream` whether `service` (empty: the whole server) is serving.
///
/// # Errors
/// Why not.
pub async fn check(stream: Raw, authority: &str, service: &str) -> Result<(), String> {
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        // Its end is the probe's end.
        let _ = connection.await;
    });
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "fairlead-probe")
        .body(Full::new(question(service)?))
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("answered {}", response.status()));
    }
    let early = status(response.headers());
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(|e| e.to_string())?;
    let status = body.trailers().and_then(status).or(early).unwrap_or_else(|| "none".to_owned());
    if status != "0" {
        return Err(format!("gRPC status {status}"));
    }
    match serving(&body.to_bytes()) {
        Some(SERVING) => Ok(()),
        Some(other) => Err(format!("health status {other} (1 is SERVING)")),
        None => Err("the answer is no HealthCheckResponse".into()),
    }
}

fn status(headers: &http::HeaderMap) -> Option<String> {
    headers.get("grpc-status").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// `HealthCheckRequest { service = 1 }`, framed.
fn question(service: &str) -> Result<Bytes, String> {
    // One byte of length: names of services are not longer.
    let length = u8::try_from(service.len()).ok().filter(|l| *l < 128).ok_or("the service's name is too long")?;
    let mut message = BytesMut::new();
    if length > 0 {
        message.put_slice(&[0x0a, length]);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    Ok(framed.freeze())
}

/// `HealthCheckResponse { status = 1 }`, framed; an absent field is 0 (UNKNOWN).
fn serving(framed: &[u8]) -> Option<u8> {
    let length = u32::from_be_bytes(framed.get(1..5)?.try_into().ok()?) as usize;
    match (framed.first()?, framed.get(5..5 + length)?) {
        (0, []) => Some(0),
        (0, [0x08, status, ..]) => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_messages() {
        assert_eq!(&question("").unwrap()[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab").unwrap()[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert!(question(&"x".repeat(128)).is_err());
        assert_eq!(serving(&[0, 0, 0, 0, 2, 0x08, 1]), Some(1));
        assert_eq!(serving(&[0, 0, 0, 0, 2, 0x08, 2]), Some(2));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        for bad in [&[][..], &[0, 0, 0, 0, 9, 8, 1], &[1, 0, 0, 0, 2, 8, 1]] {
            assert_eq!(serving(bad), None, "{bad:?}");
        }
    }
}
