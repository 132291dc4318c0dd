// Made from wit/ by `cargo run -p bindings`, in plugins/.

/** Types that every role shares. */
declare module "skylark:plugin/types" {
  /** One key with its text. */
  export type Entry = [string, string];
  /** A message. An empty text is absent; the host sets an id or timestamp of 0. */
  export interface Message {
    /** Number of the message. */
    id: number;
    /** Kind of message, e.g. `chat` or `900`. */
    action: string;
    /** The body: texts by key. */
    content: Array<Entry>;
    /** Sender, as set by the publisher. */
    sender: string;
    /** Receiver, as set by the publisher. It does not affect routing. */
    receiver: string;
    /** Entries next to the body: avatar, nickname. */
    extra: Array<Entry>;
    /** Headline. */
    title: string;
    /** Address of a picture. */
    image: string;
    /** Format of the content, as CIM names it. */
    format: string;
    /** Milliseconds since 1970. */
    timestamp: number;
  }
  /** One device of a user. */
  export interface DeviceOf {
    /** The user. */
    uid: string;
    /** Name of the device, as the client gave it when it bound. */
    device: string;
  }
  /** Receivers of a push. */
  export type Target = { tag: "connection"; val: number } | { tag: "device"; val: DeviceOf } | { tag: "user"; val: string } | { tag: "users"; val: Array<string> } | { tag: "room"; val: string } | { tag: "everyone" } | { tag: "everyone-but"; val: Array<string> };
  /** A code for the client or back end (three digits as text, e.g. "403") and a reason in plain words. */
  export interface Refusal {
    /** Three digits as text. */
    code: string;
    /** In plain words, for a person. */
    reason: string;
  }
  /** Way in which a publish arrived. */
  export type Origin = "client" | "http" | "broker" | "plugin";
  /** Stream of kept messages. Since 0.1.3. */
  export type StreamName = { tag: "user"; val: string } | { tag: "room"; val: string } | { tag: "everyone" };
  /** User and connection of a client. */
  export interface Identity {
    /** The user. */
    uid: string;
    /** The connection. */
    cid: number;
    /** The device, if the client named one. */
    device: string | null;
    /** web, android, ios, windows, mac. */
    channel: string | null;
  }
}

/**
 * Role: authenticates clients. Called at connect, at `client_bind` and at `client_refresh`.
 *
 * The first plugin that does not abstain decides. If all abstain, the client is refused.
 */
declare module "skylark:plugin/auth" {
  export type Entry = import("skylark:plugin/types").Entry;
  export type Refusal = import("skylark:plugin/types").Refusal;
  /** Facts of the transport. A client cannot set any of them with a frame. */
  export interface Transport {
    /** Name of the listener's service: ws, cim, cim-tcp. */
    listener: string;
    /** The client's address, without port. */
    remote: string;
    /** Path and query of the upgrade without the credentials; empty on TCP. */
    path: string;
    /** The Origin header. */
    origin: string | null;
    /** The User-Agent header. */
    userAgent: string | null;
    /** The user that the connection is already bound to (on refresh and on a later bind). */
    bound: string | null;
  }
  /** Unverified data of the client. */
  export interface Claim {
    /** Token from header, query, cookie, subprotocol, or `client_bind` data; the first one in this order. */
    token: string | null;
    /** The `uid` that the client sent: a claim, not a fact. */
    uid: string | null;
    /** The `deviceId`. */
    device: string | null;
    /** web, android, ios, windows, mac. */
    channel: string | null;
    /** All other data of `client_bind`. */
    data: Array<Entry>;
  }
  /** Verified identity of the client. */
  export interface Admission {
    /** The user. */
    uid: string;
    /** Overrides the claimed device. */
    device: string | null;
    /** Rooms to join at once. */
    rooms: Array<string>;
    /** Seconds since 1970 at which the admission ends; none = never. */
    expires: number | null;
    /** Kept with the connection. */
    claims: Array<Entry>;
  }
  /** Decision about the client. */
  export type Answer = { tag: "admit"; val: Admission } | { tag: "refuse"; val: Refusal } | { tag: "abstain" };
  /** What the plugin exports as `auth`. */
  export interface Auth {
    /** Decides about one client. */
    admit(transport: Transport, claim: Claim): Answer;
  }
}

/**
 * Role: decides which rooms a bound client may join. Called only at `room_join`. Since 0.1.2.
 *
 * The first plugin that does not abstain decides. If all abstain, every bound client may join the
 * rooms of `clients.open_rooms`, and all other rooms are refused. Rooms of an admission, of `login`,
 * of the push API and of `outbox` need no decision. The role is read-only: it may call `kv.get`, and
 * `kv` refuses its writes with `read-only`.
 */
declare module "skylark:plugin/access" {
  export type Entry = import("skylark:plugin/types").Entry;
  export type Identity = import("skylark:plugin/types").Identity;
  export type Refusal = import("skylark:plugin/types").Refusal;
  /** Decision about one join. */
  export type Answer = { tag: "allow"; val: number | null } | { tag: "refuse"; val: Refusal } | { tag: "abstain" };
  /** What the plugin exports as `access`. */
  export interface Access {
    /**
     * Decides about one join. `claims` are those of the connection's last admission or login; none of them
     * comes from the client. `data` comes from the client with the room and is not verified.
     */
    join(who: Identity, claims: Array<Entry>, room: string, data: Array<Entry>): Answer;
  }
}

/**
 * The publish that is being judged. Nothing is copied into the plugin until it calls a function
 * (docs/decisions/0002).
 *
 * The functions read the publish of the running `judge`; outside of `judge` a call traps.
 */
declare module "skylark:plugin/publication" {
  export type Entry = import("skylark:plugin/types").Entry;
  export type Whole = import("skylark:plugin/types").Message;
  export type Way = import("skylark:plugin/types").Origin;
  /** Kind of the target of a publish. */
  export type Audience = "connection" | "device" | "user" | "users" | "room" | "everyone" | "everyone-but";
  /** Number of the message; 0 = the host assigns one. */
  export function id(): number;
  /** Kind of message. */
  export function action(): string;
  /** The body: texts by key. */
  export function content(): Array<Entry>;
  /** Sender, as set by the publisher. */
  export function sender(): string;
  /** Receiver, as set by the publisher. */
  export function receiver(): string;
  /** Entries next to the body. */
  export function extra(): Array<Entry>;
  /** Headline. */
  export function title(): string;
  /** Address of a picture. */
  export function image(): string;
  /** Format of the content, as CIM names it. */
  export function format(): string;
  /** Milliseconds since 1970; 0 = the host assigns it. */
  export function timestamp(): number;
  /** The whole message, to read it or to change it and return it in `replace`. */
  export function message(): Whole;
  /** Way in which the publish arrived. */
  export function origin(): Way;
  /** The user of the publishing connection; none for back ends. */
  export function publisher(): string | null;
  /** Kind of the target. */
  export function targetKind(): Audience;
  /** Number of users that the target names; 0 for rooms, connections and everyone. */
  export function targetCount(): number;
  /** Users that the target names, starting at `offset`, at most 1 000 a call. */
  export function targetUids(offset: number, limit: number): Array<string>;
  /** The room that the target names. */
  export function targetRoom(): string | null;
}

/**
 * Role: judges each publish once, for every origin and any number of receivers.
 *
 * A filter has no side effects. It may import `publication`, `log`, `settings`, `clock`, `crypto`,
 * `directory` and `counters` (the only state that it may change), and nothing else.
 */
declare module "skylark:plugin/filter" {
  export type Message = import("skylark:plugin/types").Message;
  export type Refusal = import("skylark:plugin/types").Refusal;
  /** Decision about the publish. */
  export type Verdict = { tag: "allow" } | { tag: "replace"; val: Message } | { tag: "reject"; val: Refusal } | { tag: "drop" };
  /** What the plugin exports as `filter`. */
  export interface Filter {
    /** Judges the publish that `publication` shows. */
    judge(): Verdict;
  }
}

/** Role: answers the SendBody keys that it owns. */
declare module "skylark:plugin/handler" {
  export type Entry = import("skylark:plugin/types").Entry;
  export type Identity = import("skylark:plugin/types").Identity;
  /** A request of a client. */
  export interface Call {
    /** One of the keys that this plugin owns. */
    key: string;
    /** Data of the request. */
    data: Array<Entry>;
    /** User and connection that send the request; none while the connection is not bound. */
    caller: Identity | null;
    /** The connection that sends the request. */
    cid: number;
  }
  /** A reply to a client. */
  export interface Reply {
    /** Three digits as text: "200" is success. */
    code: string;
    /** In plain words. */
    message: string;
    /** Data of the reply. */
    data: Array<Entry>;
  }
  /** What the plugin exports as `handler`. */
  export interface Handler {
    /**
     * The keys that this plugin owns. The host asks once per load; a key that another plugin owns makes
     * the load fail.
     */
    keys(): Array<string>;
    /**
     * Answers one call. Effects (outbox, kv) are committed together before the reply is sent. After an
     * error or a trap nothing is committed.
     */
    handle(call: Call): Reply;
  }
}

/** Role: receives the events of this node. A plugin returns nothing and delays nothing. */
declare module "skylark:plugin/events" {
  export type Identity = import("skylark:plugin/types").Identity;
  /** A connection that joined or left a room. */
  export interface RoomChange {
    /** The connection. */
    who: Identity;
    /** The room. */
    room: string;
  }
  /** An event on this node. */
  export type Event = { tag: "online"; val: Identity } | { tag: "offline"; val: Identity } | { tag: "room-joined"; val: RoomChange } | { tag: "room-left"; val: RoomChange };
  /** What the plugin exports as `events`. */
  export interface Events {
    /** Handles one event. Events come one after the other. */
    onEvent(event: Event): void;
  }
}

/** Optional for every role: called on each fresh instance before its first call. */
declare module "skylark:plugin/lifecycle" {
  /** What the plugin exports as `lifecycle`. */
  export interface Lifecycle {
    /** Initializes the instance. An error refuses the instance, and at load the whole file, with this text. */
    start(): void;
  }
}

/** Optional for handlers and events: receives due timers that the plugin set. Since 0.1.1. */
declare module "skylark:plugin/alarms" {
  /** What the plugin exports as `alarms`. */
  export interface Alarms {
    /**
     * Handles one due timer. Effects (outbox, kv, timers) are committed after it returns. A timer fires
     * once; a failed call is not repeated.
     */
    onTimer(name: string, data: Uint8Array): void;
  }
}

/**
 * Optional for events: receives the outcome of kept messages. Since 0.1.3.
 *
 * The calls come in the order of the events, with the same imports. A plugin returns nothing and
 * delays nothing. The node drops calls while its queue of events is full. Only the node that serves
 * the client, or that published the message, makes the call.
 */
declare module "skylark:plugin/receipts" {
  export type Identity = import("skylark:plugin/types").Identity;
  export type StreamName = import("skylark:plugin/types").StreamName;
  /** One stream of a client that came back. */
  export interface ResumedStream {
    /** The stream. */
    name: StreamName;
    /** True if the client gets every message that it missed. */
    recovered: boolean;
    /** Number of messages that the node replays; none = it does not count them in advance. */
    count: number | null;
  }
  /** Reason for which a message counts as undelivered. */
  export type Cause = "offline" | "unacknowledged";
  /** What the plugin exports as `receipts`. */
  export interface Receipts {
    /** A client came back with its positions. `streams` are those that it had a position of. */
    resumed(who: Identity, streams: Array<ResumedStream>): void;
    /**
     * A kept message reached no device of this user, for example to notify a phone by its vendor. The
     * message is in the user's stream of `history`, if it is still kept. The same message may be reported
     * more than once: compare ids.
     */
    undelivered(uid: string, id: number, cause: Cause): void;
  }
}

/** Lines for the node's log, limited per call. */
declare module "skylark:plugin/log" {
  /** Severity of a line. */
  export type Level = "debug" | "info" | "warn" | "error";
  /** Writes one line. */
  export function write(level: Level, message: string): void;
}

/** The `[settings]` table of the plugin's manifest. */
declare module "skylark:plugin/settings" {
  /** One top-level value: a string unchanged, any other value as JSON. */
  export function get(key: string): string | null;
  /** The whole table as a JSON object. */
  export function json(): string;
}

/** Wall clock and monotonic clock. */
declare module "skylark:plugin/clock" {
  /** Milliseconds since 1970. */
  export function now(): number;
  /** Nanoseconds since an arbitrary start; never decreases. */
  export function monotonic(): number;
}

/** Online users, with their devices and rooms. Grant: `directory`. */
declare module "skylark:plugin/directory" {
  /** One connection of a user. */
  export interface Presence {
    /** The connection. */
    cid: number;
    /** The device, if the client named one. */
    device: string | null;
    /** web, android, ios, windows, mac. */
    channel: string | null;
    /** The rooms that the connection is in. */
    rooms: Array<string>;
  }
  /** True if the user has at least one connection. */
  export function online(uid: string): boolean;
  /** The user's connections. */
  export function connections(uid: string): Array<Presence>;
  /** Users in a room, starting at `offset`, at most 1 000 a call, in no defined order. */
  export function members(room: string, offset: number, limit: number): Array<string>;
  /** The devices on which the user is online, sorted, without duplicates. Since 0.1.1. */
  export function devices(uid: string): Array<string>;
  /** The rooms that the user's connections are in, sorted, without duplicates. Since 0.1.1. */
  export function rooms(uid: string): Array<string>;
}

/**
 * Effects on other clients, staged until the call returns ok and then committed together. For handlers
 * and events. Grant: `outbox`.
 */
declare module "skylark:plugin/outbox" {
  export type Message = import("skylark:plugin/types").Message;
  export type Target = import("skylark:plugin/types").Target;
  /** Retention of the message in the history. A node without a history ignores it. */
  export type History = { tag: "configured" } | { tag: "no" } | { tag: "ttl"; val: number };
  /** Options of a push. */
  export interface Options {
    /** Idempotency key. */
    key: string | null;
    /** Retention in the history. */
    history: History;
    /** A connection to exclude. */
    noEcho: number | null;
  }
  /** Reason for which an effect was not staged. */
  export type Error = { tag: "too-many" } | { tag: "too-large" } | { tag: "too-many-hops" } | { tag: "invalid"; val: string };
  /** Publishes a message. It passes the filters like any other. */
  export function push(target: Target, message: Message, options: Options | null): void;
  /** Adds the user's connections to the room. */
  export function join(uid: string, room: string): void;
  /** Removes the user's connections from the room. */
  export function leave(uid: string, room: string): void;
  /** Closes the target's connections. Valid targets are `connection`, `device`, `user` and `users`. */
  export function kick(target: Target, reason: string): void;
}

/**
 * Kept messages, read only. For access, handlers and events. Grant: `history`. Since 0.1.3.
 *
 * The node keeps the last messages of each stream (docs/explanation/history.md). A read returns at
 * most 100 messages and about 256 KiB. A message whose own time is over is left out. One call of the
 * plugin may read 64 times. If the history does not answer, the call of the plugin fails, and the
 * failure does not count against the plugin.
 */
declare module "skylark:plugin/history" {
  export type Message = import("skylark:plugin/types").Message;
  export type StreamName = import("skylark:plugin/types").StreamName;
  /** Place of a message in its stream. */
  export interface StreamPosition {
    /** Life of the stream, eight characters. A stream that begins again has another epoch. */
    epoch: string;
    /** Number of the message in its stream, from 1; 0 = before the first message. */
    offset: number;
    /** Id of the message at this offset. */
    id: number;
  }
  /** A kept message. */
  export interface KeptMessage {
    /** Number of the message in its stream. */
    offset: number;
    /** The message. */
    message: Message;
    /** The only device that receives it; none = all devices of the user. */
    device: string | null;
    /** Users that do not receive it. */
    except: Array<string>;
  }
  /** Reason for which messages after a position are missing. */
  export type Missed = "trimmed" | "epoch" | "fork";
  /** Messages of a stream. */
  export interface Page {
    /** The messages, the oldest first. */
    messages: Array<KeptMessage>;
    /** Position of the stream's last message. */
    top: StreamPosition;
    /** Set if messages after the given position are missing. The page then has no message. */
    missed: Missed | null;
  }
  /** Reason for which nothing was read. */
  export type Error = { tag: "off" } | { tag: "invalid"; val: string };
  /** The newest messages of the stream, at most `limit`. */
  export function latest(name: StreamName, limit: number): Page;
  /**
   * The messages after the position, at most `limit`. To read on, pass the offset and id of the last
   * message with the epoch of `top`.
   */
  export function after(name: StreamName, position: StreamPosition, limit: number): Page;
  /** The position of the stream's last message. */
  export function position(name: StreamName): StreamPosition;
}

/**
 * Timers that call the export `alarms` later. For handlers and events. Grant: `timers`. Since 0.1.1.
 *
 * A timer belongs to the plugin and this node. It survives a reload, goes to the version that serves
 * when it is due, and ends with the node. Timers are staged with the outbox: a call that fails sets
 * and cancels nothing. A plugin has at most 10 000 timers, with 4 MiB of names and data.
 */
declare module "skylark:plugin/timers" {
  /** Reason for which a timer was not set or cancelled. */
  export type Error = { tag: "too-many" } | { tag: "invalid"; val: string };
  /**
   * Calls `on-timer` with this name and data after `after-ms` milliseconds. Replaces an earlier timer of
   * that name.
   */
  export function start(name: string, afterMs: number, data: Uint8Array): void;
  /** Cancels the timer of this name, if there is one. */
  export function cancel(name: string): void;
}

/**
 * Binds connections to users, for login flows such as a code that a phone confirms or a guest login.
 * For handlers and events. Grant: `login`. Since 0.1.1.
 *
 * The grant is powerful: it can bind any connection to any user, and no auth plugin decides.
 */
declare module "skylark:plugin/login" {
  export type Entry = import("skylark:plugin/types").Entry;
  /** The user of a connection, with details of the login. */
  export interface Account {
    /** The user. */
    uid: string;
    /** None keeps the known device. */
    device: string | null;
    /** web, android, ios, windows, mac; none keeps the known channel. */
    channel: string | null;
    /** Rooms to join at once. */
    rooms: Array<string>;
    /** Seconds since 1970 at which the connection ends, unless it is refreshed; none = never. */
    expires: number | null;
    /** Kept with the connection. */
    claims: Array<Entry>;
  }
  /** Reason for which the login was not staged. */
  export type Error = { tag: "too-many" } | { tag: "gone" } | { tag: "invalid"; val: string };
  /**
   * Binds the connection to this user; it may be bound already. Staged with the outbox, in the order of
   * the calls. The client gets a REPLY `client_bind` with code 200. Other devices of the user give way
   * as after any bind. A connection of another user first leaves that user's rooms.
   */
  export function bind(cid: number, account: Account): void;
}

/**
 * Small state of one plugin: survives a reload, shared by all its instances. Grant: `kv`.
 *
 * Writes are staged with the outbox. A call reads its own writes, and all writes commit together.
 * After a conflict with a concurrent write the host runs the call again, at most three times, then the
 * caller gets "503".
 */
declare module "skylark:plugin/kv" {
  /** Reason for which a write was not staged. */
  export type Error = { tag: "too-large" } | { tag: "read-only" };
  /** Reason for which a number was not added. */
  export type AddError = { tag: "too-large" } | { tag: "read-only" } | { tag: "not-a-number" };
  /** The value of `key`; none if the key is absent. */
  export function get(key: string): Uint8Array | null;
  /** Sets `key`; `ttl` is in seconds, none = until deleted. */
  export function set(key: string, value: Uint8Array, ttl: number | null): void;
  /** Deletes `key`. */
  function delete_(key: string): void;
  export { delete_ as delete };
  /** Sets `key` only if its value is `expected` (none = the key is absent). Returns true if it was set. */
  export function compareAndSwap(key: string, expected: Uint8Array | null, value: Uint8Array, ttl: number | null): boolean;
  /**
   * Adds to the number that `key` holds (absent = 0) and returns the sum. The value is the number as
   * decimal text. `ttl` is as in `set` and starts again. No two calls get the same sum: a call that
   * loses a conflict is run again. Since 0.1.1.
   */
  export function add(key: string, amount: number, ttl: number | null): number;
}

/**
 * Approximate sliding windows, for rate limits. They are the only state that a filter may change.
 * Grant: `counters`. Since 0.1.1.
 *
 * A counter belongs to the plugin and the node, survives a reload and is shared by all instances. The
 * count changes at once and is kept, even if the call fails. A plugin has 16 384 counters; a new one
 * replaces one that was not used for long.
 */
declare module "skylark:plugin/counters" {
  /**
   * Adds `amount` to the counter and returns its count over the last `window-seconds` seconds, `amount`
   * included. An `amount` of 0 only reads. A name with another window is another counter. Windows are 1
   * to 86 400 seconds long; other values are clamped.
   *
   * A window has sixteen slots. The slot that is leaving the window counts in proportion to the part
   * that is still inside, so the error is at most the count of that slot. A call takes the same time for
   * any count.
   */
  export function addAndRead(name: string, windowSeconds: number, amount: number): number;
}

/**
 * HTTP requests, for example to fetch a key set. For auth, access, handlers and events; never for
 * filters. Grant: `http`; `[http]` in the manifest lists the allowed origins. Since 0.1.1.
 *
 * A request is sent at once and is not undone if the call fails. A call that is run again sends the
 * request again. The time of a request is part of the call's wall time.
 */
declare module "skylark:plugin/http" {
  export type Entry = import("skylark:plugin/types").Entry;
  /** An HTTP request. */
  export interface Request {
    /** GET, POST, PUT… */
    method: string;
    /** `http://` or `https://`, a host, an optional port and a path. */
    url: string;
    /** At most 32, without headers of the connection (host, content-length, transfer-encoding…). */
    headers: Array<Entry>;
    /** None = no body. */
    body: Uint8Array | null;
    /**
     * Time limit in milliseconds up to the last byte of the response; none = 10 000. At most three
     * quarters of the call's time limit.
     */
    timeoutMs: number | null;
  }
  /** An HTTP response. */
  export interface Response {
    /** 200, 404… A redirect is a response like any other: it is not followed. */
    status: number;
    /** Names are in lower case. */
    headers: Array<Entry>;
    /** The whole body. */
    body: Uint8Array;
  }
  /** Reason for which there is no response. */
  export type Error = { tag: "denied"; val: string } | { tag: "invalid"; val: string } | { tag: "unreachable"; val: string } | { tag: "timeout" } | { tag: "too-large" } | { tag: "broken"; val: string } | { tag: "busy" };
  /** Sends one request and waits for its response. */
  export function send(request: Request): Response;
}

/**
 * Functions that guest languages lack or run slowly. They have no side effects, so every role may use
 * them without a grant. Since 0.1.1.
 *
 * The input counts toward the bytes that the call passes, and the time toward the call's own time.
 */
declare module "skylark:plugin/crypto" {
  /**
   * An RSA public key in the form of a JWK: modulus (2 048 to 8 192 bits) and
   * exponent, most significant byte first.
   */
  export interface RsaKey {
    /** The modulus, big-endian. */
    n: Uint8Array;
    /** The exponent, big-endian. */
    e: Uint8Array;
  }
  /** A point of the curve P-256 in the form of a JWK, 32 bytes per coordinate. */
  export interface EcKey {
    /** The x coordinate, 32 bytes big-endian. */
    x: Uint8Array;
    /** The y coordinate, 32 bytes big-endian. */
    y: Uint8Array;
  }
  /** Key for the check of a signature. It determines the algorithm. */
  export type PublicKey = { tag: "ed25519"; val: Uint8Array } | { tag: "rs256"; val: RsaKey } | { tag: "es256"; val: EcKey };
  /** SHA-256, 32 bytes. */
  export function sha256(data: Uint8Array): Uint8Array;
  /** HMAC with SHA-256, 32 bytes. */
  export function hmacSha256(key: Uint8Array, data: Uint8Array): Uint8Array;
  /** True if `tag` is the HMAC with SHA-256 of the data; compares in constant time. */
  export function hmacSha256Verify(key: Uint8Array, data: Uint8Array, tag: Uint8Array): boolean;
  /** True if the key made the signature over the data. An error says why the key is not valid. */
  export function verify(key: PublicKey, data: Uint8Array, signature: Uint8Array): boolean;
  /** Cryptographically secure random bytes, at most 1 024 a call; a larger request traps. */
  export function random(length: number): Uint8Array;
}
