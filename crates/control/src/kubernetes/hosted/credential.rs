//! The token with which a control plane asks a remote cluster's API server: what it says of its life, and how requests carry it.
//!
//! Never printed, never verified (the API server does that). Invariants: a request carries the newest token that is known, without a
//! new client, so that no watch ends because of a new token; one that was issued earlier never replaces a later one.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The newest token. Clones of its `Arc` are the same.
pub struct Credential(watch::Sender<Arc<Token>>);

/// One token.
pub struct Token {
    pub text: String,
    header: HeaderValue,
    pub life: Life,
}

/// What a token says of itself, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Life {
    #[serde(rename = "iat")]
    pub issued: i64,
    #[serde(rename = "exp")]
    pub ends: i64,
}

impl Token {
    /// # Errors
    /// It is no token of a service account, or lasts for ever.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        let text = text.trim().to_owned();
        let claims = text.split('.').nth(1).context("it is no token of a service account")?;
        let claims = URL_SAFE_NO_PAD.decode(claims).context("it is no token of a service account")?;
        let life = serde_json::from_slice(&claims).context("it does not say from when to when it is good")?;
        let mut header = HeaderValue::try_from(format!("Bearer {text}")).context("it is no token")?;
        header.set_sensitive(true);
        Ok(Self { text, header, life })
    }
}

impl Life {
    /// Until this share of the life is over, in percent; zero when it is.
    pub fn until(&self, percent: i64, now: i64) -> Duration {
        let at = self.issued + (self.ends - self.issued).max(0) * percent / 100;
        Duration::from_secs(u64::try_from(at - now).unwrap_or(0))
    }
}

impl Credential {
    pub fn new(token: Token) -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(Arc::new(token))))
    }

    pub fn current(&self) -> Arc<Token> {
        self.0.borrow().clone()
    }

    /// Wakes at each new token.
    pub fn changes(&self) -> watch::Receiver<Arc<Token>> {
        self.0.subscribe()
    }

    /// Takes a token that is no older; whether it is another.
    pub fn take(&self, token: Token) -> bool {
        self.0.send_if_modified(|held| {
            let is_new = token.text != held.text && token.life.issued >= held.life.issued;
            if is_new {
                *held = Arc::new(token);
            }
            is_new
        })
    }

    /// Puts the newest token into a request.
    pub fn sign<B>(&self, mut request: http::Request<B>) -> http::Request<B> {
        request.headers_mut().insert(AUTHORIZATION, self.0.borrow().header.clone());
        request
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A token of that life.
    pub fn token(issued: i64, ends: i64) -> String {
        let part = |json: String| URL_SAFE_NO_PAD.encode(json);
        let claims = format!(r#"{{"iat":{issued},"exp":{ends},"sub":"system:serviceaccount:fairlead-system:x"}}"#);
        format!("{}.{}.sig", part(r#"{"alg":"RS256"}"#.into()), part(claims))
    }

    #[test]
    fn a_life_has_a_half() {
        let life = Token::read(&format!("{}\n", token(1000, 2000))).unwrap().life;
        assert_eq!(life, Life { issued: 1000, ends: 2000 });
        assert_eq!(life.until(50, 1100), Duration::from_secs(400));
        assert_eq!(life.until(75, 1100), Duration::from_secs(650));
        assert_eq!(life.until(50, 1900), Duration::ZERO);
        for bad in ["", "secret", "a.b.c", &token(1, 2).replace('.', "")] {
            assert!(Token::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn requests_carry_the_newest_and_an_older_one_is_not_taken() {
        let credential = Credential::new(Token::read(&token(1000, 2000)).unwrap());
        let carried = |c: &Credential| c.sign(http::Request::new(())).headers()[AUTHORIZATION].clone();
        assert!(carried(&credential).is_sensitive());
        assert!(credential.take(Token::read(&token(1500, 2500)).unwrap()));
        assert_eq!(carried(&credential).to_str().unwrap(), format!("Bearer {}", token(1500, 2500)));
        assert!(!credential.take(Token::read(&token(1000, 2000)).unwrap()), "an old one that is heard of late");
        assert!(!credential.take(Token::read(&token(1500, 2500)).unwrap()), "the same");
        assert_eq!(credential.current().life.issued, 1500);
    }
}
