//! Whether a lab can work here, found out by making one, and which setting is in the way if not.
//!
//! Must never conclude from a setting that it cannot work: settings only explain a failure that has happened.

use fairlead_capture::rules;
use fairlead_capture::{CaptureSpec, LoopGuard};
use nix::errno::Errno;

use crate::namespace::{self, EnterError, Refusal};

/// Makes a lab (namespaces, a link, a rule) and lets it go. The program's `main` must call [`crate::role`] first, as for
/// [`crate::enter`].
///
/// # Errors
/// `EnterError::Refused` names the setting to change; commands exit 2 on it.
pub fn probe() -> Result<(), EnterError> {
    namespace::try_enter()
}

/// Installs and removes a table of capture rules in this namespace.
pub(crate) fn try_rule() -> Result<(), Refusal> {
    let table = CaptureSpec::new(LoopGuard::Mark(1)).table();
    rules::install(&table)
        .and_then(|()| rules::remove(&table.name))
        .map_err(|e| Refusal::explain("install a packet filter rule (nf_tables)", Some(e.errno), e.to_string()))
}

/// The setting that explains `errno`, read from this machine.
pub(crate) fn remedy(errno: Option<Errno>) -> Option<String> {
    remedy_from(errno, nix::unistd::geteuid().is_root(), |setting| {
        std::fs::read_to_string(format!("/proc/sys/{}", setting.replace('.', "/")))
            .ok()
            .map(|text| text.trim().to_owned())
    })
}

fn remedy_from(errno: Option<Errno>, root: bool, setting: impl Fn(&str) -> Option<String>) -> Option<String> {
    let is = |name: &str, value: &str| setting(name).as_deref() == Some(value);
    let change =
        |name: &str, value: &str| Some(format!("set {name}={value} (sysctl -w {name}={value}), or run as root"));
    if is("kernel.unprivileged_userns_clone", "0") {
        return change("kernel.unprivileged_userns_clone", "1");
    }
    for kind in ["user", "net", "mnt", "pid"] {
        let name = format!("user.max_{kind}_namespaces");
        if is(&name, "0") {
            return Some(format!("raise {name} (sysctl -w {name}=10000)"));
        }
    }
    if errno == Some(Errno::ENOSPC) {
        return Some("raise user.max_user_namespaces (sysctl -w user.max_user_namespaces=10000)".into());
    }
    let denied = matches!(errno, Some(Errno::EPERM | Errno::EACCES));
    if denied && is("kernel.apparmor_restrict_unprivileged_userns", "1") {
        return change("kernel.apparmor_restrict_unprivileged_userns", "0");
    }
    match errno {
        Some(Errno::EPERM | Errno::EACCES) if root => {
            Some("a container's or a security module's policy forbids it: allow unshare and CAP_SYS_ADMIN, or run outside it".into())
        }
        Some(Errno::EPERM | Errno::EACCES) => {
            Some("a container's or a security module's policy forbids user namespaces: allow them, or run as root".into())
        }
        Some(Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT) => {
            Some("the kernel lacks nf_tables (CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_REDIR, CONFIG_NFT_MASQ)".into())
        }
        Some(Errno::EINVAL) => Some("the kernel lacks user namespaces (CONFIG_USER_NS)".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_in_the_way_is_named() {
        let cases: [(&[(&str, &str)], Errno, &str); 6] = [
            (&[("kernel.unprivileged_userns_clone", "0")], Errno::EPERM, "kernel.unprivileged_userns_clone=1"),
            (
                &[("kernel.unprivileged_userns_clone", "1"), ("user.max_user_namespaces", "0")],
                Errno::ENOSPC,
                "raise user.max_user_namespaces",
            ),
            (&[("user.max_user_namespaces", "5")], Errno::ENOSPC, "raise user.max_user_namespaces"),
            (
                &[("kernel.apparmor_restrict_unprivileged_userns", "1")],
                Errno::EPERM,
                "kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (&[("user.max_net_namespaces", "0")], Errno::ENOSPC, "raise user.max_net_namespaces"),
            (&[], Errno::EOPNOTSUPP, "CONFIG_NF_TABLES_INET"),
        ];
        for (settings, errno, expected) in cases {
            let settings = settings.iter().copied().collect::<std::collections::BTreeMap<_, _>>();
            let remedy = remedy_from(Some(errno), false, |name| settings.get(name).map(|v| (*v).to_owned())).unwrap();
            assert!(remedy.contains(expected), "{remedy}");
        }
        assert_eq!(remedy_from(Some(Errno::EIO), false, |_| None), None);
    }
}
