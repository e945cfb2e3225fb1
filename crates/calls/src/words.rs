//! The closed lists of words that a call may use beside names: statuses, answers, certificates, HTTP versions.
//!
//! Invariant: a word that means nothing is an error of the table; were it compared, a misspelt one could pass for ever.

use crate::call::Call;
use crate::compare::grpc_code;
use crate::expect::Status;
use crate::given::{Answer, duration};

const STATUSES: [&str; 5] = ["ok", "refused", "reset", "timeout", "unresolved"];
const VERSIONS: [&str; 3] = ["1.0", "1.1", "2"];
const CERTIFICATES: [&str; 5] = ["mesh", "expired", "foreign-root", "wrong-domain-root", "no-spiffe"];

/// The first word of a call that means nothing.
pub(crate) fn check(call: &Call) -> Result<(), String> {
    match &call.expect.status {
        Some(Status::One(one)) => status(&one.text())?,
        Some(Status::Shares(shares)) => shares.keys().try_for_each(|key| status(&key.0))?,
        None => {}
    }
    if let Some(wanted) = &call.expect.grpc_status
        && grpc_code(wanted).is_none_or(|code| code > 16)
    {
        return Err(format!("`{}` is no gRPC status: write a number from 0 to 16 or its name", wanted.text()));
    }
    call.expect.delay.iter().try_for_each(|delay| duration(delay).map(drop))?;
    call.given.answers.values().try_for_each(answer)?;
    if let Some(certificate) = call.client.as_ref().and_then(|client| client.certificate.as_deref())
        && !CERTIFICATES.contains(&certificate)
        && !certificate.starts_with("spiffe://")
    {
        return Err(format!("`{certificate}` is no certificate: write {}, or a SPIFFE ID", CERTIFICATES.join(", ")));
    }
    if let Some(version) = call.client.as_ref().and_then(|client| client.http.as_deref())
        && !VERSIONS.contains(&version)
    {
        return Err(format!("`{version}` is no HTTP version of a client: write {}", VERSIONS.join(", ")));
    }
    for [a, b] in call.given.cut.iter().chain(&call.given.blackholed) {
        if a == b {
            return Err(format!("a link from `{a}` to itself cannot be cut: write two clusters"));
        }
    }
    Ok(())
}

fn status(word: &str) -> Result<(), String> {
    let known = STATUSES.contains(&word) || word.parse::<u16>().is_ok_and(|code| (100..=599).contains(&code));
    if known { Ok(()) } else { Err(format!("`{word}` is no status: write an HTTP status, or {}", STATUSES.join(", "))) }
}

fn answer(answer: &Answer) -> Result<(), String> {
    match answer {
        Answer::Status(code) if (100..=599).contains(code) => Ok(()),
        Answer::Status(code) => Err(format!("`{code}` is no HTTP status")),
        Answer::Delay { delay } => duration(delay).map(drop),
        Answer::Word(word) if word == "reset" || word.parse::<u16>().is_ok_and(|code| (100..=599).contains(&code)) => {
            Ok(())
        }
        Answer::Word(word) => match word.strip_prefix("grpc-").and_then(|code| code.parse::<u32>().ok()) {
            Some(0..=16) => Ok(()),
            _ => Err(format!("`{word}` is no answer: write an HTTP status, grpc-N, reset or {{delay: 2s}}")),
        },
    }
}
