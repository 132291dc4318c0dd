//! Every metric in one table: name, kind, labels, what it says. No label ever holds a user, a room or a token.

macro_rules! names {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident = $text:literal,)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $text;)+

        /// Every metric: name, kind, what it says.
        pub const ALL: &[(&str, &str, &str)] = &[$(($text, stringify!($kind), concat!($($doc),+))),+];

        /// Tells the recorder what each metric says.
        pub(super) fn describe() {
            $(names!(@describe $kind, $text, concat!($($doc),+).trim());)+
        }
    };
    (@describe counter, $name:literal, $doc:expr) => { metrics::describe_counter!($name, $doc) };
    (@describe gauge, $name:literal, $doc:expr) => { metrics::describe_gauge!($name, $doc) };
    (@describe histogram, $name:literal, $doc:expr) => { metrics::describe_histogram!($name, $doc) };
}

names! {
    // Connections.
    /// Live connections, bound or not.
    CONNECTIONS: gauge = "skylark_connections",
    /// Users with at least one connection on this node.
    USERS: gauge = "skylark_users",
    /// Rooms with at least one connection on this node.
    ROOMS: gauge = "skylark_rooms",
    /// Connections taken, by `listener` (ws, cim, cim-tcp).
    CONNECTED: counter = "skylark_connected_total",
    /// Connections closed, by close `code` of this node; `client` where the client closed, whatever code it gave.
    CLOSED: counter = "skylark_closed_total",
    /// Connects refused before they became a connection, by `reason`.
    REFUSED: counter = "skylark_refused_total",
    /// Accepts that failed because the process or the system has no file descriptor or memory left.
    ACCEPT_FAILED: counter = "skylark_accept_failed_total",
    /// Answers of the auth plugins, by `outcome` (admitted, refused).
    ADMISSIONS: counter = "skylark_admissions_total",
    /// Certificates read again because their files changed, by `outcome` (live, rejected).
    TLS_RELOADS: counter = "skylark_tls_reloads_total",
    /// Frames from clients, by `kind` (pong, sent, invalid).
    FRAMES_RECEIVED: counter = "skylark_frames_received_total",

    // Messages.
    /// Messages that entered, by `origin` (client, http, broker, plugin) and `fate` (accepted, rejected, dropped, too_large,
    /// too_many_hops, unavailable, unjudged: a filter could not judge them).
    PUBLISHED: counter = "skylark_published_total",
    /// Messages that the queue of a connection took.
    DELIVERED: counter = "skylark_delivered_total",
    /// Messages lost because the queue of a connection was full.
    LOST_FULL: counter = "skylark_lost_full_total",
    /// Writes to sockets.
    FLUSHES: counter = "skylark_flushes_total",
    /// Frames written to sockets whole; divided by the writes, how much one write carries.
    FRAMES_SENT: counter = "skylark_frames_sent_total",
    /// Bytes written to sockets.
    BYTES_SENT: counter = "skylark_bytes_sent_total",
    /// PINGs sent.
    PINGS: counter = "skylark_pings_total",
    /// Commands that wait for a shard, by `shard`.
    MAILBOX: gauge = "skylark_mailbox",

    // The cluster.
    /// Living nodes, this one included.
    MEMBERS: gauge = "skylark_members",
    /// Times that messages for this node's clients may have been lost, and the clients were told.
    LOSSES_DECLARED: counter = "skylark_losses_declared_total",
    /// Words of other nodes that were not acted on, by `why` (unreadable, full).
    WORDS_REFUSED: counter = "skylark_words_refused_total",
    /// Answers of other nodes that did not come in time.
    ANSWERS_MISSING: counter = "skylark_answers_missing_total",

    // Push API.
    /// Requests, by `route` and `status`.
    HTTP_REQUESTS: counter = "skylark_http_requests_total",
    /// Time from the head of a request to its answer, by `route`.
    HTTP_SECONDS: histogram = "skylark_http_seconds",

    // Intakes. `intake` is its kind and topic, such as `kafka chat`.
    /// Records taken, by `intake`; one that comes again counts again.
    INTAKE_TAKEN: counter = "skylark_intake_taken_total",
    /// Messages of records that the bus took or to which a filter said no, by `intake`.
    INTAKE_ACCEPTED: counter = "skylark_intake_accepted_total",
    /// Tries of a batch that followed one in which the bus was unavailable, by `intake`.
    INTAKE_RETRIED: counter = "skylark_intake_retried_total",
    /// Records put into the dead-letter stream or topic, by `intake` and `reason` (body, too_large, unknown_node, tries, unjudged).
    INTAKE_DEAD: counter = "skylark_intake_dead_letters_total",
    /// Records of a Kafka intake without a value (tombstones of a compacted topic): passed over, by `intake`.
    INTAKE_TOMBSTONES: counter = "skylark_intake_tombstones_total",
    /// Dead letters of a Redis intake that were removed, the oldest first, because their stream is full, by `intake`.
    INTAKE_DEAD_REMOVED: counter = "skylark_intake_dead_letters_removed_total",
    /// Records of a pub/sub intake that are lost, because its lease was, by `intake`.
    INTAKE_LOST: counter = "skylark_intake_lost_total",
    /// Records of a pub/sub intake that another node may have accepted, too: the lease ran out while they were handled, or
    /// they were dropped after a try that got no answer and may arrive yet; by `intake`.
    INTAKE_DOUBTFUL: counter = "skylark_intake_doubtful_total",
    /// Times that this node took the one subscription of a pub/sub intake, by `intake`.
    INTAKE_LEASES: counter = "skylark_intake_leases_total",
    /// Records that wait behind those taken, as far as the engine tells, by `intake`.
    INTAKE_LAG: gauge = "skylark_intake_lag",
    /// Partitions of a Kafka intake's topic that this node reads, by `intake`.
    INTAKE_PARTITIONS: gauge = "skylark_intake_partitions",
    /// 1 while the engine of an intake answers, by `intake`.
    INTAKE_UP: gauge = "skylark_intake_up",
    /// 1 while an intake waits because a plugin can judge nothing, by `intake`.
    INTAKE_PAUSED: gauge = "skylark_intake_paused",
    /// When an intake last had an error, in seconds since 1970, by `intake`; 0 = never.
    INTAKE_LAST_ERROR: gauge = "skylark_intake_last_error_seconds",

    // The bus.
    /// Messages given to an engine that reaches other nodes, by `engine` and `way` (routed, broadcast).
    BUS_ENVELOPES: counter = "skylark_bus_envelopes_total",
    /// Writes to the connection by which a node publishes, by `engine`: each carries all that waited, in one round trip.
    BUS_WRITES: counter = "skylark_bus_writes_total",
    /// Connections to the engine that were lost, by `engine` and `way` (publish, subscribe).
    BUS_RECONNECTS: counter = "skylark_bus_reconnects_total",
    /// Records of the bus that came, by `engine` (kafka) and `what` became of them (read, skipped): a node gets everything
    /// and skips by a header what is not its own.
    BUS_RECORDS: counter = "skylark_bus_records_total",
    /// Records that wait behind those read, as far as the engine tells, by `engine` (kafka).
    BUS_LAG: gauge = "skylark_bus_lag",
    /// Times that this node may have lost what was sent to it, and said so, by `engine`.
    BUS_GAPS: counter = "skylark_bus_gaps_total",
    /// Records and messages that came again and were not delivered a second time, by `engine`.
    BUS_COPIES: counter = "skylark_bus_copies_total",
    /// Records that could not be read: of another version, or damaged, by `engine`.
    BUS_UNREADABLE: counter = "skylark_bus_unreadable_total",
    /// Changes of leases, by `lease` (node) and `change` (taken, lost, given_back, fallen).
    LEASE_CHANGES: counter = "skylark_lease_changes_total",

    // Plugins.
    /// Calls of plugins, by `plugin`, `role` and `outcome`: the answer (allow, replace, reject, drop, admit, refuse, abstain,
    /// done) or why there was none (trap, cpu, wall, memory, bytes, full, ticker, start, answer, input, declared, kv, cluster,
    /// open, apart, missing), then with the `cause`: caller, guest, host, operator.
    PLUGIN_CALLS: counter = "skylark_plugin_calls_total",
    /// Time of a call, by `plugin` and `role`; one call in 16 is measured.
    PLUGIN_SECONDS: histogram = "skylark_plugin_seconds",
    /// Live instances, by `plugin`.
    PLUGIN_INSTANCES: gauge = "skylark_plugin_instances",
    /// The most bytes that one instance of the serving version has held, by `plugin`.
    PLUGIN_MEMORY: gauge = "skylark_plugin_memory_bytes",
    /// Number of the version that serves, by `plugin`; 0 = none.
    PLUGIN_VERSION: gauge = "skylark_plugin_version",
    /// 1 while the circuit of the version that serves is not closed, by `plugin`.
    PLUGIN_CIRCUIT_OPEN: gauge = "skylark_plugin_circuit_open",
    /// Circuits that opened because a plugin failed again and again, by `plugin`.
    PLUGIN_CIRCUITS: counter = "skylark_plugin_circuits_opened_total",
    /// Times that a source was set apart because the plugin failed for it again and again, by `plugin`.
    PLUGIN_SET_APART: counter = "skylark_plugin_set_apart_total",
    /// Changes of what serves, by `plugin` and `outcome` (live, canary, rejected, rolled_back, disabled, enabled, removed).
    PLUGIN_RELOADS: counter = "skylark_plugin_reloads_total",
    /// Calls served by an instance made for that one call, by `plugin`.
    PLUGIN_ONE_SHOTS: counter = "skylark_plugin_one_shots_total",
    /// Calls that ran out of time and were due to be repeated, by `plugin` and `outcome` of the second call: answered, failed, or refused, where there
    /// was no second call.
    PLUGIN_RETRIES: counter = "skylark_plugin_retries_total",
    /// Instances replaced, by `plugin` and `reason`: as many calls as one serves (calls), over three quarters of its memory
    /// (memory), a call that failed (error).
    PLUGIN_RECYCLED: counter = "skylark_plugin_recycled_total",
    /// 1: instances come from a pool reserved at the start; 0: the machine gives no room for it, they are made on demand.
    PLUGIN_POOL: gauge = "skylark_plugin_pool",
    /// Events that found the queue of the events plugins full.
    PLUGIN_EVENTS_LOST: counter = "skylark_plugin_events_lost_total",
    /// How far the ticker that bounds the plugins' time lags behind, in seconds: the worst of the last second.
    PLUGIN_TICKER_LAG: gauge = "skylark_plugin_ticker_lag_seconds",

    // The process.
    /// Log lines lost, by `reason`: their writer was too slow (slow), the disk was full or the pipe closed (write).
    LOG_LINES_LOST: counter = "skylark_log_lines_lost_total",
}
