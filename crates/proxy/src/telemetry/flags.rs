//! Envoy's response flags, as a set.
//!
//! Invariant: `Display` gives Envoy's short names, comma-separated, in Envoy's order.

use std::fmt;

/// Response flags of one request (Envoy `%RESPONSE_FLAGS%`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $short:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Flags = Flags(1 << $bit);)*
            const NAMES: &'static [(Flags, &'static str)] = &[$((Flags::$name, $short),)*];
        }
    };
}

flags! {
    /// No healthy upstream.
    NO_HEALTHY_UPSTREAM = 0, "UH";
    /// Upstream connection failure.
    UPSTREAM_CONNECTION_FAILURE = 1, "UF";
    /// Upstream overflow (circuit breaker).
    UPSTREAM_OVERFLOW = 2, "UO";
    /// No route found.
    NO_ROUTE = 3, "NR";
    /// Upstream retry limit exceeded.
    RETRY_LIMIT = 4, "URX";
    /// No cluster found.
    NO_CLUSTER = 5, "NC";
    /// Downstream connection termination.
    DOWNSTREAM_CLOSED = 6, "DC";
    /// Upstream request timeout.
    UPSTREAM_TIMEOUT = 7, "UT";
    /// Local reset.
    LOCAL_RESET = 8, "LR";
    /// Upstream remote reset.
    UPSTREAM_RESET = 9, "UR";
    /// Upstream connection termination.
    UPSTREAM_CLOSED = 10, "UC";
    /// Stream idle timeout.
    STREAM_IDLE_TIMEOUT = 11, "SI";
    /// Downstream protocol error.
    DOWNSTREAM_PROTOCOL_ERROR = 12, "DPE";
    /// Upstream protocol error.
    UPSTREAM_PROTOCOL_ERROR = 13, "UPE";
    /// Downstream duration timeout.
    DURATION_TIMEOUT = 14, "DT";
    /// Rate limited.
    RATE_LIMITED = 15, "RL";
    /// Overload manager.
    OVERLOAD = 16, "OM";
    /// Failed local health check.
    LOCAL_UNHEALTHY = 17, "LH";
    /// Delay injected by a route's fault.
    DELAY_INJECTED = 18, "DI";
    /// Failure injected by a route's fault.
    FAULT_INJECTED = 19, "FI";
}

impl Flags {
    pub const NONE: Flags = Flags(0);

    pub fn insert(&mut self, other: Flags) {
        self.0 |= other.0;
    }

    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Reads Envoy's short names; unknown ones are left out.
    pub fn parse(text: &str) -> Self {
        let mut flags = Self::NONE;
        for short in text.split(',') {
            if let Some((flag, _)) = Self::NAMES.iter().find(|(_, name)| *name == short) {
                flags.insert(*flag);
            }
        }
        flags
    }

    /// Short names in order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, short)| *short)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.names().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(name)?;
        }
        if self.is_empty() { f.write_str("-") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let mut flags = Flags::UPSTREAM_CONNECTION_FAILURE;
        flags.insert(Flags::RETRY_LIMIT);
        assert_eq!(flags.to_string(), "UF,URX");
        assert_eq!(Flags::parse("UF,URX"), flags);
        assert_eq!(Flags::NONE.to_string(), "-");
    }
}
