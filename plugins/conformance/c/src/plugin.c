// The conformance guest in C. ../../README.md describes its behaviour.
#include "access.h"
#include "auth.h"
#include "events.h"
#include "filter.h"
#include "handler.h"

typedef skylark_plugin_types_target_t target;

static void trap(void) { __builtin_trap(); }

static void spin(void) {
    for (volatile int turn = 0;; turn++) {
    }
}

static text or_dash(plugin_option_string_t value) { return value.is_some ? value.val : T("-"); }
static plugin_list_u8_t bytes(text value) { return (plugin_list_u8_t){value.ptr, value.len}; }
static text shown(plugin_list_u8_t value) { return (text){value.ptr, value.len}; }
static text yes(bool is) { return is ? T("true") : T("false"); }

static text hex(plugin_list_u8_t value) {
    text digits = {malloc(value.len * 2), value.len * 2};
    for (size_t i = 0; i < value.len; i++) {
        digits.ptr[2 * i] = "0123456789abcdef"[value.ptr[i] >> 4];
        digits.ptr[2 * i + 1] = "0123456789abcdef"[value.ptr[i] & 15];
    }
    return digits;
}

static text with_commas(plugin_list_string_t list) {
    text all = T("");
    for (size_t i = 0; i < list.len; i++) all = i == 0 ? list.ptr[0] : JOIN(all, T(","), list.ptr[i]);
    return all;
}

static const text kv_errors[] = {T("too-large"), T("read-only"), T("not-a-number")};

bool start(text *reason) {
    text how = setting(T("start"), T(""));
    if (text_is(how, T("trap"))) trap();
    *reason = T("told to fail");
    return !text_is(how, T("error"));
}

answer admit(const transport *from, const claim *said) {
    if (!said->token.is_some) return abstain();
    if (text_is(said->token.val, T("no"))) return refuse(T("403"), T("refused"));
    if (text_is(said->token.val, T("trap"))) trap();
    if (text_is(said->token.val, T("write"))) {
        text key = T("k");
        plugin_list_u8_t value = bytes(T("v"));
        skylark_plugin_kv_error_t error;
        if (!skylark_plugin_kv_set(&key, &value, NULL, &error)) return refuse(T("409"), kv_errors[error.tag]);
    }
    entry known[] = {
        {T("listener"), from->listener},       {T("remote"), from->remote},
        {T("path"), from->path},               {T("origin"), or_dash(from->origin)},
        {T("agent"), or_dash(from->user_agent)}, {T("bound"), or_dash(from->bound)},
        {T("channel"), or_dash(said->channel)},
    };
    size_t count = sizeof(known) / sizeof(entry);
    entry *claims = malloc(sizeof(known) + said->data.len * sizeof(entry));
    memcpy(claims, known, sizeof(known));
    memcpy(claims + count, said->data.ptr, said->data.len * sizeof(entry));
    text *rooms = malloc(2 * sizeof(text));
    rooms[0] = T("a");
    rooms[1] = T("b");
    return let_in((admission){
        .uid = or_dash(said->uid),
        .device = said->device,
        .rooms = {rooms, 2},
        .expires = SOME(skylark_plugin_clock_now() / 1000 + 60),
        .claims = {claims, count + said->data.len},
    });
}

static text listed(entries list) {
    text all = T("");
    for (size_t i = 0; i < list.len; i++) {
        text one = JOIN(list.ptr[i].f0, T("="), list.ptr[i].f1);
        all = i == 0 ? one : JOIN(all, T(","), one);
    }
    return all;
}

access_answer join(const identity *who, entries claims, text room, entries data) {
    if (text_is(room, T("no"))) return join_refuse(T("403"), T("refused"));
    if (text_is(room, T("trap"))) trap();
    if (text_is(room, T("write"))) {
        text key = T("k");
        plugin_list_u8_t value = bytes(T("v"));
        skylark_plugin_kv_error_t error;
        if (!skylark_plugin_kv_set(&key, &value, NULL, &error)) return join_refuse(T("409"), kv_errors[error.tag]);
        return join_allow();
    }
    if (text_is(room, T("until"))) return join_until(skylark_plugin_clock_now() / 1000 + 60);
    if (text_is(room, T("seen"))) {
        text bar = T("|");
        return join_refuse(T("418"), JOIN(who->uid, bar, text_number(who->cid), bar, or_dash(who->device), bar,
                                          or_dash(who->channel), bar, listed(claims), bar, listed(data)));
    }
    return text_is(GET(claims, "join"), room) ? join_allow() : join_abstain();
}

static verdict titled(text title) {
    message instead = publish_message();
    instead.title = title;
    return replace(instead);
}

static verdict seen(void) {
    static const text ways[] = {T("client"), T("http"), T("broker"), T("plugin")};
    static const text kinds[] = {T("connection"), T("device"),   T("user"),        T("users"),
                                 T("room"),       T("everyone"), T("everyone-but")};
    text publisher, room;
    if (!skylark_plugin_publication_publisher(&publisher)) publisher = T("-");
    if (!skylark_plugin_publication_target_room(&room)) room = T("-");
    plugin_list_string_t uids;
    skylark_plugin_publication_target_uids(0, 1000, &uids);
    text bar = T("|");
    verdict given = titled(JOIN(publisher, bar, ways[skylark_plugin_publication_origin()], bar,
                                kinds[skylark_plugin_publication_target_kind()], bar,
                                text_number(skylark_plugin_publication_target_count()), bar, with_commas(uids), bar, room));
    message *instead = &given.val.replace;
    entry *extra = malloc((instead->extra.len + 1) * sizeof(entry));
    memcpy(extra, instead->extra.ptr, instead->extra.len * sizeof(entry));
    extra[instead->extra.len++] = (entry){T("parts"), text_number(instead->content.len)};
    instead->extra.ptr = extra;
    return given;
}

verdict judge(void) {
    text action = publish_action(), sender = publish_sender(), receiver = publish_receiver();
    if (text_is(action, T("reject"))) return reject(T("403"), publish_title());
    if (text_is(action, T("drop"))) return drop();
    if (text_is(action, T("trap"))) trap();
    if (text_is(action, T("spin"))) spin();
    if (text_is(action, T("write"))) {
        text key = T("k");
        plugin_list_u8_t value = bytes(T("v"));
        skylark_plugin_kv_error_t error;
        return skylark_plugin_kv_set(&key, &value, NULL, &error) ? allow() : reject(T("409"), kv_errors[error.tag]);
    }
    if (text_is(action, T("fields"))) {
        text bar = T("|");
        return titled(JOIN(action, bar, sender, bar, receiver, bar, publish_image(), bar, publish_format(), bar,
                           text_signed(skylark_plugin_publication_id()), bar,
                           text_signed(skylark_plugin_publication_timestamp())));
    }
    if (text_is(action, T("seen"))) return seen();
    if (text_is(action, T("online"))) return skylark_plugin_directory_online(&receiver) ? allow() : drop();
    // example: counters
    if (text_is(action, T("count")) && skylark_plugin_counters_add_and_read(&sender, 60, 1) > 2) {
        return reject(T("429"), T("too many"));
    }
    // end
    if (text_is(action, T("log"))) {
        log_debug(T("one"));
        log_info(T("two"));
        log_warn(T("three"));
        log_error(T("four"));
    }
    if (text_is(action, T("setting"))) return reject(T("403"), setting(T("word"), T("-")));
    return allow();
}

const text *keys(void) {
    static const text owned[] = {T("echo"), T("kv"),  T("cas"),    T("add"),  T("push"), T("room"), T("kick"),
                                 T("who"),  T("crypto"), T("http"), T("login"), T("timer"), T("history"), T("hog"),
                                 T("fail"), T("trap"), T("spin"), T("")};
    return owned;
}

// example: outbox
static bool push(target to, text action, text sender, entry *content, size_t parts, skylark_plugin_outbox_options_t *options,
                 text *reason) {
    skylark_plugin_outbox_message_t said = {.action = action, .sender = sender, .content = {content, parts}};
    skylark_plugin_outbox_error_t error;
    if (skylark_plugin_outbox_push(&to, &said, options, &error)) return true;
    static const text names[] = {T("too-many"), T("too-large"), T("too-many-hops")};
    *reason = error.tag == SKYLARK_PLUGIN_OUTBOX_ERROR_INVALID ? error.val.invalid : names[error.tag];
    return false;
}

static target user(text uid) { return (target){SKYLARK_PLUGIN_TYPES_TARGET_USER, {.user = uid}}; }
// end

// example: kv
static bool handle_kv(const call *asked, reply *answer) {
    text set = GET(asked->data, "set"), key = T("k");
    skylark_plugin_kv_error_t error;
    plugin_list_u8_t value = bytes(set);
    uint32_t ttl = 10;
    if (set.len > 0 && !skylark_plugin_kv_set(&key, &value, &ttl, &error)) {
        *answer = (reply){T("409"), kv_errors[error.tag], {NULL, 0}};
        return true;
    }
    if (GET(asked->data, "delete").len > 0 && !skylark_plugin_kv_delete(&key, &error)) return false;
    if (!skylark_plugin_kv_get(&key, &value)) value = bytes(T("-"));
    *answer = (reply){T("200"), T(""), ENTRIES({T("value"), shown(value)})};
    return true;
}

static bool handle_cas(const call *asked, reply *answer) {
    text expected = GET(asked->data, "expected"), key = T("k");
    plugin_list_u8_t before = bytes(expected), value = bytes(GET(asked->data, "value"));
    skylark_plugin_kv_error_t error;
    bool done;
    if (!skylark_plugin_kv_compare_and_swap(&key, expected.len > 0 ? &before : NULL, &value, NULL, &done, &error)) return false;
    *answer = (reply){T("200"), T(""), ENTRIES({T("done"), yes(done)})};
    return true;
}

static void handle_add(const call *asked, reply *answer) {
    text amount = GET(asked->data, "amount"), key = T("n");
    bool is_less = text_starts(amount, T("-"));
    int64_t by = (int64_t)text_to_number((text){amount.ptr + is_less, amount.len - is_less}), sum;
    skylark_plugin_kv_add_error_t error;
    if (skylark_plugin_kv_add(&key, is_less ? -by : by, NULL, &sum, &error)) {
        *answer = (reply){T("200"), T(""), ENTRIES({T("sum"), text_signed(sum)})};
    } else {
        *answer = (reply){T("409"), kv_errors[error.tag], {NULL, 0}};
    }
}
// end

// example: directory
static void handle_who(const call *asked, reply *answer) {
    text who = GET(asked->data, "who"), room = GET(asked->data, "room");
    skylark_plugin_directory_list_presence_t known;
    skylark_plugin_directory_connections(&who, &known);
    plugin_list_string_t members;
    skylark_plugin_directory_members(&room, 0, 10, &members);
    for (size_t i = 1; i < members.len; i++) {
        text one = members.ptr[i];
        size_t at = i;
        for (; at > 0 && memcmp(members.ptr[at - 1].ptr, one.ptr, one.len) > 0; at--) members.ptr[at] = members.ptr[at - 1];
        members.ptr[at] = one;
    }
    text device = known.len > 0 ? or_dash(known.ptr[0].device) : T("-");
    *answer = (reply){T("200"), T(""), ENTRIES({T("online"), yes(skylark_plugin_directory_online(&who))},
                                               {T("count"), text_number(known.len)}, {T("device"), device},
                                               {T("members"), with_commas(members)})};
}
// end

// example: crypto
static void handle_crypto(const call *asked, reply *answer) {
    plugin_list_u8_t data = bytes(GET(asked->data, "text")), key = bytes(GET(asked->data, "key")), sum, tag, chance;
    skylark_plugin_crypto_sha256(&data, &sum);
    skylark_plugin_crypto_hmac_sha256(&key, &data, &tag);
    skylark_plugin_crypto_random(16, &chance);
    *answer = (reply){T("200"), T(""), ENTRIES({T("sha256"), hex(sum)}, {T("hmac"), hex(tag)},
                                               {T("random"), text_number(chance.len)})};
}
// end

static bool handle_outbox(const call *asked, reply *answer, text *reason) {
    text who = asked->caller.is_some ? asked->caller.val.uid : T("-");
    skylark_plugin_outbox_error_t error;
    if (text_is(asked->key, T("push"))) {
        skylark_plugin_outbox_options_t options = {SOME(T("once")), {SKYLARK_PLUGIN_OUTBOX_HISTORY_NO, {0}}, SOME(asked->cid)};
        entry content[] = {{T("text"), GET(asked->data, "text")}};
        if (!push(user(GET(asked->data, "to")), T("hi"), who, content, 1, &options, &answer->message)) answer->code = T("400");
        return true;
    }
    if (text_is(asked->key, T("room"))) {
        text in = GET(asked->data, "join"), out = GET(asked->data, "leave");
        *reason = T("outbox");
        return skylark_plugin_outbox_join(&who, &in, &error) && skylark_plugin_outbox_leave(&who, &out, &error);
    }
    if (text_is(asked->key, T("kick"))) {
        target whom = user(GET(asked->data, "who"));
        text why = T("told to go");
        return skylark_plugin_outbox_kick(&whom, &why, &error);
    }
    push(user(who), T("hi"), who, NULL, 0, NULL, reason);
    if (text_is(asked->key, T("trap"))) trap();
    if (text_is(asked->key, T("spin"))) spin();
    *reason = T("told to fail");
    return false;
}

// example: http
static void handle_http(const call *asked, reply *answer) {
    static const text names[] = {T("denied"), T("invalid"), T("unreachable"), T("timeout"), T("too-large"), T("broken"), T("busy")};
    entry asks[] = {{T("x-asked"), T("6")}};
    skylark_plugin_http_request_t request = {T("GET"), GET(asked->data, "url"), {asks, 1}, NONE, SOME(2000)};
    skylark_plugin_http_response_t got;
    skylark_plugin_http_error_t error;
    if (!skylark_plugin_http_send(&request, &got, &error)) {
        *answer = (reply){T("502"), names[error.tag], {NULL, 0}};
        return;
    }
    text header = entry_get(got.headers.ptr, got.headers.len, T("x-shown"), T("-"));
    *answer = (reply){T("200"), T(""), ENTRIES({T("status"), text_number(got.status)}, {T("shown"), header}, {T("body"), shown(got.body)})};
}
// end

// example: login
static void handle_login(const call *asked, reply *answer) {
    static const text names[] = {T("too-many"), T("gone"), T("invalid")};
    text *room = malloc(sizeof(text));
    *room = T("a");
    skylark_plugin_login_account_t account = {
        .uid = GET(asked->data, "uid"),
        .device = SOME(T("desk")),
        .channel = SOME(T("web")),
        .rooms = {room, 1},
        .expires = SOME(skylark_plugin_clock_now() / 1000 + 60),
    };
    skylark_plugin_login_error_t error;
    if (skylark_plugin_login_bind(text_to_number(GET(asked->data, "cid")), &account, &error)) return;
    *answer = (reply){T("409"), names[error.tag], {NULL, 0}};
}
// end

// example: timers
static void handle_timer(const call *asked, reply *answer) {
    static const text names[] = {T("too-many"), T("invalid")};
    text name = GET(asked->data, "name"), cancel = GET(asked->data, "cancel");
    plugin_list_u8_t data = bytes(GET(asked->data, "data"));
    skylark_plugin_timers_error_t error;
    bool done = cancel.len > 0 ? skylark_plugin_timers_cancel(&cancel, &error)
                               : skylark_plugin_timers_start(&name, text_to_number(GET(asked->data, "after")), &data, &error);
    if (!done) *answer = (reply){T("409"), names[error.tag], {NULL, 0}};
}
// end

// example: history
static void handle_history(const call *asked, reply *answer) {
    static const text errors[] = {T("off"), T("invalid")}, reasons[] = {T("trimmed"), T("epoch"), T("fork")};
    skylark_plugin_types_stream_name_t stream = {SKYLARK_PLUGIN_TYPES_STREAM_NAME_EVERYONE, {{0}}};
    text room = GET(asked->data, "room"), epoch = GET(asked->data, "epoch");
    if (room.len > 0) stream = (skylark_plugin_types_stream_name_t){SKYLARK_PLUGIN_TYPES_STREAM_NAME_ROOM, {.room = room}};
    skylark_plugin_history_stream_position_t from = {epoch, text_to_number(GET(asked->data, "offset")),
                                                     (int64_t)text_to_number(GET(asked->data, "id"))}, top;
    skylark_plugin_history_page_t page;
    skylark_plugin_history_error_t error;
    uint32_t limit = (uint32_t)text_to_number(GET(asked->data, "limit"));
    bool is_read = epoch.len > 0 ? skylark_plugin_history_after(&stream, &from, limit, &page, &error)
                                 : skylark_plugin_history_latest(&stream, limit, &page, &error);
    if (!is_read || !skylark_plugin_history_position(&stream, &top, &error)) {
        *answer = (reply){T("409"), errors[error.tag], {NULL, 0}};
        return;
    }
    text messages = T("");
    for (size_t i = 0; i < page.messages.len; i++) {
        text one = JOIN(text_number(page.messages.ptr[i].offset), T("="), page.messages.ptr[i].message.action);
        messages = i == 0 ? one : JOIN(messages, T(","), one);
    }
    text position = JOIN(top.epoch, T(":"), text_number(top.offset), T(":"), text_signed(top.id));
    text missed = page.missed.is_some ? reasons[page.missed.val] : T("-");
    *answer = (reply){T("200"), T(""), ENTRIES({T("top"), position}, {T("messages"), messages}, {T("missed"), missed})};
}
// end

static void hog(void) {
    for (;;) *(volatile uint8_t *)malloc(1 << 20) = 1;
}

bool handle(const call *asked, reply *answer, text *reason) {
    if (text_is(asked->key, T("echo"))) {
        entry *data = malloc((asked->data.len + 1) * sizeof(entry));
        memcpy(data, asked->data.ptr, asked->data.len * sizeof(entry));
        data[asked->data.len] = (entry){T("cid"), text_number(asked->cid)};
        *answer = (reply){T("200"), asked->caller.is_some ? asked->caller.val.uid : T("-"), {data, asked->data.len + 1}};
        return true;
    }
    if (text_is(asked->key, T("kv"))) return handle_kv(asked, answer);
    if (text_is(asked->key, T("cas"))) return handle_cas(asked, answer);
    if (text_is(asked->key, T("add"))) return handle_add(asked, answer), true;
    if (text_is(asked->key, T("who"))) return handle_who(asked, answer), true;
    if (text_is(asked->key, T("crypto"))) return handle_crypto(asked, answer), true;
    if (text_is(asked->key, T("http"))) return handle_http(asked, answer), true;
    if (text_is(asked->key, T("login"))) return handle_login(asked, answer), true;
    if (text_is(asked->key, T("timer"))) return handle_timer(asked, answer), true;
    if (text_is(asked->key, T("history"))) return handle_history(asked, answer), true;
    if (text_is(asked->key, T("hog"))) hog();
    return handle_outbox(asked, answer, reason);
}

static void tell(text action, entry *content, size_t parts) {
    target events = {SKYLARK_PLUGIN_TYPES_TARGET_ROOM, {.room = T("events")}};
    text reason;
    if (!push(events, action, T(""), content, parts, NULL, &reason)) log_error(reason);
}

void on_event(event what, const identity *who, text room) {
    static const text names[] = {T("online"), T("offline"), T("room-joined"), T("room-left")};
    entry content[] = {{T("event"), names[what]}, {T("uid"), who->uid}, {T("room"), room.len > 0 ? room : T("-")}};
    tell(T("event"), content, 3);
}

// example: receipts
static text stream(const skylark_plugin_types_stream_name_t *name) {
    if (name->tag == SKYLARK_PLUGIN_TYPES_STREAM_NAME_USER) return JOIN(T("u:"), name->val.user);
    return name->tag == SKYLARK_PLUGIN_TYPES_STREAM_NAME_ROOM ? JOIN(T("r:"), name->val.room) : T("all");
}

void on_resumed(const identity *who, const resumed_stream *streams, size_t count) {
    text all = T("");
    for (size_t i = 0; i < count; i++) {
        text number = streams[i].count.is_some ? text_number(streams[i].count.val) : T("-");
        text one = JOIN(stream(&streams[i].name), T("="), yes(streams[i].recovered), T(":"), number);
        all = i == 0 ? one : JOIN(all, T(","), one);
    }
    entry content[] = {{T("receipt"), T("resumed")}, {T("uid"), who->uid}, {T("streams"), all}};
    tell(T("receipt"), content, 3);
}

void on_undelivered(text uid, int64_t id, cause why) {
    entry content[] = {{T("receipt"), T("undelivered")}, {T("uid"), uid}, {T("id"), text_signed(id)},
                       {T("cause"), why == CAUSE_OFFLINE ? T("offline") : T("unacknowledged")}};
    tell(T("receipt"), content, 4);
}
// end

// example: timers
void on_timer(text name, plugin_list_u8_t data) {
    if (text_is(name, T("trap"))) trap();
    entry content[] = {{T("name"), name}, {T("data"), shown(data)}};
    tell(T("timer"), content, 2);
}
// end
