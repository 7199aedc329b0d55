"""Other addresses than loopback: a beacon and its nodes in namespaces of their own.

    beacon --- veth --- nodes      11.1.0.1/16, 10.1.0.1/16, 2a00:1::1/32 | 11.1.x.y, 10.1.x.y, 2a00:1:...
"""

import socket
import time

from .frame import equal, scenario, true, within
from .lab import ip
from .wire import (A, B, KEY1, SECRET1, UDP_SEGMENT, Node, address, delivered, discover, grant, punch, relay, stun, unix_now)

PUBLIC, PRIVATE, PUBLIC6 = "11.1.0.1", "10.1.0.1", "2a00:1::1"
ROOT = ("root", "ip")


def two_hosts(case, nodes):
    """Namespaces of the beacon and of the nodes, which have these addresses."""
    lab = case.lab
    served, clients = lab.space("b"), lab.space("n")
    length = lambda address: "/32" if ":" in address else "/8"
    lab.link(served, [own + length(own) for own in (PUBLIC, PRIVATE, PUBLIC6)],
             clients, [node + length(node) for node in nodes])
    return served, clients


def asker(b, clients, to=PUBLIC):
    return lambda ip, number=0: Node(b, ip, space=clients, to=b.udp_at(to), port=number)


@scenario(needs=ROOT)
def reply_budget(case):
    """An address that asks too fast is no longer answered, its /32 neighbours are."""
    served, clients = two_hosts(case, ["11.1.5.1", "11.1.5.2"])
    with case.beacon("--reply-rate", "1/10", addr="[::]:0", space=served) as b:
        node = asker(b, clients)
        loud, calm = node("11.1.5.1"), node("11.1.5.2")
        for number in range(60):
            loud.send(discover(1000) if number % 2 else stun())
        got = len(loud.drain())
        within(got, 10, 12, "answers to the loud one")
        true(b.verdict("discover", "reply_limited") + b.verdict("stun", "reply_limited") == 60 - got, "the rest counts")
        calm.register(5)
        calm.send(relay(5, 1000, b"PILPx"))
        equal(loud.receive(what="relay"), delivered(5, b"PILPx"), "a limited Discover still registers")


@scenario(needs=ROOT)
def reply_budget_of_a_network(case):
    """Many addresses of one /24 share 32 times the budget of one: a spoofer cannot use them all."""
    ips = ["11.1.6.%d" % n for n in range(1, 81)]
    served, clients = two_hosts(case, ips)
    with case.beacon("--reply-rate", "1/1", addr="[::]:0", space=served) as b:
        nodes = [asker(b, clients)(ip) for ip in ips]
        for node in nodes:
            node.send(discover(0))
        got = sum(len(node.drain(0.01)) for node in nodes)
        within(got, 32, 60, "answers to 80 addresses of a /24")


@scenario(needs=ROOT)
def reply_budget_ipv6(case):
    ips = ["2a00:1:0:5::%x" % n for n in range(1, 21)] + ["2a00:1:9:9::1"]
    served, clients = two_hosts(case, ips)
    with case.beacon("--reply-rate", "1/2", addr="[::]:0", space=served) as b:
        nodes = [asker(b, clients, PUBLIC6)(ip) for ip in ips]
        for node in nodes[:-1]:
            node.send(discover(0))
        got = 0
        end = time.monotonic() + 5  # its host looks for each neighbour before it can send
        while got < 4 and time.monotonic() < end:
            got += sum(len(node.drain(0.01)) for node in nodes[:-1])
        got += sum(len(node.drain(0.01)) for node in nodes[:-1])
        within(got, 4, 6, "answers to 20 addresses of a /64")
        nodes[-1].see(discover(0), "answer to another network")


@scenario(needs=ROOT)
def punch_budget_per_source(case):
    served, clients = two_hosts(case, ["11.1.7.1", "11.1.8.1", "11.1.9.1"])
    flags = ("--punch-rate", "1/5", "--punch-pair-rate", "0", "--punch-victim-rate", "0")
    with case.beacon(*flags, addr="[::]:0", space=served) as b:
        node = asker(b, clients)
        loud, calm, target = node("11.1.7.1").register(1), node("11.1.8.1").register(2), node("11.1.9.1").register(3)
        for _ in range(30):
            loud.send(punch(1, 3))
        got = len(loud.drain())
        within(got, 5, 6, "commands to the loud one")
        equal(len(target.drain(0.05)), got, "commands to its target")
        b.counts("punch", "rate_limited", 30 - got)
        for _ in range(30):
            loud.send(punch(1, 4711))  # nobody: such requests spend nothing, and are silent
        calm.send(punch(2, 3))
        calm.expect(address(4, target.at), "command to another source")


@scenario(needs=ROOT)
def punch_budget_of_the_named_address(case):
    """Many requesters cannot aim more commands than its budget at one address."""
    ips = ["11.1.10.%d" % n for n in range(1, 21)]
    served, clients = two_hosts(case, ips + ["11.1.11.1"])
    with case.beacon("--punch-victim-rate", "1/6", addr="[::]:0", space=served) as b:
        node = asker(b, clients)
        victim = node("11.1.11.1").register(999)
        for number, ip in enumerate(ips):
            node(ip).send(punch(number + 1, 999))
        got = len(victim.drain())
        within(got, 6, 8, "commands to the victim")
        b.counts("punch", "victim_limited", 20 - got)


@scenario(needs=ROOT)
def punch_whitelist(case):
    served, clients = two_hosts(case, ["11.1.7.1", "11.1.8.1", "11.1.9.1"])
    flags = ("--punch-rate", "1/2", "--punch-victim-rate", "1/2", "--punch-pair-rate", "1/2",
             "--punch-whitelist", "11.1.7.1, 2a00:1::77")
    with case.beacon(*flags, addr="[::]:0", space=served) as b:
        node = asker(b, clients)
        free, other, target = node("11.1.7.1").register(1), node("11.1.8.1").register(2), node("11.1.9.1").register(3)
        for _ in range(20):
            free.send(punch(1, 3))
        equal(len(free.drain()), 20, "commands to the whitelisted source")
        for _ in range(20):
            other.send(punch(2, 3))
        within(len(other.drain()), 0, 3, "commands to another source")
        target.drain(0.05)


@scenario(needs=ROOT)
def node_quota(case):
    """One address can fill its own share of the table only."""
    served, clients = two_hosts(case, ["11.1.7.1", "11.1.8.1", "2a00:1:7::1", "2a00:1:7::2"])
    flags = ("--nodes-per-ipv4", "5", "--nodes-per-ipv6-64", "3", "--reply-rate", "0")
    with case.beacon(*flags, addr="[::]:0", space=served) as b:
        greedy, other = asker(b, clients)("11.1.7.1"), asker(b, clients)("11.1.8.1")
        for number in range(1, 21):
            greedy.see(discover(number), "a reply although the quota is full")
        b.counts("discover", "registered", 5)
        b.counts("discover", "quota", 15)
        greedy.see(discover(1))
        b.counts("discover", "refreshed", 1)
        other.register(100)
        for number in range(200, 210):  # the quota is of the /64, whatever the address in it
            asker(b, clients, PUBLIC6)("2a00:1:7::%d" % (number % 2 + 1)).see(discover(number))
        b.counts("discover", "registered", 5 + 1 + 3)


@scenario(needs=ROOT)
def private_sources(case):
    """auto: a private node only where it asked a private address of ours; yes and no are just that."""
    for choice, at_public, at_private in (("auto", False, True), ("yes", True, True), ("no", False, False)):
        case.lab.close()
        served, clients = two_hosts(case, ["10.1.5.1", "11.1.5.1"])
        with case.beacon("--allow-private", choice, addr="[::]:0", space=served) as b:
            asker(b, clients, PUBLIC)("10.1.5.1").see(discover(1))
            b.counts("discover", "registered", int(at_public))
            asker(b, clients, PRIVATE)("10.1.5.1").see(discover(2))
            b.counts("discover", "registered", at_public + at_private)
            b.counts("discover", "address_denied", 2 - at_public - at_private)
            asker(b, clients, PUBLIC)("11.1.5.1").see(discover(3))
            b.counts("discover", "registered", at_public + at_private + 1)


@scenario(needs=ROOT)
def answers_on_a_real_wire(case):
    """Two addresses of ours on one interface: the answer leaves by the one that was asked."""
    served, clients = two_hosts(case, ["10.1.5.1", "11.1.5.2"])
    with case.beacon("--allow-private", "yes", addr="[::]:0", space=served) as b:
        first = Node(b, "10.1.5.1", space=clients, to=b.udp_at(PRIVATE)).register(A)
        second = Node(b, "11.1.5.2", space=clients, to=b.udp_at(PUBLIC)).register(B)
        for size in (0, 100, 1200, 1400, 1463, 1464, 4200, 60000):
            payload = bytes(n % 253 for n in range(size))
            second.send(relay(B, A, payload))
            first.expect(delivered(B, payload), "relay of %d bytes, from the address the node asked" % size)


@scenario(needs=ROOT)
def grant_from_the_same_address_again(case):
    """A grant works again from its first user's address, with another port too; not from elsewhere."""
    served, clients = two_hosts(case, ["11.1.5.1", "11.1.6.1", "11.1.7.1"])
    with case.beacon("--require-punch-token", "--takeover-silence", "0", addr="[::]:0", space=served) as b:
        node = asker(b, clients)
        target = node("11.1.6.1")
        target.see(discover(B, KEY1))
        good = grant(SECRET1, A, B, unix_now() + 60)
        for _ in range(2):
            first = node("11.1.5.1")
            first.send(punch(A, B, good))
            first.expect(address(4, target.at), "command")
            target.expect(address(4, first.at), "command to the target")
        node("11.1.7.1").silent(punch(A, B, good), what="the grant from elsewhere")
        b.counts("punch", "grant_replayed", 1)


@scenario(shards=(4,), needs=ROOT)
def device_that_goes_away(case):
    """The network vanishes for a moment: send errors count, nothing stops."""
    served, clients = two_hosts(case, ["11.1.5.1", "11.1.6.1"])
    with case.beacon(addr="[::]:0", space=served) as b:
        node = asker(b, clients)
        first, second = node("11.1.5.1").register(A), node("11.1.6.1").register(B)
        lo = Node(b, "127.0.0.1", space=served, to=b.udp_at("127.0.0.1"))
        device = case.lab.prefix + "l%d" % case.lab.links
        ip("-n", served, "link", "set", device, "down")
        for _ in range(50):
            lo.send(relay(7, A, b"PILPx"))
        lo.silent(what="relays into a dead network")
        ip("-n", served, "link", "set", device, "up")
        ip("-n", served, "address", "replace", PUBLIC6 + "/32", "dev", device, "nodad")
        first.register(A)
        second.send(relay(B, A, b"PILPy"))
        first.expect(delivered(B, b"PILPy"), "relay when the network is back")
        true(b.metric("beacon_send_errors_total") >= 1, "send errors were counted")


@scenario(needs=ROOT)
def narrow_device(case):
    """A device that fits no full segment: a refused batch is sent again one by one, in fragments, from the
    address it was to leave from; from then on such datagrams are not joined any more."""
    served, clients = two_hosts(case, ["11.1.5.1", "11.1.6.1"])
    with case.beacon("--relay-rate", "0", addr="[::]:0", space=served) as b:
        node = asker(b, clients)
        target = node("11.1.6.1").register(B)
        local = Node(b, "127.0.0.1", space=served, to=b.udp_at("127.0.0.1"))
        local.socket.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1309)
        for space, device in ((served, case.lab.prefix + "l%d" % case.lab.links),
                              (clients, case.lab.prefix + "r%d" % case.lab.links)):
            ip("-n", space, "link", "set", device, "mtu", "1300")
        for round_number in range(2):
            local.send(b"".join(relay(7, B, bytes([n]) * 1300) for n in range(10)))
            for n in range(10):
                target.expect(delivered(7, bytes([n]) * 1300), "datagram %d of batch %d" % (n, round_number))
        equal(b.metric("beacon_send_errors_total"), 0, "datagrams refused in the end")
