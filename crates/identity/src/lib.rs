//! Who a workload, gateway or control plane is, and how the other side comes to believe it.
//!
//! This crate holds SPIFFE identities, trust bundles, the certificate authority of a cluster, certificate
//! verification in both directions, rustls configurations, renewal schedules, join tokens and membership.
//!
//! It never opens a socket, reads a file, or looks at a clock: time is an argument (or a [`rustls::time_provider::TimeProvider`]
//! handed in), and so is randomness ([`random::RandomSource`]); only key generation and signing use the crypto library's
//! own generator. The invariant it keeps: nobody is believed whose certificate does not lead to a root of the very trust
//! domain the certificate claims.

pub mod bundle;
pub mod ca;
pub mod cacerts;
pub mod certificate;
pub mod credentials;
mod instant;
pub mod introduction;
pub mod join;
pub mod join_token;
pub mod member_trust;
pub mod membership;
pub mod mint;
pub mod provider;
pub mod random;
pub mod rotation;
pub mod serving;
pub mod sessions;
pub mod shared_root;
mod signing_request;
pub mod spiffe;
mod template;
pub mod tickets;
pub mod tls;
pub mod trust;
pub mod verdict;
pub mod verifier;
pub mod verify_error;
pub mod workload_key;
pub mod workload_token;

pub use bundle::{BundleError, TrustBundle};
pub use ca::{Ca, CaError, LeafRequest, RootRotation};
pub use cacerts::CaPem;
pub use certificate::SpkiHash;
pub use credentials::{CertHandle, CredentialsError};
pub use introduction::{Introduction, IntroductionError, SignedStatement, Statement, Tombstone};
pub use join::{JoinAnswer, JoinRefused, JoinRequest, Rehearsal, Roster};
pub use join_token::{JoinToken, MemoryTokenStore, StoredToken, TokenError, TokenId, TokenStore};
pub use member_trust::{TrustConflict, TrustPolicy};
pub use membership::{Member, MemberState, Membership, Standing};
pub use mint::{CertificateSpec, Mint, Minted};
pub use random::{RandomSource, SystemRandom};
pub use rotation::{Rotation, RotationPolicy, Step};
pub use shared_root::SharedRoot;
pub use spiffe::{IdentityKind, SpiffeError, SpiffeId, TrustDomain};
pub use tls::{ClientAuth, MeshTls, TlsError};
pub use trust::{DomainTrust, IssuerTrust, NamespaceBound, TrustBundleSet, TrustSource};
pub use verdict::{VerifiedPeer, still_believed, verdict};
pub use verifier::{Expected, PeerVerifier};
pub use verify_error::VerifyError;
pub use workload_key::WorkloadKey;
pub use workload_token::{WorkloadClaim, WorkloadToken, WorkloadTokenIssuer};
