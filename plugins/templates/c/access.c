// Lets users join the rooms of their team: the room `team:red` requires the claim `team` = `red`.
#include "access.h"

access_answer join(const identity *who, entries claims, text room, entries data) {
    (void)who;
    (void)data;
    text prefix = setting(T("prefix"), T("team:"));
    if (!text_starts(room, prefix)) return join_abstain();
    text team = {room.ptr + prefix.len, room.len - prefix.len};
    if (team.len > 0 && text_is(GET(claims, "team"), team)) return join_allow();
    return join_refuse(T("403"), T("the room of another team"));
}
