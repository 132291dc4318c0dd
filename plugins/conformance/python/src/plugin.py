"""The conformance guest in Python. ../../README.md describes its behaviour."""

from wit_world import exports
from wit_world.exports import access, auth, events, filter, handler, receipts
from wit_world.imports import (
    clock, counters, crypto, directory, history, http, kv, log, login, outbox, publication, settings, timers,
)
from wit_world.imports.types import (
    Identity, Message, Refusal, StreamName_Everyone, StreamName_Room, StreamName_User, Target_Room, Target_User,
)
from componentize_py_types import Err


def trap():
    raise RuntimeError("trap")


def spin():
    while True:
        pass


def kind(enum):
    return enum.name.lower().replace("_", "-")


def error(caught):
    """The name of an error in the form of the interface: TooLarge is too-large."""
    name = type(caught.value).__name__.split("_", 1)[1]
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]


class Lifecycle(exports.Lifecycle):
    def start(self) -> None:
        match settings.get("start"):
            case "error":
                raise Err("told to fail")
            case "trap":
                trap()


class Auth(exports.Auth):
    def admit(self, transport: auth.Transport, claim: auth.Claim) -> auth.Answer:
        match claim.token:
            case None:
                return auth.Answer_Abstain()
            case "no":
                return auth.Answer_Refuse(Refusal("403", "refused"))
            case "trap":
                trap()
            case "write":
                try:
                    kv.set("k", b"v", None)
                except Err as caught:
                    return auth.Answer_Refuse(Refusal("409", error(caught)))
        known = {
            "listener": transport.listener, "remote": transport.remote, "path": transport.path,
            "origin": transport.origin, "agent": transport.user_agent, "bound": transport.bound, "channel": claim.channel,
        }
        claims = [(key, "-" if value is None else value) for key, value in known.items()]
        expires = clock.now() // 1000 + 60
        return auth.Answer_Admit(auth.Admission(claim.uid or "-", claim.device, ["a", "b"], expires, claims + claim.data))


class Access(exports.Access):
    def join(
        self, who: Identity, claims: list[tuple[str, str]], room: str, data: list[tuple[str, str]]
    ) -> access.Answer:
        match room:
            case "no":
                return access.Answer_Refuse(Refusal("403", "refused"))
            case "trap":
                trap()
            case "write":
                try:
                    kv.set("k", b"v", None)
                    return access.Answer_Allow(None)
                except Err as caught:
                    return access.Answer_Refuse(Refusal("409", error(caught)))
            case "until":
                return access.Answer_Allow(clock.now() // 1000 + 60)
            case "seen":
                parts = [who.uid, str(who.cid), who.device or "-", who.channel or "-", listed(claims), listed(data)]
                return access.Answer_Refuse(Refusal("418", "|".join(parts)))
        return access.Answer_Allow(None) if ("join", room) in claims else access.Answer_Abstain()


def listed(entries):
    return ",".join(f"{key}={value}" for key, value in entries)


class Filter(exports.Filter):
    def judge(self) -> filter.Verdict:
        match publication.action():
            case "reject":
                return filter.Verdict_Reject(Refusal("403", publication.title()))
            case "drop":
                return filter.Verdict_Drop()
            case "trap":
                trap()
            case "spin":
                spin()
            case "write":
                try:
                    kv.set("k", b"v", None)
                except Err as caught:
                    return filter.Verdict_Reject(Refusal("409", error(caught)))
            case "fields":
                return titled(
                    publication.action(), publication.sender(), publication.receiver(), publication.image(),
                    publication.format(), str(publication.id()), str(publication.timestamp()),
                )
            case "seen":
                uids = ",".join(publication.target_uids(0, 1000))
                verdict = titled(
                    publication.publisher() or "-", kind(publication.origin()), kind(publication.target_kind()),
                    str(publication.target_count()), uids, publication.target_room() or "-",
                )
                verdict.value.extra.append(("parts", str(len(publication.content()))))
                return verdict
            case "online":
                return filter.Verdict_Allow() if directory.online(publication.receiver()) else filter.Verdict_Drop()
            # example: counters
            case "count":
                if counters.add_and_read(publication.sender(), 60, 1) > 2:
                    return filter.Verdict_Reject(Refusal("429", "too many"))
            # end
            case "log":
                for level, word in zip(log.Level, ["one", "two", "three", "four"]):
                    log.write(level, word)
            case "setting":
                return filter.Verdict_Reject(Refusal("403", settings.get("word") or "-"))
        return filter.Verdict_Allow()


def titled(*parts):
    message = publication.message()
    message.title = "|".join(parts)
    return filter.Verdict_Replace(message)


def message(action, sender, content):
    return Message(0, action, content, sender, "", [], "", "", "", 0)


class Handler(exports.Handler):
    def keys(self) -> list[str]:
        own = ["echo", "kv", "cas", "add", "push", "room", "kick", "who", "crypto", "http", "login", "timer", "history"]
        return own + ["hog", "fail", "trap", "spin"]

    def handle(self, call: handler.Call) -> handler.Reply:
        data = dict(call.data)
        caller = call.caller.uid if call.caller else "-"
        reply = handler.Reply("200", "", [])

        def answer(key, value):
            reply.data.append((key, value))

        match call.key:
            case "echo":
                reply.message = caller
                reply.data = call.data + [("cid", str(call.cid))]
            # example: kv
            case "kv":
                try:
                    if "set" in data:
                        kv.set("k", data["set"].encode(), 10)
                except Err as caught:
                    return handler.Reply("409", error(caught), [])
                if "delete" in data:
                    kv.delete("k")
                answer("value", (kv.get("k") or b"-").decode())
            case "cas":
                expected = data["expected"].encode() if "expected" in data else None
                answer("done", str(kv.compare_and_swap("k", expected, data["value"].encode(), None)).lower())
            case "add":
                try:
                    answer("sum", str(kv.add("n", int(data["amount"]), None)))
                except Err as caught:
                    reply = handler.Reply("409", error(caught), [])
            # end
            # example: outbox
            case "push":
                options = outbox.Options("once", outbox.History_No(), call.cid)
                try:
                    outbox.push(Target_User(data["to"]), message("hi", caller, [("text", data["text"])]), options)
                except Err as caught:
                    reply = handler.Reply("400", caught.value.value, [])
            case "room":
                outbox.join(caller, data["join"])
                outbox.leave(caller, data["leave"])
            case "kick":
                outbox.kick(Target_User(data["who"]), "told to go")
            # end
            # example: directory
            case "who":
                known = directory.connections(data["who"])
                answer("online", str(directory.online(data["who"])).lower())
                answer("count", str(len(known)))
                answer("device", (known[0].device if known else None) or "-")
                answer("members", ",".join(sorted(directory.members(data["room"], 0, 10))))
            # end
            # example: http
            case "http":
                try:
                    got = http.send(http.Request("GET", data["url"], [("x-asked", "6")], None, 2000))
                    answer("status", str(got.status))
                    answer("shown", dict(got.headers).get("x-shown", "-"))
                    answer("body", got.body.decode())
                except Err as caught:
                    reply = handler.Reply("502", error(caught), [])
            # end
            # example: login
            case "login":
                expires = clock.now() // 1000 + 60
                try:
                    login.bind(int(data["cid"]), login.Account(data["uid"], "desk", "web", ["a"], expires, []))
                except Err as caught:
                    reply = handler.Reply("409", error(caught), [])
            # end
            # example: timers
            case "timer":
                try:
                    if "cancel" in data:
                        timers.cancel(data["cancel"])
                    else:
                        timers.start(data["name"], int(data["after"]), data.get("data", "").encode())
                except Err as caught:
                    reply = handler.Reply("409", error(caught), [])
            # end
            # example: history
            case "history":
                stream = StreamName_Room(data["room"]) if "room" in data else StreamName_Everyone()
                limit = int(data.get("limit", "0"))
                try:
                    if "epoch" in data:
                        after = history.StreamPosition(data["epoch"], int(data.get("offset", "0")), int(data.get("id", "0")))
                        page = history.after(stream, after, limit)
                    else:
                        page = history.latest(stream, limit)
                    top = history.position(stream)
                    answer("top", f"{top.epoch}:{top.offset}:{top.id}")
                    answer("messages", ",".join(f"{kept.offset}={kept.message.action}" for kept in page.messages))
                    answer("missed", "-" if page.missed is None else kind(page.missed))
                except Err as caught:
                    reply = handler.Reply("409", error(caught), [])
            # end
            case "hog":
                kept = []
                while True:
                    kept.append(bytearray(1 << 20))
            # example: crypto
            case "crypto":
                text = data["text"].encode()
                answer("sha256", crypto.sha256(text).hex())
                answer("hmac", crypto.hmac_sha256(data["key"].encode(), text).hex())
                answer("random", str(len(crypto.random(16))))
            # end
            case _:
                outbox.push(Target_User(caller), message("hi", caller, []), None)
                if call.key == "fail":
                    raise Err("told to fail")
                trap() if call.key == "trap" else spin()
        return reply


class Events(exports.Events):
    def on_event(self, event: events.Event) -> None:
        match event:
            case events.Event_Online(who):
                happened("online", who.uid, "-")
            case events.Event_Offline(who):
                happened("offline", who.uid, "-")
            case events.Event_RoomJoined(change):
                happened("room-joined", change.who.uid, change.room)
            case events.Event_RoomLeft(change):
                happened("room-left", change.who.uid, change.room)


def happened(what, uid, room):
    tell(message("event", "", [("event", what), ("uid", uid), ("room", room)]))


# example: receipts
class Receipts(exports.Receipts):
    def resumed(self, who: Identity, streams: list[receipts.ResumedStream]) -> None:
        shown = [f"{name(one.name)}={str(one.recovered).lower()}:{'-' if one.count is None else one.count}" for one in streams]
        tell(message("receipt", "", [("receipt", "resumed"), ("uid", who.uid), ("streams", ",".join(shown))]))

    def undelivered(self, uid: str, id: int, cause: receipts.Cause) -> None:
        tell(message("receipt", "", [("receipt", "undelivered"), ("uid", uid), ("id", str(id)), ("cause", kind(cause))]))


def name(stream):
    match stream:
        case StreamName_User(uid):
            return f"u:{uid}"
        case StreamName_Room(room):
            return f"r:{room}"
    return "all"
# end


# example: timers
class Alarms(exports.Alarms):
    def on_timer(self, name: str, data: bytes) -> None:
        if name == "trap":
            trap()
        tell(message("timer", "", [("name", name), ("data", data.decode())]))
# end


def tell(said):
    try:
        outbox.push(Target_Room("events"), said, None)
    except Err as caught:
        log.write(log.Level.ERROR, error(caught))
