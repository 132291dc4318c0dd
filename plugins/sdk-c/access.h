// The role access: write `access_answer join(…)`. Include this header in one file of the plugin.
#ifndef SKYLARK_ACCESS_H
#define SKYLARK_ACCESS_H

#include "plugin.h"
#include "skylark.h"

typedef exports_skylark_plugin_access_answer_t access_answer;
typedef skylark_plugin_types_identity_t identity;
typedef exports_skylark_plugin_access_list_entry_t entries;

// Decides if a client may join a room. Nothing in `claims` comes from the client; nothing in `data` is verified.
access_answer join(const identity *who, entries claims, text room, entries data);

// Lets the client join until it leaves.
static inline access_answer join_allow(void) {
    return (access_answer){EXPORTS_SKYLARK_PLUGIN_ACCESS_ANSWER_ALLOW, {.allow = NONE}};
}
// Lets the client join until this time, in seconds since 1970.
static inline access_answer join_until(uint64_t seconds) {
    return (access_answer){EXPORTS_SKYLARK_PLUGIN_ACCESS_ANSWER_ALLOW, {.allow = SOME(seconds)}};
}
static inline access_answer join_refuse(text code, text reason) {
    return (access_answer){EXPORTS_SKYLARK_PLUGIN_ACCESS_ANSWER_REFUSE, {.refuse = {code, reason}}};
}
static inline access_answer join_abstain(void) {
    return (access_answer){EXPORTS_SKYLARK_PLUGIN_ACCESS_ANSWER_ABSTAIN, {.allow = NONE}};
}

void exports_skylark_plugin_access_join(identity *who, entries *claims, text *room, entries *data, access_answer *given) {
    *given = join(who, *claims, *room, *data);
}
SKYLARK_FORGETS(__wasm_export_exports_skylark_plugin_access_join_post_return, "skylark:plugin/access@" SKYLARK_VERSION "#join")

#endif
