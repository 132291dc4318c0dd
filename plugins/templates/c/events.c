// Writes online, offline, join and leave events into the node's log.
#include "events.h"

void on_event(event what, const identity *who, text room) {
    switch (what) {
        case ONLINE: log_info(JOIN(who->uid, T(" is online"))); break;
        case OFFLINE: log_info(JOIN(who->uid, T(" is offline"))); break;
        case ROOM_JOINED: log_info(JOIN(who->uid, T(" joined "), room)); break;
        case ROOM_LEFT: log_info(JOIN(who->uid, T(" left "), room)); break;
    }
}
