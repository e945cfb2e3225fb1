//! A line out, a line back.
//!
//! Invariant: bytes that come back are an answer; an end or a reset without any is `reset`, since the connection was accepted.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::{Failure, Plan, Seen, Stream};

/// An answer longer than this is cut off.
const LONGEST: u64 = 256 * 1024;

pub(super) async fn exchange(plan: &Plan, mut stream: Stream, seen: &mut Seen) -> Result<(), Failure> {
    let mut line = plan.body.clone().unwrap_or_else(|| format!("fairlead {}", seen.request_id));
    line.push('\n');
    stream.write_all(line.as_bytes()).await.map_err(Failure::cut)?;
    stream.flush().await.map_err(Failure::cut)?;
    let mut reader = BufReader::new(stream.take(LONGEST));
    let read = reader.read_until(b'\n', &mut seen.body).await;
    match read {
        Ok(0) => Err(Failure::new("reset", "closed without an answer")),
        Ok(_) => {
            seen.status = "ok".into();
            // Ends in order, so that the proxies' records end now.
            let _ = reader.get_mut().get_mut().shutdown().await;
            Ok(())
        }
        Err(e) => Err(Failure::cut(e)),
    }
}
