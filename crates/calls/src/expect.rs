//! What a call must get. Only what is written is checked.
//!
//! Invariant: field names are the interface; an unknown field refuses the table.

use crate::share::Share;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Expect {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Number or name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Destinations>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<BTreeMap<String, Share>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<BTreeMap<String, Share>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<LastHopTls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_as: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<Received>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Response>,
    /// Addresses, or `NAMESPACE/SERVICE` names, that a DNS question answers with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolves: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirrored: Option<BTreeMap<String, serde_json::Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<bool>,
    /// Added by fault injection to every call; `0s`: to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Deciding object, `VirtualService shop/reviews http[1]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// `AuthorizationPolicy NAMESPACE/NAME`, or `no-allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied_by: Option<String>,
    /// Response flags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Flags>,
}

/// An HTTP status, a word, or shares of them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Status {
    One(Scalar),
    Shares(#[schemars(with = "BTreeMap<String, Share>")] BTreeMap<StatusKey, Share>),
}

/// A status as the key of a share: a number or a word (an untagged enum sees the YAML number, not its text).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct StatusKey(pub String);

impl<'de> Deserialize<'de> for StatusKey {
    fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        Scalar::deserialize(de).map(|scalar| Self(scalar.text()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    Number(u32),
    Word(String),
}

impl Scalar {
    pub fn text(&self) -> String {
        match self {
            Self::Number(n) => n.to_string(),
            Self::Word(w) => w.clone(),
        }
    }
}

/// Shares by destination, or a list: exactly these may.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Destinations {
    List(Vec<String>),
    Shares(BTreeMap<String, Share>),
}

/// Gateways passed by all of the traffic, in order, or shares by chain (`a > b`, `direct`).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Via {
    Chain(Vec<String>),
    Shares(BTreeMap<String, Share>),
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Flags {
    One(String),
    List(Vec<String>),
}

impl Flags {
    pub fn list(&self) -> Vec<String> {
        match self {
            Self::One(text) => {
                text.split(',').map(|f| f.trim().to_owned()).filter(|f| !f.is_empty() && f != "-").collect()
            }
            Self::List(list) => list.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LastHopTls {
    Mutual,
    Simple,
    None,
}

/// What the callee saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Received {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<String>,
    /// Value, or null for absent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Option<String>>,
}

/// What the caller saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Response {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

impl Expect {
    /// Every share that is written, for the default of `times`.
    pub fn shares(&self) -> Vec<Share> {
        let mut all = Vec::new();
        if let Some(Status::Shares(map)) = &self.status {
            all.extend(map.values());
        }
        if let Some(Destinations::Shares(map)) = &self.to {
            all.extend(map.values());
        }
        if let Some(Via::Shares(map)) = &self.via {
            all.extend(map.values());
        }
        for bounds in [&self.at_most, &self.at_least].into_iter().flatten() {
            all.extend(bounds.values());
        }
        all
    }
}
