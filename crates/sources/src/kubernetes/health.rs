//! Whether the API server answers: asked beside the watches, which are silent when nothing changes and when nobody is there alike.
//!
//! Never decides about objects. Invariant: one question that fails is no outage, two in a row are.

use super::timings::Timings;
use kube::Client;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How the API server is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why it is taken to be away, if it is.
    pub away: Option<String>,
    /// When it was last found to be back: connections that are older and silent may be dead.
    pub back: Option<Instant>,
}

/// Between the questions while it does not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// Asks until nobody listens.
pub async fn probe(client: Client, timings: Timings, health: watch::Sender<Health>) {
    let mut failures = 0;
    loop {
        let asked = tokio::time::timeout(timings.probe_timeout, ask(&client)).await;
        let answer = asked.unwrap_or_else(|_| Err(format!("no answer within {:?}", timings.probe_timeout)));
        match answer {
            Ok(()) => {
                failures = 0;
                health.send_if_modified(|health| {
                    let was_away = health.away.take().is_some();
                    if was_away {
                        health.back = Some(Instant::now());
                    }
                    was_away
                });
            }
            Err(why) => {
                failures += 1;
                if failures >= 2 {
                    health.send_if_modified(|health| {
                        let first = health.away.is_none();
                        health.away = Some(why);
                        first
                    });
                }
            }
        }
        let pause = if failures == 0 { timings.probe } else { AGAIN.min(timings.probe) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = health.closed() => return,
        }
    }
}

async fn ask(client: &Client) -> Result<(), String> {
    let request = kube::core::Request::new("/readyz").list(&Default::default()).map_err(|e| e.to_string())?;
    match client.request_text(request).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 401 => {
            Err("the API server does not accept this control plane's credentials (401)".into())
        }
        Err(kube::Error::Api(status)) if status.code >= 500 => {
            Err(format!("the API server is not ready: {} {}", status.code, first_failure(&status.message)))
        }
        // It answers; what it thinks of the question does not matter.
        Err(kube::Error::Api(_)) => Ok(()),
        Err(other) => Err(reason(&other)),
    }
}

/// The check that failed, of those that `/readyz` lists.
fn first_failure(text: &str) -> &str {
    text.lines().find(|line| line.starts_with("[-]")).or_else(|| text.lines().next()).unwrap_or_default()
}

/// An error as its innermost cause tells it.
pub fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failing_check_is_named() {
        assert_eq!(
            first_failure("[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed"),
            "[-]etcd failed: reason withheld"
        );
        assert_eq!(first_failure("shutting down"), "shutting down");
    }
}
