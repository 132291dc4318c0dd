//! The table of all metrics: name, kind, labels, meaning. No label ever holds a user, a room or a token.

macro_rules! names {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident = $text:literal,)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $text;)+

        /// Every metric: name, kind, meaning.
        pub const ALL: &[(&str, &str, &str)] = &[$(($text, stringify!($kind), concat!($($doc),+))),+];

        /// Registers the description of each metric.
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
    /// Accepted connections, by `listener` (ws, cim, cim-tcp).
    CONNECTED: counter = "skylark_connected_total",
    /// Closed connections, by close `code` of this node; `client` if the client closed, regardless of its code.
    CLOSED: counter = "skylark_closed_total",
    /// Connection attempts refused before a connection existed, by `reason`.
    REFUSED: counter = "skylark_refused_total",
    /// Failed accepts because the process or the system has no file descriptor or memory left.
    ACCEPT_FAILED: counter = "skylark_accept_failed_total",
    /// Answers of the auth plugins, by `outcome` (admitted, refused).
    ADMISSIONS: counter = "skylark_admissions_total",
    /// Certificate reloads after a file change, by `outcome` (live, rejected).
    TLS_RELOADS: counter = "skylark_tls_reloads_total",
    /// Frames from clients, by `kind` (pong, sent, invalid).
    FRAMES_RECEIVED: counter = "skylark_frames_received_total",

    // Messages.
    /// Messages that entered, by `origin` (client, http, broker, plugin) and `fate` (accepted, rejected, dropped,
    /// too_large, too_many_hops, unavailable, unjudged: a filter could not judge them).
    PUBLISHED: counter = "skylark_published_total",
    /// Messages accepted by the queue of a connection.
    DELIVERED: counter = "skylark_delivered_total",
    /// Messages lost because the queue of a connection was full.
    LOST_FULL: counter = "skylark_lost_full_total",
    /// Writes to sockets.
    FLUSHES: counter = "skylark_flushes_total",
    /// Frames written to sockets whole. Divided by the flushes, it gives the frames per write.
    FRAMES_SENT: counter = "skylark_frames_sent_total",
    /// Bytes written to sockets.
    BYTES_SENT: counter = "skylark_bytes_sent_total",
    /// PINGs sent.
    PINGS: counter = "skylark_pings_total",
    /// Commands waiting for a shard, by `shard`.
    MAILBOX: gauge = "skylark_mailbox",

    // The history.
    /// Streams in memory.
    HISTORY_STREAMS: gauge = "skylark_history_streams",
    /// Approximate bytes of the streams in memory.
    HISTORY_BYTES: gauge = "skylark_history_bytes",
    /// Streams forgotten because all streams together reached `history.bytes`.
    HISTORY_EVICTED: counter = "skylark_history_evicted_total",
    /// Messages appended to a stream, by `kind` (user, room, all). A message to a list of users counts for each user.
    HISTORY_APPENDS: counter = "skylark_history_appends_total",
    /// Kept messages that the failing history could not keep, by `end` (refused, delivered).
    HISTORY_UNKEPT: counter = "skylark_history_unkept_total",
    /// Time of a sync of the journal to its disk.
    HISTORY_JOURNAL_SYNC: histogram = "skylark_history_journal_sync_seconds",
    /// Failed writes and syncs of the journal.
    HISTORY_JOURNAL_FAILURES: counter = "skylark_history_journal_failures_total",
    /// Bytes of the journal on its disk.
    HISTORY_JOURNAL_BYTES: gauge = "skylark_history_journal_bytes",
    /// Streams that clients asked to resume, by `result`: recovered, the reason of the answer (trimmed, epoch, fork,
    /// unavailable, off, already_bound, not_joined, unknown), or busy if the node refused the request.
    HISTORY_RESUMES: counter = "skylark_history_resumes_total",
    /// Messages replayed to clients.
    HISTORY_RESUME_MESSAGES: counter = "skylark_history_resume_messages_total",
    /// Connections whose live messages are withheld while they receive history.
    HISTORY_REPLAY_BUFFERS: gauge = "skylark_history_replay_buffers",
    /// Times that withheld messages exceeded a bound and were dropped; the node then reads them from the history.
    HISTORY_REPLAY_BUFFER_OVERFLOWS: counter = "skylark_history_replay_buffer_overflows_total",

    // The cluster.
    /// Living nodes, this one included.
    MEMBERS: gauge = "skylark_members",
    /// Times that messages for this node's clients may have been lost and the clients were told.
    LOSSES_DECLARED: counter = "skylark_losses_declared_total",
    /// Cluster messages of other nodes that were ignored, by `why` (unreadable, full).
    WORDS_REFUSED: counter = "skylark_words_refused_total",
    /// Answers of other nodes that did not come in time.
    ANSWERS_MISSING: counter = "skylark_answers_missing_total",

    // Push API.
    /// Requests, by `route` and `status`.
    HTTP_REQUESTS: counter = "skylark_http_requests_total",
    /// Time from the head of a request to its response, by `route`.
    HTTP_SECONDS: histogram = "skylark_http_seconds",

    // Intakes. `intake` is the kind and topic, such as `kafka chat`.
    /// Records read, by `intake`; a redelivered record counts again.
    INTAKE_TAKEN: counter = "skylark_intake_taken_total",
    /// Messages of records that the bus accepted or a filter refused, by `intake`.
    INTAKE_ACCEPTED: counter = "skylark_intake_accepted_total",
    /// Retries of a batch after the bus was unavailable, by `intake`.
    INTAKE_RETRIED: counter = "skylark_intake_retried_total",
    /// Records moved to the dead-letter stream or topic, by `intake` and `reason` (body, too_large, unknown_node,
    /// tries, unjudged).
    INTAKE_DEAD: counter = "skylark_intake_dead_letters_total",
    /// Kafka records without a value (tombstones of a compacted topic), which are skipped, by `intake`.
    INTAKE_TOMBSTONES: counter = "skylark_intake_tombstones_total",
    /// Dead letters of a Redis intake removed because their stream is full, oldest first, by `intake`.
    INTAKE_DEAD_REMOVED: counter = "skylark_intake_dead_letters_removed_total",
    /// Records lost by a pub/sub intake, by `intake` and `reason` (lease: the lease was lost; plugin, bus, engine: the node
    /// drained while they waited for it).
    INTAKE_LOST: counter = "skylark_intake_lost_total",
    /// Times that a full pub/sub intake left its channel, by `intake` and `reason` for which its records wait (plugin, bus,
    /// engine, slow).
    INTAKE_LEFT: counter = "skylark_intake_left_total",
    /// Records of a pub/sub intake that another node may have accepted, too, by `intake`. Their lease ran out during
    /// processing, or they were dropped after an attempt without a reply that may still arrive.
    INTAKE_DOUBTFUL: counter = "skylark_intake_doubtful_total",
    /// Times that this node acquired the only subscription of a pub/sub intake, by `intake`.
    INTAKE_LEASES: counter = "skylark_intake_leases_total",
    /// Records queued behind those read, as far as the engine reports it, by `intake`.
    INTAKE_LAG: gauge = "skylark_intake_lag",
    /// Partitions of a Kafka intake's topic that this node reads, by `intake`.
    INTAKE_PARTITIONS: gauge = "skylark_intake_partitions",
    /// 1 while the engine of an intake responds, by `intake`.
    INTAKE_UP: gauge = "skylark_intake_up",
    /// 1 while an intake is paused because a plugin cannot judge messages, by `intake`.
    INTAKE_PAUSED: gauge = "skylark_intake_paused",
    /// Time of an intake's last error, in seconds since 1970, by `intake`; 0 = never.
    INTAKE_LAST_ERROR: gauge = "skylark_intake_last_error_seconds",

    // The bus.
    /// Messages sent to an engine that reaches other nodes, by `engine` and `way` (routed, broadcast).
    BUS_ENVELOPES: counter = "skylark_bus_envelopes_total",
    /// Writes to the connection by which a node publishes, by `engine`: each carries all queued messages in one round
    /// trip.
    BUS_WRITES: counter = "skylark_bus_writes_total",
    /// Lost connections to the engine, by `engine` and `way` (publish, subscribe).
    BUS_RECONNECTS: counter = "skylark_bus_reconnects_total",
    /// Bus records received, by `engine` (kafka) and `what` became of them (read, skipped). A node receives every
    /// record and skips those of other nodes by a header.
    BUS_RECORDS: counter = "skylark_bus_records_total",
    /// Records queued behind those read, as far as the engine reports it, by `engine` (kafka).
    BUS_LAG: gauge = "skylark_bus_lag",
    /// Gaps: times that this node may have missed messages sent to it and declared it, by `engine`.
    BUS_GAPS: counter = "skylark_bus_gaps_total",
    /// Redelivered records and messages that were not delivered a second time, by `engine`.
    BUS_COPIES: counter = "skylark_bus_copies_total",
    /// Unreadable records, of another version or damaged, by `engine`.
    BUS_UNREADABLE: counter = "skylark_bus_unreadable_total",
    /// Changes of leases, by `lease` (node) and `change` (taken, lost, given_back, fallen).
    LEASE_CHANGES: counter = "skylark_lease_changes_total",

    // Plugins.
    /// Calls of plugins, by `plugin`, `role` and `outcome`. The outcome is the answer (allow, replace, reject, drop,
    /// admit, refuse, abstain, done, rang, receipt) or the failure (trap, cpu, wall, memory, bytes, full, ticker, start,
    /// answer, input, declared, kv, history, cluster, open, apart, missing). A failure also has the `cause`: caller,
    /// guest, host, operator.
    PLUGIN_CALLS: counter = "skylark_plugin_calls_total",
    /// Duration of a call, by `plugin` and `role`; one call in 16 is measured.
    PLUGIN_SECONDS: histogram = "skylark_plugin_seconds",
    /// Live instances, by `plugin`.
    PLUGIN_INSTANCES: gauge = "skylark_plugin_instances",
    /// Most bytes of memory that one instance of the serving version has held, by `plugin`.
    PLUGIN_MEMORY: gauge = "skylark_plugin_memory_bytes",
    /// Number of the serving version, by `plugin`; 0 = none.
    PLUGIN_VERSION: gauge = "skylark_plugin_version",
    /// 1 while the circuit of the serving version is not closed, by `plugin`.
    PLUGIN_CIRCUIT_OPEN: gauge = "skylark_plugin_circuit_open",
    /// Circuits opened after repeated failures of a plugin, by `plugin`.
    PLUGIN_CIRCUITS: counter = "skylark_plugin_circuits_opened_total",
    /// Sources set apart after repeated failures of the plugin for them alone, by `plugin`.
    PLUGIN_SET_APART: counter = "skylark_plugin_set_apart_total",
    /// Changes of the serving version, by `plugin` and `outcome` (live, canary, rejected, rolled_back, disabled,
    /// enabled, removed).
    PLUGIN_RELOADS: counter = "skylark_plugin_reloads_total",
    /// Calls served by an instance created for that one call, by `plugin`.
    PLUGIN_ONE_SHOTS: counter = "skylark_plugin_one_shots_total",
    /// Timed-out calls that were due for a retry, by `plugin` and `outcome` of the retry: answered, failed, or refused
    /// if no retry took place.
    PLUGIN_RETRIES: counter = "skylark_plugin_retries_total",
    /// Instances replaced, by `plugin` and `reason`: call limit reached (calls), over three quarters of the memory
    /// limit (memory), failed call (error).
    PLUGIN_RECYCLED: counter = "skylark_plugin_recycled_total",
    /// 1: instances come from a pool reserved at the start; 0: the machine lacks the room, so instances are created on
    /// demand.
    PLUGIN_POOL: gauge = "skylark_plugin_pool",
    /// Events lost because the queue of the events plugins was full.
    PLUGIN_EVENTS_LOST: counter = "skylark_plugin_events_lost_total",
    /// Lag of the ticker that bounds the plugins' time, in seconds: the maximum of the last second.
    PLUGIN_TICKER_LAG: gauge = "skylark_plugin_ticker_lag_seconds",

    // The process.
    /// Log lines lost, by `reason`: the writer was too slow (slow), or the disk was full or the pipe closed (write).
    LOG_LINES_LOST: counter = "skylark_log_lines_lost_total",
}
