"""One beacon takes another's place: its sockets, its nodes, and what is on its way meanwhile."""

import array
import contextlib
import os
import random
import signal
import socket
import stat
import struct
import sys
import tempfile
import threading
import time

from . import lab
from .admin import become_nobody
from .beacon import environment
from .frame import SLOW, Failure, equal, eventually, scenario, true, within
from .mesh import CROWD_FLAGS, MESH_FLAGS, ONE, Crowd, KeyFile, alive, comes, free_ports, hears, node_at, reaches
from .websock import keys_file
from .wire import A, SECRET1, Node, discover, relay

ASK, OFFER, SOCKETS, CLEAR, CLEARED, GO, STOPPED, DONE, BYE, NO = range(1, 11)
MAGIC, VERSION = b"BCNT", 1


class Pump:
    """Relays of numbered payloads, so many a second, from one node to another; and what has arrived of them."""

    def __init__(self, sender, receiver, per_second=2000):
        self.sender, self.receiver, self.per_second = sender, receiver, per_second
        self.sent, self.twice, self.got, self.gaps = 0, 0, set(), []
        self.ending = self.deaf = False
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self.send, self.receive)]
        for t in self.threads:
            t.start()

    def send(self):
        begin = time.monotonic()
        while not self.ending:
            due = int((time.monotonic() - begin) * self.per_second)
            while self.sent < due:
                self.sender.send(relay(self.sender.node, self.receiver.node, b"PILT" + struct.pack(">I", self.sent)))
                self.sent += 1
            time.sleep(0.002)

    def receive(self):
        self.receiver.socket.settimeout(0.05)
        while not self.deaf:
            try:
                message = self.receiver.socket.recv(65535)
            except TimeoutError:
                continue
            if message[:1] == b"\x06" and len(message) == 13:
                number, = struct.unpack(">I", message[9:])
                self.twice += number in self.got
                self.got.add(number)

    def stop(self):
        """(sent, lost, twice)"""
        self.ending = True
        self.threads[0].join()
        end = time.monotonic() + 2
        while time.monotonic() < end and len(self.got) < self.sent:
            time.sleep(0.02)
        self.deaf = True
        self.threads[1].join()
        self.receiver.socket.settimeout(2)
        return self.sent, self.sent - len(self.got), self.twice


def loses_nothing(pump, least=200):
    sent, lost, twice = pump.stop()
    true(sent >= least, "%d relays were sent" % sent)
    missing = sorted(set(range(sent)) - pump.got)
    equal((lost, twice), (0, 0), "of %d relays lost, and delivered twice; the first lost %s" % (sent, missing[:5]))


@contextlib.contextmanager
def succession(case, *flags):
    """A function that starts the next beacon; its first argument are more flags."""
    folder = tempfile.TemporaryDirectory(prefix="beacon-takeover-")
    at = "127.0.0.1:%d" % free_ports(1)[0]
    path = os.path.join(folder.name, "takeover")
    with contextlib.ExitStack() as stack:
        stack.callback(folder.cleanup)

        def start(*more, **how):
            b = stack.enter_context(case.beacon("--takeover-socket", path, "--takeover", *flags, *more, addr=at, **how))
            b.takeover_path = path
            return b
        yield start


def gone_well(old, new, nodes):
    """The old one has ended by itself; the new one has its nodes."""
    old.wait_exit(0)
    old.wait_log("handed over")
    line = new.wait_log("sockets and nodes taken over")
    equal((line["from"], int(line["nodes"]) >= nodes), ("predecessor", True), "what was taken over: %s" % line)
    new.nodes(nodes, "nodes in the new one's table")


# --- it goes well ---

@scenario(shards=(1, 3))
def relays_go_on(case):
    """2,000 relays a second while one takes over from the other, twice: none is lost."""
    with succession(case, *CROWD_FLAGS) as start:
        old = start()
        sender, receiver = node_at(old, 1), node_at(old, 2)
        crowd = Crowd(old, 1000, 2000)
        pump = Pump(sender, receiver)
        for _ in range(2):
            time.sleep(0.3)
            new = start()
            gone_well(old, new, 2002)
            old = new
        time.sleep(0.3)
        loses_nothing(pump)
        equal(crowd.reached_by(sender, range(1000, 3000, 10)), 200, "of 200 old nodes that are reached")
        true(comes(receiver, sender, b"PILTy", 2), "relays to the one that never registered again")


@scenario()
def registrations_go_on(case):
    """Nodes that come while the table goes over are in it; each Discover is answered."""
    with succession(case, *CROWD_FLAGS) as start:
        old = start()
        node, stopped, answers = Node(old), threading.Event(), [0, 0]

        def come():
            while not stopped.is_set():
                answers[0] += 1
                node.send(discover(answers[0]))
                if hears(node, 2) is not None:
                    answers[1] += 1
        thread = threading.Thread(target=come, daemon=True)
        thread.start()
        time.sleep(0.2)
        new = start()
        old.wait_exit(0)
        time.sleep(0.2)
        stopped.set()
        thread.join()
        equal(answers[1], answers[0], "answers to Discovers")
        new.nodes(answers[0], "nodes in the table")


@scenario(io=ONE)
def many_nodes(case):
    """A large table goes over, too, and keeps its 0x08 marks."""
    count = 5000 if SLOW else 40000
    with succession(case, *CROWD_FLAGS) as start:
        old = start()
        sender = node_at(old, 1)
        crowd = Crowd(old, 100000, count)
        new = start()
        gone_well(old, new, count + 1)
        sample = random.Random(1).sample(range(100000, 100000 + count), 300)
        equal(crowd.reached_by(sender, sample), 300, "of 300 nodes that are reached")


@scenario(io=ONE)
def other_ports_free(case):
    """TCP listeners with fixed ports go over without a moment in which nobody listens for long."""
    tcp = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = ["127.0.0.1:%d" % s.getsockname()[1] for s in tcp]
    for s in tcp:
        s.close()
    how = {"health": ports[0], "metrics": ports[1]}
    with succession(case) as start:
        old = start(**how)
        node = node_at(old, 1)
        new = start(**how)
        gone_well(old, new, 1)
        equal(new.get("/readyz")[0], 200, "status of /readyz")
        equal(new.metric("beacon_nodes"), 1, "nodes")
        node.see(discover(1))


@scenario(io=ONE)
def nobody_there(case):
    """--takeover where nobody serves is a plain start; a file that was left behind is no obstacle."""
    with succession(case) as start:
        first = start()
        first.wait_log("nobody to take over from")
        node = node_at(first, 1)
        equal(stat.S_IMODE(os.stat(first.takeover_path).st_mode), 0o600, "mode of the socket")
        first.kill()
        first.check_stderr()
        true(os.path.exists(first.takeover_path), "a killed one leaves its file")
        second = start()
        second.wait_log("nobody to take over from")
        node.register()
        third = start()
        gone_well(second, third, 1)
        third.signal(signal.SIGTERM)
        third.wait_exit(0)
        true(not os.path.exists(third.takeover_path), "an orderly end removes the file")


@scenario(shards=(1, 3))
def relays_across_go_on(case):
    """Nodes of another beacon are reached, and reach those here, while one takes over from the other."""
    with contextlib.ExitStack() as stack:
        keys, ports = KeyFile(), free_ports(2)
        stack.callback(keys.close)
        path = os.path.join(keys.folder.name, "takeover")

        def start(number, *flags):
            peers = "127.0.0.1:%d" % ports[2 - number]
            return stack.enter_context(case.beacon(
                "--beacon-id", str(number), "--peers", peers, "--gossip-keys", keys.path, *MESH_FLAGS, *flags,
                addr="127.0.0.1:%d" % ports[number - 1]))
        own = ("--takeover-socket", path, "--takeover")
        old, other = start(1, *own), start(2)
        here, there = [node_at(old, n) for n in (1, 2)], [node_at(other, n) for n in (3, 4)]
        reaches(here[0], there[0])
        reaches(there[1], here[1])
        for node in here + there:
            node.drain(0.05)
        pumps = {"to the other beacon": Pump(here[0], there[0], 1000), "from it": Pump(there[1], here[1], 1000)}
        time.sleep(0.3)
        new = start(1, *own)
        old.wait_exit(0)
        time.sleep(2)
        told = {}
        for what, pump in pumps.items():
            sent, lost, twice = pump.stop()
            missing = sorted(set(range(sent)) - pump.got)
            told[what] = (lost, twice, "from %d to %d" % (missing[0], missing[-1]) if missing else "none")
        counts = {r: new.verdict("relay", r) for r in ("no_route", "second_hop", "to_beacon", "from_beacon")}
        equal(told, {what: (0, 0, "none") for what in told}, "relays lost, delivered twice, and which; %s" % counts)
        eventually("the two know each other", lambda: (alive(new), alive(other)) == (1, 1))


# --- it does not ---

class Asker:
    """A successor that does as it is told."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(12)
        self.socket.connect(path)
        self.fds = []

    def say(self, kind, version=VERSION, magic=MAGIC):
        self.socket.sendall(magic + struct.pack(">HHII", version, kind, 0, 0))

    def hear(self):
        """(kind, number) of the next message, None at the end."""
        data = b""
        while len(data) < 16:
            more, control, _, _ = self.socket.recvmsg(16 - len(data), socket.CMSG_SPACE(253 * 4))
            for level, kind, raw in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self.fds += array.array("i", raw[:len(raw) // 4 * 4])
            if not more:
                return None
            data += more
        equal(data[:4], MAGIC, "the first bytes of a message")
        _, kind, number, _ = struct.unpack(">HHII", data[4:])
        return kind, number

    def wants(self, kind):
        got = self.hear()
        true(got is not None and got[0] == kind, "message %d: got %s" % (kind, got))
        return got[1]

    def until(self, step):
        """As far as that message of its own."""
        if step in (ASK, CLEAR, GO):
            self.say(ASK)
            self.wants(OFFER)
            self.wants(SOCKETS)
        if step in (CLEAR, GO):
            self.say(CLEAR)
            self.wants(CLEARED)
        if step == GO:
            self.say(GO)
            self.wants(STOPPED)

    def close(self):
        for fd in self.fds:
            os.close(fd)
        self.socket.close()


def fixed_listeners():
    health, metrics = free_ports(2)
    return {"health": "127.0.0.1:%d" % health, "metrics": "127.0.0.1:%d" % metrics}


def serves(b, node):
    node.drain(0.001)
    node.see(discover(node.node), "a reply of the old one")
    equal(b.process.poll(), None, "exit code of the old one")


@scenario()
def successor_goes(case):
    """A successor that goes away at any step: the old one serves on, and nothing is lost."""
    with succession(case) as start:
        old = start(**fixed_listeners())
        sender, receiver = node_at(old, 1), node_at(old, 2)
        for step in (None, ASK, CLEAR, GO):
            pump = Pump(sender, receiver)
            asker = Asker(old.takeover_path)
            asker.until(step)
            time.sleep(0.05)
            asker.close()
            time.sleep(0.4)
            loses_nothing(pump)
            serves(old, sender)
            eventually("the old one is ready again", lambda: old_ready(old))
        new = start()
        gone_well(old, new, 2)


def old_ready(b):
    try:
        return b.get("/readyz")[0] == 200
    except OSError:
        return False


@scenario(io=ONE)
def successor_goes_in_a_mesh(case):
    """One that goes when the edge and the mesh have ended for it: the old one is whole again, and soon."""
    with contextlib.ExitStack() as stack:
        keys, ports = KeyFile(), free_ports(2)
        stack.callback(keys.close)
        path = os.path.join(keys.folder.name, "takeover")
        sessions = ("--wss-plain", "127.0.0.1:%d" % free_ports(1)[0],
                    "--keys", keys_file(keys.folder.name, {A: SECRET1}))

        def start(number, *flags, **how):
            peers = "127.0.0.1:%d" % ports[2 - number]
            return stack.enter_context(case.beacon(
                "--beacon-id", str(number), "--peers", peers, "--gossip-keys", keys.path, *MESH_FLAGS, *flags,
                addr="127.0.0.1:%d" % ports[number - 1], **how))
        old, other = start(1, "--takeover-socket", path, *sessions, **fixed_listeners()), start(2)
        here, there = node_at(old, 1), node_at(other, 3)
        for step in (CLEAR, GO):
            reaches(here, there)
            here.drain(0.05)
            asker, begin = Asker(path), time.monotonic()
            asker.until(step)
            asker.close()
            eventually("the old one is ready again", lambda: old_ready(old))
            within(time.monotonic() - begin, 0, 4, "seconds until it was")
            serves(old, here)
            eventually("the two know each other", lambda: (alive(old), alive(other)) == (1, 1))


@scenario(io=ONE, sanitized=False)
def successor_falls_silent(case):
    """One that asks and says nothing more: the old one serves while it waits, and takes over's next asker."""
    with succession(case) as start:
        old = start(**fixed_listeners())
        node = node_at(old, 1)
        for step in (CLEAR, GO):
            asker = Asker(old.takeover_path)
            begin = time.monotonic()
            asker.until(step)
            if step == CLEAR:
                serves(old, node)
            equal(asker.wants(NO) > 0, True, "the old one's no, with its reason")
            within(time.monotonic() - begin, 4, 9, "seconds that it was waited for")
            serves(old, node)
            asker.close()
        new = start()
        gone_well(old, new, 1)


@scenario(io=ONE)
def nonsense_on_the_socket(case):
    """Garbage, another version, messages in a wrong order, another user: refused, and the next asker is served."""
    with succession(case) as start:
        old = start(**fixed_listeners())
        node = node_at(old, 1)
        for raw in (b"GET / HTTP/1.1\r\n\r\n", bytes(16), b"BCNT" * 4, os.urandom(4096)):
            asker = Asker(old.takeover_path)
            asker.socket.sendall(raw)
            got = quiet(asker)
            true(got in (None, NO), "the answer to %r: %s" % (raw[:16], got))
            asker.close()
            serves(old, node)
        for kind, version in ((ASK, 2), (CLEAR, 1), (GO, 1), (DONE, 1), (99, 1)):
            asker = Asker(old.takeover_path)
            asker.say(kind, version)
            equal(quiet(asker), NO, "the answer to message %d of version %d" % (kind, version))
            asker.close()
            serves(old, node)
        os.chmod(old.takeover_path, 0o777)
        os.chmod(os.path.dirname(old.takeover_path), 0o777)
        equal(as_nobody(old.takeover_path), [NO], "what another user is told")
        serves(old, node)
        gone_well(old, start(), 1)


def quiet(asker):
    try:
        got = asker.hear()
        return got and got[0]
    except ConnectionResetError:
        return None


def as_nobody(path):
    """What a process of another user hears after its ask."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            become_nobody()
            asker = Asker(path)
            with contextlib.suppress(OSError):
                asker.say(ASK)
            os.write(write, bytes([quiet(asker) or 0]))
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    told = list(os.read(read, 16))
    os.close(read)
    return told


@scenario()
def successor_killed(case):
    """A real successor is killed at some moment: one of the two serves, always."""
    with succession(case) as start:
        old = start(**fixed_listeners())
        node = node_at(old, 1)
        noise = random.Random(11)
        for _ in range(8):
            heir = case.beacon("--takeover-socket", old.takeover_path, "--takeover", addr="127.0.0.1:%d" % old.udp[1])
            process = spawn(heir)
            time.sleep(noise.uniform(0.005, 0.12))
            process.kill()
            process.wait()
            time.sleep(0.05)
            if old.process.poll() is not None:  # it had all by then
                equal(old.process.returncode, 0, "exit code of the old one")
                old = start(**fixed_listeners())
                node.drain(0.001)
                node.register()
            serves(old, node)


def spawn(b):
    import subprocess
    return subprocess.Popen(b.flags, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            env=environment())


@scenario(io=ONE)
def other_shards(case):
    """A successor that wants another number of shards, or another address, is not served by sockets that do not fit."""
    with succession(case) as start:
        old = start(**fixed_listeners())
        node = node_at(old, 1)
        for flags in (("--shards", "2"), ("--addr", "127.0.0.1:%d" % free_ports(1)[0])):
            heir = case.beacon("--takeover-socket", old.takeover_path, "--takeover", addr="127.0.0.1:%d" % old.udp[1])
            heir.flags += flags
            process = spawn(heir)
            try:
                code = process.wait(10)
            except Exception:
                process.kill()
                process.wait()
                raise Failure("a successor with %s went on" % (flags,)) from None
            true(code != 0, "exit code of a successor with %s" % (flags,))
            serves(old, node)


# --- the service manager's store ---

BEGIN = """
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
names, fds = b"", []
while True:
    more, control, _, _ = s.recvmsg(65536, socket.CMSG_SPACE(253 * 4))
    for _, _, raw in control:
        fds += array.array("i", raw)
    if not more:
        break
    names += more
s.close()
high = [os.dup2(fd, 500 + i, inheritable=True) for i, fd in enumerate(fds)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i, inheritable=True)
    os.close(fd)
os.closerange(3 + len(fds), 500)
os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=names.decode())
os.execv(sys.argv[2], sys.argv[2:])
"""


KCMP = 312  # x86-64


class Manager(threading.Thread):
    """Keeps descriptors by name as systemd does, and gives them to the next process."""

    def __init__(self):
        super().__init__(daemon=True)
        self.folder = tempfile.TemporaryDirectory(prefix="beacon-manager-")
        self.notify = os.path.join(self.folder.name, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.notify)
        self.socket.settimeout(0.05)
        self.kept, self.said, self.ending = [], [], False

    def run(self):
        while not self.ending:
            try:
                text, control, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(64 * 4))
            except TimeoutError:
                continue
            fds = array.array("i")
            for _, _, raw in control:
                fds.frombytes(raw)
            said = dict(line.split("=", 1) for line in text.decode().splitlines() if "=" in line)
            self.said.append(said)
            if "FDSTORE" in said:
                for fd in fds:
                    self.store(said.get("FDNAME", "stored"), fd)
            if "FDSTOREREMOVE" in said:
                self.drop(lambda name: name == said.get("FDNAME"))

    def store(self, name, fd):
        """One that it has already is not kept twice."""
        if any(lab.LIBC.syscall(KCMP, os.getpid(), os.getpid(), 0, fd, kept) == 0 for _, kept in self.kept):
            os.close(fd)
        else:
            self.kept.append((name, fd))

    def drop(self, which):
        for name, fd in self.kept:
            if which(name):
                os.close(fd)
        self.kept = [(name, fd) for name, fd in self.kept if not which(name)]

    def names(self):
        return sorted(name for name, _ in self.kept)

    def give(self, b):
        """Changes the beacon so that it starts with what is kept."""
        kept = list(reversed(self.kept))  # no order is promised
        path = os.path.join(self.folder.name, "give")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)

        def hand_over():
            with listener:
                peer, _ = listener.accept()
                with peer:
                    names = ":".join(name for name, _ in kept).encode()
                    socket.send_fds(peer, [names], [fd for _, fd in kept])
            os.unlink(path)
        threading.Thread(target=hand_over, daemon=True).start()
        b.flags = [sys.executable, "-c", BEGIN, path] + b.flags
        b.env = {"NOTIFY_SOCKET": self.notify}
        return b

    def close(self):
        self.ending = True
        self.join()
        self.drop(lambda name: True)
        self.socket.close()
        self.folder.cleanup()


@contextlib.contextmanager
def managed(case, *flags):
    """(manager, start): start() begins a beacon with what the manager keeps."""
    manager, at = Manager(), "127.0.0.1:%d" % free_ports(1)[0]
    manager.start()
    with contextlib.ExitStack() as stack:
        stack.callback(manager.close)

        def start():
            b = case.beacon(*flags, addr=at, env={"NOTIFY_SOCKET": manager.notify})
            if manager.kept:
                manager.give(b)
            return stack.enter_context(b)
        yield manager, start


@scenario(shards=(1, 2))
def store_after_kill(case):
    """Killed, and started again by a manager that kept the sockets: what came meanwhile is answered."""
    with managed(case) as (manager, start):
        b = start()
        node, other = node_at(b, 1), node_at(b, 2)
        eventually("the manager keeps the sockets", lambda: len(manager.kept) == 2 * case.shards)
        count = len(manager.kept)
        for _ in range(2):
            b.kill()
            b.check_stderr()
            time.sleep(0.2)
            for number in range(50):
                node.send(discover(100 + number))
            other.send(discover(2))
            b = start()
            line = b.wait_log("sockets and nodes taken over")
            equal(line["from"], "manager", "whom it took them from")
            equal([len(node.drain()), len(other.drain(0.01))], [50, 1], "answers to what came while nobody was there")
            other.register(2)
            true(comes(node, other, b"PILTx", 2), "a relay")
            equal(len(manager.kept), count, "descriptors that are kept")


@scenario()
def store_after_end(case):
    """An orderly end leaves the table, too: nodes need not come again."""
    with managed(case) as (manager, start):
        b = start()
        node, other = node_at(b, 1), node_at(b, 2)
        eventually("the manager keeps the sockets", lambda: len(manager.kept) == 2 * case.shards)
        b.signal(signal.SIGTERM)
        b.wait_exit(0)
        true("beacon-table" in manager.names(), "what is kept: %s" % manager.names())
        for number in range(20):
            node.send(relay(1, 2, b"PILT%d" % number))
        b = start()
        equal(int(b.wait_log("sockets and nodes taken over")["nodes"]), 2, "nodes taken over")
        equal(len(other.drain()), 20, "relays that came while nobody was there")
        eventually("the table is of use once", lambda: "beacon-table" not in manager.names())


@scenario(io=ONE)
def store_of_another_shape(case):
    """What the manager kept of another configuration is put away; the beacon opens sockets of its own."""
    with managed(case) as (manager, start):
        b = start()
        node_at(b, 1)
        eventually("the manager keeps the sockets", lambda: len(manager.kept) >= 1)
        b.signal(signal.SIGTERM)
        b.wait_exit(0)
        heir = manager.give(case.beacon(addr="127.0.0.1:%d" % free_ports(1)[0]))
        with heir:
            heir.wait_log("kept sockets do not fit, opening others")
            eventually("the table is of use once", lambda: "beacon-table" not in manager.names())
            heir.nodes(1, "nodes of the table that was kept")
            node_at(heir, 5)
