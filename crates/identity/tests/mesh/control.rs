//! Control planes that sign statements about members.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fairlead_identity::introduction::Signer;
use fairlead_identity::{Ca, Introduction, LeafRequest, Member, MemberState, Statement, SystemRandom, WorkloadKey};
use rustls::pki_types::CertificateDer;

use super::{START, at};

pub struct Control {
    pub key: WorkloadKey,
    pub chain: Vec<CertificateDer<'static>>,
}

impl Control {
    pub fn of(ca: &Ca) -> Self {
        let key = WorkloadKey::generate().unwrap();
        let csr = key.csr().unwrap();
        let identity = ca.trust_domain().control();
        let request = LeafRequest {
            csr_der: &csr,
            identity: &identity,
            workload: None,
            pod_uid: None,
            lifetime: Duration::from_secs(3600),
            now: at(START),
        };
        Self { chain: ca.issue_reserved(&request, &mut SystemRandom).unwrap(), key }
    }

    pub fn signer(&self) -> Signer<'_> {
        Signer { key: &self.key, chain: &self.chain }
    }

    pub fn introduce(&self, member: Member) -> Introduction {
        Statement::Introduce(member).sign(self.signer(), at(START)).unwrap()
    }

    pub fn revoke(&self, member: &Member) -> Introduction {
        Statement::Revoke(member.tombstone()).sign(self.signer(), at(START)).unwrap()
    }
}

pub fn member(ca: &Ca, incarnation: u64, revision: u64) -> Member {
    Member {
        cluster: ca.cluster().to_owned(),
        incarnation,
        revision,
        state: MemberState::Active,
        bundle: ca.bundle().clone(),
        issuing_keys: BTreeSet::from([ca.issuing_key()]),
        control_addresses: Vec::new(),
        networks: BTreeMap::new(),
        version: String::new(),
        capabilities: BTreeSet::new(),
    }
}
