/** Close codes. `BLESS=1 cargo test --test tidy` writes this file from src/disconnect.rs. */

/** Too many PINGs stayed unanswered. */
export const HEARTBEAT_MISSED = 4000;

/** The connection was not bound to a user in time. */
export const UNBOUND = 4001;

/** The token expired and no `client_refresh` came before. */
export const TOKEN_EXPIRED = 4002;

/** The node is draining. Another node, or this one after its restart, accepts the connection. */
export const RESTART = 4003;

/** The node or the client's address has reached its connection limit. */
export const TOO_MANY = 4004;

/** The handshake, the first frame or a whole message did not arrive in time. */
export const TOO_SLOW_TO_SPEAK = 4005;

/** The node cannot reach the other nodes of its cluster, which may consider its users offline. */
export const CUT_OFF = 4006;

/** Too many clients resume on the node at once. Data `retry` of the REPLY before has the time to wait. */
export const BUSY = 4007;

/** The client read too slowly: its queue was full, or a write or its replay of history took too long. */
export const SLOW_CONSUMER = 4008;

/** This node failed; its log has the cause. */
export const INTERNAL = 4009;

/** The client sent a frame that the protocol does not allow. */
export const PROTOCOL_ERROR = 4500;

/** No auth plugin admitted the credentials. */
export const UNAUTHORIZED = 4501;

/** A connection of another device of the same user replaced this one. */
export const REPLACED = 4502;

/** The back end closed the connection. */
export const KICKED = 4503;

/** A message or frame exceeded the size limit. */
export const TOO_LARGE = 4504;

/** The page's Origin is not on the listener's list. */
export const ORIGIN_REFUSED = 4505;
