"""The gate's load: a fixed number of receivers and a fixed sequence of requests. Counts every frame.

Shares no code with the node. Uses one thread and no clock: it waits for the response and every frame of a request
before it sends the next one, so the node does the same work in the same order each time.
"""

import base64
import hashlib
import hmac
import json
import selectors
import socket

RECEIVERS = 200
PATIENCE = 60  # seconds without a byte; a missing frame will not come after that
TEXT = "".join(chr(ord("a") + i % 26) for i in range(160))
MESSAGE = 2  # type byte of a frame that carries a message


class Scenario:
    """One way to push: `requests` requests of `messages` messages each, to everyone or each to one user."""

    def __init__(self, name, about, requests, messages, to_everyone):
        self.name, self.about = name, about
        self.requests, self.messages, self.to_everyone = requests, messages, to_everyone

    def deliveries(self):
        return self.requests * self.messages * (RECEIVERS if self.to_everyone else 1)

    def request(self, number):
        """Returns path, body, and the number of frames for each receiver."""
        first = number * self.messages
        if self.to_everyone:
            messages = [message() for _ in range(self.messages)]
            path, body = ("/send/all", messages[0]) if self.messages == 1 else ("/publish", {"act": "SENDALL", "msg": messages})
            return path, body, {receiver: self.messages for receiver in range(RECEIVERS)}
        # This stride visits every receiver before it repeats one.
        receivers = [(first + i) * 77 % RECEIVERS for i in range(self.messages)]
        messages = [message(receiver=uid(receiver)) for receiver in receivers]
        path, body = ("/send", messages[0]) if self.messages == 1 else ("/send/sendList", messages)
        return path, body, {receiver: receivers.count(receiver) for receiver in receivers}


SCENARIOS = [
    Scenario("fan_out_alone", "a message to everyone", 20, 1, True),
    Scenario("fan_out_burst", "16 messages to everyone in one request", 10, 16, True),
    Scenario("unicast_single", "a message to one user", 600, 1, False),
    Scenario("unicast_batch", "100 messages in one request, each to one user", 30, 100, False),
]


def message(**more):
    return {**more, "action": "gate", "content": {"text": TEXT}}


def uid(number):
    return f"gate-{number}"


class Load:
    """Connected receivers and one publisher."""

    def __init__(self, address, secret):
        self.address = address
        self.selector = selectors.DefaultSelector()
        self.receivers = [Receiver(address, token(uid(n), secret)) for n in range(RECEIVERS)]
        for receiver in self.receivers:
            self.selector.register(receiver.socket, selectors.EVENT_READ, receiver)
        self.http = socket.create_connection(address)
        self.http.settimeout(PATIENCE)
        self.http.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = self.http.makefile("rb")

    def run(self, scenario, requests):
        for number in range(requests):
            path, body, expected = scenario.request(number)
            self.ask("POST", path, json.dumps(body).encode())
            self.await_frames(expected)

    def ask(self, method, path, body=b""):
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.http.sendall(head.encode() + body)
        status, length = self.answers.readline(), 0
        while (line := self.answers.readline().strip().lower()) != b"":
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answer = self.answers.read(length)
        assert b" 200 " in status, (status, answer)

    def await_frames(self, expected):
        missing = sum(expected.values())
        before = {receiver: self.receivers[receiver].messages for receiver in expected}
        while missing > 0:
            ready = self.selector.select(PATIENCE)
            assert ready, f"{missing} frames did not come"
            for key, _ in ready:
                missing -= key.data.pump()
        for receiver, count in expected.items():
            came = self.receivers[receiver].messages - before[receiver]
            assert came == count, f"receiver {receiver} got {came} messages of {count}"


class Receiver:
    """One client: counts its messages and sends nothing."""

    def __init__(self, address, bearer):
        self.socket = socket.create_connection(address)
        self.socket.settimeout(PATIENCE)
        self.messages = 0
        self.buffer = b""
        upgrade = (
            f"GET /ws?token={bearer} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Protocol: yunque.pb\r\n\r\n"
        )
        self.socket.sendall(upgrade.encode())
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self.read()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        assert b" 101 " in head.split(b"\r\n")[0], head
        while (bound := self.frame()) is None:
            self.buffer += self.read()
        assert bound[0] == 4 and b"200" in bound, f"expected the bind reply, got {bound!r}"
        self.socket.setblocking(False)

    def read(self):
        data = self.socket.recv(1 << 16)
        assert data, "the node closed a connection"
        return data

    def pump(self):
        """Reads once and returns the number of complete messages."""
        self.buffer += self.read()
        came = 0
        while (payload := self.frame()) is not None:
            came += payload[0] == MESSAGE
        self.messages += came
        return came

    def frame(self):
        """Returns the payload of the next frame, or None until it is complete."""
        if len(self.buffer) < 2:
            return None
        length, start = self.buffer[1], 2
        if length == 126:
            length, start = int.from_bytes(self.buffer[2:4], "big"), 4
        assert length < 127 or start == 4, "no frame of the gate is that long"
        if len(self.buffer) < start + length:
            return None
        payload, self.buffer = self.buffer[start : start + length], self.buffer[start + length :]
        return payload


def token(user, secret):
    """Returns a JSON Web Token for the plugin `token-auth`."""
    part = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    signed = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps({"sub": user, "exp": 4102444800}).encode())
    return (signed + b"." + part(hmac.new(secret.encode(), signed, hashlib.sha256).digest())).decode()
