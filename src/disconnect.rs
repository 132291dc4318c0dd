//! The table of close codes: the reason of a disconnect and the permission to reconnect.
//!
//! 4000–4499: reconnect with backoff. 4500–4999: do not reconnect; the same attempt would fail again.
//! `docs/reference/close-codes.md` shows the same table; `tests/tidy.rs` compares the two.

/// Reason of a disconnect: the WebSocket close code and its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Disconnect {
    /// RFC 6455 §7.4.2 private range, 4000–4999.
    pub code: u16,
    /// Short lower-case text for the close frame, the log and a metric label.
    pub reason: &'static str,
}

macro_rules! disconnects {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $reason:literal;)+) => {
        impl Disconnect {
            $($(#[doc = $doc])+ pub const $name: Self = Self { code: $code, reason: $reason };)+

            /// Every close code with its explanation, in order.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, concat!($($doc),+))),+];
        }
    };
}

disconnects! {
    /// Too many PINGs stayed unanswered.
    HEARTBEAT_MISSED = 4000, "heartbeat missed";
    /// The connection was not bound to a user in time.
    UNBOUND = 4001, "not bound in time";
    /// The token expired and no `client_refresh` came before.
    TOKEN_EXPIRED = 4002, "token expired";
    /// The node is draining. Another node, or this one after its restart, accepts the connection.
    RESTART = 4003, "restart";
    /// The node or the client's address has reached its connection limit.
    TOO_MANY = 4004, "too many connections";
    /// The handshake, the first frame or a whole message did not arrive in time.
    TOO_SLOW_TO_SPEAK = 4005, "frame not finished in time";
    /// The node cannot reach the other nodes of its cluster, which may consider its users offline.
    CUT_OFF = 4006, "cut off from the cluster";
    /// Too many clients resume on the node at once. Data `retry` of the REPLY before has the time to wait.
    BUSY = 4007, "busy";
    /// The client read too slowly: its queue was full, or a write or its replay of history took too long.
    SLOW_CONSUMER = 4008, "slow consumer";
    /// This node failed; its log has the cause.
    INTERNAL = 4009, "internal error";
    /// The client sent a frame that the protocol does not allow.
    PROTOCOL_ERROR = 4500, "protocol error";
    /// No auth plugin admitted the credentials.
    UNAUTHORIZED = 4501, "unauthorized";
    /// A connection of another device of the same user replaced this one.
    REPLACED = 4502, "replaced by another device";
    /// The back end closed the connection.
    KICKED = 4503, "kicked";
    /// A message or frame exceeded the size limit.
    TOO_LARGE = 4504, "message too large";
    /// The page's Origin is not on the listener's list.
    ORIGIN_REFUSED = 4505, "origin refused";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_in_order_and_in_the_private_range() {
        let codes: Vec<u16> = Disconnect::ALL.iter().map(|(d, _)| d.code).collect();
        assert!(codes.is_sorted_by(|a, b| a < b));
        assert!(codes.iter().all(|c| (4000..5000).contains(c)));
        // RFC 6455 §5.5.1: a control frame's payload is at most 125 bytes, 2 of them the code.
        assert!(Disconnect::ALL.iter().all(|(d, _)| d.reason.len() <= 123));
    }
}
