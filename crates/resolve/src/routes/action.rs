//! What an HTTP rule does beside routing: redirects, direct answers, rewrites, faults.
//!
//! Never guesses: what Envoy could not do refuses the rule, with the reason. Source: Istio's fields as documented.

use fairlead_model::route::{
    AbortWith, DirectAnswer, Fault, FaultAbort, FaultDelay, HttpAction, Redirect, RedirectPort, Rewrite, UriRewrite,
};
use fairlead_resources::istio as written;

/// 301 unless written.
pub(super) fn redirect(redirect: &written::HttpRedirect) -> HttpAction {
    let status = match redirect.redirect_code {
        0 => 301,
        code @ (301 | 302 | 303 | 307 | 308) => code as u16,
        other => return HttpAction::Refused { reason: format!("a redirect cannot have the status {other}") },
    };
    let port = match (redirect.port, redirect.derive_port) {
        (Some(port), _) => u16::try_from(port).ok().filter(|port| *port > 0).map(RedirectPort::Number),
        (None, Some(written::RedirectPort::FromRequestPort)) => Some(RedirectPort::Request),
        (None, _) => None,
    };
    HttpAction::Redirect(Redirect {
        uri: some(&redirect.uri),
        authority: some(&redirect.authority),
        scheme: some(&redirect.scheme),
        port: port.unwrap_or(RedirectPort::Protocol),
        status,
    })
}

pub(super) fn direct_response(response: &written::HttpDirectResponse) -> HttpAction {
    let Some(status) = answerable(i64::from(response.status)) else {
        return HttpAction::Refused { reason: format!("an answer cannot have the status {}", response.status) };
    };
    let body = match &response.body {
        None => Some(Vec::new()),
        Some(body) => body.content(),
    };
    match body {
        Some(body) => HttpAction::Respond(DirectAnswer { status, body }),
        None => HttpAction::Refused { reason: "the body's bytes are not base64".into() },
    }
}

pub(super) fn rewrite(rewrite: &written::HttpRewrite) -> Rewrite {
    let uri = match &rewrite.uri_regex_rewrite {
        Some(regex) => Some(UriRewrite::Regex { matches: regex.matches.clone(), with: regex.rewrite.clone() }),
        None => some(&rewrite.uri).map(UriRewrite::Prefix),
    };
    Rewrite { uri, authority: some(&rewrite.authority) }
}

/// `None` if nothing of it can ever happen.
pub(super) fn fault(fault: &written::HttpFaultInjection) -> Option<Fault> {
    let delay = fault.delay.as_ref().and_then(|delay| {
        // `percentage` beats the deprecated whole `percent`; without either nobody waits (Istio).
        let whole = || delay.percent.and_then(|p| u32::try_from(p).ok()).unwrap_or_default().min(100) * 10_000;
        let per_million = delay.percentage.as_ref().map_or_else(whole, per_million);
        Some(FaultDelay { for_time: delay.fixed_delay?.duration(), per_million })
    });
    let abort = fault.abort.as_ref().and_then(|abort| {
        let with = match (abort.http_status, &abort.grpc_status) {
            (Some(status), _) => AbortWith::Http(answerable(i64::from(status))?),
            (None, Some(word)) => AbortWith::Grpc(grpc_status(word)?),
            (None, None) => return None,
        };
        Some(FaultAbort { with, per_million: abort.percentage.as_ref().map_or(0, per_million) })
    });
    let fault = Fault { delay: delay.filter(|d| d.per_million > 0), abort: abort.filter(|a| a.per_million > 0) };
    (fault.delay.is_some() || fault.abort.is_some()).then_some(fault)
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Statuses a proxy can answer with; Istio's check lets 600 pass, Envoy does not.
fn answerable(status: i64) -> Option<u16> {
    u16::try_from(status).ok().filter(|status| (200..600).contains(status))
}

fn per_million(percent: &written::Percent) -> u32 {
    // At most a million: validation keeps the value between 0 and 100.
    (percent.value.0.clamp(0.0, 100.0) * 10_000.0).round() as u32
}

fn grpc_status(word: &str) -> Option<u32> {
    written::GRPC_STATUS.iter().position(|known| *known == word).and_then(|at| u32::try_from(at).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_have_four_digits_after_the_point() {
        for (written, millionths) in [(100.0, 1_000_000), (0.0001, 1), (12.5, 125_000), (0.1 + 0.2, 3_000)] {
            assert_eq!(
                per_million(&written::Percent { value: fairlead_resources::field::Double(written) }),
                millionths
            );
        }
    }

    #[test]
    fn grpc_words_are_numbers_in_order() {
        assert_eq!((grpc_status("OK"), grpc_status("UNAVAILABLE"), grpc_status("NOPE")), (Some(0), Some(14), None));
    }
}
