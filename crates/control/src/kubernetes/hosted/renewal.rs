//! Keeps the token for a remote cluster's API server: hears of one that an operator brings, and asks for the next at half of its life.
//!
//! Invariants: a new token is used as soon as it is known and kept in the primary; while the primary's API server is away it is renewed
//! all the same; one that cannot be renewed is told of before it ends, and tried again for ever.

use super::credential::Token;
use super::{Hosting, SECRET, TOKEN};
use crate::authority::now;
use crate::kubernetes::lease::Leadership;
use anyhow::Context as _;
use fairlead_install::remote::ACCOUNT;
use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use std::sync::Arc;
use std::time::Duration;

/// When the holder of the lease asks for the next, in percent of the token's life; when every replica does.
const RENEW: (i64, i64) = (50, 75);
/// A token that could not be renewed is told of from here on.
const TELL: i64 = 80;
/// The lease is looked at again after this.
const LOOK: Duration = Duration::from_secs(30);
/// After an attempt that failed, growing.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// One request.
const LIMIT: Duration = Duration::from_secs(10);

impl Hosting {
    /// Takes every token that is written into the Secret, by an operator or another replica. For ever.
    pub(super) async fn hear(self: Arc<Self>) {
        let named = watcher::Config::default().fields(&format!("metadata.name={SECRET}"));
        let mut secrets = std::pin::pin!(watcher(self.secrets(), named).default_backoff());
        while let Some(event) = secrets.next().await {
            let Ok(Event::Apply(secret) | Event::InitApply(secret)) = event else { continue };
            match read(&secret).map(|token| self.credential.take(token)) {
                Ok(true) => {
                    tracing::info!(cluster = self.cluster, "a new credential for the remote's API server");
                    self.trouble.send_replace(None);
                }
                Ok(false) => {}
                Err(e) => tracing::error!("Secret {}/{SECRET}: {e:#}", self.home.namespace),
            }
        }
    }

    /// Renews it for ever.
    pub(super) async fn renew(&self, leadership: &Leadership) {
        let mut changes = self.credential.changes();
        let mut held_lease = leadership.clone();
        let mut unwritten = false;
        let mut pause = RETRY.0;
        loop {
            let held = changes.borrow_and_update().clone();
            let at = if leadership.holds() { RENEW.0 } else { RENEW.1 };
            let due = held.life.until(at, seconds());
            if due.is_zero() || unwritten {
                let done = match due.is_zero() {
                    true => self.ask().await.map(|()| unwritten = true),
                    false => Ok(()),
                };
                let done = match done {
                    Ok(()) => self.write().await.map(|()| unwritten = false),
                    Err(e) => Err(self.told(e, held.life.until(TELL, seconds()).is_zero())),
                };
                match done {
                    Ok(()) => pause = RETRY.0,
                    Err(e) => {
                        tracing::warn!(cluster = self.cluster, "the remote's credential: {e:#}; again in {pause:?}");
                        tokio::select! {
                            () = tokio::time::sleep(pause) => {}
                            // Somebody brought one.
                            changed = changes.changed(), if !unwritten => if changed.is_err() { return },
                        }
                        pause = (pause * 2).min(RETRY.1);
                    }
                }
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(due.min(LOOK)) => {}
                () = held_lease.gained(), if !leadership.holds() => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Asks for the next token and uses it.
    async fn ask(&self) -> anyhow::Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.remote.clone(), &self.namespace);
        let seconds = i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX);
        let spec = TokenRequestSpec { expiration_seconds: Some(seconds), ..TokenRequestSpec::default() };
        let wanted = TokenRequest { spec, ..TokenRequest::default() };
        let params = PostParams::default();
        let asked = tokio::time::timeout(LIMIT, accounts.create_token_request(ACCOUNT, &params, &wanted)).await;
        let answer = asked.context("no answer in 10 s")?.map_err(|e| match e {
            kube::Error::Api(status) if status.code == 401 => {
                anyhow::anyhow!("the API server of {} does not accept the present one (401)", self.cluster)
            }
            kube::Error::Api(status) => anyhow::anyhow!("{}", status.message),
            other => other.into(),
        })?;
        let token = Token::read(&answer.status.context("an answer without a token")?.token)?;
        let ends = token.life.ends;
        self.credential.take(token);
        self.trouble.send_replace(None);
        tracing::info!(cluster = self.cluster, ends, "the credential for the remote's API server is renewed");
        Ok(())
    }

    /// Keeps the token for other replicas and for the next start.
    async fn write(&self) -> anyhow::Result<()> {
        let api = self.secrets();
        let keep = async {
            let mut secret = api.get(SECRET).await?;
            let held = self.credential.current();
            if read(&secret).is_ok_and(|kept| kept.life.issued > held.life.issued) {
                return Ok(()); // an operator's, which is heard of
            }
            let text = ByteString(held.text.clone().into_bytes());
            secret.data.get_or_insert_default().insert(TOKEN.into(), text);
            api.replace(SECRET, &PostParams::default(), &secret).await.map(drop)
        };
        let written =
            tokio::time::timeout(LIMIT, keep).await.context("no answer of the primary's API server in 10 s")?;
        written.with_context(|| format!("it is renewed, and cannot be kept in Secret {}/{SECRET}", self.home.namespace))
    }

    /// What an operator is told of, in time.
    fn told(&self, error: anyhow::Error, late: bool) -> anyhow::Error {
        if late {
            let ends = self.credential.current().life.ends;
            let over = ends <= seconds();
            let message = match over {
                true => format!("it has ended and cannot be renewed: {error:#}"),
                false => format!("it ends in {} s and cannot be renewed: {error:#}", ends - seconds()),
            };
            // The seconds that are left are not news.
            self.trouble.send_if_modified(|told| {
                let is_new = told.as_ref().is_none_or(|told| told.starts_with("it has ended") != over);
                if is_new {
                    *told = Some(message);
                }
                is_new
            });
        }
        error
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.home.client.clone(), &self.home.namespace)
    }
}

fn read(secret: &Secret) -> anyhow::Result<Token> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(TOKEN)).with_context(|| format!("it has no {TOKEN}"))?;
    Token::read(&String::from_utf8_lossy(&bytes.0))
}

fn seconds() -> i64 {
    i64::try_from(now().as_secs()).unwrap_or(i64::MAX)
}
