//! Encoding of netlink messages: header, fixed part, nested attributes, all padded to four bytes.
//!
//! Must never guess a byte order: the caller says `u32` (host order, rtnetlink) or `be32` (network order, nf_tables).
//! Invariant: every length field is closed by the function that opened it, so a batch is always well formed.

/// A sequence of netlink messages that is sent in one system call.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    bytes: Vec<u8>,
    /// What each message asks for, for error texts; its index is the sequence number minus one.
    purposes: Vec<String>,
    /// Offset of the last message's header.
    last: usize,
}

const HEADER: usize = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;

impl Batch {
    /// Appends a message of `kind` with `flags` (REQUEST is added), its family header `fixed`, and its attributes.
    pub fn push(
        &mut self,
        purpose: impl Into<String>,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.purposes.push(purpose.into());
        let sequence = self.purposes.len() as u32;
        let start = self.bytes.len();
        self.last = start;
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(fixed);
        pad(&mut self.bytes);
        fill(&mut Attributes { bytes: &mut self.bytes });
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What message `sequence` asked for.
    pub(super) fn purpose(&self, sequence: u32) -> &str {
        (sequence as usize)
            .checked_sub(1)
            .and_then(|i| self.purposes.get(i))
            .map_or("a netlink request", String::as_str)
    }

    /// The bytes to send. Only the last message asks for an acknowledgement: errors are reported for every message anyway, and
    /// hundreds of acknowledgements would overflow the socket's receive buffer.
    pub(super) fn finish(&self, acknowledge: bool) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if acknowledge && bytes.len() >= self.last + HEADER {
            let at = self.last + 6;
            let flags = u16::from_ne_bytes([bytes[at], bytes[at + 1]]) | NLM_F_ACK;
            bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        }
        bytes
    }
}

/// The attributes of a message, or of a nested attribute, being written.
#[derive(Debug)]
pub struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

const NLA_F_NESTED: u16 = 1 << 15;

impl Attributes<'_> {
    /// An attribute with these bytes.
    pub fn raw(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
    }

    /// A number in host byte order (rtnetlink).
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.raw(kind, &value.to_ne_bytes());
    }

    /// A number in network byte order (nf_tables).
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.raw(kind, &value.to_be_bytes());
    }

    /// A NUL-terminated string.
    pub fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.raw(kind, &bytes);
    }

    /// An attribute made of attributes.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.nested_after(kind, &[], fill);
    }

    /// An attribute made of a fixed part (such as the interface header of a veth's peer) and attributes.
    pub fn nested_after(&mut self, kind: u16, fixed: &[u8], fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        self.bytes.extend_from_slice(fixed);
        pad(self.bytes);
        fill(&mut Attributes { bytes: self.bytes });
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        pad(self.bytes);
    }
}

fn pad(bytes: &mut Vec<u8>) {
    while !bytes.len().is_multiple_of(4) {
        bytes.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_closed_and_padded() {
        let mut batch = Batch::default();
        batch.push("set a", 16, 0, &[0; 16], |a| {
            a.text(3, "abcd");
            a.nested(18, |a| a.be32(1, 7));
        });
        batch.push("set b", 16, 0, &[0; 3], |_| ());
        let bytes = batch.finish(true);
        // header 16 + fixed 16 + (4 + 5 -> 12) + (4 + 8), then header 16 + fixed 3 -> 4
        assert_eq!(u32::from_ne_bytes(bytes[0..4].try_into().unwrap()), 56);
        assert_eq!(bytes.len(), 76);
        assert_eq!(u16::from_ne_bytes(bytes[6..8].try_into().unwrap()), 1, "only the last asks for an acknowledgement");
        assert_eq!(u16::from_ne_bytes(bytes[62..64].try_into().unwrap()), 5);
        assert_eq!(batch.purpose(2), "set b");
    }
}
