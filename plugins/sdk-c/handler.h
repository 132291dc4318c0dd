// The role handler: write `keys` and `handle`. Include this header in one file of the plugin.
#ifndef SKYLARK_HANDLER_H
#define SKYLARK_HANDLER_H

#include "alarms.h"
#include "plugin.h"
#include "skylark.h"

typedef exports_skylark_plugin_handler_call_t call;
typedef exports_skylark_plugin_handler_reply_t reply;

// The SendBody keys that the plugin owns. An empty text ends the list.
const text *keys(void);

// Answers one call. If it returns false, nothing is committed, `*reason` goes to the node's log, and the client gets
// "503".
bool handle(const call *asked, reply *answer, text *reason);

// The uid of the caller; empty while the connection is not bound.
static inline text caller(const call *asked) { return asked->caller.is_some ? asked->caller.val.uid : T(""); }

void exports_skylark_plugin_handler_keys(plugin_list_string_t *owned) {
    const text *list = keys();
    size_t count = 0;
    while (list[count].len > 0) count++;
    *owned = (plugin_list_string_t){malloc(count * sizeof(text)), count};
    memcpy(owned->ptr, list, count * sizeof(text));
}
SKYLARK_FORGETS(__wasm_export_exports_skylark_plugin_handler_keys_post_return, "skylark:plugin/handler@" SKYLARK_VERSION "#keys")

bool exports_skylark_plugin_handler_handle(call *asked, reply *given, text *reason) {
    *given = (reply){T("200"), T(""), {NULL, 0}};
    return handle(asked, given, reason);
}
SKYLARK_FORGETS(__wasm_export_exports_skylark_plugin_handler_handle_post_return, "skylark:plugin/handler@" SKYLARK_VERSION "#handle")

#endif
