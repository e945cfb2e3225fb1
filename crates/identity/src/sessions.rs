//! Sessions a client may resume, of one source identity towards one set of expected identities.
//!
//! A ticket is kept only while everything it rests on is unchanged: the bundle epoch, the certificate the client presented
//! (a server judges a resumed session by the certificate of its first handshake), and the server certificate's validity. When
//! one of them changes the ticket is gone and the next connection makes a full handshake. Bounded in names and tickets.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::TimeProvider;

use crate::credentials::CertHandle;
use crate::trust::TrustSource;

/// Server names remembered per (source, destination); more than an endpoint set usually has.
const MAX_NAMES: usize = 512;
/// Tickets kept per server name: two per handshake arrive.
const MAX_TICKETS: usize = 4;

/// The sessions of one client configuration.
pub struct ClientSessions {
    trust: TrustSource,
    credentials: Option<CertHandle>,
    clock: Arc<dyn TimeProvider>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    stamp: Stamp,
    names: HashMap<ServerName<'static>, Remembered>,
    /// Names by age, for eviction.
    order: VecDeque<ServerName<'static>>,
}

/// What tickets rest on beside time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Stamp {
    epoch: u64,
    generation: u64,
}

#[derive(Default)]
struct Remembered {
    group: Option<NamedGroup>,
    tickets: VecDeque<Tls13ClientSessionValue>,
    /// The earliest end of a certificate seen under this name.
    not_after: Option<UnixTime>,
}

impl ClientSessions {
    /// An empty store that forgets when `trust` or `credentials` change.
    #[must_use]
    pub fn new(trust: TrustSource, credentials: Option<CertHandle>, clock: Arc<dyn TimeProvider>) -> Self {
        Self { trust, credentials, clock, memory: Mutex::new(Memory::default()) }
    }

    /// Tickets held now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.current().names.values().map(|name| name.tickets.len()).sum()
    }

    /// True when nothing can be resumed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A full handshake with `name` was judged good; its certificate ends at `not_after`.
    pub(crate) fn verified(&self, name: &ServerName<'_>, not_after: UnixTime) {
        let mut memory = self.current();
        let remembered = memory.entry(name.to_owned());
        remembered.not_after = Some(match remembered.not_after {
            Some(earlier) if earlier < not_after => earlier,
            _ => not_after,
        });
    }

    /// The memory, emptied first when what it rests on has changed.
    fn current(&self) -> MutexGuard<'_, Memory> {
        let stamp = Stamp {
            epoch: (self.trust)().epoch(),
            generation: self.credentials.as_ref().map_or(0, CertHandle::generation),
        };
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.stamp != stamp {
            memory.stamp = stamp;
            for remembered in memory.names.values_mut() {
                remembered.tickets.clear();
                remembered.not_after = None;
            }
        }
        memory
    }
}

impl Memory {
    fn entry(&mut self, name: ServerName<'static>) -> &mut Remembered {
        if !self.names.contains_key(&name) {
            if self.names.len() >= MAX_NAMES
                && let Some(oldest) = self.order.pop_front()
            {
                self.names.remove(&oldest);
            }
            self.order.push_back(name.clone());
        }
        self.names.entry(name).or_default()
    }
}

impl ClientSessionStore for ClientSessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.current().entry(server_name).group = Some(group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.current().names.get(&server_name.to_owned())?.group
    }

    // TLS 1.2 is never spoken by a mesh client, so there is nothing to keep.
    fn set_tls12_session(&self, _server_name: ServerName<'static>, _value: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server_name: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut memory = self.current();
        let remembered = memory.entry(server_name);
        // Without a known end (the trust changed in mid-handshake) the ticket is not kept.
        if remembered.not_after.is_none() {
            return;
        }
        if remembered.tickets.len() == MAX_TICKETS {
            remembered.tickets.pop_front();
        }
        remembered.tickets.push_back(value);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let now = self.clock.current_time()?;
        let mut memory = self.current();
        let remembered = memory.names.get_mut(server_name)?;
        if remembered.not_after.is_none_or(|end| end <= now) {
            remembered.tickets.clear();
            remembered.not_after = None;
        }
        remembered.tickets.pop_back()
    }
}

impl fmt::Debug for ClientSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSessions").finish_non_exhaustive()
    }
}
