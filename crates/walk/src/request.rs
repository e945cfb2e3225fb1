//! What a caller sends: the request of a table as bytes on a wire, and the address its name resolves to.
//!
//! Invariant: names resolve by the caller's own resolver: the mesh's index behind a sidecar, Kubernetes' services without.

use crate::wire::{HttpRequest, Payload};
use crate::world::World;
use fairlead_calls::call::ClientTls;
use fairlead_calls::{Call, Request, RequestKind};
use fairlead_model::mesh::Workload;
use fairlead_model::names::{NameEntry, NameTable};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What a name means to a caller.
pub(crate) enum Resolved {
    Addresses(Vec<IpAddr>),
    Unknown,
}

/// The payload of a call. `Err`: why it cannot be decided.
pub(crate) fn payload(call: &Call, request: &Request) -> Result<Payload, String> {
    let grpc = request.kind == RequestKind::Grpc;
    // With `client.tls` the handshake is the one that the table describes, and there is no other inside.
    let described = call.client.as_ref().is_some_and(|c| c.bypasses_sidecar() && c.tls != Some(ClientTls::None));
    match request.kind {
        RequestKind::Tcp => return Ok(Payload::Bytes),
        RequestKind::Tls if described => return Ok(Payload::Bytes),
        RequestKind::Tls => {
            let client = call.client.as_ref();
            let server_name = client.and_then(|c| c.sni.clone()).or_else(|| name_only(&request.host));
            let alpn = client.map(|c| c.alpn.clone()).unwrap_or_default();
            return Ok(Payload::ProgramTls { server_name, alpn, inside: None });
        }
        RequestKind::Ws | RequestKind::Udp | RequestKind::Dns => {
            return Err(format!("a {:?} request is not followed", request.kind));
        }
        RequestKind::Http | RequestKind::Https | RequestKind::Grpc => {}
    }
    let version = match call.client.as_ref().and_then(|c| c.http.as_deref()) {
        _ if grpc => "2",
        None | Some("1.1") => "1.1",
        Some("1.0") => "1.0",
        Some("2") => "2",
        Some(other) => return Err(format!("client.http {other} is none of 1.0, 1.1, 2")),
    };
    let mut headers = HeaderMap::new();
    let mut authority = request.authority();
    for (name, value) in &call.headers {
        if name.eq_ignore_ascii_case("host") {
            authority.clone_from(value);
            continue;
        }
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?;
        let value = HeaderValue::from_str(value).map_err(|_| format!("the value of header {name} cannot be sent"))?;
        headers.append(header, value);
    }
    if grpc {
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
    }
    let https = request.kind == RequestKind::Https;
    let sent = Arc::new(HttpRequest {
        version,
        method: request.method.clone(),
        path: request.path.clone(),
        authority,
        scheme: if https { "https" } else { "http" },
        headers,
        grpc,
    });
    if !https || described {
        return Ok(Payload::Http(sent));
    }
    let client = call.client.as_ref();
    let alpn = match client.map(|c| c.alpn.as_slice()).unwrap_or_default() {
        [] if version == "2" => vec!["h2".to_owned()],
        [] => vec!["http/1.1".to_owned()],
        written => written.to_vec(),
    };
    let server_name = client.and_then(|c| c.sni.clone()).or_else(|| name_only(&request.host));
    Ok(Payload::ProgramTls { server_name, alpn, inside: Some(sent) })
}

impl World {
    pub(crate) fn resolve_name(&self, caller: &Workload, host: &str) -> Resolved {
        if let Ok(address) = host.parse() {
            return Resolved::Addresses(vec![address]);
        }
        let table = self.name_table(caller);
        match find(&table, host, &caller.key.namespace) {
            Some((_, entry)) => Resolved::Addresses(entry.addresses.clone()),
            None => Resolved::Unknown,
        }
    }

    /// What a DNS question answers with: addresses, and the service's `NAMESPACE/SERVICE` name.
    pub(crate) fn answer(&self, caller: &Workload, host: &str) -> Option<Vec<String>> {
        let table = self.name_table(caller);
        let (_, entry) = find(&table, host, &caller.key.namespace)?;
        let mut answer: Vec<String> = entry.addresses.iter().map(ToString::to_string).collect();
        answer.push(format!("{}/{}", entry.namespace, entry.name));
        Some(answer)
    }

    /// `ADDRESS:PORT` or `CLUSTER/NAMESPACE/WORKLOAD:PORT`. `Err`: a table error.
    pub(crate) fn at(&self, at: &str) -> Result<(SocketAddr, Option<Arc<Workload>>), String> {
        if let Ok(address) = at.parse() {
            return Ok((address, None));
        }
        let (name, port) =
            at.rsplit_once(':').ok_or_else(|| format!("`{at}`: write ADDRESS:PORT or C/NS/WORKLOAD:PORT"))?;
        let port: u16 = port.parse().map_err(|_| format!("`{port}` is no port"))?;
        let first = crate::conditions::workload_ref(&self.names().single(name)?);
        let workload = first.and_then(|key| self.workload(&key)).ok_or_else(|| format!("`{name}` is no workload"))?;
        let address = workload.addresses.first().ok_or_else(|| format!("`{name}` has no address"))?;
        Ok((SocketAddr::new(*address, port), Some(workload.clone())))
    }
}

/// Kubernetes' search rules: as written, then in the caller's namespace, in `svc`, in the cluster's domain.
pub(crate) fn find<'t>(table: &'t NameTable, host: &str, namespace: &str) -> Option<(&'t String, &'t NameEntry)> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let candidates = [
        host.clone(),
        format!("{host}.{namespace}.svc.cluster.local"),
        format!("{host}.svc.cluster.local"),
        format!("{host}.cluster.local"),
    ];
    candidates.iter().find_map(|name| table.names.get_key_value(name)).or_else(|| wildcard(table, &host))
}

/// A ServiceEntry host `*.example.com` answers every name below it.
fn wildcard<'t>(table: &'t NameTable, host: &str) -> Option<(&'t String, &'t NameEntry)> {
    let mut rest = host;
    while let Some((_, parent)) = rest.split_once('.') {
        if let Some(found) = table.names.get_key_value(&format!("*.{parent}")) {
            return Some(found);
        }
        rest = parent;
    }
    None
}

fn name_only(host: &str) -> Option<String> {
    host.parse::<IpAddr>().is_err().then(|| host.to_owned())
}
