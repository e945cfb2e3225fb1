//! Kubeconfig files: where a cluster's API server is, what it is believed by, and the administrator's credentials, all in one file.
//!
//! Pure. Invariant: no file refers to another, so one can be handed to any program.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::net::Ipv4Addr;

/// One cluster, its context and its user, all called `name`.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: String,
    pub server: Ipv4Addr,
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

/// A file with a context for each entry; the first is current.
pub fn render(entries: &[Entry]) -> String {
    let mut text = String::from("apiVersion: v1\nkind: Config\n");
    if let Some(first) = entries.first() {
        text += &format!("current-context: {}\n", first.name);
    }
    let list = |title: &str, item: &dyn Fn(&Entry) -> String| {
        let items: String = entries.iter().map(item).collect();
        format!("{title}:\n{items}")
    };
    text += &list("clusters", &|e| {
        format!(
            "- name: {}\n  cluster:\n    server: https://{}:6443\n    certificate-authority-data: {}\n",
            e.name,
            e.server,
            STANDARD.encode(&e.authority)
        )
    });
    text += &list("users", &|e| {
        format!(
            "- name: {0}\n  user:\n    client-certificate-data: {1}\n    client-key-data: {2}\n",
            e.name,
            STANDARD.encode(&e.certificate),
            STANDARD.encode(&e.key)
        )
    });
    text += &list("contexts", &|e| format!("- name: {0}\n  context:\n    cluster: {0}\n    user: {0}\n", e.name));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cluster_has_its_context_with_its_own_credentials() {
        let entry = |n: u8| Entry {
            name: format!("c{n}"),
            server: Ipv4Addr::new(10, 89, 0, 10 + n),
            authority: format!("authority {n}"),
            certificate: format!("certificate {n}"),
            key: format!("key {n}"),
        };
        let text = render(&[entry(1), entry(2)]);
        let file: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(file["current-context"], "c1");
        assert_eq!(file["contexts"][1]["name"], "c2");
        assert_eq!(file["contexts"][1]["context"], serde_json::json!({"cluster": "c2", "user": "c2"}));
        assert_eq!(file["clusters"][1]["cluster"]["server"], "https://10.89.0.12:6443");
        let decode = |value: &serde_json::Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
        assert_eq!(decode(&file["clusters"][1]["cluster"]["certificate-authority-data"]), b"authority 2");
        assert_eq!(decode(&file["users"][1]["user"]["client-certificate-data"]), b"certificate 2");
        assert_eq!(decode(&file["users"][1]["user"]["client-key-data"]), b"key 2");
    }
}
