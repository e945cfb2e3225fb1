//! Counts gRPC messages in a byte stream by their five-byte prefixes.
//!
//! It must never hold bytes back. Invariant: the count does not depend on how the stream was cut into frames.

/// A running count over one direction of one call.
#[derive(Debug, Default)]
pub struct MessageCount {
    count: u64,
    /// Bytes of the current prefix seen so far, and its length field.
    prefix: [u8; 5],
    have: usize,
    body: u64,
}

impl MessageCount {
    /// Follows `data`; gives the number of messages begun so far.
    pub fn feed(&mut self, mut data: &[u8]) -> u64 {
        while !data.is_empty() {
            if self.body > 0 {
                let n = self.body.min(data.len() as u64);
                self.body -= n;
                data = &data[n as usize..];
                continue;
            }
            let n = (5 - self.have).min(data.len());
            self.prefix[self.have..self.have + n].copy_from_slice(&data[..n]);
            self.have += n;
            data = &data[n..];
            if self.have == 5 {
                self.have = 0;
                self.count += 1;
                let [_, a, b, c, d] = self.prefix;
                self.body = u64::from(u32::from_be_bytes([a, b, c, d]));
            }
        }
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_does_not_matter() {
        let mut stream = Vec::new();
        for size in [0usize, 3, 300] {
            stream.push(0);
            stream.extend_from_slice(&(size as u32).to_be_bytes());
            stream.extend(std::iter::repeat_n(7, size));
        }
        for cut in 1..12 {
            let mut count = MessageCount::default();
            let total = stream.chunks(cut).map(|part| count.feed(part)).last();
            assert_eq!(total, Some(3), "cut {cut}");
        }
    }
}
