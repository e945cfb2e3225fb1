//! One HTTP rule of a VirtualService: exactly one action, and what goes with it.

use super::check::Check;
use super::http_action::{self, header_operations};
use super::{durations, http_match, virtual_service};
use crate::field::{FieldPath, Span};
use crate::istio::{HttpRetry, HttpRoute, Percent};

/// What the VirtualService around the rule is.
pub(super) struct Context {
    /// It has no hosts: it serves delegation.
    pub(super) delegate: bool,
    /// It is not applied at sidecars.
    pub(super) gateways_only: bool,
}

/// The words of `retryOn`: Envoy's, for HTTP and gRPC.
const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// Checks a rule.
pub(super) fn check(rule: &HttpRoute, context: &Context, at: &FieldPath, check: &mut Check<'_>) {
    actions(rule, context, at, check);
    for (index, block) in rule.matches.iter().enumerate() {
        http_match::check(block, context, &at.key("match").index(index), check);
    }
    destinations(rule, at, check);
    if let Some(fault) = &rule.fault {
        http_action::fault(fault, &at.key("fault"), check);
    }
    if let Some(cors) = &rule.cors_policy {
        http_action::cors(cors, &at.key("corsPolicy"), check);
    }
    if let Some(redirect) = &rule.redirect {
        http_action::redirect(redirect, &at.key("redirect"), check);
    }
    if let Some(response) = &rule.direct_response {
        http_action::direct_response(response, &at.key("directResponse"), check);
    }
    if let Some(rewrite) = &rule.rewrite {
        http_action::rewrite(rewrite, &at.key("rewrite"), check);
    }
    if let Some(headers) = &rule.headers {
        header_operations(headers, &at.key("headers"), check);
    }
    authority(rule, at, check);
    mirrors(rule, at, check);
    durations::positive_or_off(rule.timeout, &at.key("timeout"), check);
    if let Some(retries) = &rule.retries {
        retry(retries, &at.key("retries"), check);
    }
}

/// 0, or 0.0001 to 100.
pub(super) fn percent(percent: Option<&Percent>, at: &FieldPath, check: &mut Check<'_>) {
    let Some(percent) = percent else { return };
    let value = percent.value.0;
    if !(value == 0.0 || (0.0001..=100.0).contains(&value)) {
        check.error(&at.key("value"), format!("percentage {value} is neither 0 nor in the range 0.0001 to 100"));
    }
}

fn actions(rule: &HttpRoute, context: &Context, at: &FieldPath, check: &mut Check<'_>) {
    let (route, redirect, response) = (!rule.route.is_empty(), rule.redirect.is_some(), rule.direct_response.is_some());
    if rule.delegate.is_some() {
        if context.delegate {
            check.error(&at.key("delegate"), "a rule of a delegate cannot delegate again");
        }
        for (field, written) in [("route", route), ("redirect", redirect), ("directResponse", response)] {
            if written {
                check.error(&at.key(field), format!("a rule that delegates must not have {field}"));
            }
        }
        if rule.delegate.as_ref().is_some_and(|delegate| delegate.name.is_empty()) {
            check.error(&at.key("delegate").key("name"), "the delegate's name is required");
        }
        return;
    }
    match (route, redirect, response) {
        (false, false, false) => check.error(at, "HTTP route, redirect or directResponse is required"),
        (true, true, _) => check.error(at, "an HTTP rule cannot have both route and redirect"),
        (true, _, true) => check.error(at, "an HTTP rule cannot have both route and directResponse"),
        (_, true, true) => check.error(at, "an HTTP rule cannot have both redirect and directResponse"),
        _ => {}
    }
    if redirect && rule.rewrite.is_some() {
        check.error(&at.key("rewrite"), "an HTTP rule cannot have both rewrite and redirect");
    }
    if response && rule.rewrite.is_some() {
        check.error(&at.key("rewrite"), "an HTTP rule cannot have both rewrite and directResponse");
    }
}

fn destinations(rule: &HttpRoute, at: &FieldPath, check: &mut Check<'_>) {
    let at = at.key("route");
    for (index, entry) in rule.route.iter().enumerate() {
        let at = at.index(index);
        virtual_service::destination(entry.destination.as_ref(), &at.key("destination"), check);
        if let Some(headers) = &entry.headers {
            header_operations(headers, &at.key("headers"), check);
        }
    }
    let weights: Vec<i32> = rule.route.iter().map(|entry| entry.weight).collect();
    virtual_service::weights(&weights, &at, check);
}

/// Only one of rewrite and header operations may set the authority.
fn authority(rule: &HttpRoute, at: &FieldPath, check: &mut Check<'_>) {
    let mut set: Option<&str> =
        rule.rewrite.as_ref().map(|rewrite| rewrite.authority.as_str()).filter(|a| !a.is_empty());
    let Some(operations) = rule.headers.as_ref().and_then(|headers| headers.request.as_ref()) else { return };
    for (field, map) in [("set", &operations.set), ("add", &operations.add)] {
        for (name, value) in map {
            if !name.eq_ignore_ascii_case("host") && name != ":authority" {
                continue;
            }
            let at = at.key("headers").key("request").key(field).key(name);
            match set {
                Some(first) => {
                    check.error(&at, format!("the authority is set more than once: to `{first}` and to `{value}`"));
                }
                None => set = Some(value),
            }
        }
    }
}

fn mirrors(rule: &HttpRoute, at: &FieldPath, check: &mut Check<'_>) {
    if rule.mirror.is_some() && !rule.mirrors.is_empty() {
        check.error(&at.key("mirrors"), "an HTTP rule cannot have both mirror and mirrors");
    }
    if rule.mirror.is_some() {
        virtual_service::destination(rule.mirror.as_ref(), &at.key("mirror"), check);
    }
    if let Some(percent) = rule.mirror_percent {
        check.warning(&at.key("mirrorPercent"), "mirrorPercent is deprecated; use mirrorPercentage");
        if percent > 100 {
            check.error(&at.key("mirrorPercent"), format!("mirrorPercent {percent} is more than 100"));
        }
    }
    share(rule.mirror_percentage.as_ref(), &at.key("mirrorPercentage"), check);
    for (index, mirror) in rule.mirrors.iter().enumerate() {
        let at = at.key("mirrors").index(index);
        virtual_service::destination(mirror.destination.as_ref(), &at.key("destination"), check);
        share(mirror.percentage.as_ref(), &at.key("percentage"), check);
    }
}

/// 0 to 100.
fn share(percent: Option<&Percent>, at: &FieldPath, check: &mut Check<'_>) {
    if let Some(percent) = percent
        && !(0.0..=100.0).contains(&percent.value.0)
    {
        check.error(&at.key("value"), format!("percentage {} is not in the range 0 to 100", percent.value.0));
    }
}

fn retry(retries: &HttpRetry, at: &FieldPath, check: &mut Check<'_>) {
    if retries.attempts < 0 {
        check.error(&at.key("attempts"), "attempts cannot be negative");
    }
    let configured = retries.per_try_timeout.is_some()
        || !retries.retry_on.is_empty()
        || retries.retry_remote_localities.is_some()
        || retries.backoff.is_some();
    if retries.attempts == 0 && configured {
        check.error(&at.key("attempts"), "retries are configured although attempts is 0, which disables them");
    }
    durations::positive_or_off(retries.per_try_timeout, &at.key("perTryTimeout"), check);
    durations::positive(retries.backoff.filter(|span| *span != Span::default()), &at.key("backoff"), check);
    if retries.retry_on.is_empty() {
        return;
    }
    for word in retries.retry_on.split(',').map(str::trim) {
        let status = word.parse::<u16>().is_ok_and(|code| (100..600).contains(&code));
        if !status && !RETRY_ON.contains(&word) {
            check.error(&at.key("retryOn"), format!("`{word}` is not a retryOn condition"));
        }
    }
}
