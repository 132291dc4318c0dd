// Made from wit/ by `cargo run -p bindings`, in plugins/.

/** Words that every role shares. */
declare module "skylark:plugin/types" {
  /** One key with its text. */
  export type Entry = [string, string];
  /** What is said. An empty text is an absent one; an id or timestamp of 0 is given by the host. */
  export interface Message {
    /** Number of the message. */
    id: number;
    /** What kind of message it is, e.g. `chat` or `900`. */
    action: string;
    /** The body: texts by key. */
    content: Array<Entry>;
    /** Who says it, by the publisher's word. */
    sender: string;
    /** Who is meant, by the publisher's word. It routes nothing here. */
    receiver: string;
    /** What goes with the body: avatar, nickname. */
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
    /** Whose device. */
    uid: string;
    /** Its name, as the client gave it when it bound. */
    device: string;
  }
  /** Who is to receive a push. */
  export type Target = { tag: "connection"; val: number } | { tag: "device"; val: DeviceOf } | { tag: "user"; val: string } | { tag: "users"; val: Array<string> } | { tag: "room"; val: string } | { tag: "everyone" } | { tag: "everyone-but"; val: Array<string> };
  /** A code for the client or back end (three digits as text, e.g. "403") and a reason in plain words. */
  export interface Refusal {
    /** Three digits as text. */
    code: string;
    /** In plain words, for a person. */
    reason: string;
  }
  /** By which way something came in. */
  export type Origin = "client" | "http" | "broker" | "plugin";
  /** Who a connection belongs to. */
  export interface Identity {
    /** The user. */
    uid: string;
    /** The connection. */
    cid: number;
    /** Its device, if it named one. */
    device: string | null;
    /** web, android, ios, windows, mac. */
    channel: string | null;
  }
}

/**
 * Role: decides who gets in. Called at connect, at `client_bind` and at `client_refresh`.
 *
 * The first plugin that does not abstain decides; if all abstain the client is refused.
 */
declare module "skylark:plugin/auth" {
  export type Entry = import("skylark:plugin/types").Entry;
  export type Refusal = import("skylark:plugin/types").Refusal;
  /** What the transport knows. Nothing a client types in a frame can appear here. */
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
    /** The user that the connection is bound to already (on refresh and on a bind that follows). */
    bound: string | null;
  }
  /** What the client says of itself. */
  export interface Claim {
    /** Token from header, query, cookie, subprotocol, or `client_bind` data; the first that is set, in that order. */
    token: string | null;
    /** `uid` as typed by the client: a claim, not a fact. */
    uid: string | null;
    /** The `deviceId`. */
    device: string | null;
    /** web, android, ios, windows, mac. */
    channel: string | null;
    /** Everything else that `client_bind` carried. */
    data: Array<Entry>;
  }
  /** Who the client really is. */
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
  /** What becomes of the client. */
  export type Answer = { tag: "admit"; val: Admission } | { tag: "refuse"; val: Refusal } | { tag: "abstain" };
  /** What the plugin exports as `auth`. */
  export interface Auth {
    /** Decides about one client. */
    admit(transport: Transport, claim: Claim): Answer;
  }
}

/**
 * Role: decides which rooms a bound client may join. Called at `room_join`, and at nothing else. Since 0.1.2.
 *
 * The first plugin that does not abstain decides. If all abstain, the rooms of `clients.open_rooms` are open to every bound
 * client, and all others are refused. Rooms of an admission, of `login`, of the push API and of `outbox` are not asked for.
 * The role reads: it may call `kv.get`, and `kv` refuses its writes as read-only.
 */
declare module "skylark:plugin/access" {
  export type Entry = import("skylark:plugin/types").Entry;
  export type Identity = import("skylark:plugin/types").Identity;
  export type Refusal = import("skylark:plugin/types").Refusal;
  /** The decision about one join. */
  export type Answer = { tag: "allow"; val: number | null } | { tag: "refuse"; val: Refusal } | { tag: "abstain" };
  /** What the plugin exports as `access`. */
  export interface Access {
    /**
     * Decides about one join. `claims` are those of the connection's last admission or login: nothing in them was typed by the
     * client. `data` is what the client sent beside the room: nothing in it is a fact.
     */
    join(who: Identity, claims: Array<Entry>, room: string, data: Array<Entry>): Answer;
  }
}

/**
 * The publish under judgement: nothing is copied into the plugin until it asks (docs/decisions/0002).
 *
 * The functions speak of the publish whose `judge` is running; outside of it a call traps.
 */
declare module "skylark:plugin/publication" {
  export type Entry = import("skylark:plugin/types").Entry;
  export type Whole = import("skylark:plugin/types").Message;
  export type Way = import("skylark:plugin/types").Origin;
  /** What kind of target a publish has. */
  export type Audience = "connection" | "device" | "user" | "users" | "room" | "everyone" | "everyone-but";
  /** Number of the message; 0 = the host gives one. */
  export function id(): number;
  /** What kind of message it is. */
  export function action(): string;
  /** The body: texts by key. */
  export function content(): Array<Entry>;
  /** Who says it, by the publisher's word. */
  export function sender(): string;
  /** Who is meant, by the publisher's word. */
  export function receiver(): string;
  /** What goes with the body. */
  export function extra(): Array<Entry>;
  /** Headline. */
  export function title(): string;
  /** Address of a picture. */
  export function image(): string;
  /** Format of the content, as CIM names it. */
  export function format(): string;
  /** Milliseconds since 1970; 0 = the host gives it. */
  export function timestamp(): number;
  /** All of it at once, to read it whole or to change and hand back in `replace`. */
  export function message(): Whole;
  /** By which way it came. */
  export function origin(): Way;
  /** The user whose connection published; none for back ends. */
  export function publisher(): string | null;
  /** Whom it goes to, by kind. */
  export function targetKind(): Audience;
  /** How many users the target names; 0 for rooms, connections and everyone. */
  export function targetCount(): number;
  /** The users the target names, from `offset` on, at most 1 000 a call. */
  export function targetUids(offset: number, limit: number): Array<string>;
  /** The room the target names. */
  export function targetRoom(): string | null;
}

/**
 * Role: judges each publish once, whatever way it came in and however many receive it.
 *
 * A filter is free of side effects: it may import `publication`, `log`, `settings`, `clock`, `crypto`, `directory`
 * and `counters` (the one state that it may change), nothing else.
 */
declare module "skylark:plugin/filter" {
  export type Message = import("skylark:plugin/types").Message;
  export type Refusal = import("skylark:plugin/types").Refusal;
  /** What becomes of the publish. */
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
  /** What a client asks. */
  export interface Call {
    /** One of the keys that this plugin owns. */
    key: string;
    /** What came with it. */
    data: Array<Entry>;
    /** Whose connection asks; none while it is not bound. */
    caller: Identity | null;
    /** The connection that asks. */
    cid: number;
  }
  /** What the client is told. */
  export interface Reply {
    /** Three digits as text: "200" is success. */
    code: string;
    /** In plain words. */
    message: string;
    /** What goes with it. */
    data: Array<Entry>;
  }
  /** What the plugin exports as `handler`. */
  export interface Handler {
    /** The keys this plugin owns; asked once per load. A key that another plugin owns makes the load fail. */
    keys(): Array<string>;
    /** Effects (outbox, kv) are committed before the reply goes out, all of them or, on an error or trap, none. */
    handle(call: Call): Reply;
  }
}

/** Role: is told what happened. Answers nothing, delays nothing. */
declare module "skylark:plugin/events" {
  export type Identity = import("skylark:plugin/types").Identity;
  /** Who joined or left which room. */
  export interface RoomChange {
    /** The connection. */
    who: Identity;
    /** The room. */
    room: string;
  }
  /** What happened on this node. */
  export type Event = { tag: "online"; val: Identity } | { tag: "offline"; val: Identity } | { tag: "room-joined"; val: RoomChange } | { tag: "room-left"; val: RoomChange };
  /** What the plugin exports as `events`. */
  export interface Events {
    /** Hears of one event; they come one after the other. */
    onEvent(event: Event): void;
  }
}

/** Optional for every role: called on each fresh instance before its first call. */
declare module "skylark:plugin/lifecycle" {
  /** What the plugin exports as `lifecycle`. */
  export interface Lifecycle {
    /** An error refuses the instance, and at load the whole file, with this text. */
    start(): void;
  }
}

/** Optional for handlers and events: is told when a timer that the plugin set is due. Since 0.1.1. */
declare module "skylark:plugin/alarms" {
  /** What the plugin exports as `alarms`. */
  export interface Alarms {
    /** Effects (outbox, kv, timers) are committed once it has returned. A timer rings once: a call that fails is not repeated. */
    onTimer(name: string, data: Uint8Array): void;
  }
}

/** Lines for the node's log; capped per call. */
declare module "skylark:plugin/log" {
  /** How much a line matters. */
  export type Level = "debug" | "info" | "warn" | "error";
  /** Writes one line. */
  export function write(level: Level, message: string): void;
}

/** The `[settings]` table of the plugin's manifest. */
declare module "skylark:plugin/settings" {
  /** One top-level value: a text as it is, anything else as JSON. */
  export function get(key: string): string | null;
  /** The whole table as a JSON object. */
  export function json(): string;
}

/** Time. */
declare module "skylark:plugin/clock" {
  /** Milliseconds since 1970. */
  export function now(): number;
  /** Nanoseconds since some start, never going back. */
  export function monotonic(): number;
}

/** Who is online, on which device, in which room. Grant: `directory`. */
declare module "skylark:plugin/directory" {
  /** One connection of a user. */
  export interface Presence {
    /** The connection. */
    cid: number;
    /** Its device, if it named one. */
    device: string | null;
    /** web, android, ios, windows, mac. */
    channel: string | null;
    /** The rooms that it is in. */
    rooms: Array<string>;
  }
  /** Whether the user has at least one connection. */
  export function online(uid: string): boolean;
  /** The user's connections. */
  export function connections(uid: string): Array<Presence>;
  /** Users in a room from `offset` on, at most 1 000 a call, in no promised order. */
  export function members(room: string, offset: number, limit: number): Array<string>;
  /** The devices on which the user is online, each once, sorted. Since 0.1.1. */
  export function devices(uid: string): Array<string>;
  /** The rooms that one of the user's connections is in, each once, sorted. Since 0.1.1. */
  export function rooms(uid: string): Array<string>;
}

/** Effects on others; staged until the call returns ok, then committed all together. Handlers and events. Grant: `outbox`. */
declare module "skylark:plugin/outbox" {
  export type Message = import("skylark:plugin/types").Message;
  export type Target = import("skylark:plugin/types").Target;
  /** What history does with the message. Carried, unused until the node keeps history. */
  export type History = { tag: "configured" } | { tag: "no" } | { tag: "ttl"; val: number };
  /** How a push is published. */
  export interface Options {
    /** Idempotency key. */
    key: string | null;
    /** Whether it is kept. */
    history: History;
    /** A connection to leave out. */
    noEcho: number | null;
  }
  /** Why an effect was not staged. */
  export type Error = { tag: "too-many" } | { tag: "too-large" } | { tag: "too-many-hops" } | { tag: "invalid"; val: string };
  /** Publishes a message; it passes the filters like any other. */
  export function push(target: Target, message: Message, options: Options | null): void;
  /** The user's connections join the room. */
  export function join(uid: string, room: string): void;
  /** The user's connections leave the room. */
  export function leave(uid: string, room: string): void;
  /** Closes the target's connections; `connection`, `device`, `user` and `users` only. */
  export function kick(target: Target, reason: string): void;
}

/**
 * One call later, by the export `alarms`. Handlers and events. Grant: `timers`. Since 0.1.1.
 *
 * A timer belongs to the plugin and this node: it survives a reload and is told to the version that serves when it is due; it ends
 * with the node. Staged with the outbox: a call that fails sets and cancels nothing. A plugin has at most 10 000, with 4 MiB
 * of names and data.
 */
declare module "skylark:plugin/timers" {
  /** Why a timer was not set or cancelled. */
  export type Error = { tag: "too-many" } | { tag: "invalid"; val: string };
  /** Has `on-timer` called with this name and data in so many milliseconds; an earlier timer of the name is replaced. */
  export function start(name: string, afterMs: number, data: Uint8Array): void;
  /** Forgets the timer of this name, if there is one. */
  export function cancel(name: string): void;
}

/**
 * Gives connections their user, for login flows: a code that a phone confirms, a guest who signs in. Handlers and events.
 * Grant: `login`. Since 0.1.1.
 *
 * The grant is a great one: it makes any connection anybody's, and no auth plugin is asked.
 */
declare module "skylark:plugin/login" {
  export type Entry = import("skylark:plugin/types").Entry;
  /** Whose the connection becomes. */
  export interface Account {
    /** The user. */
    uid: string;
    /** None = what is known of it already. */
    device: string | null;
    /** web, android, ios, windows, mac; none = what is known of it already. */
    channel: string | null;
    /** Rooms to join at once. */
    rooms: Array<string>;
    /** Seconds since 1970 at which the connection ends, unless it is refreshed; none = never. */
    expires: number | null;
    /** Kept with the connection. */
    claims: Array<Entry>;
  }
  /** Why the login was not staged. */
  export type Error = { tag: "too-many" } | { tag: "gone" } | { tag: "invalid"; val: string };
  /**
   * The connection is this user's, bound or not before; staged with the outbox, in the order of the calls. Its client is told
   * by a REPLY `client_bind` with code 200, other devices of the user give way as after any bind, and if it was another
   * user's, it leaves that one's rooms first.
   */
  export function bind(cid: number, account: Account): void;
}

/**
 * Small state of one plugin: survives reload, seen by all its instances. Grant: `kv`.
 *
 * Writes are staged with the outbox: the call reads its own writes, all commit together. A conflicting
 * concurrent write makes the host run the call again, at most three times, then the caller gets "503".
 */
declare module "skylark:plugin/kv" {
  /** Why a write was not staged. */
  export type Error = { tag: "too-large" } | { tag: "read-only" };
  /** Why a number was not added. */
  export type AddError = { tag: "too-large" } | { tag: "read-only" } | { tag: "not-a-number" };
  /** What `key` holds; none = nothing. */
  export function get(key: string): Uint8Array | null;
  /** `ttl` in seconds; none = until deleted. */
  export function set(key: string, value: Uint8Array, ttl: number | null): void;
  /** Forgets `key`. */
  function delete_(key: string): void;
  export { delete_ as delete };
  /** Sets `key` only if its value is `expected` (none = the key is absent); answers whether it did. */
  export function compareAndSwap(key: string, expected: Uint8Array | null, value: Uint8Array, ttl: number | null): boolean;
  /**
   * Adds to the number that `key` holds (absent = 0) and answers the sum. The value is the number as decimal text; `ttl`
   * as in `set`, counted anew. No two calls get the same sum: a call whose sum another one took is run again. Since 0.1.1.
   */
  export function add(key: string, amount: number, ttl: number | null): number;
}

/**
 * Approximate sliding windows, for rate rules: the one state that a filter may change. Grant: `counters`. Since 0.1.1.
 *
 * A counter belongs to the plugin and the node, survives a reload and is seen by all instances; it is counted at once and stays
 * counted, whatever the call answers. A plugin has 16 384 of them: one more takes the place of one that was not used for long.
 */
declare module "skylark:plugin/counters" {
  /**
   * Adds `amount` to the counter and answers what it counted in the last `window-seconds` seconds, this included; an `amount`
   * of 0 only reads. A name with another window is another counter. Windows are 1 to 86 400 seconds long; what is
   * outside is taken as the nearest of the two.
   *
   * A window is kept as sixteen slots, and the one that is leaving it counts by the part that is still inside: the answer
   * differs from the truth by at most what that one slot holds. Takes the same time whatever was counted.
   */
  export function addAndRead(name: string, windowSeconds: number, amount: number): number;
}

/**
 * Requests to others, e.g. for a key set. Auth, access, handlers and events; never a filter. Grant: `http`, and the manifest's
 * `[http]` names the places that may be asked. Since 0.1.1.
 *
 * A request is sent at once and is not taken back if the call fails; a call that is run again sends it again. The time that
 * it takes is part of the call's wall time.
 */
declare module "skylark:plugin/http" {
  export type Entry = import("skylark:plugin/types").Entry;
  /** What is asked. */
  export interface Request {
    /** GET, POST, PUT… */
    method: string;
    /** `http://` or `https://`, a host, perhaps a port, a path. */
    url: string;
    /** At most 32, none that belongs to the connection (host, content-length, transfer-encoding…). */
    headers: Array<Entry>;
    /** None = no body. */
    body: Uint8Array | null;
    /** To the last byte of the answer; none = 10 000. At most three quarters of what the call may take. */
    timeoutMs: number | null;
  }
  /** What was answered. */
  export interface Response {
    /** 200, 404… A redirect is an answer like any other: it is not followed. */
    status: number;
    /** Names in lower case. */
    headers: Array<Entry>;
    /** All of it. */
    body: Uint8Array;
  }
  /** Why there is no answer. */
  export type Error = { tag: "denied"; val: string } | { tag: "invalid"; val: string } | { tag: "unreachable"; val: string } | { tag: "timeout" } | { tag: "too-large" } | { tag: "broken"; val: string } | { tag: "busy" };
  /** Sends one request and waits for its answer. */
  export function send(request: Request): Response;
}

/**
 * What a guest language lacks or is slow at. Pure functions: every role may use them, no grant. Since 0.1.1.
 *
 * What goes in counts as bytes that the call hands over; the time counts as the call's own.
 */
declare module "skylark:plugin/crypto" {
  /** An RSA public key as a JWK has it: modulus (2 048 to 8 192 bits) and exponent, most significant byte first. */
  export interface RsaKey {
    /** The modulus, big-endian. */
    n: Uint8Array;
    /** The exponent, big-endian. */
    e: Uint8Array;
  }
  /** A point of the curve P-256 as a JWK has it, 32 bytes each. */
  export interface EcKey {
    /** The point's x, 32 bytes big-endian. */
    x: Uint8Array;
    /** The point's y, 32 bytes big-endian. */
    y: Uint8Array;
  }
  /** The key that a signature is checked with, and by that the algorithm. */
  export type PublicKey = { tag: "ed25519"; val: Uint8Array } | { tag: "rs256"; val: RsaKey } | { tag: "es256"; val: EcKey };
  /** SHA-256, 32 bytes. */
  export function sha256(data: Uint8Array): Uint8Array;
  /** HMAC with SHA-256, 32 bytes. */
  export function hmacSha256(key: Uint8Array, data: Uint8Array): Uint8Array;
  /** Whether `tag` is the HMAC with SHA-256 of the data; takes the same time wherever they differ. */
  export function hmacSha256Verify(key: Uint8Array, data: Uint8Array, tag: Uint8Array): boolean;
  /** Whether the signature over the data is the key's. An error says what is wrong with the key. */
  export function verify(key: PublicKey, data: Uint8Array, signature: Uint8Array): boolean;
  /** Bytes that nobody can guess, at most 1 024 a call; to ask for more traps. */
  export function random(length: number): Uint8Array;
}
