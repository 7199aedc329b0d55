"""Meshes on networks that fail: each beacon in a namespace of its own, behind a router whose rules the test changes.

    beacon i: 11.1.i.1/24 --- router --- 11.1.9.0/24: the nodes
"""

import contextlib
import os
import subprocess
import tempfile
import time

from . import lab as lab_module
from .frame import SLOW, equal, eventually, scenario, true, within
from .lab import ip
from .mesh import MESH_FLAGS, ONE, QUICKLY, KeyFile, alive, all_reach, comes, lines, reaches, refused, routes
from .takeover import Pump
from .wire import Node, relay

NEEDS = ("root", "ip", "nft")
PORT = 9001


class Country:
    """The router, the beacons' hosts and that of the nodes."""

    def __init__(self, case, stack, count):
        self.case, self.stack, self.count = case, stack, count
        lab = case.lab
        self.router = lab.space("r")
        lab.sysctl(self.router, "ipv4/ip_forward", "1")
        self.hosts = []
        for i in range(count):
            self.hosts.append(self.host("b%d" % i, i + 1, ["11.1.%d.1/24" % (i + 1)]))
        self.nodes = self.host("n", 9, ["11.1.9.%d/24" % n for n in range(1, 250)])
        self.keys = KeyFile()
        stack.callback(self.keys.close)
        self.folder = tempfile.TemporaryDirectory(prefix="beacon-meshes-")
        stack.callback(self.folder.cleanup)
        self.beacons = [None] * count
        self.next_node = 0

    def host(self, name, net, own):
        space = self.case.lab.space(name)
        self.case.lab.link(space, own, self.router, ["11.1.%d.254/24" % net])
        ip("-n", space, "route", "add", "default", "via", "11.1.%d.254" % net)
        return space

    def flags(self, i):
        peers = ",".join("11.1.%d.1:%d" % (n + 1, PORT) for n in range(self.count) if n != i)
        return ("--beacon-id", str(i + 1), "--peers", peers, "--gossip-keys", self.keys.path, "--takeover-socket",
                os.path.join(self.folder.name, "takeover%d" % i), *MESH_FLAGS)

    def start(self, i, *flags):
        b = self.stack.enter_context(self.case.beacon(*self.flags(i), *flags, addr="11.1.%d.1:%d" % (i + 1, PORT),
                                                      space=self.hosts[i]))
        self.beacons[i] = b
        return b

    def start_all(self):
        for i in range(self.count):
            self.start(i)
        self.settle()

    def settle(self, seconds=QUICKLY):
        for b in self.beacons:
            eventually("each knows all others", lambda b=b: alive(b) == self.count - 1, seconds)

    def node(self, i, number):
        self.next_node += 1
        return Node(self.beacons[i], "11.1.9.%d" % self.next_node, space=self.nodes).register(number)

    def rules(self, *rules):
        """What the router does with what beacons say to each other; without rules all passes."""
        text = "add table ip mesh\ndelete table ip mesh\n"
        if rules:
            text += "table ip mesh {\nchain c {\ntype filter hook forward priority 0\n%s\n}\n}\n" % "\n".join(rules)
        with lab_module.inside(self.router):
            done = subprocess.run(("nft", "-f", "-"), input=text, capture_output=True, text=True)
        equal(done.returncode, 0, "exit code of nft: %s" % done.stderr)


@contextlib.contextmanager
def country(case, count=3):
    with contextlib.ExitStack() as stack:
        c = Country(case, stack, count)
        c.start_all()
        yield c


def between(left, right, what):
    """Rules for both directions between two sets of beacons."""
    spell = lambda group: "{ %s }" % ", ".join("11.1.%d.1" % (i + 1) for i in group)
    return ["ip saddr %s ip daddr %s %s" % (spell(a), spell(b), what) for a, b in ((left, right), (right, left))]


def dead(b):
    return b.metric("beacon_mesh_peers", state="dead")


@scenario(io=ONE, needs=NEEDS)
def mesh_on_a_network(case):
    """All of it over a router; a node's address is not a peer's."""
    with country(case) as c:
        all_reach([c.node(i, 10 + i) for i in range(3)])


@scenario(io=ONE, needs=NEEDS, sanitized=False)
def mesh_split(case):
    """A mesh that was in two parts for 12 s, with nodes that came and went in each, is one again soon after."""
    with country(case) as c:
        nodes = [c.node(i, 10 + i) for i in range(3)]
        all_reach(nodes)
        c.rules(*between([0, 1], [2], "drop"))
        begin = time.monotonic()
        here, there = c.node(0, 20), c.node(2, 21)
        both = [c.node(1, 22), c.node(2, 22)]
        reaches(nodes[1], here)
        true(not comes(nodes[0], there, b"PILTno", 0.3), "nothing passes")
        eventually("both parts know that they are parts",
                   lambda: dead(c.beacons[0]) == 1 and dead(c.beacons[2]) == 2, 20)
        within(time.monotonic() - begin, 4, 13, "seconds until the others count as dead")
        eventually("no way to the other part", lambda: refused(nodes[0], 12, c.beacons[0]))
        time.sleep(max(0, 12 - (time.monotonic() - begin)))
        late = c.node(2, 23)
        c.rules()
        healed = time.monotonic()
        c.settle(10)
        all_reach(nodes + [here, there, late], 8)
        within(time.monotonic() - healed, 0, 8 * (3 if SLOW else 1), "seconds until all are reached everywhere")
        eventually("each knows the others' nodes, and those that are its own as its own",
                   lambda: [routes(b) for b in c.beacons] == [5, 5, 3])
        for node in both:
            node.close()


@scenario(io=ONE, needs=NEEDS, sanitized=False)
def mesh_one_way(case):
    """Two beacons that cannot talk, while a third talks to both: nobody is dead for anybody."""
    with country(case) as c:
        nodes = [c.node(i, 10 + i) for i in range(3)]
        all_reach(nodes)
        c.rules(*between([0], [1], "@th,64,8 0x20 drop"))  # gossip alone: relays must pass for there to be a way
        time.sleep(12)
        equal([dead(b) for b in c.beacons], [0, 0, 0], "beacons that count as dead")
        late = c.node(1, 20)
        reaches(nodes[0], late, seconds=10)


@scenario(io=ONE, needs=NEEDS, sanitized=False)
def mesh_lossy(case):
    """A fifth of all datagrams between beacons is lost: news arrive within seconds, nobody is declared dead."""
    with country(case) as c:
        nodes = [c.node(i, 10 + i) for i in range(3)]
        all_reach(nodes)
        c.rules(*between([0, 1, 2], [0, 1, 2], "numgen random mod 100 < 20 drop"))
        begin, slowest, number = time.monotonic(), 0, 100
        while time.monotonic() - begin < 20:
            at = number % 3
            late = c.node(at, number)
            asked = time.monotonic()
            for i in range(3):
                if i != at:
                    eventually("the news of %d is at beacon %d" % (number, i),
                               lambda i=i: routed(c, i, nodes[i], late), 6)
            slowest = max(slowest, time.monotonic() - asked)
            number += 1
        within(slowest, 0, 4 * (3 if SLOW else 1), "seconds until the last of %d news was everywhere" % (number - 100))
        for b in c.beacons:
            equal(dead(b), 0, "beacons that count as dead")
            equal(lines(b, "beacon", state="dead"), [], "and that the log names")


def routed(c, i, sender, node):
    """Beacon i has a way to it: what it sends on may be lost."""
    b = c.beacons[i]
    before = b.verdict("relay", "to_beacon")
    sender.send(relay(sender.node, node.node, b"PILT"))
    time.sleep(0.05)
    return b.verdict("relay", "to_beacon") > before


@scenario(needs=NEEDS, sanitized=False)
def mesh_kill(case):
    """A host that dies without a word is known to be dead; started again it is found again."""
    with country(case) as c:
        nodes = [c.node(i, 10 + i) for i in range(3)]
        all_reach(nodes)
        c.beacons[2].kill()
        c.beacons[2].check_stderr()
        eventually("it is dead", lambda: dead(c.beacons[0]) == 1 and dead(c.beacons[1]) == 1, 13)
        true(refused(nodes[0], 12, c.beacons[0]), "no way to its nodes")
        c.start(2)
        nodes[2].to = c.beacons[2].udp
        nodes[2].register()
        begin = time.monotonic()
        all_reach(nodes, 8)
        within(time.monotonic() - begin, 0, 4 * (3 if SLOW else 1), "seconds until all are reached")


def ranges(numbers):
    """{1, 2, 3, 7} -> ["1-3", "7-7"]."""
    found = []
    for n in sorted(numbers):
        if found and found[-1][1] == n - 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return ["%d-%d" % (a, b) for a, b in found]


@scenario(needs=NEEDS)
def mesh_rolling(case):
    """Each beacon is replaced in turn by --takeover while nodes of all relay: nothing is lost."""
    with country(case) as c:
        nodes = [c.node(i, 10 + i) for i in range(3)]
        sinks = [c.node(i, 20 + i) for i in range(3)]
        all_reach(nodes + sinks)
        for node in nodes + sinks:
            node.drain(0.05)
        pumps = [Pump(nodes[i], sinks[(i + 1) % 3], 170) for i in range(3)]
        for i in range(3):
            old = c.beacons[i]
            time.sleep(0.5)
            new = c.start(i, "--takeover")
            old.wait_exit(0)
            new.wait_log("sockets and nodes taken over")
            time.sleep(1)
        told = []
        for pump in pumps:
            sent, lost, twice = pump.stop()
            true(sent > 300, "%d relays were sent" % sent)
            told.append((lost, twice, ranges(set(range(sent)) - pump.got)))
        equal(told, [(0, 0, [])] * 3, "relays lost, delivered twice, and which, of %d from each; without a way %s" % (
            sent, [b.verdict("relay", "no_route") for b in c.beacons]))
        c.settle()
        all_reach(nodes)
