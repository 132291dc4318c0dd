// C helpers for Skylark plugins, next to the bindings that wit-bindgen generates: texts, entries, the log, the
// settings.
//
// Include the header of your role (auth.h, filter.h, handler.h, events.h, access.h) and write the functions that it
// declares.
//
// Memory: all allocations of a call, including the results of the host and the answer, are freed together after the
// call. `free` does nothing. Allocations of `start` live as long as the instance. No other pointer may be kept in a
// static variable.
#ifndef SKYLARK_H
#define SKYLARK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "version.h"

typedef plugin_string_t text;
typedef skylark_plugin_types_entry_t entry;

// A text literal: T("gossip").
#define T(literal) ((text){(uint8_t *)("" literal), sizeof(literal) - 1})
// Concatenated texts: JOIN(T("hello, "), uid).
#define JOIN(...) text_join(sizeof((text[]){__VA_ARGS__}) / sizeof(text), (text[]){__VA_ARGS__})
// A list of entries: .data = ENTRIES({T("key"), value}, {T("other"), value}).
#define ENTRIES(...) {entries_of(sizeof((entry[]){__VA_ARGS__}) / sizeof(entry), (entry[]){__VA_ARGS__}), sizeof((entry[]){__VA_ARGS__}) / sizeof(entry)}
// The value of the first entry with this key in a list; empty if there is none: GET(call->data, "name").
#define GET(list, key) entry_get((list).ptr, (list).len, T(key), T(""))

bool text_is(text one, text other);
bool text_has(text whole, text part);
bool text_starts(text whole, text start);
text text_join(size_t count, const text *parts);
text text_number(uint64_t number);
text text_signed(int64_t number);
// The number at the start of the text; the first character that is not a digit ends it.
uint64_t text_to_number(text digits);

// The value of the first entry with this key; `fallback` if there is none.
text entry_get(const entry *entries, size_t count, text key, text fallback);
entry *entries_of(size_t count, const entry *entries);

// A value of the manifest's [settings]: a string unchanged, any other value as JSON.
text setting(text key, text fallback);
void log_debug(text line);
void log_info(text line);
void log_warn(text line);
void log_error(text line);

#define NONE {false}
#define SOME(...) {true, __VA_ARGS__}

// For the headers of the roles: frees the memory of a call after the host has read the answer.
void skylark_forget(void);
#define SKYLARK_FORGETS(function, name) \
    __attribute__((export_name("cabi_post_" name))) void function(uint8_t *answer) { \
        (void)answer; \
        skylark_forget(); \
    }

// Optional. Called once before the first call; false refuses the file with `*reason`.
bool start(text *reason);

// Optional, for handlers and events. Called with name and data of a due timer that the plugin set.
void on_timer(text name, plugin_list_u8_t data);

#endif
