// The role filter: write `verdict judge(void)`. Include this header in one file of the plugin.
#ifndef SKYLARK_FILTER_H
#define SKYLARK_FILTER_H

#include "plugin.h"
#include "skylark.h"

typedef exports_skylark_plugin_filter_verdict_t verdict;
typedef skylark_plugin_publication_whole_t message;

// Judges the current publish; the functions below read it.
verdict judge(void);

static inline verdict allow(void) { return (verdict){EXPORTS_SKYLARK_PLUGIN_FILTER_VERDICT_ALLOW}; }
static inline verdict drop(void) { return (verdict){EXPORTS_SKYLARK_PLUGIN_FILTER_VERDICT_DROP, {{0}}}; }
static inline verdict reject(text code, text reason) {
    return (verdict){EXPORTS_SKYLARK_PLUGIN_FILTER_VERDICT_REJECT, {.reject = {code, reason}}};
}
static inline verdict replace(message instead) {
    return (verdict){EXPORTS_SKYLARK_PLUGIN_FILTER_VERDICT_REPLACE, {.replace = instead}};
}

// One field of the publish, or the whole message.
#define SKYLARK_FIELD(type, name) \
    static inline type publish_##name(void) { \
        type value; \
        skylark_plugin_publication_##name(&value); \
        return value; \
    }
SKYLARK_FIELD(text, action)
SKYLARK_FIELD(text, sender)
SKYLARK_FIELD(text, receiver)
SKYLARK_FIELD(text, title)
SKYLARK_FIELD(text, image)
SKYLARK_FIELD(text, format)
SKYLARK_FIELD(skylark_plugin_publication_list_entry_t, content)
SKYLARK_FIELD(skylark_plugin_publication_list_entry_t, extra)
SKYLARK_FIELD(message, message)

void exports_skylark_plugin_filter_judge(verdict *answer) { *answer = judge(); }
SKYLARK_FORGETS(__wasm_export_exports_skylark_plugin_filter_judge_post_return, "skylark:plugin/filter@" SKYLARK_VERSION "#judge")

#endif
