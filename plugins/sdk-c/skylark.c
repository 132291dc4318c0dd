// The code of the C helper. Compiled with each plugin, for its role.
//
// Does not know roles or plugins.
#include "plugin.h"
#include "skylark.h"

// --- memory: a bump allocator that is reset after each call ---

extern uint8_t __heap_base;
static uint8_t *kept = NULL;
static uint8_t *next = NULL;

static const size_t ALIGN = 16;
static const size_t PAGE = 65536;

// Each allocation stores its size, for `realloc`.
void *malloc(size_t size) {
    if (next == NULL) next = kept = &__heap_base;
    uintptr_t at = ((uintptr_t)next + sizeof(size_t) + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1);
    if (size > SIZE_MAX - at) __builtin_trap();
    uintptr_t end = at + size, have = __builtin_wasm_memory_size(0) * PAGE;
    if (end > have && __builtin_wasm_memory_grow(0, (end - have + PAGE - 1) / PAGE) == (size_t)-1) __builtin_trap();
    ((size_t *)at)[-1] = size;
    next = (uint8_t *)end;
    return (void *)at;
}

void free(void *piece) { (void)piece; }

void *realloc(void *piece, size_t size) {
    if (piece == NULL) return malloc(size);
    size_t had = ((size_t *)piece)[-1];
    if (size <= had) return piece;
    void *more = malloc(size);
    memcpy(more, piece, had);
    return more;
}

void *calloc(size_t count, size_t size) {
    if (size != 0 && count > SIZE_MAX / size) __builtin_trap();
    void *piece = malloc(count * size);
    return memset(piece, 0, count * size);
}

void skylark_forget(void) { next = kept; }

__attribute__((weak)) bool start(text *reason) {
    (void)reason;
    return true;
}

__attribute__((weak)) void on_timer(text name, plugin_list_u8_t data) {
    (void)name;
    (void)data;
}

bool exports_skylark_plugin_lifecycle_start(plugin_string_t *error) {
    bool started = start(error);
    kept = next;
    return started;
}

// --- texts ---

bool text_is(text one, text other) { return one.len == other.len && memcmp(one.ptr, other.ptr, one.len) == 0; }

bool text_starts(text whole, text start) {
    return whole.len >= start.len && memcmp(whole.ptr, start.ptr, start.len) == 0;
}

bool text_has(text whole, text part) {
    for (size_t at = 0; at + part.len <= whole.len; at++) {
        if (memcmp(whole.ptr + at, part.ptr, part.len) == 0) return true;
    }
    return false;
}

text text_join(size_t count, const text *parts) {
    size_t length = 0;
    for (size_t i = 0; i < count; i++) length += parts[i].len;
    text joined = {malloc(length), 0};
    for (size_t i = 0; i < count; i++) {
        memcpy(joined.ptr + joined.len, parts[i].ptr, parts[i].len);
        joined.len += parts[i].len;
    }
    return joined;
}

text text_number(uint64_t number) {
    uint8_t digits[20];
    size_t at = sizeof(digits);
    do digits[--at] = '0' + (uint8_t)(number % 10);
    while ((number /= 10) != 0);
    text shown = {digits + at, sizeof(digits) - at};
    return text_join(1, &shown);
}

text text_signed(int64_t number) {
    if (number >= 0) return text_number((uint64_t)number);
    return JOIN(T("-"), text_number(-(uint64_t)number));
}

uint64_t text_to_number(text digits) {
    uint64_t number = 0;
    for (size_t i = 0; i < digits.len && digits.ptr[i] >= '0' && digits.ptr[i] <= '9'; i++) {
        number = number * 10 + (digits.ptr[i] - '0');
    }
    return number;
}

// --- entries, settings, log ---

text entry_get(const entry *entries, size_t count, text key, text fallback) {
    for (size_t i = 0; i < count; i++) {
        if (text_is(entries[i].f0, key)) return entries[i].f1;
    }
    return fallback;
}

entry *entries_of(size_t count, const entry *entries) {
    return memcpy(malloc(count * sizeof(entry)), entries, count * sizeof(entry));
}

text setting(text key, text fallback) {
    text value;
    return skylark_plugin_settings_get(&key, &value) ? value : fallback;
}

static void log_line(skylark_plugin_log_level_t level, text line) { skylark_plugin_log_write(level, &line); }
void log_debug(text line) { log_line(SKYLARK_PLUGIN_LOG_LEVEL_DEBUG, line); }
void log_info(text line) { log_line(SKYLARK_PLUGIN_LOG_LEVEL_INFO, line); }
void log_warn(text line) { log_line(SKYLARK_PLUGIN_LOG_LEVEL_WARN, line); }
void log_error(text line) { log_line(SKYLARK_PLUGIN_LOG_LEVEL_ERROR, line); }
