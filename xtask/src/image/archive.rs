//! A tar archive, written so that equal contents give equal bytes: entries in their order, no times, no owners.
//!
//! The ustar layout of POSIX.1-1988. Invariant: what does not fit the layout is an error, never cut off.

use anyhow::bail;

const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    Folder,
    File(&'a [u8]),
    /// To what it points.
    Link(&'a str),
}

/// Bytes of an archive that grows.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    /// Adds an entry; `path` is relative.
    pub fn add(&mut self, path: &str, mode: u32, kind: Kind<'_>) -> anyhow::Result<()> {
        let (flag, content, target): (u8, &[u8], &str) = match kind {
            Kind::File(content) => (b'0', content, ""),
            Kind::Link(target) => (b'2', &[], target),
            Kind::Folder => (b'5', &[], ""),
        };
        let (prefix, name) = split(path)?;
        if target.len() > 100 {
            bail!("{path}: a link to {target} is longer than a tar archive holds");
        }
        let mut header = [0; BLOCK];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, name.as_bytes());
        put(100, octal(u64::from(mode), 8)?.as_bytes());
        put(108, octal(0, 8)?.as_bytes());
        put(116, octal(0, 8)?.as_bytes());
        put(124, octal(content.len() as u64, 12)?.as_bytes());
        put(136, octal(0, 12)?.as_bytes());
        put(148, b"        "); // the checksum is taken with blanks in its place
        put(156, &[flag]);
        put(157, target.as_bytes());
        put(257, b"ustar\x0000");
        put(329, octal(0, 8)?.as_bytes());
        put(337, octal(0, 8)?.as_bytes());
        put(345, prefix.as_bytes());
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(header);
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    /// The whole archive, with its two empty blocks at the end.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}

fn octal(value: u64, width: usize) -> anyhow::Result<String> {
    let text = format!("{value:0digits$o}\0", digits = width - 1);
    if text.len() > width {
        bail!("{value} is larger than a tar archive holds");
    }
    Ok(text)
}

/// A name of at most 100 bytes, and before it a folder of at most 155.
fn split(path: &str) -> anyhow::Result<(&str, &str)> {
    if path.len() <= 100 {
        return Ok(("", path));
    }
    let found = path.match_indices('/').find(|(at, _)| *at <= 155 && path.len() - at - 1 <= 100);
    let Some((at, _)) = found else { bail!("{path}: the path is longer than a tar archive holds") };
    Ok((&path[..at], &path[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_what_posix_says() {
        let mut archive = Archive::default();
        archive.add("etc/motd", 0o644, Kind::File(b"hello\n")).unwrap();
        let bytes = archive.finish();
        assert_eq!(bytes.len(), 4 * BLOCK);
        assert_eq!(&bytes[..9], b"etc/motd\0");
        assert_eq!(&bytes[100..108], b"0000644\0");
        assert_eq!(&bytes[124..136], b"00000000006\0");
        assert_eq!(bytes[156], b'0');
        assert_eq!(&bytes[257..265], b"ustar\x0000");
        assert_eq!(&bytes[512..518], b"hello\n");
        // The checksum of this header, added up by hand from the fields above.
        let mut header = bytes[..BLOCK].to_vec();
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(&bytes[148..154], format!("{sum:06o}").as_bytes());
    }

    #[test]
    fn the_tar_program_reads_it() {
        let mut archive = Archive::default();
        archive.add("bin", 0o755, Kind::Folder).unwrap();
        archive.add("bin/tool", 0o755, Kind::File(&[7; 1000])).unwrap();
        archive.add("bin/alias", 0o777, Kind::Link("tool")).unwrap();
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
        archive.add(&long, 0o600, Kind::File(b"x")).unwrap();
        let mut tar = std::process::Command::new("tar");
        let listed = crate::image::fed(tar.args(["--list", "--verbose", "--file", "-"]), &archive.finish()).unwrap();
        let lines: Vec<_> = listed.lines().collect();
        assert!(lines[0].starts_with("drwxr-xr-x 0/0") && lines[0].ends_with("bin"), "{listed}");
        assert!(lines[1].contains(" 1000 1970-01-01"), "{listed}");
        assert!(lines[2].ends_with("bin/alias -> tool"), "{listed}");
        assert!(lines[3].ends_with(&long), "{listed}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut archive = Archive::default();
        assert!(archive.add(&"n".repeat(101), 0o644, Kind::Folder).is_err());
        assert!(archive.add("a", 0o644, Kind::Link(&"n".repeat(101))).is_err());
    }
}
