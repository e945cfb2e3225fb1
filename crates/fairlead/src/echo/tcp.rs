//! Plain TCP: one JSON line for each line that arrives, and for a last one without its end.
//!
//! Invariant: the half-close of the caller is answered before ours.

use super::Program;
use super::answer::Answer;
use super::record::Arrival;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};

/// A line longer than this is answered in pieces, so that a stranger cannot fill the memory.
const MAX_LINE: u64 = 64 * 1024;

pub async fn serve<S>(stream: S, arrival: Arrival, program: &Program) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite,
{
    match program.answers.current() {
        // The connection was told to end with an RST.
        Answer::Reset => return Ok(()),
        Answer::Delay(delay) => tokio::time::sleep(delay).await,
        _ => {}
    }
    let (read, mut write) = tokio::io::split(stream);
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        use tokio::io::AsyncReadExt as _;
        let n = (&mut read).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        if n == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let mut record = program.workload.record(arrival, "tcp");
        record.line = Some(text.trim_end_matches(['\r', '\n']).to_owned());
        let mut json = serde_json::to_vec(&record)?;
        json.push(b'\n');
        write.write_all(&json).await?;
    }
    write.shutdown().await?;
    Ok(())
}
