"""Several beacons that gossip: nodes of one are reached through all."""

import base64
import contextlib
import errno
import json
import os
import random
import signal
import socket
import struct
import tempfile
import threading
import time

from .frame import SLOW, Failure, equal, eventually, scenario, true, within
from .websock import WsNode, Certificate, keys_file
from .wire import (A, B, SECRET1, SECRET2, Node, delivered, delivered_dest, discover, discover_ex, relay)

ONE = ("mmsg",)  # where the I/O port does not matter
MESH_FLAGS = ("--max-routes", "60000", "--allow-private", "yes")
CROWD_FLAGS = ("--nodes-per-ipv4", "0", "--nodes-per-ipv4-24", "0", "--reply-rate", "0", "--max-nodes", "65536",
               "--nursery-percent", "0")
QUICKLY = 6  # seconds for gossip to settle on a quiet host


# --- beacons ---

def free_ports(count, ip="127.0.0.1"):
    """Ports that nobody has just now, for UDP and TCP; none of those that the kernel gives to who asks for any."""
    family, found = socket.AF_INET6 if ":" in ip else socket.AF_INET, []
    while len(found) < count:
        port = random.SystemRandom().randrange(10000, 32000)
        with socket.socket(family, socket.SOCK_DGRAM) as udp, socket.socket(family, socket.SOCK_STREAM) as tcp:
            try:
                udp.bind((ip, port))
                tcp.bind((ip, port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def written(at):
    """("::1", 9) -> "[::1]:9"."""
    return ("[%s]:%d" if ":" in at[0] else "%s:%d") % at


class KeyFile:
    """A file of gossip keys: [(id, use)] or [(id, use, what the key is made of)]."""

    def __init__(self, *keys):
        self.folder = tempfile.TemporaryDirectory(prefix="beacon-keys-")
        self.path = os.path.join(self.folder.name, "gossip.keys")
        self.write(*(keys or ((1, True),)))

    def write(self, *keys):
        new = self.path + ".new"
        with open(new, "w") as f:
            for number, use, *made_of in keys:
                key = base64.b64encode(bytes([made_of[0] if made_of else number + 1]) * 32).decode()
                f.write("%d %s %s\n" % (number, "use" if use else "accept", key))
        os.chmod(new, 0o600)
        os.rename(new, self.path)

    def close(self):
        self.folder.cleanup()


class Mesh:
    """So many beacons that know each other by address; they start one by one, and again when asked."""

    def __init__(self, case, stack, count, flags=(), keys=True, ip="127.0.0.1", with_self=False, own_flags=None,
                 ids=None):
        self.case, self.stack, self.flags, self.with_self = case, stack, tuple(flags), with_self
        self.own_flags, self.ids = own_flags or {}, ids or list(range(1, count + 1))
        self.file = KeyFile() if keys else None
        if keys:
            stack.callback(self.file.close)
        self.at = [(ip, port) for port in free_ports(count, ip)]
        self.beacons = [None] * count

    def flags_of(self, number):
        peers = [written(at) for i, at in enumerate(self.at) if i != number or self.with_self]
        flags = ("--beacon-id", str(self.ids[number]), "--peers", ",".join(peers)) + MESH_FLAGS + self.flags
        return flags + (("--gossip-keys", self.file.path) if self.file else ()) + self.own_flags.get(number, ())

    def start(self, number, *more, **how):
        b = self.case.beacon(*self.flags_of(number), *more, addr=written(self.at[number]), **how)
        self.beacons[number] = self.stack.enter_context(b)
        return b

    def start_all(self):
        for number in range(len(self.at)):
            self.start(number)
        if self.file:
            self.wait_alive()
        return self.beacons

    def wait_alive(self, seconds=QUICKLY):
        for b in self.beacons:
            eventually("a beacon knows all others", lambda b=b: alive(b) == len(self.at) - 1, seconds)

    def kill(self, number):
        """Without a word to anybody."""
        b = self.beacons[number]
        b.kill()
        b.check_stderr()


@contextlib.contextmanager
def mesh(case, count, *flags, **how):
    """So many beacons that know each other by address, and have met."""
    with contextlib.ExitStack() as stack:
        yield Mesh(case, stack, count, flags, **how).start_all()


@contextlib.contextmanager
def mesh_of(case, count, *flags, start=True, **how):
    """The same, for who needs more than the beacons."""
    with contextlib.ExitStack() as stack:
        made = Mesh(case, stack, count, flags, **how)
        if start:
            made.start_all()
        yield made


def alive(beacon):
    return beacon.metric("beacon_mesh_peers", state="alive")


def routes(beacon):
    """Nodes of others in the table."""
    return beacon.metric("beacon_mesh_routes")


def known(beacon):
    """Nodes of ours and of others."""
    return routes(beacon) + beacon.metric("beacon_nodes")


def lines(beacon, message, **fields):
    return [l for l in list(beacon.lines) if l.get("msg") == message and fields.items() <= l.items()]


def reload_keys(beacons, file, *keys, pause=0.0):
    """Each of them by SIGHUP, and waits for it."""
    file.write(*keys)
    for b in beacons:
        before = len(lines(b, "reloaded"))
        b.signal(signal.SIGHUP)
        eventually("the reload", lambda b=b, before=before: len(lines(b, "reloaded")) > before)
        time.sleep(pause)


def peers_told(beacon):
    """{beacon id: what /v1/peers says}; wants --admin."""
    status, body = beacon.get("/v1/peers", "admin")
    equal(status, 200, "status of /v1/peers")
    return {p["beacon_id"]: p for p in json.loads(body)["peers"]}


# --- nodes ---

def node_at(beacon, number, **how):
    """A node that is registered."""
    return Node(beacon, **how).register(number)


def hears(node, seconds):
    """The next message, None when none comes in time."""
    node.socket.settimeout(seconds)
    try:
        return node.socket.recvfrom(65535)[0]
    except TimeoutError:
        return None
    finally:
        node.socket.settimeout(2)


def comes(sender, receiver, payload, seconds=0.25):
    """One relay comes through."""
    receiver.drain(0.001)
    sender.send(relay(sender.node, receiver.node, payload))
    got = hears(receiver, seconds)
    while got is not None and got[:1] == b"\x02":
        got = hears(receiver, seconds)
    return got == delivered(sender.node, payload)


def reaches(sender, receiver, payload=b"PILTx", seconds=QUICKLY):
    """Relays until one comes through: gossip takes its time. Returns how long it took."""
    begin = time.monotonic()
    eventually("%d reaches %d" % (sender.node, receiver.node), lambda: comes(sender, receiver, payload), seconds)
    return time.monotonic() - begin


def all_reach(nodes, seconds=QUICKLY):
    for sender in nodes:
        for receiver in nodes:
            if sender is not receiver:
                reaches(sender, receiver, b"PILT%d" % sender.node, seconds)


def refused(sender, dest, beacon, reason="no_route"):
    """A relay to that id is dropped for this reason."""
    before = beacon.verdict("relay", reason)
    sender.send(relay(sender.node, dest, b"PILTnobody"))
    time.sleep(0.05)
    return beacon.verdict("relay", reason) > before


class Crowd:
    """Many nodes at one beacon, behind a few sockets with addresses of their own."""

    def __init__(self, beacon, first, count, sockets=8, to=None):
        self.first, self.count = first, count
        self.nodes = [Node(beacon, ip="127.0.1.%d" % (i + 1), to=to) for i in range(sockets)]
        for number in range(first, first + count, 500):
            self.register(range(number, min(number + 500, first + count)))

    def of(self, number):
        return self.nodes[number // 500 % len(self.nodes)]

    def register(self, ids):
        """With 0x08, so that what is delivered says to whom."""
        want = len(ids)
        node = self.of(ids[0])
        for number in ids:
            node.send(discover_ex(number))
        got = 0
        while got < want:
            if hears(node, 2) is None:
                raise Failure("only %d of %d registrations were answered" % (got, want))
            got += 1

    def reached_by(self, sender, sample, seconds=5.0):
        """How many of these ids get a relay of that node."""
        reached = set()
        sample = list(sample)
        for at in range(0, len(sample), 50):
            for number in sample[at:at + 50]:
                sender.send(relay(sender.node, number, b"PILT%d" % number))
            end = time.monotonic() + (1.0 if at + 50 >= len(sample) else 0.02)
            while time.monotonic() < end and len(reached) < at + 50:
                for node in self.nodes:
                    message = hears(node, 0.001)
                    while message:
                        number, = struct.unpack_from(">I", message, 5)
                        equal(message, delivered_dest(sender.node, number, b"PILT%d" % number), "what %d gets" % number)
                        reached.add(number)
                        message = hears(node, 0.001)
        return len(reached)


# --- relays, life and death ---

@scenario(shards=(1, 3))
def relays_across(case):
    """A node of any beacon reaches those of the others, with one hop."""
    with mesh(case, 3) as beacons:
        nodes = [node_at(b, 1000 + i) for i, b in enumerate(beacons)]
        all_reach(nodes)
        true(beacons[0].verdict("relay", "to_beacon") > 0, "relays went to other beacons")
        true(beacons[1].verdict("relay", "from_beacon") > 0, "and came from them")
        for b in beacons:
            eventually("two nodes of others", lambda b=b: routes(b) == 2)
            equal(b.verdict("relay", "second_hop"), 0, "no relay went on from the second beacon")
        for size in (0, 1, 1200, 1463, 4200, 60000):
            payload = bytes(n % 251 for n in range(size))
            true(comes(nodes[0], nodes[2], payload, 2), "a relay of %d bytes" % size)


@scenario()
def order_across(case):
    """A flow stays in order over two beacons, and nothing of it is lost."""
    with mesh(case, 2) as beacons:
        sender, receiver = node_at(beacons[0], 1), node_at(beacons[1], 2)
        reaches(sender, receiver)
        receiver.drain(0.1)
        for number in range(600):
            sender.send(relay(1, 2, b"PILT" + struct.pack(">I", number)))
            if number % 50 == 49:
                time.sleep(0.01)
        got = [struct.unpack(">I", m[9:])[0] for m in receiver.drain(0.5)]
        equal(got, list(range(600)), "the flow")


@scenario()
def wss_across(case):
    """Nodes over WebSocket and nodes over UDP at other beacons reach each other."""
    certificate = Certificate()
    try:
        keys = keys_file(certificate.folder.name, {A: SECRET1, B: SECRET2})
        with mesh(case, 2, "--wss", "127.0.0.1:0", *certificate.flags(), "--keys", keys) as (one, other):
            near, far = WsNode(one, A, SECRET1), WsNode(other, B, SECRET2)
            plain = node_at(other, 7)

            def said(b=near, dest=7):
                plain.drain(0.001)
                b.say(2, relay(b.node, dest, b"PILTws"))
                return hears(plain, 0.25) == delivered(b.node, b"PILTws")
            eventually("a session reaches a node of another beacon", said, QUICKLY)
            eventually("the session is known at the other", lambda: routes(other) == 1, QUICKLY)
            plain.send(relay(7, A, b"PILTto-ws"))
            near.expect(delivered(7, b"PILTto-ws"), "relay to a session at another beacon")
            eventually("the other session is known", lambda: routes(one) == 2, QUICKLY)
            near.say(2, relay(A, B, b"PILTboth"))
            far.expect(delivered(A, b"PILTboth"), "relay from session to session")
            far.close()
            eventually("a session that ended is no way any more", lambda: routes(one) == 1, QUICKLY)
    finally:
        certificate.close()


@scenario(io=ONE, sanitized=False)
def killed(case):
    """What a beacon that died had is gone soon; what is registered at another too is not."""
    with mesh_of(case, 3) as made:
        beacons = made.beacons
        here = node_at(beacons[0], 1)
        lost, both = node_at(beacons[1], 2), node_at(beacons[1], 3)
        again = node_at(beacons[2], 3)
        reaches(here, lost, b"PILTlost")
        eventually("both claims", lambda: routes(beacons[0]) == 2)
        time.sleep(1)
        made.kill(1)
        reaches(here, again, b"PILTstill", 12)
        beacons[0].wait_log("beacon", seconds=12, component="mesh", beacon_id=2, state="dead")
        eventually("others that are alive", lambda: alive(beacons[0]) == 1)
        eventually("no way to what it had", lambda: refused(here, 2, beacons[0]))
        both.socket.close()


@scenario()
def restarted(case):
    """A beacon that starts again learns all and is learnt anew."""
    with mesh_of(case, 3) as made:
        nodes = [node_at(b, 100 + i) for i, b in enumerate(made.beacons)]
        all_reach(nodes)
        for how in ("killed", "ended"):
            if how == "killed":
                made.kill(1)
            else:
                made.beacons[1].signal(signal.SIGTERM)
                made.beacons[1].wait_exit(0)
            made.start(1)
            nodes[1].register()
            all_reach(nodes)
            made.wait_alive()
            for b in made.beacons:
                eventually("each knows two nodes of others", lambda b=b: routes(b) == 2)


@scenario(io=ONE)
def graceful(case):
    """Who goes says so: its nodes are no way within two seconds."""
    with mesh(case, 3) as beacons:
        here, there = node_at(beacons[0], 1), node_at(beacons[2], 2)
        reaches(here, there)
        begin = time.monotonic()
        beacons[2].signal(signal.SIGTERM)
        eventually("no way to what it had", lambda: refused(here, 2, beacons[0]), 4)
        within(time.monotonic() - begin, 0, 2 * (3 if SLOW else 1), "seconds until its nodes were gone")
        beacons[2].wait_exit(0)
        eventually("it has left", lambda: beacons[0].metric("beacon_mesh_peers", state="left") == 1)
        equal(beacons[0].metric("beacon_mesh_peers", state="dead"), 0, "beacons that count as dead")


@scenario(io=ONE)
def draining(case):
    """A beacon that drains is served and reached as before, and the others know that it drains."""
    with mesh(case, 2, "--admin", "127.0.0.1:0") as (one, other):
        near, far = node_at(one, 1), node_at(other, 2)
        reaches(near, far)
        other.signal(signal.SIGUSR1)
        other.wait_log("draining, until told otherwise")
        eventually("it is told to others", lambda: peers_told(one)[2]["draining"], 4)
        reaches(near, far)
        other.signal(signal.SIGUSR1)
        eventually("and its end, too", lambda: not peers_told(one)[2]["draining"], 4)


# --- nodes that move ---

@scenario()
def node_moves(case):
    """A node that goes to another beacon is reached there within three seconds, also through the old one."""
    with mesh(case, 3) as (old, new, third):
        asker, near = node_at(third, 1), node_at(old, 2)
        before = node_at(old, 50)
        reaches(asker, before)
        reaches(near, before)
        after = node_at(new, 50)
        before.drain(0.001)
        within(reaches(asker, after, seconds=5), 0, 3, "seconds until a third beacon's relays follow")

@scenario(io=ONE)
def node_returns(case):
    """A node that went to another beacon and comes back while its first one still remembers it."""
    with mesh(case, 3) as (old, new, third):
        asker, first = node_at(third, 1), node_at(old, 50)
        reaches(asker, first)
        reaches(asker, node_at(new, 50))
        first.drain(0.3)
        first.register()
        within(reaches(asker, first, seconds=5), 0, 3, "seconds until the third beacon's relays follow back")


@scenario(io=ONE)
def old_beacon_yields(case):
    """The beacon that a node has left serves its own nodes' relays to it elsewhere once it is silent here."""
    with mesh(case, 2, "--takeover-silence", "2", "--node-ttl", "20") as (old, new):
        near, before = node_at(old, 2), node_at(old, 50)
        true(comes(near, before, b"PILTx", 2), "the node is here")
        after = node_at(new, 50)
        begin = time.monotonic()

        def sent_on():
            after.send(discover(50))  # it is there, and says so
            return comes(near, after, b"PILTx")
        eventually("the old beacon sends on to the new one", sent_on, 12)
        within(time.monotonic() - begin, 0, 9 * (3 if SLOW else 1), "seconds until then")
        eventually("one node left here", lambda: old.metric("beacon_nodes") == 1)


@scenario(io=ONE)
def registered_twice(case):
    """A node that is at two beacons is one route; each serves its own nodes itself."""
    with mesh(case, 3) as (one, two, three):
        first, second = node_at(one, 9), node_at(two, 9)
        near, other, third = node_at(one, 1), node_at(two, 2), node_at(three, 3)
        all_reach([near, other, third])
        for _ in range(3):
            true(comes(near, first, b"PILTone", 2), "a local registration wins")
            true(comes(other, second, b"PILTtwo", 2), "and at the other beacon")
        eventually("two nodes and the one that is at both", lambda: routes(three) == 3)
        third.send(relay(3, 9, b"PILTany"))
        got = [hears(n, 0.5) for n in (first, second)]
        equal(sorted(got, key=str), sorted([None, delivered(3, b"PILTany")], key=str), "one of the two gets it, once")
        # Each refreshes: nothing may flap or echo between the two.
        for _ in range(5):
            first.register()
            second.register()
            time.sleep(0.1)
        true(comes(near, first, b"PILTone", 2) and comes(other, second, b"PILTtwo", 2), "local ones still win")


def bound(s, at):
    """A ring that its process has left keeps its sockets for a moment more."""
    try:
        s.bind(at)
        return True
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False


@scenario()
def second_hop(case):
    """What comes from a beacon's address never goes on to a third."""
    with mesh_of(case, 3) as made:
        one, _, three = made.beacons
        near, far = node_at(one, 1), node_at(three, 3)
        reaches(near, far)
        made.kill(1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forged:
            eventually("the dead beacon's port is free", lambda: bound(forged, made.at[1]))
            one_before = one.verdict("relay", "second_hop")
            for _ in range(10):
                forged.sendto(relay(77, 3, b"PILThop"), one.udp)
            one.counts("relay", "second_hop", one_before + 10)
            equal(hears(far, 0.2), None, "what the third's node gets")
            forged.sendto(relay(77, 1, b"PILTone"), one.udp)
            near.expect(delivered(77, b"PILTone"), "a relay of a beacon to a node here")


# --- strangers, and what they send ---

@scenario(io=ONE)
def own_address_is_a_peer(case):
    """One list of peers for all beacons may be used: one's own address in it does no harm."""
    with mesh(case, 3, with_self=True) as beacons:
        nodes = [node_at(b, 10 + i) for i, b in enumerate(beacons)]
        all_reach(nodes)
        for b in beacons:
            eventually("others that are alive", lambda: alive(b) == 2)
            equal(b.metric("beacon_mesh_duplicate_id"), 0, "ours is not taken for another's")
            true(refused(nodes[beacons.index(b)], 999, b), "a relay to nobody does not go round")
        time.sleep(1.2)
        for b in beacons:
            equal(b.metric("beacon_mesh_peers", state="silent"), 0, "peers that do not answer")


@scenario(io=ONE)
def wrong_keys(case):
    """Without the right key nobody is heard, and it is counted why."""
    with mesh_of(case, 2) as made:
        nodes = [node_at(b, 10 + i) for i, b in enumerate(made.beacons)]
        all_reach(nodes)
        for number, keys, reason in ((3, ((1, True, 99),), "forged"), (4, ((9, True),), "unknown_key")):
            file = KeyFile(*keys)
            made.stack.callback(file.close)
            before = made.beacons[0].verdict("gossip", reason)
            flags = ("--beacon-id", str(number), "--peers", written(made.at[0]), "--gossip-keys", file.path)
            with case.beacon(*flags, *MESH_FLAGS) as stranger:
                far = node_at(stranger, 900 + number)
                eventually("its frames are refused as %s" % reason,
                           lambda: made.beacons[0].verdict("gossip", reason) > before)
                time.sleep(1.5)
                equal(alive(stranger), 0, "whom the stranger knows")
                true(refused(far, 10, stranger), "the stranger's nodes reach nobody here")
                true(refused(nodes[0], far.node, made.beacons[0]), "nobody here reaches them")
                eventually("others that are alive", lambda: alive(made.beacons[0]) == 1)
                eventually("the log names who does not answer",
                           lambda: stranger.metric("beacon_mesh_peers", state="silent") == 1)
        all_reach(nodes)


@scenario()
def garbage(case):
    """Anything may come as gossip: each gets a verdict, and nothing else happens."""
    with mesh(case, 2) as beacons:
        nodes = [node_at(b, 10 + i) for i, b in enumerate(beacons)]
        all_reach(nodes)
        noise = random.Random(7)
        sent = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            for size in [1, 2, 27, 28, 29, 67, 68, 69, 100, 1231, 1232, 1233, 9000, 60000] * 20:
                head = bytes([0x20]) + (bytes([1, 1, noise.randrange(9)]) if noise.randrange(2) else b"")
                s.sendto((head + noise.randbytes(size))[:size], beacons[0].udp)
                sent += 1
            for size in [1, 2, 6, 7, 8, 11, 100, 60000] * 20:
                s.sendto((bytes([7]) + noise.randbytes(size))[:size], beacons[0].udp)
                sent += 1
                if sent % 50 == 0:
                    time.sleep(0.01)
        time.sleep(0.5)
        beacons[0].check_balance()
        eventually("others that are alive", lambda: alive(beacons[0]) == 1)
        eventually("nodes of others", lambda: routes(beacons[0]) == 1)
        all_reach(nodes)


class Tap(threading.Thread):
    """Two beacons speak through it; it remembers what went from the first to the second."""

    def __init__(self, first, second):
        super().__init__(daemon=True)
        self.first, self.second = first, second
        self.near, self.far = self.bound(), self.bound()  # as the first, as the second sees it
        self.frames, self.ending = [], False

    @staticmethod
    def bound():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("127.0.0.1", 0))
        s.settimeout(0.05)
        return s

    def run(self):
        def pump(take, give, to, keep):
            while not self.ending:
                try:
                    message = take.recvfrom(65535)[0]
                    if keep and message[:1] == b"\x20":
                        self.frames.append(message)
                    give.sendto(message, to)
                except TimeoutError:
                    pass
        other = threading.Thread(target=pump, args=(self.far, self.near, self.first, False), daemon=True)
        other.start()
        pump(self.near, self.far, self.second, True)
        other.join()

    def close(self):
        self.ending = True
        self.join()
        self.near.close()
        self.far.close()


@contextlib.contextmanager
def tapped(case):
    """(first, second, tap)"""
    file, ports = KeyFile(), free_ports(2)
    tap = Tap(*[("127.0.0.1", p) for p in ports])
    tap.start()
    flags = MESH_FLAGS + ("--gossip-keys", file.path)
    try:
        with case.beacon("--beacon-id", "2", *flags, addr="127.0.0.1:%d" % ports[1]) as second, \
             case.beacon("--beacon-id", "1", "--peers", written(tap.near.getsockname()), *flags,
                         addr="127.0.0.1:%d" % ports[0]) as first:
            eventually("they have met", lambda: alive(first) == 1 and alive(second) == 1, QUICKLY)
            yield first, second, tap
    finally:
        tap.close()
        file.close()


@scenario()
def replayed(case):
    """Frames that come again do nothing, from their own address or another, in this life or the next."""
    with tapped(case) as (first, second, tap):
        met = len(tap.frames)
        here, there, gone = node_at(first, 1), node_at(second, 2), node_at(first, 3)
        reaches(here, there)
        eventually("all is known", lambda: routes(second) == 2, QUICKLY)
        eventually("enough is recorded", lambda: len(tap.frames) > met + 8, QUICKLY)
        old = list(tap.frames)[met:met + 200]
        states = [l for l in second.lines if l.get("msg") == "beacon"]
        for sender in (tap.far, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)):
            before = second.verdict("gossip", "replayed")
            for frame in old:
                sender.sendto(frame, second.udp)
                time.sleep(0.0005)
            eventually("each is known to have come before",
                       lambda: second.verdict("gossip", "replayed") == before + len(old))
        sender.close()
        equal([l for l in second.lines if l.get("msg") == "beacon"], states, "what the log says of beacons")
        equal((alive(second), routes(second)), (1, 2), "beacons and nodes of others")
        true(comes(there, here, b"PILTy", 1), "relays go on")
        gone.close()


@scenario(io=ONE)
def replayed_life(case):
    """Frames of a beacon's former life do not bring back what it had then."""
    with mesh_of(case, 2, start=False) as made:
        file, ports = made.file, [at[1] for at in made.at]
        tap = Tap(made.at[0], made.at[1])
        tap.start()
        made.stack.callback(tap.close)
        flags = MESH_FLAGS + ("--gossip-keys", file.path)
        with case.beacon("--beacon-id", "2", *flags, addr="127.0.0.1:%d" % ports[1]) as second:
            first_flags = ("--beacon-id", "1", "--peers", written(tap.near.getsockname()), *flags)
            with case.beacon(*first_flags, addr="127.0.0.1:%d" % ports[0]) as first:
                old_node = node_at(first, 3)
                there = node_at(second, 2)
                reaches(there, old_node)
            old = list(tap.frames)
            eventually("it has left", lambda: alive(second) == 0, QUICKLY)
            for frame in old:
                tap.far.sendto(frame, second.udp)
            time.sleep(1.2)
            equal(alive(second), 0, "a dead beacon's frames do not make it live")
            true(refused(there, 3, second), "nor bring its nodes back")
            with case.beacon(*first_flags, addr="127.0.0.1:%d" % ports[0]) as first:
                new_node = node_at(first, 4)
                reaches(there, new_node)
                for frame in old:
                    tap.far.sendto(frame, second.udp)
                    time.sleep(0.0005)
                eventually("the new life is alive", lambda: alive(second) == 1)
                time.sleep(1.2)  # what is shown is renewed once a second
                equal(alive(second), 1, "beacons alive")
                true(refused(there, 3, second), "the former life's node is no way")
                true(comes(there, new_node, b"PILTy", 1), "relays to the new one go on")


# --- keys that change ---

class Traffic(threading.Thread):
    """Registers new nodes and relays between two, all the time."""

    def __init__(self, sender, receiver, per_second=200, churn=None):
        super().__init__(daemon=True)
        self.sender, self.receiver, self.pause, self.churn = sender, receiver, 1 / per_second, churn
        self.sent, self.got, self.ending, self.stale = 0, set(), False, 0

    def take(self):
        self.receiver.socket.settimeout(0)
        while True:
            try:
                message = self.receiver.socket.recvfrom(65535)[0]
            except (BlockingIOError, TimeoutError):
                return
            if message[:1] in b"\x06" and len(message) == 13:
                self.got.add(struct.unpack(">I", message[9:])[0])

    def run(self):
        next_at = time.monotonic()
        while not self.ending:
            self.sender.send(relay(self.sender.node, self.receiver.node, b"PILT" + struct.pack(">I", self.sent)))
            self.sent += 1
            if self.churn and self.sent % 20 == 0:
                self.churn.send(discover(100000 + self.sent))
            self.take()
            next_at += self.pause
            time.sleep(max(0, next_at - time.monotonic()))

    def lost(self):
        """Ends; the numbers that did not arrive."""
        self.ending = True
        self.join()
        end = time.monotonic() + 1
        while time.monotonic() < end and len(self.got) < self.sent:
            self.take()
            time.sleep(0.01)
        return sorted(set(range(self.sent)) - self.got)


@scenario(io=ONE)
def keys_change(case):
    """From one key to the next while all goes on: no frame is refused on the way."""
    with mesh_of(case, 3, "--reply-rate", "0") as made:
        beacons, file = made.beacons, made.file
        nodes = [node_at(b, 10 + i) for i, b in enumerate(beacons)]
        all_reach(nodes)
        traffic = Traffic(nodes[0], nodes[1], churn=Node(beacons[2]))
        traffic.start()
        for step in (((1, True), (2, False)), ((1, False), (2, True)), ((2, True),)):
            reload_keys(beacons, file, *step, pause=0.4)
        time.sleep(0.5)
        equal(traffic.lost(), [], "relays that got lost meanwhile")
        late = node_at(beacons[2], 99)
        reaches(nodes[0], late)
        for b in beacons:
            eventually("others that are alive", lambda: alive(b) == 2)
            equal([b.verdict("gossip", r) for r in ("unknown_key", "forged", "replayed", "malformed")], [0] * 4,
                  "frames refused for an unknown key, as forged, as replayed, as malformed")
            eventually("the same nodes everywhere", lambda b=b: known(b) == known(beacons[0]))


@scenario(io=ONE)
def bad_keys_file(case):
    """A keys file that is wrong is refused by SIGHUP: the old keys stay."""
    with mesh_of(case, 2) as made:
        nodes = [node_at(b, 10 + i) for i, b in enumerate(made.beacons)]
        with open(made.file.path, "w") as f:
            f.write("1 use tooshort\n")
        made.beacons[0].signal(signal.SIGHUP)
        line = made.beacons[0].wait_log("reload refused, the old configuration stays")
        true("gossip.keys:1" in line["error"] and "tooshort" not in line["error"], "where, without the key: %s" % line)
        all_reach(nodes)


# --- many ---

@scenario()
def crowd(case):
    """20,000 nodes of one beacon are reached through another."""
    count = 5000 if SLOW else 20000
    with mesh(case, 2, *CROWD_FLAGS) as (one, other):
        sender = node_at(other, 1)
        nodes = Crowd(one, 100000, count)
        one.nodes(count, "nodes of the one")
        eventually("the other knows them all", lambda: routes(other) == count, QUICKLY)
        eventually("it claims them all", lambda: one.metric("beacon_mesh_own_rows") == count)
        sample = random.Random(3).sample(range(100000, 100000 + count), 500)
        equal(nodes.reached_by(sender, sample), 500, "of a sample of 500 that a relay reached")
        equal(other.metric("beacon_mesh_refused_rows"), 0, "rows without room")


@scenario(io=ONE)
def no_room(case):
    """More nodes than there is room for: those that fit are reached, the rest is counted and said."""
    count = 1000
    with mesh_of(case, 2, *CROWD_FLAGS, own_flags={1: ("--max-routes", "300", "--max-routes-each", "200")}) as made:
        one, small = made.beacons
        sender = node_at(small, 1)
        nodes = Crowd(one, 5000, count)
        small.wait_log("nodes of other beacons find no room", seconds=QUICKLY)
        eventually("those that fit", lambda: routes(small) == 200, QUICKLY)
        eventually("and those that do not", lambda: small.metric("beacon_mesh_refused_rows") == count - 200)
        within(nodes.reached_by(sender, range(5000, 5000 + count)), 200, 200, "of them that a relay reached")
        equal(small.verdict("relay", "no_route"), count - 200, "and those that have no way")
        equal((alive(small), alive(one)), (1, 1), "others that are alive")


@scenario(io=ONE)
def eight(case):
    """Eight beacons, each node reached from each."""
    with mesh(case, 8, "--max-nodes", "1024", "--max-routes", "2000", "--reply-rate", "0") as beacons:
        nodes = [node_at(b, 10 + i) for i, b in enumerate(beacons)]
        for b in beacons:
            eventually("seven nodes of others", lambda b=b: routes(b) == 7, QUICKLY)
        for sender in nodes:
            for receiver in nodes:
                true(sender is receiver or comes(sender, receiver, b"PILTe", 1),
                     "%d reaches %d" % (sender.node, receiver.node))


@scenario()
def ipv6(case):
    """The mesh over IPv6."""
    with mesh(case, 3, ip="::1") as beacons:
        all_reach([node_at(b, 10 + i) for i, b in enumerate(beacons)])


# --- configuration ---

@scenario(io=ONE)
def duplicate_id(case):
    """Two beacons with one id: the later one is silent and says so, with the other's address."""
    with mesh_of(case, 3, start=False, ids=[1, 2, 1]) as made:
        made.start(0)
        made.start(1)
        nodes = [node_at(made.beacons[0], 10), node_at(made.beacons[1], 11)]
        all_reach(nodes)
        late = made.start(2)
        line = late.wait_log("another beacon uses our id: silent towards others", seconds=QUICKLY)
        equal((str(line["beacon_id"]), line["addr"]), ("1", written(made.at[0])), "whom the log names")
        eventually("the figure", lambda: late.metric("beacon_mesh_duplicate_id") == 1)
        all_reach(nodes)
        equal(made.beacons[0].metric("beacon_mesh_duplicate_id"), 0, "the first one goes on")


class PeersFile:
    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="beacon-peers-")
        self.path = os.path.join(self.folder.name, "peers")
        self.write()

    def write(self, *peers):
        new = self.path + ".new"
        with open(new, "w") as f:
            f.write("".join("%s\n" % p for p in ("# other beacons",) + peers))
        os.rename(new, self.path)

    def close(self):
        self.folder.cleanup()


@scenario(io=ONE)
def peers_file(case):
    """A peers file is watched: who is added is found, who stays away from it is found by others' word."""
    file, keys, ports = PeersFile(), KeyFile(), free_ports(3)
    flags = MESH_FLAGS + ("--gossip-keys", keys.path)
    try:
        with case.beacon("--beacon-id", "1", "--peers-file", file.path, *flags,
                         addr="127.0.0.1:%d" % ports[0]) as one, \
             case.beacon("--beacon-id", "2", *flags, addr="127.0.0.1:%d" % ports[1]) as two, \
             case.beacon("--beacon-id", "3", "--peers", "127.0.0.1:%d" % ports[1], *flags,
                         addr="127.0.0.1:%d" % ports[2]) as three:
            nodes = [node_at(b, 10 + i) for i, b in enumerate((one, two, three))]
            reaches(nodes[1], nodes[2])
            equal(alive(one), 0, "whom the first knows")
            file.write("127.0.0.1:%d" % ports[1])
            all_reach(nodes)
            eventually("two others each", lambda: [alive(b) for b in (one, two, three)] == [2, 2, 2])
            file.write("127.0.0.1:%d" % ports[1], "no such host:99999999")
            line = one.wait_log("other beacons", seconds=3, component="peers", level="warn")
            true(file.path in line["text"] and ":3" in line["text"], "the file and the line: %s" % line)
            all_reach(nodes)
            os.unlink(file.path)
            time.sleep(1.2)
            all_reach(nodes)
    finally:
        file.close()
        keys.close()
