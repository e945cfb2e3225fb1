//! What a proxy shows for its first certificate, and whom it believes before it has one.
//!
//! Given once by whoever starts it, or read from files that a kubelet keeps fresh. Invariant: files are read at each use and never
//! kept, so a token that was replaced is never shown again.

use super::certificates::{CertificateError, read_bundles};
use crate::options::{CredentialFiles, ProxyOptions};
use fairlead_identity::TrustBundleSet;
use std::path::Path;

/// A projected token is under 4 KB.
const LONGEST_TOKEN: usize = 16 * 1024;

pub(super) enum FirstCredential {
    /// A token that is good once, with the trust of that moment.
    Given {
        token: String,
        bundles: TrustBundleSet,
    },
    Files(CredentialFiles),
}

impl FirstCredential {
    /// # Errors
    /// A given bundle that cannot be read. Files may come later.
    pub fn of(options: &ProxyOptions) -> Result<Self, CertificateError> {
        if let Some(files) = &options.credential_files {
            return Ok(Self::Files(files.clone()));
        }
        let bundles = TrustBundleSet::from_json(&options.bootstrap.trust_bundles.to_string())
            .map_err(|e| CertificateError::Bootstrap { field: "trustBundles", message: e.to_string() })?;
        Ok(Self::Given { token: options.bootstrap.token.clone(), bundles })
    }

    /// Whether it can be shown again when a certificate has ended.
    pub fn lasts(&self) -> bool {
        matches!(self, Self::Files(_))
    }

    /// # Errors
    /// The file cannot be read, or holds nothing.
    pub fn token(&self) -> Result<String, CertificateError> {
        let files = match self {
            Self::Given { token, .. } => return Ok(token.clone()),
            Self::Files(files) => files,
        };
        let text = read(&files.token, "the projected token", "mount a serviceAccountToken volume there")?;
        let token = text.trim();
        if token.is_empty() || token.len() > LONGEST_TOKEN {
            let message = format!("{} holds {} bytes, which is no token", files.token.display(), token.len());
            return Err(CertificateError::File(message));
        }
        Ok(token.to_owned())
    }

    /// # Errors
    /// The file cannot be read, or holds no bundles.
    pub fn bundles(&self) -> Result<TrustBundleSet, CertificateError> {
        let files = match self {
            Self::Given { bundles, .. } => return Ok(bundles.clone()),
            Self::Files(files) => files,
        };
        let remedy =
            "the control plane writes the ConfigMap `fairlead-trust` in each namespace; mount its bundles.json";
        let text = read(&files.trust, "the trust bundles", remedy)?;
        read_bundles(text.as_bytes())
            .map_err(|e| CertificateError::File(format!("{} holds no trust bundles: {e}", files.trust.display())))
    }
}

fn read(file: &Path, what: &str, remedy: &str) -> Result<String, CertificateError> {
    let failed = |e| CertificateError::File(format!("cannot read {what} from {}: {e}; {remedy}", file.display()));
    std::fs::read_to_string(file).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::{ProxyRole, WorkloadRef};

    #[test]
    fn files_are_read_at_each_use() {
        let folder = tempfile::tempdir().unwrap();
        let files = CredentialFiles { token: folder.path().join("token"), trust: folder.path().join("bundles.json") };
        let workload = WorkloadRef { cluster: "east".into(), namespace: "shop".into(), name: "a".into() };
        let mut options = ProxyOptions::new(ProxyRole::Sidecar, workload);
        options.credential_files = Some(files.clone());
        let credential = FirstCredential::of(&options).unwrap();
        assert!(credential.lasts());
        let missing = credential.token().unwrap_err().to_string();
        assert!(missing.contains("token") && missing.contains("serviceAccountToken"), "{missing}");
        for token in ["one", "two"] {
            std::fs::write(&files.token, format!("{token}\n")).unwrap();
            assert_eq!(credential.token().unwrap(), token);
        }
        std::fs::write(&files.token, "\n").unwrap();
        assert!(credential.token().is_err(), "an empty file is no token");
        assert!(credential.bundles().unwrap_err().to_string().contains("fairlead-trust"));
        std::fs::write(&files.trust, TrustBundleSet::empty().to_json().unwrap()).unwrap();
        assert_eq!(credential.bundles().unwrap(), TrustBundleSet::empty());
    }
}
