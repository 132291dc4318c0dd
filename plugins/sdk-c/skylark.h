// What a Skylark plugin in C is written with, beside the bindings that wit-bindgen makes: texts, entries, the log, the settings.
//
// Include the header of your role (auth.h, filter.h, handler.h, events.h, access.h) and write the one function that it asks for.
//
// Memory: whatever a call allocates, the host's answers and the results included, is forgotten when the call is over: nothing is
// ever freed one by one. What `start` allocates stays for the life of the instance. Nothing else may be kept in a static variable.
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

// A text that stands in the program: T("gossip").
#define T(literal) ((text){(uint8_t *)("" literal), sizeof(literal) - 1})
// Several texts, one behind the other: JOIN(T("hello, "), uid).
#define JOIN(...) text_join(sizeof((text[]){__VA_ARGS__}) / sizeof(text), (text[]){__VA_ARGS__})
// A list of entries: .data = ENTRIES({T("key"), value}, {T("other"), value}).
#define ENTRIES(...) {entries_of(sizeof((entry[]){__VA_ARGS__}) / sizeof(entry), (entry[]){__VA_ARGS__}), sizeof((entry[]){__VA_ARGS__}) / sizeof(entry)}
// The value of the first entry of that key in a list; empty if there is none: GET(call->data, "name").
#define GET(list, key) entry_get((list).ptr, (list).len, T(key), T(""))

bool text_is(text one, text other);
bool text_has(text whole, text part);
bool text_starts(text whole, text start);
text text_join(size_t count, const text *parts);
text text_number(uint64_t number);
text text_signed(int64_t number);
// What stands in front; anything that is no digit ends it.
uint64_t text_to_number(text digits);

// The value of the first entry of that key. `fallback` if there is none.
text entry_get(const entry *entries, size_t count, text key, text fallback);
entry *entries_of(size_t count, const entry *entries);

// A value of the manifest's [settings]: a text as it is, anything else as JSON.
text setting(text key, text fallback);
void log_debug(text line);
void log_info(text line);
void log_warn(text line);
void log_error(text line);

#define NONE {false}
#define SOME(...) {true, __VA_ARGS__}

// For the headers of the roles: the host has read what a call answered, so its memory is free.
void skylark_forget(void);
#define SKYLARK_FORGETS(function, name) \
    __attribute__((export_name("cabi_post_" name))) void function(uint8_t *answer) { \
        (void)answer; \
        skylark_forget(); \
    }

// Called once, before the first call, if the plugin has one; false refuses the file with `*reason`.
bool start(text *reason);

// Called when a timer that the plugin set is due, if it has one: with the timer's name and data. Handlers and events.
void on_timer(text name, plugin_list_u8_t data);

#endif
