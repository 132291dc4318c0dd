//! File descriptors: the limit of the process, and the reserve that clients cannot use.
//!
//! Linux gives each socket the lowest free number. A socket with number N therefore shows that N descriptors are in
//! use, so no separate count is needed.

use std::os::fd::{AsRawFd, RawFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Listener, Service};

/// The reserve is a sixteenth of the limit, within these bounds.
const RESERVE: (u64, u64) = (32, 512);
/// Descriptors that a node opens for itself: listeners, engines, plugins, logs.
const OWN: u64 = 64;

/// The limit of descriptors of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    limit: u64,
}

/// Permitted use of a socket, decided by the number of descriptors left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketUse {
    /// Everything that the listener serves.
    Full,
    /// One request: no descriptor is left for another client.
    OneRequest,
    /// Nothing: the socket is closed.
    Refused,
}

impl Descriptors {
    /// Raises the soft limit to the hard one. Returns the limits before and after, which are equal if raising fails.
    #[must_use]
    pub fn raise() -> (Self, Self) {
        let before = Self::now();
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        // A hard limit above the system's own (fs.nr_open) is refused. The soft limit then stays.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        (before, Self::now())
    }

    /// The current soft limit.
    #[must_use]
    pub fn now() -> Self {
        Self::of(getrlimit(Resource::Nofile).current)
    }

    /// The hard limit, which [`Descriptors::raise`] will reach in a node started here.
    #[must_use]
    pub fn attainable() -> Self {
        Self::of(getrlimit(Resource::Nofile).maximum)
    }

    fn of(limit: Option<u64>) -> Self {
        Self { limit: limit.unwrap_or(u64::MAX) }
    }

    /// The number of descriptors.
    #[must_use]
    pub fn limit(self) -> u64 {
        self.limit
    }

    /// Says in one sentence that `connections` clients do not fit beside the reserve; `None` if they fit.
    #[must_use]
    pub fn shortage(self, connections: usize) -> Option<String> {
        let room = self.limit.saturating_sub(self.reserve() + OWN);
        let wanted = connections as u64;
        (room < wanted).then(|| {
            format!(
                "file descriptors: a limit of {} has room for {room} clients, fewer than limits.connections ({wanted}): \
                 raise nofile to {}, or lower limits.connections",
                self.limit,
                wanted + OWN + RESERVE.1
            )
        })
    }

    /// Permitted use of `socket`, just accepted by `listener`.
    pub(super) fn socket_use(self, socket: &impl AsRawFd, listener: &Listener) -> SocketUse {
        let clients = [Service::Ws, Service::Cim, Service::CimTcp].into_iter().any(|service| listener.has(service));
        let requests = [Service::Api, Service::Metrics].into_iter().any(|service| listener.has(service));
        self.socket_use_of(socket.as_raw_fd(), clients, requests)
    }

    /// Clients may not use the reserve. A listener that serves clients and requests may use the first half of it. A
    /// listener for requests alone may use all but an eighth, which the node keeps for its own files.
    fn socket_use_of(self, number: RawFd, clients: bool, requests: bool) -> SocketUse {
        let left = self.limit.saturating_sub(u64::from(number.unsigned_abs()) + 1);
        let reserve = self.reserve();
        match (clients, requests) {
            _ if left >= reserve => SocketUse::Full,
            (true, true) if left >= reserve / 2 => SocketUse::OneRequest,
            (false, true) if left >= reserve / 8 => SocketUse::Full,
            _ => SocketUse::Refused,
        }
    }

    /// Descriptors reserved from clients.
    fn reserve(self) -> u64 {
        (self.limit / 16).clamp(RESERVE.0, RESERVE.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_near_the_limit_are_refused_first_for_clients_then_for_requests() {
        use SocketUse::{Full, OneRequest, Refused};
        let few = Descriptors { limit: 256 };
        // The number of a socket; then the entrance at a listener for clients, for both, for requests.
        let rows = [
            (0, [Full, Full, Full]),
            (223, [Full, Full, Full]),
            (224, [Refused, OneRequest, Full]),
            (239, [Refused, OneRequest, Full]),
            (240, [Refused, Refused, Full]),
            (251, [Refused, Refused, Full]),
            (252, [Refused, Refused, Refused]),
            (300, [Refused, Refused, Refused]),
        ];
        for (number, expected) in rows {
            let told = [(true, false), (true, true), (false, true)].map(|(c, r)| few.socket_use_of(number, c, r));
            assert_eq!(told, expected, "{number}");
        }
    }

    #[test]
    fn too_few_for_the_configured_connections_is_told_with_the_limit_to_set() {
        let limit = Descriptors { limit: 20_000 };
        assert_eq!(limit.shortage(19_424), None);
        let told = limit.shortage(100_000).unwrap();
        assert!(told.contains("a limit of 20000 has room for 19424 clients"), "{told}");
        assert!(told.contains("limits.connections (100000): raise nofile to 100576"), "{told}");
        assert_eq!(Descriptors { limit: 100_576 }.shortage(100_000), None, "the advice is enough");
        assert_eq!(Descriptors::of(None).shortage(100_000_000), None);
        assert!(Descriptors { limit: 16 }.shortage(1).is_some(), "no limit is too small to be told of");
    }
}
