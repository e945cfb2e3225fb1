//! What a workload finds in /etc: names are resolved per workload, so these files differ between them.
//!
//! They are written to the state directory and mounted over the machine's own in the process's mount namespace. Where the
//! machine has no such file there is nothing to mount on; the C library's defaults (a server on 127.0.0.1, which is captured;
//! `dns` and `files`) then do.

use std::ffi::CString;
use std::io;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The contents of three files in /etc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcFiles {
    /// /etc/resolv.conf
    pub resolv: String,
    /// /etc/nsswitch.conf
    pub nsswitch: String,
    /// /etc/hosts
    pub hosts: String,
}

impl EtcFiles {
    /// As a pod of `namespace` has them: the search list of Kubernetes' `ClusterFirst` (`ndots:5`), and its own name.
    pub fn pod(server: IpAddr, namespace: &str, domain: &str, name: &str, address: IpAddr) -> Self {
        Self {
            resolv: format!(
                "nameserver {server}\nsearch {namespace}.svc.{domain} svc.{domain} {domain}\noptions ndots:5 timeout:2 attempts:2\n"
            ),
            nsswitch: "passwd: files\ngroup: files\nhosts: files dns\n".into(),
            hosts: format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{name}\n"),
        }
    }

    /// Writes the files to `directory`, and says what is to be mounted where.
    pub(super) fn write(&self, directory: &Path) -> io::Result<Vec<(Option<CString>, CString)>> {
        std::fs::create_dir_all(directory)?;
        let mut covers = Vec::new();
        for (name, text) in [("resolv.conf", &self.resolv), ("nsswitch.conf", &self.nsswitch), ("hosts", &self.hosts)] {
            let source = directory.join(name);
            std::fs::write(&source, text)?;
            let target = Path::new("/etc").join(name);
            if target.exists() {
                covers.push((Some(c_string(&source)?), c_string(&target)?));
            }
        }
        // A name service cache answers over a Unix socket, past every network namespace.
        let cache = Path::new("/var/run/nscd");
        if cache.is_dir() {
            covers.push((None, c_string(cache)?));
        }
        Ok(covers)
    }
}

fn c_string(path: &Path) -> io::Result<CString> {
    // Mounting follows links, but a source must not depend on the working directory.
    let path = if path.is_absolute() { path.to_owned() } else { std::path::absolute(path)? };
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
