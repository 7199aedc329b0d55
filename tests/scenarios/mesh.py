"""Several beacons that gossip: nodes of one are reached through all."""

import base64
import contextlib
import os
import socket
import tempfile
import time

from .frame import eventually, scenario, true
from .wire import Node, delivered, relay

MESH_FLAGS = ("--max-routes", "60000", "--allow-private", "yes")
QUICKLY = 6  # seconds for gossip to settle on a quiet host


def free_ports(count, ip="127.0.0.1"):
    """UDP ports that nobody has just now."""
    sockets = [socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for s in sockets:
        s.bind((ip, 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class KeyFile:
    """A file of gossip keys: [(id, use)], each id's key is made of it."""

    def __init__(self, *keys):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "gossip.keys")
        self.write(*(keys or ((1, True),)))

    def write(self, *keys):
        new = self.path + ".new"
        with open(new, "w") as f:
            for number, use in keys:
                key = base64.b64encode(bytes([number + 1]) * 32).decode()
                f.write("%d %s %s\n" % (number, "use" if use else "accept", key))
        os.rename(new, self.path)

    def close(self):
        self.folder.cleanup()


def mesh_flags(number, ports, keys, own=None):
    own = number if own is None else own
    peers = ",".join("127.0.0.1:%d" % p for i, p in enumerate(ports) if i != number)
    flags = ("--beacon-id", str(own + 1), "--peers", peers) + MESH_FLAGS
    return flags + (("--gossip-keys", keys.path) if keys else ())


@contextlib.contextmanager
def mesh(case, count, *flags, keys=True):
    """So many beacons that know each other by address."""
    file = KeyFile() if keys else None
    ports = free_ports(count)
    with contextlib.ExitStack() as stack:
        if file:
            stack.callback(file.close)
        found = []
        for i in range(count):
            found.append(stack.enter_context(case.beacon(
                *mesh_flags(i, ports, file), *flags, addr="127.0.0.1:%d" % ports[i])))
        if keys:
            for b in found:
                eventually("beacon knows all others", lambda b=b: alive(b) == count - 1, QUICKLY)
        yield found


def alive(beacon):
    return beacon.metric("beacon_mesh_peers", state="alive")


def routes(beacon):
    return beacon.metric("beacon_mesh_routes")


def node_at(beacon, number, **how):
    """A node that is registered."""
    return Node(beacon, **how).register(number)


def reaches(sender, receiver, payload, seconds=QUICKLY):
    """Relays until one comes through: gossip takes its time."""
    def try_it():
        sender.send(relay(sender.node, receiver.node, payload))
        return receiver.receive_within(0.25) == delivered(sender.node, payload)
    eventually("%d reaches %d" % (sender.node, receiver.node), try_it, seconds)
    receiver.drop_all()


@scenario(shards=(1, 3))
def relays_across(case):
    """A node of any beacon reaches those of the others, with one hop."""
    with mesh(case, 3) as beacons:
        nodes = [node_at(b, 1000 + i) for i, b in enumerate(beacons)]
        for sender in nodes:
            for receiver in nodes:
                if sender is not receiver:
                    reaches(sender, receiver, b"PILT%d" % sender.node)
        true(beacons[0].verdict("relay", "to_beacon") > 0, "relays went to other beacons")
        true(beacons[1].verdict("relay", "from_beacon") > 0, "and came from them")
        for b in beacons:
            eventually("two nodes of others", lambda b=b: routes(b) == 2)


@scenario()
def killed(case):
    """What a beacon that died had is gone soon; what is registered at another too is not."""
    with mesh(case, 3) as beacons:
        here = node_at(beacons[0], 1)
        lost, both = node_at(beacons[1], 2), node_at(beacons[1], 3)
        again = node_at(beacons[2], 3)
        reaches(here, lost, b"PILTlost")
        eventually("both claims", lambda: routes(beacons[0]) == 2)
        time.sleep(1)
        beacons[1].checks = False
        beacons[1].process.kill()
        reaches(here, again, b"PILTstill", 3)
        eventually("the dead beacon is known to be dead", lambda: alive(beacons[0]) == 1, 10)
        before = beacons[0].verdict("relay", "no_route")
        here.send(relay(1, 2, b"PILT"))
        eventually("no way to what it had", lambda: beacons[0].verdict("relay", "no_route") > before)
        both.socket.close()
        beacons[1].process.wait()
        beacons[1].process.returncode = 0  # as wanted
