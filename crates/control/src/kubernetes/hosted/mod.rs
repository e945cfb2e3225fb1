//! A control plane that serves another cluster than the one it runs in: primary-remote.
//!
//! The remote's API server is where objects, token reviews, trust, webhooks and status are; the primary's keeps what must outlive a pod.
//! Between the two stand a credential and an address, which are kept right here. Must never write into the primary outside its own
//! namespace. Invariant: a remote API server that refuses or is away costs what is read and written there, until it is back.

mod announce;
mod credential;
mod door;
mod renewal;
#[cfg(test)]
mod tests;

use super::Home;
use super::lease::Leadership;
use anyhow::Context as _;
use credential::{Credential, Token};
use door::Door;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::util::MapRequestLayer;

use fairlead_install::remote::{SECRET, TOKEN, XDS as SERVICE};

pub struct Hosting {
    /// The remote.
    cluster: String,
    /// The system namespace there.
    namespace: String,
    remote: Client,
    home: Home,
    credential: Arc<Credential>,
    /// How long a token is asked for.
    lifetime: Duration,
    /// What an operator must do something about.
    trouble: watch::Sender<Option<String>>,
    door: watch::Sender<Option<Door>>,
}

/// A client whose requests carry the newest token. The first is in the file that the kubeconfig names.
pub(super) fn remote_client(mut config: Config) -> anyhow::Result<(Client, Arc<Credential>)> {
    let file = config.auth_info.token_file.take().context(
        "the kubeconfig of a remote cluster must name its token's file (users[].user.tokenFile), as `fairlead join --primary` writes it",
    )?;
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let credential = Credential::new(Token::read(&text).with_context(|| file.clone())?);
    let signing = credential.clone();
    let layer = MapRequestLayer::new(move |request: http::Request<Body>| signing.sign(request));
    Ok((ClientBuilder::try_from(config)?.with_layer(&layer).build(), credential))
}

impl Hosting {
    /// Begins to hear of new tokens, which a start may wait for.
    pub(super) fn begin(
        (cluster, namespace): (&str, &str),
        (remote, credential): (Client, Arc<Credential>),
        home: Home,
        lifetime: Duration,
        vital: &mut JoinSet<()>,
    ) -> Arc<Self> {
        let hosting = Arc::new(Self {
            cluster: cluster.to_owned(),
            namespace: namespace.to_owned(),
            remote,
            home,
            credential,
            lifetime,
            trouble: watch::Sender::new(None),
            door: watch::Sender::new(None),
        });
        vital.spawn(hosting.clone().hear());
        hosting
    }

    /// For ever: the credential, and where the remote finds us.
    pub async fn keep(self: Arc<Self>, leadership: Leadership) {
        tokio::join!(self.renew(&leadership), self.announce(leadership.clone()));
    }

    /// What an operator must do something about; wakes when that changes.
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Wakes when [`Self::advertised`] changes.
    pub fn doors(&self) -> watch::Receiver<Option<Door>> {
        self.door.subscribe()
    }

    /// What to do about a credential that is not accepted.
    pub fn remedy(&self) -> String {
        format!("make a new one: fairlead join --context {} --primary CONTEXT-OF-THE-PRIMARY", self.cluster)
    }
}
