//! What an API server signs service-account tokens with, for tests.

use super::fake_api::FakeApi;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

const ISSUER: &str = "https://kubernetes.default.svc";

pub struct Signer(EcdsaKeyPair);

impl Signer {
    pub fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// The API server publishes its keys from now on.
    pub fn serve(&self, api: &FakeApi) {
        let point = self.0.public_key().as_ref();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let key = json!({"kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "alg": "ES256",
            "x": part(&point[1..33]), "y": part(&point[33..])});
        api.set_document("/openid/v1/jwks", json!({"keys": [key]}));
        api.set_document("/.well-known/openid-configuration", json!({"issuer": ISSUER}));
    }

    pub fn sign(&self, kid: &str, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&json!({"alg": "ES256", "typ": "JWT", "kid": kid})), part(claims));
        let signature = self.0.sign(&aws_lc_rs::rand::SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// The projected token of a pod.
    pub fn token(&self, namespace: &str, pod: &str, uid: &str, account: &str, audience: &str) -> String {
        let bound = json!({"namespace": namespace, "pod": {"name": pod, "uid": uid},
            "serviceaccount": {"name": account, "uid": "1"}});
        let claims = json!({"aud": [audience], "exp": 4_000_000_000_u64, "iat": 3_999_996_400_u64, "nbf": 1, "iss": ISSUER,
            "sub": format!("system:serviceaccount:{namespace}:{account}"), "kubernetes.io": bound});
        self.sign("one", &claims)
    }
}
