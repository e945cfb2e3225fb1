//! What a service-account token says, and what it must say to be a pod's first credential. Pure.
//!
//! Invariant: only a token that is bound to a pod and made for this cluster's mesh is one; everything else is refused with the reason and
//! what to do about it.

use crate::quiet::short;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use serde::Deserialize;
use std::fmt;

/// Longest token that is looked at; a projected one is under 2 KB.
const LONGEST: usize = 16 * 1024;
const USER: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// Longest name of anything.
const NAME: usize = 253;
/// Longest life of a token that is believed by keys alone, in seconds; the one that is projected into our pods lives an hour.
const LONGEST_LIFE: u64 = 2 * 3600;

/// What a token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodClaim {
    pub namespace: String,
    pub pod: String,
    /// The API server's id of it: a later pod of that name has another.
    pub uid: String,
    pub service_account: String,
}

impl fmt::Display for PodClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.pod)
    }
}

/// Why a token is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PodTokenError {
    #[error("this is no service-account token; show the token that the kubelet projects for the audience {audience}")]
    Malformed { audience: String },
    #[error(
        "the service-account token of {who} is for {found}, not for the audience {audience}; project one with `audience: {audience}` \
         (was the pod injected for another cluster?)"
    )]
    Audience { who: String, found: String, audience: String },
    #[error(
        "the token of {who} is not bound to a pod; show the projected token of a pod (audience {audience}), not one made by \
         `kubectl create token` or kept in a Secret"
    )]
    Unbound { who: String, audience: String },
    #[error(
        "the service-account token of {who} (audience {audience}) has ended; read the projected file anew, the kubelet replaces it"
    )]
    Ended { who: String, audience: String },
    #[error(
        "the API server refuses the token of {who} (audience {audience}): {why}; restart the pod if it was deleted and made anew"
    )]
    Denied { who: String, audience: String, why: String },
    #[error("the token of {who} cannot be checked now: {why}; it is tried again")]
    Unavailable { who: String, why: String },
}

/// What a token says of itself, unproven: good for messages, and for refusing at once what could never be right.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Said {
    #[serde(default)]
    aud: Audiences,
    #[serde(default)]
    exp: u64,
    #[serde(default)]
    iat: u64,
    #[serde(default)]
    sub: String,
    #[serde(default, rename = "kubernetes.io")]
    kubernetes: Option<Bound>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Several(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Bound {
    #[serde(default)]
    namespace: String,
    pod: Option<Named>,
    serviceaccount: Option<Named>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    uid: String,
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

/// Whether a credential is a signed JWT by its shape: three parts, the first a JSON object.
pub fn is_jwt(credential: &str) -> bool {
    let mut parts = credential.split('.');
    let header = parts.next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
    header.is_some_and(|header| header.starts_with(b"{")) && parts.count() == 2
}

impl Said {
    /// # Errors
    /// It is no token of a pod for this audience, or it has ended.
    pub fn read(token: &str, audience: &str, now: u64) -> Result<Self, PodTokenError> {
        let malformed = || PodTokenError::Malformed { audience: audience.into() };
        let body = token.split('.').nth(1).filter(|_| token.len() <= LONGEST).ok_or_else(malformed)?;
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| malformed())?;
        let said: Self = serde_json::from_slice(&body).map_err(|_| malformed())?;
        let (who, audience) = (said.who(), audience.to_owned());
        // For it alone: a token that is good elsewhere too could be shown here by whoever it was shown to there.
        if said.audiences() != [audience.as_str()] {
            let found = match said.audiences() {
                [] => "the API server".to_owned(),
                audiences => short(&audiences.join(", ")),
            };
            return Err(PodTokenError::Audience { who, found, audience });
        }
        if said.claim().is_none() {
            return Err(PodTokenError::Unbound { who, audience });
        }
        if said.exp <= now {
            return Err(PodTokenError::Ended { who, audience });
        }
        Ok(said)
    }

    /// The pod, or whatever else it names.
    pub fn who(&self) -> String {
        let Some(claim) = self.claim() else { return format!("`{}`", short(&self.sub)) };
        format!("pod {claim}")
    }

    /// Whether it lives no longer than is believed of a token that nobody but its keys vouches for.
    pub fn is_short_lived(&self) -> bool {
        self.iat > 0 && self.exp.saturating_sub(self.iat) <= LONGEST_LIFE
    }

    /// What it would prove if it were true.
    pub fn claim(&self) -> Option<PodClaim> {
        let bound = self.kubernetes.as_ref()?;
        let (pod, account) = (bound.pod.as_ref()?, bound.serviceaccount.as_ref()?);
        let claim = PodClaim {
            namespace: bound.namespace.clone(),
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            service_account: account.name.clone(),
        };
        let subject = format!("{USER}{}:{}", claim.namespace, claim.service_account);
        (is_named(&claim) && self.sub == subject).then_some(claim)
    }

    fn audiences(&self) -> &[String] {
        match &self.aud {
            Audiences::One(one) => std::slice::from_ref(one),
            Audiences::Several(several) => several,
        }
    }
}

/// What the API server's answer proves.
///
/// # Errors
/// It does not authenticate the token, or not for this audience, or as no pod.
pub fn reviewed(status: &TokenReviewStatus, said: &Said, audience: &str) -> Result<PodClaim, PodTokenError> {
    let (who, audience) = (said.who(), audience.to_owned());
    if status.authenticated != Some(true) {
        let why = status.error.clone().filter(|e| !e.is_empty()).unwrap_or_else(|| "it is not authenticated".into());
        return Err(PodTokenError::Denied { who, audience, why });
    }
    // A server that knows nothing of audiences answers with none: then the token may have been meant for anybody.
    let audiences = status.audiences.clone().unwrap_or_default();
    if !audiences.contains(&audience) {
        let found = if audiences.is_empty() { "the API server".into() } else { audiences.join(", ") };
        return Err(PodTokenError::Audience { who, found, audience });
    }
    let user = status.user.as_ref();
    let account = user.and_then(|u| u.username.as_deref()?.strip_prefix(USER)?.split_once(':'));
    let extra = |key: &str| {
        user.and_then(|u| match u.extra.as_ref()?.get(key)?.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        })
    };
    let (Some((namespace, account)), Some(pod), Some(uid)) = (account, extra(POD_NAME), extra(POD_UID)) else {
        return Err(PodTokenError::Unbound { who, audience });
    };
    let claim = PodClaim { namespace: namespace.into(), pod, uid, service_account: account.into() };
    is_named(&claim).then_some(claim).ok_or(PodTokenError::Unbound { who, audience })
}

/// Names go into a workload key and a SPIFFE ID: nothing in them may separate.
fn is_named(claim: &PodClaim) -> bool {
    let good = |name: &str| {
        (1..=NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
    };
    good(&claim.namespace) && good(&claim.pod) && good(&claim.uid) && good(&claim.service_account)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub const AUDIENCE: &str = "fairlead.dev/east";

    pub fn claims(namespace: &str, pod: Option<&str>, audience: &str) -> Value {
        let mut bound = json!({"namespace": namespace, "serviceaccount": {"name": "web", "uid": "1"}});
        if let Some(pod) = pod {
            bound["pod"] = json!({"name": pod, "uid": "2"});
        }
        json!({"aud": [audience], "exp": 4_000_000_000_u64, "iat": 3_999_996_400_u64, "nbf": 1, "iss": "https://kubernetes.default.svc",
            "sub": format!("system:serviceaccount:{namespace}:web"), "kubernetes.io": bound})
    }

    pub fn unsigned(claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.{}", part(&json!({"alg": "RS256", "kid": "k"})), part(claims), "c2ln")
    }

    pub fn authenticated(namespace: &str, pod: Option<&str>, audiences: &[&str]) -> Value {
        let mut extra = json!({"authentication.kubernetes.io/credential-id": ["JTI=x"]});
        if let Some(pod) = pod {
            extra[POD_NAME] = json!([pod]);
            extra[POD_UID] = json!(["2"]);
        }
        json!({"authenticated": true, "audiences": audiences,
            "user": {"username": format!("{USER}{namespace}:web"), "uid": "1", "extra": extra}})
    }

    fn read(claims: &Value) -> Result<Said, PodTokenError> {
        Said::read(&unsigned(claims), AUDIENCE, 1000)
    }

    #[test]
    fn what_a_token_must_say() {
        let good = read(&claims("shop", Some("a-1"), AUDIENCE)).unwrap();
        assert_eq!(good.claim().unwrap().to_string(), "shop/a-1");
        let refused = |claims: Value, parts: &[&str]| {
            let message = read(&claims).unwrap_err().to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        };
        refused(claims("shop", Some("a-1"), "vault"), &["pod shop/a-1", "vault", "`audience: fairlead.dev/east`"]);
        let mut several = claims("shop", Some("a-1"), AUDIENCE);
        several["aud"] = json!([AUDIENCE, "vault"]);
        refused(several, &["pod shop/a-1", "for fairlead.dev/east, vault"]);
        let mut none = claims("shop", Some("a-1"), AUDIENCE);
        none["aud"] = json!(null);
        assert!(read(&none).is_err());
        let mut nameless = claims("shop", Some("a-1"), AUDIENCE);
        nameless["kubernetes.io"]["pod"]["uid"] = json!("");
        refused(nameless, &["not bound to a pod"]);
        let mut long = claims("shop", None, AUDIENCE);
        long["sub"] = json!("x".repeat(10_000));
        assert!(read(&long).unwrap_err().to_string().len() < 1000, "what a stranger wrote is not told in full");
        refused(claims("shop", None, AUDIENCE), &["system:serviceaccount:shop:web", "not bound to a pod", AUDIENCE]);
        let mut ended = claims("shop", Some("a-1"), AUDIENCE);
        ended["exp"] = json!(1000);
        refused(ended, &["pod shop/a-1", "has ended"]);
        let mut other = claims("shop", Some("a-1"), AUDIENCE);
        other["sub"] = json!("system:serviceaccount:bank:web");
        refused(other, &["not bound"]);
        let mut slash = claims("shop", Some("a/b"), AUDIENCE);
        slash["aud"] = json!(AUDIENCE);
        refused(slash, &["not bound"]);
        assert!(Said::read("a.b.c", AUDIENCE, 0).unwrap_err().to_string().contains(AUDIENCE));
        assert!(is_jwt(&unsigned(&json!({}))) && !is_jwt("flw1.abc.def") && !is_jwt(""));
    }

    #[test]
    fn what_a_review_must_say() {
        let said = read(&claims("shop", Some("a-1"), AUDIENCE)).unwrap();
        let judge = |status: Value| reviewed(&serde_json::from_value(status).unwrap(), &said, AUDIENCE);
        let claim = judge(authenticated("shop", Some("a-1"), &[AUDIENCE])).unwrap();
        assert_eq!((claim.pod.as_str(), claim.service_account.as_str()), ("a-1", "web"));
        // What the API server says counts, not what the token said.
        assert_eq!(judge(authenticated("bank", Some("b-1"), &[AUDIENCE])).unwrap().to_string(), "bank/b-1");
        let denied = judge(json!({"authenticated": false, "error": "pod is gone"})).unwrap_err().to_string();
        assert!(denied.contains("pod is gone") && denied.contains("pod shop/a-1"), "{denied}");
        assert!(matches!(judge(authenticated("shop", Some("a-1"), &[])), Err(PodTokenError::Audience { .. })));
        let elsewhere = judge(authenticated("shop", Some("a-1"), &["https://kubernetes.default.svc"]));
        assert!(matches!(elsewhere, Err(PodTokenError::Audience { .. })), "the API server must say ours");
        let mut no_uid = authenticated("shop", Some("a-1"), &[AUDIENCE]);
        no_uid["user"]["extra"][POD_UID] = json!([]);
        assert!(matches!(judge(no_uid), Err(PodTokenError::Unbound { .. })));
        assert!(matches!(judge(authenticated("shop", None, &[AUDIENCE])), Err(PodTokenError::Unbound { .. })));
        let mut human = authenticated("shop", Some("a-1"), &[AUDIENCE]);
        human["user"]["username"] = json!("admin");
        assert!(matches!(judge(human), Err(PodTokenError::Unbound { .. })));
    }
}
