//! `envoy.config.core.v3.CidrRange`.

use crate::error::{DecodeError, Decoded};
use fairlead_proto::envoy::core::CidrRange;
use ipnet::IpNet;
use std::net::IpAddr;

/// A range of addresses. IPv4-mapped IPv6 addresses count as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNet);

impl Cidr {
    pub(crate) fn decode(range: &CidrRange) -> Decoded<Self> {
        let address: IpAddr = range
            .address_prefix
            .parse()
            .map_err(|_| DecodeError::new("address_prefix", format!("{:?} is no IP address", range.address_prefix)))?;
        // Envoy's default for an absent length is 0: the whole address family.
        let length = range.prefix_len.as_ref().map_or(0, |len| len.value);
        let length =
            u8::try_from(length).map_err(|_| DecodeError::new("prefix_len", format!("{length} is too long")))?;
        let net = IpNet::new(address, length)
            .map_err(|_| DecodeError::new("prefix_len", format!("{length} is too long for {address}")))?;
        Ok(Self(net.trunc()))
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Bits that are fixed; the longer, the more specific.
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix_len()
    }
}

impl From<IpNet> for Cidr {
    fn from(net: IpNet) -> Self {
        Self(net.trunc())
    }
}
