//! Commands that a control plane in a cluster answers: the same subcommand, run in its pod.
//!
//! Must never read anything into the output: it, the errors and the exit code pass through. Invariant: whoever may exec into the
//! control plane's pod may ask it, and nobody else: no port is opened for it.

use super::{Cluster, control_pods, plain};
use anyhow::{Context as _, bail};
use fairlead_install::control::{ADMIN_SOCKET, CONTAINER};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use std::process::ExitCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Path of the program in the image.
const PROGRAM: &str = "/usr/local/bin/fairlead";

/// What a command in a pod said.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub output: Vec<u8>,
    pub errors: Vec<u8>,
    pub code: u8,
}

/// Runs a subcommand in a pod of the control plane, its admin socket added, with `input` as its standard input.
pub async fn answer(cluster: &Cluster, pod: &str, words: &[String], input: &str) -> anyhow::Result<Answer> {
    let mut command = vec![PROGRAM.to_owned()];
    command.extend(words.iter().cloned());
    command.extend(["--socket".to_owned(), ADMIN_SOCKET.to_owned()]);
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.control);
    let params = AttachParams::default().container(CONTAINER).stdin(!input.is_empty()).stdout(true).stderr(true);
    let mut process = pods.exec(pod, command, &params).await.map_err(|e| {
        anyhow::anyhow!("cluster {}: cannot exec into pod {}/{pod}: {}", cluster.name, cluster.control, plain(&e))
    })?;
    if let Some(mut stdin) = process.stdin() {
        stdin.write_all(input.as_bytes()).await.context("the stream to the pod was cut")?;
        stdin.shutdown().await.context("the stream to the pod was cut")?;
    }
    let mut output = process.stdout().context("no output stream")?;
    let mut errors = process.stderr().context("no error stream")?;
    let status = process.take_status().context("no status")?;
    let mut answer = Answer::default();
    let (a, b) = tokio::join!(output.read_to_end(&mut answer.output), errors.read_to_end(&mut answer.errors));
    a.and(b).context("the stream from the pod was cut")?;
    let status = status.await.context("the API server ended the stream without a status")?;
    answer.code = match status.status.as_deref() {
        Some("Success") => 0,
        _ => {
            let causes = status.details.and_then(|d| d.causes).unwrap_or_default();
            let code = causes.iter().find(|c| c.reason.as_deref() == Some("ExitCode")).and_then(|c| c.message.clone());
            match code.and_then(|c| c.parse().ok()) {
                Some(code) => code,
                None => bail!(
                    "cluster {}: pod {}/{pod}: {}",
                    cluster.name,
                    cluster.control,
                    status.message.unwrap_or_else(|| "the command did not run".into())
                ),
            }
        }
    };
    Ok(answer)
}

/// Runs a subcommand in the first ready control pod and says what it says.
pub async fn pass_through(cluster: &Cluster, words: &[String], input: &str) -> anyhow::Result<ExitCode> {
    let pod = control_pods(cluster).await?.into_iter().next().context("no control plane is ready")?;
    let answer = answer(cluster, &pod, words, input).await?;
    tokio::io::stdout().write_all(&answer.output).await?;
    tokio::io::stdout().flush().await?;
    tokio::io::stderr().write_all(&answer.errors).await?;
    tokio::io::stderr().flush().await?;
    Ok(ExitCode::from(answer.code))
}
