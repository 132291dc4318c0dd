// Receipts for the role events: the outcome of kept messages. A plugin writes `on_resumed`, `on_undelivered`, both
// or none. The header of the role includes this header.
#ifndef SKYLARK_RECEIPTS_H
#define SKYLARK_RECEIPTS_H

#include "plugin.h"
#include "skylark.h"

typedef skylark_plugin_types_identity_t identity;
typedef exports_skylark_plugin_receipts_resumed_stream_t resumed_stream;
typedef enum { CAUSE_OFFLINE, CAUSE_UNACKNOWLEDGED } cause;

// Optional. Called for a client that came back, with the `count` streams that it had a position of.
__attribute__((weak)) void on_resumed(const identity *who, const resumed_stream *streams, size_t count);

// Optional. Called for a kept message that reached no device of the user. The same message may be reported more than
// once: compare ids.
__attribute__((weak)) void on_undelivered(text uid, int64_t id, cause why);

void exports_skylark_plugin_receipts_resumed(exports_skylark_plugin_receipts_identity_t *who,
                                             exports_skylark_plugin_receipts_list_resumed_stream_t *streams) {
    if (on_resumed) on_resumed(who, streams->ptr, streams->len);
    // The function returns nothing, so the host reads no memory of the call.
    skylark_forget();
}

void exports_skylark_plugin_receipts_undelivered(text *uid, int64_t id, exports_skylark_plugin_receipts_cause_t why) {
    cause reason = why == EXPORTS_SKYLARK_PLUGIN_RECEIPTS_CAUSE_OFFLINE ? CAUSE_OFFLINE : CAUSE_UNACKNOWLEDGED;
    if (on_undelivered) on_undelivered(*uid, id, reason);
    skylark_forget();
}

#endif
