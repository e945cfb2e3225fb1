//! An image as an archive in the OCI image layout: one layer, a configuration, a manifest, an index.
//!
//! Invariant: the same tree and the same words give the same bytes, so the same digest on every machine and in every cluster.

use super::archive::{Archive, Kind};
use super::tree::Tree;
use anyhow::Context as _;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Where containers find programs.
const SEARCH_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image is called and how it starts.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// Full references: registry, name and tag.
    pub names: &'a [&'a str],
    pub entrypoint: &'a [&'a str],
    /// `uid:gid`
    pub user: &'a str,
}

impl Image<'_> {
    /// Writes the archive; who reads it meanwhile sees the old one.
    pub fn write(&self, tree: &Tree, to: &Path) -> anyhow::Result<()> {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        let fresh = to.with_extension("new");
        fs::write(&fresh, self.archive(tree)?).with_context(|| fresh.display().to_string())?;
        fs::rename(&fresh, to)?;
        Ok(())
    }

    fn archive(&self, tree: &Tree) -> anyhow::Result<Vec<u8>> {
        let layer = tree.archive()?;
        let layer_about = descriptor("layer.v1.tar", &layer);
        let configuration = serde_json::to_vec(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "User": self.user, "WorkingDir": "/", "Env": [SEARCH_PATH]},
            "rootfs": {"type": "layers", "diff_ids": [layer_about["digest"]]},
        }))?;
        let configuration_about = descriptor("config.v1+json", &configuration);
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": media("manifest.v1+json"),
            "config": configuration_about,
            "layers": [layer_about],
        }))?;
        let manifest_about = descriptor("manifest.v1+json", &manifest);
        let named = self.names.iter().map(|name| {
            let mut about = manifest_about.clone();
            about["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
            about
        });
        let index = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": media("index.v1+json"),
            "manifests": named.collect::<Vec<_>>(),
        }))?;
        let mut archive = Archive::default();
        archive.add("oci-layout", 0o644, Kind::File(br#"{"imageLayoutVersion":"1.0.0"}"#))?;
        archive.add("index.json", 0o644, Kind::File(&index))?;
        for blob in [&manifest, &configuration, &layer] {
            archive.add(&format!("blobs/sha256/{}", hex(blob)), 0o644, Kind::File(blob))?;
        }
        Ok(archive.finish())
    }
}

fn descriptor(kind: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media(kind), "digest": format!("sha256:{}", hex(blob)), "size": blob.len()})
}

fn media(kind: &str) -> String {
    format!("application/vnd.oci.image.{kind}")
}

fn hex(blob: &[u8]) -> String {
    digest(&SHA256, blob).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As Go calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: Image<'_> =
        Image { names: &["example.org/one:1", "example.org/two:1"], entrypoint: &["/one"], user: "1337:1337" };

    fn extracted(bytes: &[u8], path: &str) -> Vec<u8> {
        let mut tar = std::process::Command::new("tar");
        let text = crate::image::fed(tar.args(["--extract", "--to-stdout", "--file", "-", path]), bytes).unwrap();
        text.into_bytes()
    }

    #[test]
    fn index_manifest_configuration_and_layer_name_each_other() {
        let mut tree = Tree::default();
        tree.text("/one", "hello");
        let bytes = IMAGE.archive(&tree).unwrap();
        let index: Value = serde_json::from_slice(&extracted(&bytes, "index.json")).unwrap();
        let names: Vec<_> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| &m["annotations"]["io.containerd.image.name"])
            .collect();
        assert_eq!(names, ["example.org/one:1", "example.org/two:1"]);
        let blob = |about: &Value| {
            let name = about["digest"].as_str().unwrap().replace(':', "/");
            let content = extracted(&bytes, &format!("blobs/{name}"));
            assert_eq!(about["size"], content.len());
            assert_eq!(format!("sha256/{}", hex(&content)), name);
            content
        };
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let configuration: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(configuration["config"]["Entrypoint"], json!(["/one"]));
        assert_eq!(configuration["config"]["User"], "1337:1337");
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(configuration["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        assert_eq!(extracted(&layer, "one"), b"hello");
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let make = |text: &str| {
            let mut tree = Tree::default();
            tree.text("/one", text);
            IMAGE.archive(&tree).unwrap()
        };
        assert_eq!(make("hello"), make("hello"));
        assert_ne!(make("hello"), make("other"));
    }
}
