// The role events: write `void on_event(…)`. Include this header in one file of the plugin.
#ifndef SKYLARK_EVENTS_H
#define SKYLARK_EVENTS_H

#include "alarms.h"
#include "plugin.h"
#include "receipts.h"
#include "skylark.h"

typedef skylark_plugin_types_identity_t identity;
typedef enum { ONLINE, OFFLINE, ROOM_JOINED, ROOM_LEFT } event;

// Handles an event of the connection `who`. `room` is set only for ROOM_JOINED and ROOM_LEFT, else empty.
void on_event(event what, const identity *who, text room);

void exports_skylark_plugin_events_on_event(exports_skylark_plugin_events_event_t *told) {
    switch (told->tag) {
        case EXPORTS_SKYLARK_PLUGIN_EVENTS_EVENT_ONLINE: on_event(ONLINE, &told->val.online, T("")); break;
        case EXPORTS_SKYLARK_PLUGIN_EVENTS_EVENT_OFFLINE: on_event(OFFLINE, &told->val.offline, T("")); break;
        case EXPORTS_SKYLARK_PLUGIN_EVENTS_EVENT_ROOM_JOINED:
            on_event(ROOM_JOINED, &told->val.room_joined.who, told->val.room_joined.room);
            break;
        default: on_event(ROOM_LEFT, &told->val.room_left.who, told->val.room_left.room);
    }
    // The function returns nothing, so the host reads no memory of the call.
    skylark_forget();
}

#endif
