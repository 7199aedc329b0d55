"""An original Pilot beacon, as far as others see it, and meshes with such ones and without keys.

Gossip of that kind says everything each time and has no proof: 0x07 replaces all that its sender said before.
"""

import contextlib
import random
import socket
import struct
import threading
import time

from .frame import SLOW, equal, eventually, scenario, true
from .mesh import (CROWD_FLAGS, MESH_FLAGS, ONE, QUICKLY, Crowd, KeyFile, PeersFile, alive, all_reach, comes,
                   free_ports, node_at, reaches, refused, routes, written)
from .wire import Node, address, delivered, delivered_dest, relay


def sync(beacon, nodes):
    return struct.pack(">BIH%dI" % len(nodes), 7, beacon, len(nodes), *nodes)


class Original(threading.Thread):
    """Serves on one socket: 01/08 register, 05 is delivered, or sent on as 05 to whoever said to have the node,
    without a count of hops; 07 replaces all routes of its source. Says 07 every `period` seconds."""

    def __init__(self, ip, number, peers=(), period=1.2, ttl=90.0, strict=False):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind((ip, 0))
        self.socket.settimeout(0.02)
        self.udp = self.socket.getsockname()
        self.number, self.peers, self.period, self.ttl, self.strict = number, list(peers), period, ttl, strict
        self.lock = threading.Lock()
        self.local, self.wants_dest, self.routes, self.last_sync = {}, set(), {}, {}
        self.lies, self.muted, self.ending = set(), False, False
        self.syncs, self.delivered, self.passed_on, self.unknown, self.broken = 0, 0, 0, 0, 0
        self.held = []

    def keep(self, resource):
        self.held.append(resource)

    def run(self):
        next_at = 0.0
        while not self.ending:
            if time.monotonic() >= next_at:
                next_at = time.monotonic() + self.period
                self.reap()
                if not self.muted:
                    self.say()
            try:
                message, source = self.socket.recvfrom(65535)
            except (TimeoutError, ConnectionRefusedError):
                continue
            with self.lock:
                self.input(message, source)

    def say(self, nodes=None):
        told = sorted(set(self.local) | self.lies) if nodes is None else nodes
        for peer in self.peers:
            self.socket.sendto(sync(self.number, told), peer)

    def reap(self):
        with self.lock:
            late = {s for s, at in self.last_sync.items() if time.monotonic() - at > self.ttl}
            self.routes = {n: s for n, s in self.routes.items() if s not in late}
            self.last_sync = {s: at for s, at in self.last_sync.items() if s not in late}

    def input(self, message, source):
        kind = message[0] if message else 0
        if kind in (1, 8) and len(message) >= 5:
            number, = struct.unpack_from(">I", message, 1)
            if number:
                self.local[number] = source
                (self.wants_dest.add if kind == 8 else self.wants_dest.discard)(number)
            self.socket.sendto(address(2, source), source)
        elif kind == 5 and len(message) >= 9:
            self.relay(message)
        elif kind == 7 and len(message) >= 7:
            self.take(message, source)

    def relay(self, message):
        sender, dest = struct.unpack_from(">II", message, 1)
        if dest in self.local:
            self.delivered += 1
            if dest in self.wants_dest:
                self.socket.sendto(delivered_dest(sender, dest, message[9:]), self.local[dest])
            else:
                self.socket.sendto(delivered(sender, message[9:]), self.local[dest])
        elif dest in self.routes:
            self.passed_on += 1
            self.socket.sendto(message, self.routes[dest])
        else:
            self.unknown += 1

    def take(self, message, source):
        count, = struct.unpack_from(">H", message, 5)
        if self.strict and source[0] not in {p[0] for p in self.peers}:
            return
        if len(message) < 7 + 4 * count:
            self.broken += 1
            return
        self.syncs += 1
        self.last_sync[source] = time.monotonic()
        self.routes = {n: s for n, s in self.routes.items() if s != source}
        for number in struct.unpack_from(">%dI" % count, message, 7):
            if number not in self.local:
                self.routes[number] = source

    def knows(self, number):
        with self.lock:
            return number in self.routes

    def close(self):
        self.ending = True
        self.join()
        for resource in self.held:
            resource.close()
        self.socket.close()


class Mixed:
    """Beacons of ours whose peers are named later: a round of 0x07 begins when the first one is, so that what was
    registered before is told at once and not ten seconds later."""

    def __init__(self, case, stack):
        self.case, self.stack = case, stack

    def ours(self, number, *flags, keys=None, ip="127.0.0.1", **how):
        file = PeersFile()
        self.stack.callback(file.close)
        sealed = ("--gossip-keys", keys.path) if keys else ()
        b = self.stack.enter_context(self.case.beacon(
            "--beacon-id", str(number), "--peers-file", file.path, *MESH_FLAGS, *sealed, *flags,
            addr="%s:%d" % (ip, free_ports(1, ip)[0]) if "addr" not in how else how.pop("addr"), **how))
        b.peers = file
        return b

    def original(self, ip, number, peers, **how):
        o = Original(ip, number, [b.udp for b in peers], **how)
        self.stack.callback(o.close)
        o.start()
        return o


@contextlib.contextmanager
def mixed(case):
    with contextlib.ExitStack() as stack:
        yield Mixed(case, stack)


def named(*originals):
    return ["pilot:" + written(o.udp) for o in originals]


@scenario(shards=(1, 3))
def mesh_with_original(case):
    """Relays go both ways between a beacon of ours and an original one."""
    with mixed(case) as m:
        one = m.ours(1)
        old = m.original("127.0.0.2", 70, [one])
        near, far = node_at(one, 10), Node(old).register(700)
        one.peers.write(*named(old))
        reaches(near, far)
        eventually("the original knows our node", lambda: old.knows(10), QUICKLY)
        true(comes(far, near, b"PILTback", 2), "a relay of the original's node")
        equal((old.passed_on, old.delivered > 0), (1, True), "relays that the original sent on, and delivered")
        equal(one.verdict("relay", "from_beacon"), 1, "relays from the original")
        eventually("the original is shown", lambda: one.metric("beacon_mesh_peers", state="pilot") == 1)
        true(far.at != near.at and one.verdict("sync", "") > 0, "its 0x07 are taken")


@scenario(io=ONE)
def mesh_with_original_sealed(case):
    """The same where beacons of ours seal their gossip: the original's nodes are reached by each that names it."""
    with mixed(case) as m:
        keys = KeyFile()
        m.stack.callback(keys.close)
        one, two = m.ours(1, keys=keys), m.ours(2, keys=keys)
        old = m.original("127.0.0.2", 70, [one, two])
        nodes = [node_at(one, 10), node_at(two, 20), Node(old).register(700)]
        one.peers.write(written(two.udp), *named(old))
        two.peers.write(written(one.udp), *named(old))
        eventually("ours know each other", lambda: alive(one) == 1 and alive(two) == 1, QUICKLY)
        all_reach(nodes, 12)
        equal(one.verdict("relay", "second_hop") + two.verdict("relay", "second_hop"), 0, "second hops")


@scenario(io=ONE)
def mesh_forged_sync(case):
    """0x07 from an address that is no peer's does nothing, whoever it says to be."""
    with mixed(case) as m:
        one = m.ours(1)
        old = m.original("127.0.0.2", 70, [one])
        near, far = node_at(one, 10), Node(old).register(700)
        one.peers.write(*named(old))
        reaches(near, far)
        before = one.verdict("sync", "stranger")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forged:
            forged.bind(("127.0.0.66", 0))
            for nodes in ([], [700], [700, 701], list(range(1, 16000))):
                forged.sendto(sync(70, nodes), one.udp)
            one.counts("sync", "stranger", before + 4)
            eventually("nodes of others", lambda: routes(one) == 1)
            true(comes(near, far, b"PILTx", 2), "the way is the same")
            equal(hears_at(forged), None, "what the forger gets")


def hears_at(s):
    s.settimeout(0.1)
    try:
        return s.recv(65535)
    except TimeoutError:
        return None


@scenario(io=ONE, sanitized=False)
def mesh_surprise(case):
    """One empty 0x07 takes no node away; that they are gone is believed when it is said again."""
    with mixed(case) as m:
        one = m.ours(1)
        old = m.original("127.0.0.2", 70, [one])
        near = node_at(one, 10)
        far = [Node(old).register(700 + i) for i in range(4)]
        one.peers.write(*named(old))
        for node in far:
            reaches(near, node)
        old.muted = True
        time.sleep(1.3)
        old.say([])
        eventually("it is a surprise", lambda: one.verdict("sync", "held") == 1)
        for node in far:
            true(comes(near, node, b"PILTx", 2), "node %d is reached still" % node.node)
        old.muted = False
        time.sleep(1.5)
        eventually("nodes of the original", lambda: routes(one) == 4)
        with old.lock:  # now they do go
            old.local = {}
        eventually("nodes that are gone are no way", lambda: routes(one) == 0, 16)
        true(refused(near, 700, one), "a relay to one of them")


@scenario(io=ONE)
def mesh_no_loop(case):
    """Each of two thinks that the other has a node: the relay ends after one hop."""
    with mixed(case) as m:
        one = m.ours(1)
        old = m.original("127.0.0.2", 70, [one])
        near, far = node_at(one, 10), Node(old).register(700)
        old.lies = {4711}
        one.peers.write(*named(old))
        reaches(near, far)
        with old.lock:
            old.routes[4711] = one.udp
        passed, hops = old.passed_on, one.verdict("relay", "second_hop")
        for _ in range(20):
            near.send(relay(10, 4711, b"PILTloop"))
        one.counts("relay", "second_hop", hops + 20)
        time.sleep(0.3)
        equal(old.passed_on - passed, 20, "relays that the original sent back")
        for _ in range(20):  # the other way round
            far.send(relay(700, 4711, b"PILTloop"))
        time.sleep(0.3)
        equal((old.passed_on - passed, one.verdict("relay", "second_hop") - hops), (40, 40), "relays back, and dropped")


@scenario(io=ONE, sanitized=False)
def mesh_original_dies(case):
    """A beacon of ours that is gone is forgotten by an original one; it comes back with all its nodes."""
    with mixed(case) as m:
        port = free_ports(1)[0]
        how = {"addr": "127.0.0.1:%d" % port}
        one = m.ours(1, **how)
        old = m.original("127.0.0.2", 70, [one], ttl=3.0)
        near, far = node_at(one, 10), Node(old).register(700)
        one.peers.write(*named(old))
        eventually("the original knows our node", lambda: old.knows(10), QUICKLY)
        one.kill()
        one.check_stderr()
        eventually("the original forgets it", lambda: not old.knows(10), 6)
        again = m.ours(1, **how)
        near = node_at(again, 10)
        again.peers.write(*named(old))
        eventually("and knows it anew", lambda: old.knows(10), QUICKLY)
        true(comes(far, near, b"PILTx", 2), "a relay of the original's node")
        reaches(near, far)


@scenario()
def mesh_many_to_original(case):
    """More nodes than one 0x07 holds: an original beacon hears of all, by several ports, and relays through them."""
    count = 6000 if SLOW else 20000
    with mixed(case) as m:
        one = m.ours(1, *CROWD_FLAGS)
        old = m.original("127.0.0.2", 70, [one])
        far = Node(old).register(7)
        nodes = Crowd(one, 100000, count)
        one.nodes(count, "nodes of ours")
        time.sleep(0.5)  # its journal has been read
        one.peers.write(*named(old))
        eventually("the original knows all of them", lambda: len(old.routes) == count, 12)
        with old.lock:
            sources = set(old.routes.values())
        true(len(sources) > 1 and all(s[0] == "127.0.0.1" for s in sources), "by several ports: %s" % sources)
        equal(old.broken, 0, "0x07 that were cut short")
        sample = random.Random(5).sample(range(100000, 100000 + count), 500)
        equal(nodes.reached_by(far, sample), 500, "of a sample of 500 that a relay of the original's node reached")


@scenario(sanitized=False)
def mesh_keyless(case):
    """Beacons of ours without keys talk as original ones do."""
    with mixed(case) as m:
        beacons = [m.ours(i + 1, ip="127.0.0.%d" % (i + 1)) for i in range(3)]
        nodes = [node_at(b, 10 + i, ip="127.0.0.1") for i, b in enumerate(beacons)]
        for b in beacons:
            b.peers.write(*[written(o.udp) for o in beacons if o is not b])
        all_reach(nodes, 13)
        equal([alive(b) for b in beacons], [0, 0, 0], "beacons that are known by sealed gossip")


@scenario(io=ONE)
def mesh_upgrade(case):
    """One has keys and one has none: they talk in the open; when the other gets keys, they seal."""
    keys = KeyFile()
    with mixed(case) as m:
        m.stack.callback(keys.close)
        ports = free_ports(2)
        one = m.ours(1, keys=keys, addr="127.0.0.1:%d" % ports[0])
        two = m.ours(2, addr="127.0.0.1:%d" % ports[1])
        nodes = [node_at(one, 10), node_at(two, 20)]
        two.peers.write(written(one.udp))
        one.peers.write(written(two.udp))
        all_reach(nodes, 13)
        equal((alive(one), alive(two)), (0, 0), "whom they know by sealed gossip")
        two.signal(15)
        two.wait_exit(0)
        two = m.ours(2, keys=keys, addr="127.0.0.1:%d" % ports[1])
        two.peers.write(written(one.udp))
        nodes[1].register()
        eventually("they seal now", lambda: (alive(one), alive(two)) == (1, 1), 13)
        all_reach(nodes)
        eventually("nothing is left of what was said in the open",
                   lambda: one.metric("beacon_mesh_peers", state="pilot") == 0, 5)
        taken = one.verdict("sync", "")
        time.sleep(1)
        equal(one.verdict("sync", ""), taken, "0x07 that are taken from one that seals")
