//! TLS contexts of both directions. Keys and roots are not in them: the proxy's own identity answers for every SDS name.
//!
//! Invariant: a context that asks for verification in a way this proxy cannot do is refused, never weakened.

use crate::error::{DecodeError, Decoded};
use crate::matching::StringMatch;
use crate::wire;
use fairlead_proto::envoy::core::DataSource;
use fairlead_proto::envoy::core::TransportSocket;
use fairlead_proto::envoy::core::data_source::Specifier;
use fairlead_proto::envoy::core::transport_socket::ConfigType;
use fairlead_proto::envoy::tls as proto;
use fairlead_proto::envoy::tls::common_tls_context::ValidationContextType;
use std::sync::Arc;

/// Whose certificates a TLS context uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The mesh: own SPIFFE certificate, trust bundles, both sides verified.
    Mesh,
    /// Ordinary TLS without the mesh's certificates.
    Simple,
}

/// How one side of TLS is to behave.
#[derive(Clone, Debug)]
pub struct TlsContext {
    pub mode: Mode,
    /// Upstream: the server name to ask for, empty for none.
    pub sni: Arc<str>,
    /// Upstream: the endpoint's `hostname` is the server name, if it has one.
    pub auto_host_sni: bool,
    /// In order of preference.
    pub alpn: Vec<Arc<str>>,
    /// Downstream: a client without a certificate is refused.
    pub require_client_certificate: bool,
    /// Names the other side's certificate must carry one of; empty demands none beyond the chain.
    pub required_sans: Vec<SanMatch>,
    /// Names of the certificates to present (SDS), in order.
    pub certificates: Vec<Arc<str>>,
    /// PEM file of roots for [`Mode::Simple`]; `None` with `system_roots` unset means the server is not verified.
    pub ca_file: Option<Arc<str>>,
    /// Roots of the operating system verify the server.
    pub system_roots: bool,
}

/// One accepted name.
#[derive(Clone, Debug)]
pub struct SanMatch {
    pub kind: SanKind,
    pub value: StringMatch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    Uri,
    Dns,
}

impl SanMatch {
    /// Whether `name`, of that kind in a certificate, is accepted. An exact DNS name is compared as Envoy does: case does not count,
    /// and the certificate's leading `*` stands for one label.
    pub fn accepts(&self, kind: SanKind, name: &str) -> bool {
        self.kind == kind
            && match (&self.value, kind) {
                (StringMatch::Exact { text, .. }, SanKind::Dns) => certifies(name.as_bytes(), text),
                (value, _) => value.is_match(name.as_bytes()),
            }
    }
}

fn certifies(certified: &[u8], wanted: &[u8]) -> bool {
    let wildcard = || {
        let domain = certified.strip_prefix(b"*").filter(|domain| domain.starts_with(b"."))?;
        let label = wanted.iter().position(|byte| *byte == b'.').filter(|length| *length > 0)?;
        Some(wanted[label..].eq_ignore_ascii_case(domain))
    };
    certified.eq_ignore_ascii_case(wanted) || wildcard().unwrap_or(false)
}

impl TlsContext {
    /// Whether a certificate that carries the URI `uri` satisfies `required_sans`.
    pub fn accepts_uri(&self, uri: &str) -> bool {
        self.required_sans.is_empty()
            || self.required_sans.iter().any(|san| san.kind == SanKind::Uri && san.value.is_match(uri.as_bytes()))
    }

    /// `None` for a plaintext transport socket.
    pub(crate) fn decode_upstream(socket: &TransportSocket) -> Decoded<Option<Self>> {
        let Some(any) = typed(socket)? else { return Ok(None) };
        match wire::type_name(any) {
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => {
                let tls: proto::UpstreamTlsContext = wire::unpack(any, "typed_config")?;
                let mut context = Self::common(&tls.common_tls_context).map_err(|e| e.inside("typed_config"))?;
                context.sni = tls.sni.as_str().into();
                context.auto_host_sni = tls.auto_host_sni;
                let rootless = context.ca_file.is_none() && !context.system_roots;
                if context.mode == Mode::Simple && rootless && !context.required_sans.is_empty() {
                    let what = "typed_config.common_tls_context.validation_context.match_typed_subject_alt_names";
                    return Err(DecodeError::new(what, "names prove nothing without roots"));
                }
                Ok(Some(context))
            }
            other => plaintext(other),
        }
    }

    /// `None` for a plaintext transport socket.
    pub(crate) fn decode_downstream(socket: &TransportSocket) -> Decoded<Option<Self>> {
        let Some(any) = typed(socket)? else { return Ok(None) };
        match wire::type_name(any) {
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => {
                let tls: proto::DownstreamTlsContext = wire::unpack(any, "typed_config")?;
                let mut context = Self::common(&tls.common_tls_context).map_err(|e| e.inside("typed_config"))?;
                context.require_client_certificate = tls.require_client_certificate.is_some_and(|v| v.value);
                if context.mode == Mode::Simple {
                    let what = "typed_config.common_tls_context.tls_certificate_sds_secret_configs";
                    return Err(DecodeError::new(
                        what,
                        "only the mesh's own certificate (SDS `default`) can be presented",
                    ));
                }
                Ok(Some(context))
            }
            other => plaintext(other),
        }
    }

    fn common(common: &Option<proto::CommonTlsContext>) -> Decoded<Self> {
        let common = common.clone().unwrap_or_default();
        if !common.tls_certificates.is_empty() {
            return Err(DecodeError::unsupported("common_tls_context.tls_certificates"));
        }
        let certificates: Vec<Arc<str>> =
            common.tls_certificate_sds_secret_configs.iter().map(|sds| sds.name.as_str().into()).collect();
        if certificates.iter().any(|name| name.starts_with("file-cert:")) {
            return Err(DecodeError::unsupported("common_tls_context.tls_certificate_sds_secret_configs: file-cert"));
        }
        let mut context = Self {
            // Whoever presents the mesh's certificate verifies with the mesh's bundles.
            mode: if certificates.is_empty() { Mode::Simple } else { Mode::Mesh },
            sni: "".into(),
            auto_host_sni: false,
            alpn: common.alpn_protocols.iter().map(|name| name.as_str().into()).collect(),
            require_client_certificate: false,
            required_sans: Vec::new(),
            certificates,
            ca_file: None,
            system_roots: false,
        };
        let validation = "common_tls_context.validation_context";
        match &common.validation_context_type {
            None => {}
            Some(ValidationContextType::ValidationContext(inner)) => {
                context.validation(inner).map_err(|e| e.inside(validation))?;
            }
            Some(ValidationContextType::ValidationContextSdsSecretConfig(roots)) => context.roots(&roots.name),
            Some(ValidationContextType::CombinedValidationContext(combined)) => {
                if let Some(roots) = &combined.validation_context_sds_secret_config {
                    context.roots(&roots.name);
                }
                if let Some(inner) = &combined.default_validation_context {
                    context.validation(inner).map_err(|e| e.inside(validation))?;
                }
            }
            Some(_) => {
                return Err(DecodeError::unsupported("common_tls_context.validation_context_certificate_provider"));
            }
        }
        Ok(context)
    }

    /// Takes roots by their SDS name, Istio's: `file-root:system`, `file-root:PATH`, else the mesh's bundles.
    fn roots(&mut self, name: &str) {
        match name.strip_prefix("file-root:") {
            Some("system") => self.system_roots = true,
            Some(path) => self.ca_file = Some(path.into()),
            None => self.mode = Mode::Mesh,
        }
    }

    fn validation(&mut self, validation: &proto::CertificateValidationContext) -> Decoded<()> {
        if let Some(custom) = &validation.custom_validator_config {
            if custom.name != "envoy.tls.cert_validator.spiffe" {
                return Err(DecodeError::new(
                    "custom_validator_config",
                    "only envoy.tls.cert_validator.spiffe is known",
                ));
            }
            self.mode = Mode::Mesh;
        }
        self.system_roots |= validation.system_root_certs.is_some();
        if let Some(DataSource { specifier, .. }) = &validation.trusted_ca {
            match specifier {
                Some(Specifier::Filename(path)) => self.ca_file = Some(path.as_str().into()),
                _ => return Err(DecodeError::new("trusted_ca", "must be a filename")),
            }
        }
        if !validation.verify_certificate_spki.is_empty() || !validation.verify_certificate_hash.is_empty() {
            return Err(DecodeError::unsupported("verify_certificate_spki and verify_certificate_hash"));
        }
        if validation.crl.is_some() {
            return Err(DecodeError::unsupported("crl"));
        }
        for (index, san) in validation.match_typed_subject_alt_names.iter().enumerate() {
            let field = format!("match_typed_subject_alt_names[{index}]");
            let kind = match proto::subject_alt_name_matcher::SanType::try_from(san.san_type) {
                Ok(proto::subject_alt_name_matcher::SanType::Uri) => SanKind::Uri,
                Ok(proto::subject_alt_name_matcher::SanType::Dns) => SanKind::Dns,
                _ => return Err(DecodeError::new(field, "only URI and DNS names can be matched")),
            };
            let matcher = san.matcher.as_ref().ok_or_else(|| DecodeError::new(field.clone(), "matcher is required"))?;
            let value = StringMatch::decode(matcher).map_err(|e| e.inside(field))?;
            self.required_sans.push(SanMatch { kind, value });
        }
        Ok(())
    }
}

fn typed(socket: &TransportSocket) -> Decoded<Option<&fairlead_proto::any::Any>> {
    match &socket.config_type {
        Some(ConfigType::TypedConfig(any)) => Ok(Some(any)),
        None if socket.name == "envoy.transport_sockets.raw_buffer" => Ok(None),
        None => Err(DecodeError::new("typed_config", "is required")),
    }
}

fn plaintext(type_name: &str) -> Decoded<Option<TlsContext>> {
    match type_name {
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
        | "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport" => Ok(None),
        other => Err(DecodeError::new("typed_config", format!("unknown transport socket {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_dns_names_are_compared_as_envoy_does() {
        let accepts = |wanted: &str, certified: &str| {
            SanMatch { kind: SanKind::Dns, value: StringMatch::exact(wanted) }.accepts(SanKind::Dns, certified)
        };
        for (wanted, certified) in [
            ("a.example", "a.example"),
            ("a.example", "A.Example"),
            ("a.example", "*.example"),
            ("*.example", "*.example"),
        ] {
            assert!(accepts(wanted, certified), "{certified} is {wanted}");
        }
        for (wanted, certified) in [
            ("a.example", "b.example"),
            ("b.a.example", "*.example"),
            ("example", "*.example"),
            (".example", "*.example"),
            ("aexample", "*example"),
            ("a.example", "*"),
            ("*.example", "a.example"),
        ] {
            assert!(!accepts(wanted, certified), "{certified} is not {wanted}");
        }
        let uri = SanMatch { kind: SanKind::Uri, value: StringMatch::exact("spiffe://a/b") };
        assert!(uri.accepts(SanKind::Uri, "spiffe://a/b") && !uri.accepts(SanKind::Dns, "spiffe://a/b"));
    }

    #[test]
    fn names_without_roots_are_refused() {
        let name = proto::SubjectAltNameMatcher {
            san_type: proto::subject_alt_name_matcher::SanType::Dns as i32,
            matcher: Some(fairlead_proto::envoy::matcher::StringMatcher {
                match_pattern: Some(fairlead_proto::envoy::matcher::string_matcher::MatchPattern::Exact("a".into())),
                ..Default::default()
            }),
            ..Default::default()
        };
        let socket = |names: Vec<proto::SubjectAltNameMatcher>| {
            let validation =
                proto::CertificateValidationContext { match_typed_subject_alt_names: names, ..Default::default() };
            let tls = proto::UpstreamTlsContext {
                common_tls_context: Some(proto::CommonTlsContext {
                    validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let config = fairlead_proto::any::pack(&tls);
            TransportSocket { name: "tls".into(), config_type: Some(ConfigType::TypedConfig(config)) }
        };
        assert!(TlsContext::decode_upstream(&socket(vec![name])).is_err());
        assert!(TlsContext::decode_upstream(&socket(Vec::new())).is_ok_and(|context| context.is_some()));
    }
}
