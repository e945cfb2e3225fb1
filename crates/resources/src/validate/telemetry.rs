//! `Telemetry` and `ProxyConfig`.

use super::check::Check;
use super::{durations, labels, policy_target};
use crate::field::FieldPath;
use crate::istio::{Metrics, ProviderRef, ProxyConfigSpec, TagOperation, TelemetrySpec, Tracing};

/// Checks a Telemetry.
pub(super) fn check(spec: &TelemetrySpec, at: &FieldPath, check: &mut Check<'_>) {
    policy_target::check(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs, at, check);
    if spec.tracing.len() > 1 {
        check.warning(&at.key("tracing"), "only one tracing entry is supported");
    }
    for (index, entry) in spec.tracing.iter().enumerate() {
        tracing(entry, &at.key("tracing").index(index), check);
    }
    for (index, entry) in spec.metrics.iter().enumerate() {
        metrics(entry, &at.key("metrics").index(index), check);
    }
    for (index, entry) in spec.access_logging.iter().enumerate() {
        let at = at.key("accessLogging").index(index);
        providers(&entry.providers, &at, check);
        if let Some(filter) = &entry.filter {
            check.problem(&at.key("filter").key("expression"), expression(&filter.expression));
        }
    }
}

/// Checks a ProxyConfig.
pub(super) fn check_proxy_config(spec: &ProxyConfigSpec, at: &FieldPath, check: &mut Check<'_>) {
    labels::policy_selector(spec.selector.as_ref(), &at.key("selector"), check);
    if spec.concurrency.is_some_and(|threads| threads < 0) {
        check.error(&at.key("concurrency"), "concurrency must not be negative");
    }
}

fn tracing(tracing: &Tracing, at: &FieldPath, check: &mut Check<'_>) {
    providers(&tracing.providers, at, check);
    if tracing.providers.len() > 1 {
        check.warning(&at.key("providers"), "only one tracing provider is supported");
    }
    if tracing.random_sampling_percentage.is_some_and(|percent| !(0.0..=100.0).contains(&percent.0)) {
        check.error(&at.key("randomSamplingPercentage"), "the percentage must be in the range 0 to 100");
    }
    for (name, tag) in &tracing.custom_tags {
        let at = at.key("customTags").key(name);
        let kinds = [tag.literal.is_some(), tag.environment.is_some(), tag.header.is_some(), tag.formatter.is_some()];
        if name.is_empty() {
            check.error(&at, "a tag's name must not be empty");
        }
        if kinds.iter().filter(|kind| **kind).count() > 1 {
            check.error(&at, "only one of literal, environment, header and formatter may be set");
        }
        for (field, value) in [
            ("literal", tag.literal.as_ref().map(|tag| &tag.value)),
            ("environment", tag.environment.as_ref().map(|tag| &tag.name)),
            ("header", tag.header.as_ref().map(|tag| &tag.name)),
            ("formatter", tag.formatter.as_ref().map(|tag| &tag.value)),
        ] {
            if value.is_some_and(String::is_empty) {
                check.error(&at.key(field), "the value must not be empty");
            }
        }
    }
}

fn metrics(metrics: &Metrics, at: &FieldPath, check: &mut Check<'_>) {
    providers(&metrics.providers, at, check);
    durations::positive(metrics.reporting_interval, &at.key("reportingInterval"), check);
    for (index, entry) in metrics.overrides.iter().enumerate() {
        let at = at.key("overrides").index(index);
        if let Some(selection) = &entry.selection {
            let at = at.key("match");
            if selection.custom_metric.as_ref().is_some_and(String::is_empty) {
                check.error(&at.key("customMetric"), "the metric's name must not be empty");
            }
            if selection.metric.is_some() && selection.custom_metric.is_some() {
                check.error(&at, "only one of metric and customMetric may be set");
            }
        }
        for (name, tag) in &entry.tag_overrides {
            let at = at.key("tagOverrides").key(name);
            match (tag.operation, tag.value.is_empty()) {
                (TagOperation::Upsert, true) => check.error(&at.key("value"), "value must be set with UPSERT"),
                (TagOperation::Remove, false) => check.error(&at.key("value"), "value must not be set with REMOVE"),
                (TagOperation::Upsert, false) => check.problem(&at.key("value"), expression(&tag.value)),
                (TagOperation::Remove, true) => {}
            }
        }
    }
}

fn providers(list: &[ProviderRef], at: &FieldPath, check: &mut Check<'_>) {
    for (index, provider) in list.iter().enumerate() {
        if provider.name.is_empty() {
            check.error(&at.key("providers").index(index).key("name"), "the provider's name must not be empty");
        }
    }
}

/// What can be told about a CEL expression without an evaluator: brackets and quotes are closed, something is inside.
fn expression(text: &str) -> Option<String> {
    let mut open = Vec::new();
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for c in text.chars() {
        if let Some(end) = quote {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == end => quote = None,
                _ => {}
            }
            continue;
        }
        match c {
            '"' | '\'' => quote = Some(c),
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' if open.pop() != Some(c) => return Some(format!("`{text}` has an unexpected `{c}`")),
            _ => {}
        }
    }
    (quote.is_some() || !open.is_empty()).then(|| format!("`{text}` has an open bracket or quote"))
}
