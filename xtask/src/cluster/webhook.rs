//! A mutating admission webhook beside the clusters, for `cluster check`: labels whatever it is asked about with `seen: "yes"`.
//!
//! Proves that API servers of the bed can call out; nothing of Fairlead is in it. Invariant: it ends with whoever started it.

use anyhow::Context as _;
use base64::Engine as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

/// Options of the process.
#[derive(Debug, Clone, clap::Args)]
pub struct WebhookArgs {
    pub address: Ipv4Addr,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Prints the port that it got, then answers until its input ends.
pub fn run(args: &WebhookArgs) -> anyhow::Result<()> {
    let chain = CertificateDer::pem_file_iter(&args.certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&args.key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind((args.address, 0)).with_context(|| args.address.to_string())?;
    println!("{}", listener.local_addr()?.port());
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        std::process::exit(0);
    });
    for stream in listener.incoming() {
        let (stream, config) = (stream?, config.clone());
        std::thread::spawn(move || {
            let connection = rustls::ServerConnection::new(config)?;
            converse(rustls::StreamOwned::new(connection, stream))
        });
    }
    Ok(())
}

/// Answers requests of one connection until it ends.
fn converse(stream: impl Read + Write) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut first = true;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() && !first {
                break;
            }
            first = false;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let answer = serde_json::to_vec(&answer(&serde_json::from_slice(&body)?)?)?;
        let out = stream.get_mut();
        write!(out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", answer.len())?;
        out.write_all(&answer)?;
        out.flush()?;
    }
}

fn answer(review: &Value) -> anyhow::Result<Value> {
    let patch = json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}]);
    let patch = base64::engine::general_purpose::STANDARD.encode(serde_json::to_vec(&patch)?);
    Ok(json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": review["request"]["uid"], "allowed": true, "patchType": "JSONPatch", "patch": patch},
    }))
}
