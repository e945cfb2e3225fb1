//! `Secret`: key material for gateways and remote clusters.
//!
//! Never shows its data in `Debug` output or diagnostics.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;

use crate::field::{FromNode, Reading, Shape};
use crate::meta::Meta;
use crate::yaml::Node;

message! {
    /// A Kubernetes Secret.
    pub struct Secret {
        /// Identity and labels.
        metadata: Meta,
        /// `kubernetes.io/tls` and others.
        secret_type: String = "type",
        /// Decoded values.
        data: BTreeMap<String, SecretBytes>,
        /// Values written as text; they win over `data`.
        string_data: BTreeMap<String, SecretText>,
    }
}

/// Secret bytes, base64 on the wire.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct SecretBytes(pub Vec<u8>);

/// Secret text.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct SecretText(pub String);

impl Secret {
    /// The bytes under `key`.
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        let text = self.string_data.get(key).map(|text| text.0.as_bytes());
        text.or_else(|| self.data.get(key).map(|bytes| bytes.0.as_slice()))
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} secret bytes>", self.0.len())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} secret bytes>", self.0.len())
    }
}

impl FromNode for SecretBytes {
    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        let text = String::from_node(node, reading);
        let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        match base64::engine::general_purpose::STANDARD.decode(compact) {
            Ok(bytes) => Self(bytes),
            Err(_) => {
                reading.wrong("is not base64", "encode the value, or use stringData");
                Self::default()
            }
        }
    }

    fn shape() -> Shape {
        Shape::String
    }
}

impl FromNode for SecretText {
    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        Self(String::from_node(node, reading))
    }

    fn shape() -> Shape {
        Shape::String
    }
}
