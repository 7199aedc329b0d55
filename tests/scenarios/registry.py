"""A Pilot registry, small, and beacons that find each other through it."""

import contextlib
import json
import socket
import struct
import threading

from .frame import equal, eventually, scenario, true
from .mesh import MESH_FLAGS, ONE, KeyFile, alive, all_reach, free_ports, lines, node_at, written


def frame(message):
    raw = message if isinstance(message, bytes) else json.dumps(message).encode()
    return struct.pack(">I", len(raw)) + raw


class Registry(threading.Thread):
    """Answers beacon_register and beacon_list; `odd` (a function of a request and the asking beacon's id)
    answers instead where it is set: an object or bytes to send, None to say nothing."""

    def __init__(self, port=0, token=None):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", port))
        self.listener.settimeout(0.05)
        self.at = self.listener.getsockname()
        self.token, self.odd, self.ending = token, None, False
        self.beacons, self.asked, self.open = {}, [], []
        self.start()

    def run(self):
        while not self.ending:
            try:
                connection, _ = self.listener.accept()
            except TimeoutError:
                continue
            self.open.append(connection)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        who = 0
        connection.settimeout(20)
        with connection, contextlib.suppress(OSError, EOFError):
            while True:
                size, = struct.unpack(">I", self.take(connection, 4))
                request = json.loads(self.take(connection, size))
                self.asked.append(request)
                who = request.get("beacon_id", who)
                answer = self.odd(request, who) if self.odd else self.answer(request)
                if answer is not None:
                    connection.sendall(answer if isinstance(answer, bytes) else frame(answer))

    @staticmethod
    def take(connection, count):
        data = b""
        while len(data) < count:
            more = connection.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def answer(self, request):
        if request["type"] == "beacon_register":
            if self.token and request.get("admin_token") != self.token:
                return {"type": "error", "error": "admin token required"}
            self.beacons[request["beacon_id"]] = request["addr"]
            return {"type": "beacon_register_ok", "beacon_id": request["beacon_id"]}
        if request["type"] == "beacon_list":
            return {"type": "beacon_list_ok", "beacons": [{"id": i, "addr": a} for i, a in self.beacons.items()]}
        return {"type": "error", "error": "unknown message type"}

    def close(self):
        self.ending = True
        self.join()
        self.listener.close()
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Found:
    """Beacons that know a registry."""

    def __init__(self, case, stack, registry):
        self.case, self.stack, self.registry = case, stack, registry
        self.keys = KeyFile()
        stack.callback(self.keys.close)
        stack.callback(registry.close)

    def start(self, number, *flags, **how):
        return self.stack.enter_context(self.case.beacon(
            "--beacon-id", str(number), "--registry", written(self.registry.at), "--gossip-keys", self.keys.path,
            *MESH_FLAGS, *flags, **how))


@contextlib.contextmanager
def found(case, **how):
    with contextlib.ExitStack() as stack:
        yield Found(case, stack, Registry(**how))


@scenario()
def mesh_by_registry(case):
    """Each registers itself and finds the others in the list."""
    with found(case, token="hunter2") as f:
        beacons = [f.start(i, "--registry-admin-token", "hunter2") for i in (1, 2, 3)]
        nodes = [node_at(b, 10 + i) for i, b in enumerate(beacons)]
        eventually("all are registered", lambda: len(f.registry.beacons) == 3)
        equal(f.registry.beacons, {i + 1: written(b.udp) for i, b in enumerate(beacons)}, "what the registry has")
        first = f.registry.asked[:2]
        equal(first, [{"type": "beacon_register", "beacon_id": 1, "addr": written(beacons[0].udp),
                       "admin_token": "hunter2"}, {"type": "beacon_list"}], "the first two messages")
        all_reach(nodes, 8)
        for b in beacons:
            eventually("it knows two others", lambda b=b: alive(b) == 2)
            eventually("the registry is up", lambda b=b: b.metric("beacon_mesh_registry_up") == 1)
        equal(beacons[2].metric("beacon_mesh_registry_listed"), 3, "beacons in the last one's list")


@scenario(io=ONE)
def mesh_registry_dies(case):
    """Peers that are named stay when the registry is dead from the start, or dies, and so do those found by it."""
    with found(case) as f:
        port = free_ports(1)[0]
        one = f.start(1, addr="127.0.0.1:%d" % port)
        two = f.start(2)
        three = f.start(3, "--peers", written(one.udp))
        nodes = [node_at(b, 10 + i) for i, b in enumerate((one, two, three))]
        all_reach(nodes, 8)
        f.registry.close()
        four = f.start(4, "--peers", written(one.udp))
        nodes.append(node_at(four, 14))
        all_reach(nodes, 8)
        line = four.wait_log("other beacons", component="registry", level="warn")
        true(written(f.registry.at) in line["text"] or "refused" in line["text"], "what is said of it: %s" % line)
        eventually("and in its figures", lambda: four.metric("beacon_mesh_registry_up") == 0)
        equal(four.metric("beacon_mesh_registry_last_success_timestamp_seconds"), 0, "when it was reached")
        for b in (one, two, three, four):
            eventually("it knows three others", lambda b=b: alive(b) == 3)


@scenario(io=ONE)
def mesh_registry_odd(case):
    """Answers that make no sense are said in the log, and change nothing."""
    deep = b"[" * 3000
    odd = {
        "an error": {"type": "error", "error": "go away"},
        "no list": {"type": "beacon_list_ok"},
        "no array": {"type": "beacon_list_ok", "beacons": {"1": 2}},
        "not JSON": b"\0\0\0\5hello",
        "another type": {"type": "lookup_ok", "beacons": []},
        "a frame of 4 GiB": b"\xff\xff\xff\xff",
        "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
        "nested": frame(deep),
        "nothing": None,
    }
    with found(case) as f:
        one = f.start(1)
        node = node_at(one, 10)
        answers = dict(enumerate(odd.values(), 2))
        f.registry.odd = lambda request, who: (
            answers[who] if request["type"] == "beacon_list" and who in answers else f.registry.answer(request))
        for number, what in enumerate(odd, 2):
            b = f.start(number, "--peers", written(one.udp), "--max-nodes", "1024")
            if what != "nothing":
                b.wait_log("other beacons", component="registry", level="warn")
            all_reach([node, node_at(b, 10 + number)], 8)
            equal(b.metric("beacon_mesh_registry_up"), 0, "with %s: the registry is up" % what)
            equal(len(lines(b, "other beacons", component="registry")), int(what != "nothing"), "lines about %s" % what)


@scenario(io=ONE)
def mesh_registry_odd_entries(case):
    """Entries that make no sense do not spoil those that do."""
    with found(case) as f:
        one = f.start(1)
        entries = [{"id": 9}, {"addr": "127.0.0.1:1"}, {"id": -1, "addr": "127.0.0.1:1"}, {"id": 5, "addr": ""},
                   {"id": "7", "addr": "127.0.0.1:7"}, {"id": 6, "addr": "no port"}, {"id": 2**40, "addr": "127.0.0.1:8"},
                   {"id": 8, "addr": "127.0.0.1:99999"}, 17, None, {"id": 1, "addr": written(one.udp)}]
        f.registry.odd = lambda request, who: ({"type": "beacon_list_ok", "beacons": entries}
                                               if request["type"] == "beacon_list" else f.registry.answer(request))
        two = f.start(2)
        all_reach([node_at(one, 10), node_at(two, 20)], 8)
        eventually("the registry is up", lambda: two.metric("beacon_mesh_registry_up") == 1)


@scenario(io=ONE)
def mesh_registry_names_our_id(case):
    """The registry has our id at another address: two beacons with one id, which the log says."""
    with found(case) as f:
        f.registry.odd = lambda request, who: (
            {"type": "beacon_list_ok", "beacons": [{"id": 1, "addr": "127.0.0.77:9001"}]}
            if request["type"] == "beacon_list" else f.registry.answer(request))
        one = f.start(1)
        eventually("the address is in the log", lambda: [
            l for l in list(one.lines) if l.get("component") == "registry" and "127.0.0.77:9001" in l.get("text", "")])
