//! Short names.
//!
//! Never looks a name up. Rule (Istio): a name without a dot is a Service of the rule's own namespace; anything else is
//! taken as it is, in lower case. Profile-independent.

/// `reviews` in `shop` is `reviews.shop.svc.cluster.local`. Wildcards and IP addresses stay.
pub(crate) fn expand(name: &str, namespace: &str, domain: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let lower = lower.strip_suffix('.').unwrap_or(&lower);
    if lower.is_empty() || lower.contains('.') || lower.starts_with('*') || lower.contains(':') {
        return lower.to_owned();
    }
    format!("{lower}.{namespace}.svc.{domain}")
}

/// `name.namespace.svc.<suffix>`.
pub(crate) fn join(name: &str, namespace: &str, suffix: &str) -> String {
    format!("{name}.{namespace}.svc.{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_in_the_rules_namespace() {
        let of = |name: &str| expand(name, "shop", "cluster.local");
        assert_eq!(of("reviews"), "reviews.shop.svc.cluster.local");
        assert_eq!(of("reviews.other"), "reviews.other");
        assert_eq!(of("Api.Example.com"), "api.example.com");
        assert_eq!(of("*"), "*");
        assert_eq!(of("*.example.com"), "*.example.com");
    }
}
