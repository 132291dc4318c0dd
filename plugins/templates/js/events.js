// Writes online, offline, join and leave events into the node's log.
import * as log from "skylark:plugin/log";

export const events = {
  onEvent(event) {
    switch (event.tag) {
      case "online":
      case "offline":
        return log.write("info", `${event.val.uid} is ${event.tag}`);
      case "room-joined":
        return log.write("info", `${event.val.who.uid} joined ${event.val.room}`);
      case "room-left":
        return log.write("info", `${event.val.who.uid} left ${event.val.room}`);
    }
  },
};
