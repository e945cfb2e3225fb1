//! Which protocol a service port speaks, from its declaration (Istio protocol selection).
//!
//! Never looks at traffic. Order: `appProtocol`, then the port name up to its first `-`, then well-known ports whose
//! servers speak first; else it is told from the first bytes.

use fairlead_model::Protocol;

use crate::core::ServicePort;
use crate::istio::Port;

/// Ports whose usual servers speak first (SMTP, DNS, MySQL, MongoDB): sniffing would wait for ever.
const SERVER_FIRST: [u16; 4] = [25, 53, 3306, 27017];

/// The protocol of a Kubernetes Service port.
pub fn of_service_port(port: &ServicePort) -> Protocol {
    if port.protocol.eq_ignore_ascii_case("UDP") {
        return Protocol::Udp;
    }
    select(port.app_protocol.as_deref(), &port.name, port.port)
}

/// The protocol of a port of an EndpointSlice-like declaration: `appProtocol`, name and number.
pub fn select(app_protocol: Option<&str>, name: &str, number: u16) -> Protocol {
    if let Some(declared) = app_protocol.filter(|text| !text.is_empty()) {
        let by_name = match declared.to_ascii_lowercase().as_str() {
            "kubernetes.io/h2c" => Some(Protocol::Http2),
            "kubernetes.io/ws" => Some(Protocol::Http),
            "kubernetes.io/wss" => Some(Protocol::Https),
            other => parse(other),
        };
        return by_name.unwrap_or_else(|| undeclared(number));
    }
    let name = name.to_ascii_lowercase();
    let declared = if name == "grpc-web" || name.starts_with("grpc-web-") {
        Some(Protocol::GrpcWeb)
    } else {
        parse(name.split('-').next().unwrap_or_default())
    };
    declared.unwrap_or_else(|| undeclared(number))
}

/// The protocol written on a port of a Gateway, ServiceEntry or Sidecar. An unset protocol is told from the name and bytes.
pub fn of_istio_port(port: &Port) -> Protocol {
    let number = u16::try_from(port.number).unwrap_or(0);
    if port.protocol.is_empty() {
        return select(None, &port.name, number);
    }
    parse(&port.protocol.to_ascii_lowercase()).unwrap_or_else(|| undeclared(number))
}

/// A protocol word, lower-case; `None` if it is none.
fn parse(word: &str) -> Option<Protocol> {
    Some(match word {
        "http" => Protocol::Http,
        "http2" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "grpc-web" => Protocol::GrpcWeb,
        "https" => Protocol::Https,
        "tls" => Protocol::Tls,
        // Istio has filters for these that are off by default; without them they are opaque TCP.
        "tcp" | "mongo" | "redis" | "mysql" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    })
}

fn undeclared(number: u16) -> Protocol {
    if SERVER_FIRST.contains(&number) { Protocol::Tcp } else { Protocol::Auto }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (app, name, number, expected) in [
            (None, "http", 80, Protocol::Http),
            (None, "http-web", 80, Protocol::Http),
            (None, "HTTP2-x", 80, Protocol::Http2),
            (None, "grpc-web", 80, Protocol::GrpcWeb),
            (None, "grpc-web-x", 80, Protocol::GrpcWeb),
            (None, "grpc-webby", 80, Protocol::Grpc),
            (None, "https-x", 443, Protocol::Https),
            (None, "tls", 443, Protocol::Tls),
            (None, "mysql", 3306, Protocol::Tcp),
            (None, "httpx", 80, Protocol::Auto),
            (None, "", 8080, Protocol::Auto),
            (None, "", 3306, Protocol::Tcp),
            (Some("kubernetes.io/h2c"), "tcp", 80, Protocol::Http2),
            (Some("kubernetes.io/wss"), "", 80, Protocol::Https),
            (Some("HTTP"), "tcp-x", 80, Protocol::Http),
            (Some("example.com/x"), "http", 80, Protocol::Auto),
        ] {
            assert_eq!(select(app, name, number), expected, "{app:?} {name} {number}");
        }
    }

    #[test]
    fn udp_wins() {
        let port = ServicePort { name: "http".into(), port: 53, protocol: "UDP".into(), ..ServicePort::default() };
        assert_eq!(of_service_port(&port), Protocol::Udp);
    }
}
