"""A node under a counting tool: callgrind counts its instructions, strace its system calls.

One worker thread and one shard, so that the same requests take the same steps. The node's timers are set so long that
they do not fire: no counted work depends on time.
"""

import ctypes
import os
import pathlib
import platform
import re
import shutil
import signal
import struct
import subprocess
import threading
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
START = 300  # seconds until a node under callgrind is ready and has compiled its plugin
CONFIG = """
node: {id: gate, shards: 1}
listeners: [{address: "127.0.0.1:0", serves: [ws, api]}]
limits: {connections_per_ip: 0, connects_per_ip: 0, handshake: 60s}
heartbeat: {interval: 1h}
plugins: {dir: plugins, cache: cache, compile: {memory: 4GiB, cpu: 2m}}
log: {level: error}
history: {kind: $HISTORY}
"""
# A plugin under callgrind is slow.
BUDGET = "\n[limits]\ncpu = \"1s\"\nwall = \"5s\"\n"


class Node:
    """A running node; `tool` is the command line of the tool around it."""

    def __init__(self, program, folder, history, tool):
        self.folder = folder
        (folder / "plugins").mkdir(parents=True)
        dist = ROOT / "plugins" / "dist"
        shutil.copy(dist / "token-auth.wasm", folder / "plugins")
        manifest = (dist / "token-auth.toml").read_text()
        self.secret = tomllib.loads(manifest)["settings"]["keys"][0]["secret"]
        (folder / "plugins" / "token-auth.toml").write_text(manifest + BUDGET)
        (folder / "skylark.yaml").write_text(CONFIG.replace("$HISTORY", history))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SKYLARK__") and k != "RUST_LOG"}
        environment["TOKIO_WORKER_THREADS"] = "1"
        self.process = subprocess.Popen(
            [*tool, program, "--config", "skylark.yaml", "serve"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=open(folder / "stderr.log", "w"),
            text=True,
            preexec_fn=without_auxv,
        )
        try:
            self.address = self.learn()
        except BaseException:
            self.end()
            raise

    def learn(self):
        """Reads the output of `serve` until it is ready."""
        address = None
        timer = threading.Timer(START, self.end)
        timer.start()
        for line in self.process.stdout:
            if found := re.search(r"ws://([\d.]+):(\d+)/", line):
                address = (found[1], int(found[2]))
            if line.strip() == "ready":
                timer.cancel()
                return address
        timer.cancel()
        raise SystemExit("gate: the node did not start:\n" + (self.folder / "stderr.log").read_text())

    def end(self):
        self.process.kill()
        self.process.wait()


class Callgrind(Node):
    """Counts instructions between `begin` and `finish`."""

    COUNTS, ABOUT, DIGITS = "instructions", "instructions per delivery", 1

    def __init__(self, program, folder, history):
        # The plugin compiler, a child process, must see the same processor: code for another one is refused.
        options = ["--tool=callgrind", "--instr-atstart=no", "--trace-children=yes", "--child-silent-after-fork=yes"]
        super().__init__(program, folder, history, ["valgrind", *options, f"--callgrind-out-file={folder}/profile-%p"])

    def ready(self):
        # Start-up and connects run several times faster without instrumentation.
        self.tell("instrumentation on")

    def begin(self, load, name):
        self.tell("zero")

    def finish(self, load, name):
        """Returns the instructions since `begin`; the profile stays in the folder."""
        self.tell(f"dump {name}")
        (dump,) = self.folder.glob(f"profile-{self.process.pid}.*")
        profile = dump.rename(self.folder / f"{name}.callgrind")
        return int(re.search(r"^totals: (\d+)", profile.read_text(), re.MULTILINE)[1])

    def tell(self, words):
        subprocess.run(["vgdb", f"--pid={self.process.pid}", *words.split()], check=True, capture_output=True)


class Strace(Node):
    """Counts system calls, except those of the plugins' ticker, which depend on the clock."""

    COUNTS, ABOUT, DIGITS = "system_calls", "system calls per delivery", 4
    IGNORED = "<plugin-ticker>"

    def __init__(self, program, folder, history):
        options = ["--follow-forks", "--decode-pids=comm", "--quiet=attach,exit,thread-execve", "--string-limit=96"]
        super().__init__(program, folder, history, ["strace", *options, f"--output={folder}/trace"])

    def ready(self):
        pass

    def begin(self, load, name):
        """Marks the trace with a request."""
        load.ask("GET", f"/health/live?{name}-begins")

    def finish(self, load, name):
        """Returns the system calls since `begin`; the whole trace stays in the folder."""
        load.ask("GET", f"/health/live?{name}-ends")
        calls, inside = 0, False
        for line in (self.folder / "trace").read_text().splitlines():
            if f"?{name}-begins" in line:
                inside = True
            elif f"?{name}-ends" in line:
                break
            elif inside and self.IGNORED not in line:
                # Skips signals, and the second line of a call that was interrupted by another thread's line.
                calls += re.match(r"\S+\s+\w+\(", line) is not None
        return calls

    def end(self):
        """Kills the node: strace does not forward SIGKILL, and exits with its node."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for child in children.read_text().split() if children.exists() else []:
            os.kill(int(child), signal.SIGKILL)
        self.process.wait()


def without_auxv():
    """Denies PR_GET_AUXV to the node: valgrind 3.19 hides the vDSO, and only this call would still reveal it.

    The filter returns EINVAL, as kernels before 6.4 do, and allows every other call.
    """
    load, jump_equal, answer = 0x20, 0x15, 0x06
    prctl = {"x86_64": 157}.get(platform.machine(), 167)
    pr_get_auxv, allow, einval = 0x41555856, 0x7FFF0000, 0x00050016
    program = b"".join(
        struct.pack("HBBI", *step)
        for step in [
            (load, 0, 0, 0),
            (jump_equal, 0, 3, prctl),
            (load, 0, 0, 16),
            (jump_equal, 0, 1, pr_get_auxv),
            (answer, 0, 0, einval),
            (answer, 0, 0, allow),
        ]
    )
    steps = ctypes.create_string_buffer(program)
    filter_ = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(steps))
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_no_new_privs, pr_set_seccomp, mode_filter = 38, 22, 2
    if libc.prctl(pr_set_no_new_privs, 1, 0, 0, 0) or libc.prctl(pr_set_seccomp, mode_filter, filter_, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")
