// Answers the key "greet", and counts the greetings of each user.
#include "handler.h"

const text *keys(void) {
    static const text owned[] = {T("greet"), T("")};
    return owned;
}

bool handle(const call *asked, reply *answer, text *reason) {
    text uid = caller(asked);
    if (uid.len == 0) {
        answer->code = T("401");
        answer->message = T("who are you?");
        return true;
    }
    text key = JOIN(T("greeted:"), uid);
    plugin_list_u8_t before = {NULL, 0};
    skylark_plugin_kv_get(&key, &before);
    text times = text_number(text_to_number((text){before.ptr, before.len}) + 1);
    plugin_list_u8_t value = {times.ptr, times.len};
    skylark_plugin_kv_error_t error;
    if (!skylark_plugin_kv_set(&key, &value, NULL, &error)) {
        *reason = T("kv: cannot write");
        return false;
    }
    *answer = (reply){T("200"), T(""), ENTRIES({T("greeting"), JOIN(T("hello, "), uid)}, {T("times"), times})};
    return true;
}
