// Timers, for the roles handler and events: a plugin that sets them (skylark_plugin_timers_start) writes `on_timer`; in one
// that does not, nothing happens. Included by the headers of these roles.
#ifndef SKYLARK_ALARMS_H
#define SKYLARK_ALARMS_H

#include "plugin.h"
#include "skylark.h"

void exports_skylark_plugin_alarms_on_timer(text *name, plugin_list_u8_t *data) {
    on_timer(*name, *data);
    // Nothing is answered, so the host has nothing left to read.
    skylark_forget();
}

#endif
