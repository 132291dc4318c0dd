// The role auth: write `answer admit(…)`. Include this header in one file of the plugin.
#ifndef SKYLARK_AUTH_H
#define SKYLARK_AUTH_H

#include "plugin.h"
#include "skylark.h"

typedef exports_skylark_plugin_auth_answer_t answer;
typedef exports_skylark_plugin_auth_admission_t admission;
typedef exports_skylark_plugin_auth_transport_t transport;
typedef exports_skylark_plugin_auth_claim_t claim;

// Authenticates a client. A client cannot set anything in `from` with a frame; everything in `said` comes from the
// client.
answer admit(const transport *from, const claim *said);

static inline answer abstain(void) { return (answer){EXPORTS_SKYLARK_PLUGIN_AUTH_ANSWER_ABSTAIN, {{{0, 0}, NONE, {0, 0}, {false, 0}, {0, 0}}}}; }
static inline answer refuse(text code, text reason) {
    return (answer){EXPORTS_SKYLARK_PLUGIN_AUTH_ANSWER_REFUSE, {.refuse = {code, reason}}};
}
static inline answer let_in(admission who) {
    return (answer){EXPORTS_SKYLARK_PLUGIN_AUTH_ANSWER_ADMIT, {.admit = who}};
}

void exports_skylark_plugin_auth_admit(transport *from, claim *said, answer *given) { *given = admit(from, said); }
SKYLARK_FORGETS(__wasm_export_exports_skylark_plugin_auth_admit_post_return, "skylark:plugin/auth@" SKYLARK_VERSION "#admit")

#endif
