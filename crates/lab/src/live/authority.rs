//! The CAs of a lab: it makes each cluster's and gives it to the control plane, so that it can mint what call tables ask for; and one for
//! the servers outside, which stands for the authorities that everybody knows.
//!
//! Must never touch a proxy's own credentials. Invariant: `trust: perCluster` gives every cluster a root of its own, `shared` one
//! root and an intermediate with a key of its own per cluster (Istio's `cacerts` layout in both cases).

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairlead_identity::{Ca, CaPem, CertificateSpec, Mint, Minted, SharedRoot, SpiffeId, SystemRandom, TrustDomain};
use rustls::pki_types::UnixTime;

use super::layout::Layout;
use super::spec::MeshSpec;

/// The CA of each cluster.
#[derive(Debug)]
pub struct Authorities {
    shared: Option<SharedRoot>,
    clusters: Mutex<BTreeMap<String, Ca>>,
}

impl Authorities {
    /// Makes a CA for every cluster, or takes those that a state directory has from an earlier run, and writes them for the
    /// control planes.
    pub fn create(spec: &MeshSpec, layout: &Layout) -> Result<Self, String> {
        let shared = match spec.shared_trust {
            true => Some(
                SharedRoot::create(&domain(&spec.trust_domain)?, now(), &mut SystemRandom)
                    .map_err(|e| e.to_string())?,
            ),
            false => None,
        };
        let outside = Ca::create_root("outside", &domain("outside.invalid")?, now(), &mut SystemRandom);
        let outside = outside.map_err(|e| e.to_string())?.to_pem();
        write(&outside, &layout.outside()).map_err(|e| format!("{}: {e}", layout.outside().display()))?;
        let authorities = Self { shared, clusters: Mutex::default() };
        for (name, cluster) in &spec.clusters {
            let folder = layout.cacerts(name);
            let kept = read(name, &domain(&cluster.trust_domain)?, &folder);
            match kept {
                Some(ca) => drop(authorities.lock().insert(name.clone(), ca)),
                None => authorities.renew(name, &cluster.trust_domain, layout)?,
            }
        }
        Ok(authorities)
    }

    /// A new CA for a cluster that begins anew.
    pub fn renew(&self, cluster: &str, trust_domain: &str, layout: &Layout) -> Result<(), String> {
        let ca = match &self.shared {
            Some(root) => root.intermediate(cluster, now(), &mut SystemRandom),
            None => Ca::create_root(cluster, &domain(trust_domain)?, now(), &mut SystemRandom),
        };
        let ca = ca.map_err(|e| e.to_string())?;
        write(&ca.to_pem(), &layout.cacerts(cluster))
            .map_err(|e| format!("{}: {e}", layout.cacerts(cluster).display()))?;
        self.lock().insert(cluster.to_owned(), ca);
        Ok(())
    }

    /// A certificate for a caller of `cluster`, as `client.certificate` writes it.
    pub fn mint(&self, cluster: &str, caller: &str, certificate: &str) -> Result<Minted, String> {
        let clusters = self.lock();
        let ca = clusters.get(cluster).ok_or_else(|| format!("{cluster} has no CA in this lab"))?;
        let own = ca.trust_domain();
        let other = clusters.values().map(Ca::trust_domain).find(|domain| *domain != own).cloned();
        let spec: CertificateSpec = certificate.parse().map_err(|e| format!("client.certificate: {e}"))?;
        let caller = SpiffeId::parse(caller).map_err(|e| format!("caller {caller}: {e}"))?;
        Mint::new(ca, other).mint(&spec, &caller, now(), &mut SystemRandom).map_err(|e| e.to_string())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Ca>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::new(text).map_err(|e| format!("trust domain {text}: {e}"))
}

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
}

fn read(cluster: &str, domain: &TrustDomain, folder: &Path) -> Option<Ca> {
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let pem =
        CaPem::of_files(text("ca-cert.pem")?, text("ca-key.pem")?, text("root-cert.pem")?, text("cert-chain.pem")?);
    Ca::from_pem(cluster, domain, &pem).ok()
}

fn write(pem: &CaPem, folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (name, text) in pem.files() {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(folder.join(name))?;
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}
