//! `Gateway`: listeners of gateway workloads.

use std::collections::BTreeMap;

use super::Port;
use crate::meta::Meta;

message! {
    /// Listeners at the boundary of the mesh.
    pub struct Gateway {
        /// Identity.
        metadata: Meta,
        /// Listeners.
        spec: GatewaySpec,
    }
}

message! {
    /// `Gateway.spec`.
    pub struct GatewaySpec {
        /// Listeners.
        servers: Vec<Server>,
        /// Labels of gateway workloads in any namespace.
        selector: BTreeMap<String, String>,
    }
}

message! {
    /// One listener.
    pub struct Server {
        /// Port: a Service port of the gateway.
        port: Option<Port>,
        /// Address or `unix://` path it binds to.
        bind: String,
        /// `[namespace/]host`.
        hosts: Vec<String>,
        /// TLS.
        tls: Option<ServerTlsSettings>,
        /// Unimplemented by Istio.
        default_endpoint: String,
        /// Its name.
        name: String,
    } with {
        /// The server is refused: an error diagnostic says why; it is not opened.
        refused: bool,
    }
}

message! {
    /// TLS of a listener.
    pub struct ServerTlsSettings {
        /// Answer plaintext with 301.
        https_redirect: bool,
        /// Mode.
        mode: ServerTlsMode,
        /// Certificate file.
        server_certificate: String,
        /// Key file.
        private_key: String,
        /// File of accepted client roots.
        ca_certificates: String,
        /// File of revocations.
        ca_crl: String,
        /// Secret with key and certificate.
        credential_name: String,
        /// Secrets, for example one RSA and one ECDSA.
        credential_names: Vec<String>,
        /// Secret with client roots.
        ca_cert_credential_name: String,
        /// Certificate files, for example one RSA and one ECDSA.
        tls_certificates: Vec<TlsCertificate>,
        /// Names a client's certificate may have.
        subject_alt_names: Vec<String>,
        /// SPKI hashes of accepted client certificates.
        verify_certificate_spki: Vec<String>,
        /// Hashes of accepted client certificates.
        verify_certificate_hash: Vec<String>,
        /// Least version.
        min_protocol_version: TlsProtocol,
        /// Highest version.
        max_protocol_version: TlsProtocol,
        /// Cipher suites.
        cipher_suites: Vec<String>,
    }
}

message! {
    /// Certificate files of a listener.
    pub struct TlsCertificate {
        /// Certificate file.
        server_certificate: String,
        /// Key file.
        private_key: String,
        /// File of accepted client roots.
        ca_certificates: String,
    }
}

words! {
    /// TLS modes of a listener.
    pub enum ServerTlsMode {
        /// Route by SNI, needs VirtualService `tls` rules.
        Passthrough = "PASSTHROUGH",
        /// Terminate.
        Simple = "SIMPLE",
        /// Terminate, client certificate required.
        Mutual = "MUTUAL",
        /// Route by an SNI that names the destination.
        AutoPassthrough = "AUTO_PASSTHROUGH",
        /// Terminate with the mesh's identities.
        IstioMutual = "ISTIO_MUTUAL",
        /// Terminate, client certificate verified if there is one.
        OptionalMutual = "OPTIONAL_MUTUAL",
    }
}

words! {
    /// TLS versions.
    pub enum TlsProtocol {
        /// The best both sides have.
        Auto = "TLS_AUTO",
        /// 1.0.
        V1_0 = "TLSV1_0",
        /// 1.1.
        V1_1 = "TLSV1_1",
        /// 1.2.
        V1_2 = "TLSV1_2",
        /// 1.3.
        V1_3 = "TLSV1_3",
    }
}
