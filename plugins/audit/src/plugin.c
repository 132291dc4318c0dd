// Writes online, offline, join and leave events as machine-readable log lines: ../README.md.
#include "events.h"

// A line is one JSON object. User-chosen names are escaped, so that they cannot end a JSON string.
static text quoted(text plain) {
    static const char digits[] = "0123456789abcdef";
    text line = {malloc(plain.len * 6 + 2), 0};
    line.ptr[line.len++] = '"';
    for (size_t i = 0; i < plain.len; i++) {
        uint8_t byte = plain.ptr[i];
        if (byte < 0x20) {
            memcpy(line.ptr + line.len, "\\u00", 4);
            line.ptr[line.len + 4] = digits[byte >> 4];
            line.ptr[line.len + 5] = digits[byte & 15];
            line.len += 6;
            continue;
        }
        if (byte == '"' || byte == '\\') line.ptr[line.len++] = '\\';
        line.ptr[line.len++] = byte;
    }
    line.ptr[line.len++] = '"';
    return line;
}

static text field(const char *start, size_t length, text value) {
    return JOIN(((text){(uint8_t *)start, length}), quoted(value));
}
#define FIELD(start, value) field(start, sizeof(start) - 1, value)

void on_event(event what, const identity *who, text room) {
    static const text names[] = {T("online"), T("offline"), T("room_joined"), T("room_left")};
    if (room.len > 0 && text_is(setting(T("rooms"), T("true")), T("false"))) return;
    text device = who->device.is_some ? who->device.val : T(""), channel = who->channel.is_some ? who->channel.val : T("");
    log_info(JOIN(T("{\"at\":"), text_number(skylark_plugin_clock_now()), FIELD(",\"event\":", names[what]),
                  FIELD(",\"uid\":", who->uid), T(",\"cid\":"), text_number(who->cid),
                  device.len > 0 ? FIELD(",\"device\":", device) : device,
                  channel.len > 0 ? FIELD(",\"channel\":", channel) : channel,
                  room.len > 0 ? FIELD(",\"room\":", room) : room, T("}")));
}
