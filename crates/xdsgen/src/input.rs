//! The key of a resource: everything its generator may look at.
//!
//! Invariant: `generate` reads nothing but the input, so equal inputs are equal resources; origins that do not reach the
//! body are part of equality but not of the version (moving a line must not push a resource).

use crate::clusters::ClusterInput;
use crate::endpoints::EndpointsInput;
use crate::generated::Generated;
use crate::listeners::ListenerInput;
use crate::name_table::NamesInput;
use crate::names::ResourceName;
use crate::routes::RoutesInput;
use fairlead_model::Origin;
use fairlead_proto::{ResourceType, any};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io;

/// Raise it whenever a generator makes something else of the same input: versions must change with content.
const REVISION: u32 = 3;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Input {
    Listener(ListenerInput),
    Routes(RoutesInput),
    Cluster(ClusterInput),
    Endpoints(EndpointsInput),
    Names(NamesInput),
}

impl Input {
    pub fn kind(&self) -> ResourceType {
        match self {
            Self::Listener(_) => ResourceType::Listener,
            Self::Routes(_) => ResourceType::RouteConfiguration,
            Self::Cluster(_) => ResourceType::Cluster,
            Self::Endpoints(_) => ResourceType::ClusterLoadAssignment,
            Self::Names(_) => ResourceType::NameTable,
        }
    }

    pub fn name(&self) -> ResourceName {
        match self {
            Self::Listener(input) => input.name.clone(),
            Self::Routes(input) => input.name.clone(),
            Self::Cluster(input) => input.name.clone(),
            Self::Endpoints(input) => input.name.clone(),
            Self::Names(_) => ResourceName::Names,
        }
    }

    /// The resource of this input.
    pub fn generate(&self) -> Generated {
        let body = match self {
            Self::Listener(input) => any::pack_bytes(&crate::listeners::listener(input)),
            Self::Routes(input) => any::pack_bytes(&crate::routes::route_configuration(input)),
            Self::Cluster(input) => any::pack_bytes(&crate::clusters::cluster(input)),
            Self::Endpoints(input) => any::pack_bytes(&crate::endpoints::load_assignment(input)),
            Self::Names(input) => crate::name_table::body(input),
        };
        let (name, version, origins) = (self.name(), self.version().into(), self.origins());
        Generated { kind: self.kind(), text: name.to_string().into(), name, version, body, origins }
    }

    fn version(&self) -> String {
        let mut hash = Hash(Sha256::new());
        hash.0.update(REVISION.to_be_bytes());
        if serde_json::to_writer(&mut hash, self).is_err() {
            // Only a map with keys that are no text could come here; `Debug` of ordered maps is as deterministic.
            hash.0.update(format!("{self:?}"));
        }
        hash.0.finalize().iter().take(16).fold(String::with_capacity(32), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    fn origins(&self) -> Vec<Origin> {
        let origins = match self {
            Self::Listener(input) => &input.origins,
            Self::Routes(input) => return input.origins(),
            Self::Cluster(input) => &input.origins,
            Self::Endpoints(input) => &input.origins,
            Self::Names(_) => return Vec::new(),
        };
        origins.clone()
    }
}

struct Hash(Sha256);

impl io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
