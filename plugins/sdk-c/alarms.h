// Timers for the roles handler and events. A plugin that sets timers (skylark_plugin_timers_start) writes `on_timer`;
// the default does nothing. The headers of these roles include this header.
#ifndef SKYLARK_ALARMS_H
#define SKYLARK_ALARMS_H

#include "plugin.h"
#include "skylark.h"

void exports_skylark_plugin_alarms_on_timer(text *name, plugin_list_u8_t *data) {
    on_timer(*name, *data);
    // The function returns nothing, so the host reads no memory of the call.
    skylark_forget();
}

#endif
