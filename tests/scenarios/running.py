"""Signals, reload, drain, and what the service manager hears."""

import os
import signal
import socket
import tempfile
import time

from .beacon import place
from .frame import Failure, equal, eventually, scenario, true, within
from .wire import A, B, Node, delivered, discover, relay


def write(path, text):
    with open(path + ".new", "w") as f:
        f.write(text)
    os.replace(path + ".new", path)


@scenario(shards=(1, 4))
def reload(case):
    """HUP takes new rules at once; a bad file changes nothing and is reported; nodes stay."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "beacon.conf")
        write(path, "[limits]\nrelay-rate = 1/3\n")
        with case.beacon("--config", path) as b:
            a, node = Node(b).register(A), Node(b).register(B)

            def burst():
                sender = Node(b)
                for _ in range(30):
                    sender.send(relay(A, B))
                return len(node.drain())
            within(burst(), 3, 4, "relays under the first rules")
            equal(b.metric("beacon_config_last_reload_successful"), 1, "reload state at start")

            write(path, "[limits]\nrelay-rate = 1/20\n")
            b.signal(signal.SIGHUP)
            eventually("the new rules", lambda: burst() >= 20)
            equal(b.metric("beacon_config_last_reload_successful"), 1, "after a good reload")

            write(path, "[limits]\nrelay-rate = fast\n")
            b.signal(signal.SIGHUP)
            eventually("the report of a bad file",
                       lambda: b.metric("beacon_config_last_reload_successful") == 0)
            eventually("a log line with file, line and value",
                       lambda: any("fast" in str(line) and "beacon.conf:2" in str(line) for line in b.lines))
            within(burst(), 20, 21, "relays under the old rules")

            os.unlink(path)
            b.signal(signal.SIGHUP)
            time.sleep(0.2)
            within(burst(), 20, 21, "relays without a file")
            equal(b.metric("beacon_config_last_reload_successful"), 0, "reload state without a file")

            write(path, "[limits]\nrelay-rate = 1/8\n[server]\nmax-nodes = 99\n")
            b.signal(signal.SIGHUP)
            eventually("the repaired file", lambda: b.metric("beacon_config_last_reload_successful") == 1)
            eventually("its rules", lambda: 8 <= burst() <= 9)
            node.send(relay(B, A, b"PILPx"))
            a.expect(delivered(B, b"PILPx"), "a relay to a node that registered before")


@scenario(shards=(1, 4))
def many_reloads_under_load(case):
    """Rules change while datagrams are decided: none is lost count of."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "beacon.conf")
        with case.beacon("--config", write(path, "node-ttl = 60s\n") or path) as b:
            a = Node(b).register(A)
            for turn in range(30):
                write(path, "[limits]\nrelay-rate = %d/%d\n" % (1000 + turn, 1000 + turn))
                b.signal(signal.SIGHUP)
                for _ in range(10):
                    a.send(relay(A, A, b"PILPx"))
                    a.receive(what="relay during reloads")
            true(b.metric("beacon_config_last_reload_successful") == 1, "the last reload was good")


@scenario(shards=(1, 4))
def drain(case):
    """TERM: not ready at once, still serving, gone after drain-time, code 0."""
    with case.beacon("--drain-time", "2s") as b:
        a = Node(b).register(A)
        for path in ("/healthz", "/readyz", "/livez"):
            equal(b.get(path)[0], 200, "%s before the drain" % path)
        begin = time.monotonic()
        b.signal(signal.SIGTERM)
        eventually("503", lambda: b.get("/healthz")[0] == 503, seconds=1)
        equal(b.get("/readyz")[0], 503, "/readyz while draining")
        equal(b.get("/livez")[0], 200, "/livez while draining")
        a.register(A)
        Node(b).see(discover(77))
        a.send(relay(A, A, b"PILPx"))
        a.expect(delivered(A, b"PILPx"), "relay while draining")
        b.check_balance()
        b.wait_exit(0)
        within(time.monotonic() - begin, 1.8, 6, "seconds of the drain")


@scenario()
def second_signal_ends_at_once(case):
    for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)):
        with case.beacon("--drain-time", "60s") as b:
            b.signal(first)
            eventually("503", lambda: b.get("/healthz")[0] == 503, seconds=1)
            begin = time.monotonic()
            b.signal(second)
            b.wait_exit(0)
            true(time.monotonic() - begin < 3, "it ended at once")


@scenario()
def restart_on_the_same_port(case):
    """What a service manager does after a crash: the port must be free at once."""
    with case.beacon(checks=False) as b:
        at = "127.0.0.1:%d" % b.udp[1]
        Node(b).register(A)
        b.process.kill()
        b.process.wait()
    with case.beacon(addr=at) as b:
        equal(b.udp, place(at), "the port")
        Node(b).silent(relay(B, A), what="a relay to a node of the old process")


@scenario()
def service_manager(case):
    """sd_notify: READY when it serves, WATCHDOG while it lives, STOPPING at TERM. By path and abstract."""
    for abstract in (False, True):
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            name = "\0beacon-test-" + os.urandom(6).hex() if abstract else os.path.join(folder, "notify")
            manager.bind(name)
            manager.settimeout(5)
            heard = []

            def hear(word):
                while not any(word in line for line in heard):
                    try:
                        heard.extend(manager.recv(4096).decode().splitlines())
                    except TimeoutError:
                        raise Failure("no %s; heard %s" % (word, heard)) from None
            env = {"NOTIFY_SOCKET": name.replace("\0", "@"), "WATCHDOG_USEC": "1000000"}
            with case.beacon(env=env) as b:
                hear("READY=1")
                true("STOPPING=1" not in heard, "not stopping yet")
                Node(b).register(A)
                for _ in range(2):
                    heard.clear()
                    hear("WATCHDOG=1")
                heard.clear()
                b.check_balance()
                b.signal(signal.SIGTERM)
                hear("STOPPING=1")
                b.wait_exit(0)


@scenario()
def no_service_manager(case):
    """A NOTIFY_SOCKET where nobody listens is no reason to fail."""
    with case.beacon(env={"NOTIFY_SOCKET": "/nonexistent/notify"}) as b:
        Node(b).register(A)


@scenario(io=("mmsg",))
def log_formats(case):
    """Each line of the log is one record, also with what a stranger sent."""
    with case.beacon("--log-level", "debug") as b:
        node = Node(b).register(A)
        node.silent(b"\xff\n\"x\"", what="odd bytes")
        Node(b, "127.0.0.2").see(discover(A))
    for line in b.lines:
        for field in ("ts", "level", "component", "msg"):
            true(field in line, "%s in %s" % (field, line))
