"""Relay: order, batches, sizes, limits, who may send."""

import socket
import struct
import time

from .frame import SLOW, equal, scenario, shown, true, within
from .wire import A, B, UDP_SEGMENT, Node, delivered, discover, relay

FREE = ("--relay-rate", "1000000/1000000", "--relay-ip-rate", "1000000/1000000")


def numbers(messages, sender):
    """The sequence numbers in delivered payloads, in order of arrival."""
    found = []
    for message in messages:
        equal(message[:5], delivered(sender), "head of a delivery")
        found.append(struct.unpack_from(">I", message, 5)[0])
    return found


def in_order(got, sent, what):
    true(got == sorted(got), "%s: out of order: %s" % (what, shown(got)))
    equal(len(got), len(set(got)), "%s: duplicates" % what)
    within(len(got), sent * 9 // 10, sent, "%s: arrived of %d" % (what, sent))


@scenario(shards=(1, 4))
def order_of_one_flow(case):
    with case.beacon(*FREE) as b:
        a, node = Node(b).register(A), Node(b).register(B)
        got = []
        for number in range(600):
            a.send(relay(A, B, struct.pack(">I", number) + bytes(number * 7 % 1200)))
            if number % 50 == 49:
                got += node.drain(0.01)
        in_order(numbers(got + node.drain(), A), 600, "one flow")


@scenario(shards=(1, 4))
def order_of_mixed_batches(case):
    """One segmented send holds relays for several destinations, and messages of other kinds."""
    with case.beacon(*FREE) as b:
        a = Node(b).register(A)
        nodes = {n: Node(b).register(n) for n in (11, 12, 13)}
        a.socket.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 409)
        count, rounds, got = 0, 5 if SLOW else 20, {n: [] for n in nodes}
        for _ in range(rounds):
            batch = b""
            for step in range(30):
                dest = (11, 12, 13)[step * step % 3] if step % 10 else 99
                batch += relay(A, dest, struct.pack(">I", count) + bytes(396))
                count += 1
            a.send(batch + discover(A))  # the last segment may be shorter
            a.receive(what="the reply to the last segment of a batch")
            for number, node in nodes.items():
                got[number] += node.drain(0.01)
        sent = {11: 9 * rounds, 12: 18 * rounds, 13: 0}
        for number, node in nodes.items():
            in_order(numbers(got[number] + node.drain(0.05), A), sent[number], "to %d" % number)
        b.counts("relay", "no_route", 3 * rounds)


@scenario(shards=(4,))
def order_of_racing_batches(case):
    """Segmented sends back to back, each beginning with another destination: however a beacon spreads
    them over its shards, what goes to one destination must not be overtaken."""
    with case.beacon(*FREE) as b:
        a = Node(b).register(A)
        nodes = {n: Node(b).register(n) for n in (21, 22, 23, 24, 25)}
        ids, per_batch, batches = list(nodes), 30, 40 if SLOW else 200
        a.socket.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 109)
        for node in nodes.values():
            node.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        got, count = {n: [] for n in nodes}, 0
        for number in range(batches):
            batch = b""
            for step in range(per_batch):
                batch += relay(A, ids[(number + step) % len(ids)], struct.pack(">I", count) + bytes(96))
                count += 1
            a.send(batch)
            if number % 20 == 19:  # a buffer's worth; the batches in between race
                for node_id, node in nodes.items():
                    got[node_id] += node.drain(0.02)
        for node_id, node in nodes.items():
            in_order(numbers(got[node_id] + node.drain(0.1), A), count // len(ids), "to %d" % node_id)


@scenario(shards=(1, 4))
def unequal_sizes_keep_their_bytes(case):
    """Grouping for the kernel must not change what arrives: each size, each byte."""
    with case.beacon(*FREE) as b:
        a, node = Node(b).register(A), Node(b).register(B)
        sizes = [0, 1, 2, 100, 100, 100, 99, 100, 1223, 1224, 1223, 1300, 1300, 1, 0, 0, 1472, 1400, 1400, 1399]
        payloads = [bytes((n * 31 + i) % 256 for i in range(size)) for n, size in enumerate(sizes)]
        for payload in payloads:
            a.send(relay(A, B, payload))
        for payload in payloads:
            node.expect(delivered(A, payload), "payload of %d bytes" % len(payload))


@scenario()
def largest_payloads(case):
    with case.beacon(*FREE, addr="[::]:0") as b:
        for ip, (sender, dest) in (("127.0.0.1", (A, B)), ("::1", (A + 1, B + 1))):
            a, node = (Node(b, ip, to=b.udp_at(ip)).register(n) for n in (sender, dest))
            for size in (1500, 9000, 65000, 65498):
                payload = bytes(i * 13 % 251 for i in range(size))
                a.send(relay(sender, dest, payload))
                node.expect(delivered(sender, payload), "%d bytes over %s" % (size, ip))


@scenario(shards=(1, 4))
def unknown_destination_is_silent(case):
    with case.beacon() as b:
        a = Node(b).register(A)
        for dest in (B, 0, 0xFFFFFFFF):
            a.silent(relay(A, dest, b"PILPx"), seconds=0.02, what="a relay to nobody")
        b.counts("relay", "no_route", 3)


@scenario(shards=(1, 4))
def relay_to_itself(case):
    with case.beacon() as b:
        a = Node(b).register(A)
        a.send(relay(A, A, b"PILPx"))
        a.expect(delivered(A, b"PILPx"), "own relay")


@scenario()
def limit_per_source(case):
    """The budget is of the sending socket, counted, and nobody else's."""
    with case.beacon("--relay-rate", "2/5") as b:
        a, other, node = Node(b).register(A), Node(b).register(77), Node(b).register(B)
        for _ in range(40):
            a.send(relay(A, B))
        got = node.drain()
        within(len(got), 5, 8, "relays within the budget")
        b.counts("relay", "rate_limited", 40 - len(got))
        other.send(relay(77, B, b"PILPx"))
        node.expect(delivered(77, b"PILPx"), "relay of another source")
        for _ in range(30):
            other.send(relay(77, 4711))
        b.counts("relay", "no_route", 30)
        other.send(relay(77, B, b"PILPy"))
        node.expect(delivered(77, b"PILPy"), "relays to nobody cost no budget")


@scenario()
def limit_per_address(case):
    """Many ports of one address share its budget."""
    with case.beacon("--relay-ip-rate", "2/10") as b:
        node = Node(b).register(B)
        for number in range(20):
            sender = Node(b, "127.0.0.5")
            for _ in range(2):
                sender.send(relay(number, B))
        got = node.drain()
        within(len(got), 10, 14, "relays within the address's budget")
        b.counts("relay", "address_rate_limited", 40 - len(got))


@scenario(shards=(1, 4))
def sender_is_free_by_default(case):
    with case.beacon() as b:
        a, node = Node(b).register(A), Node(b).register(B)
        a.send(relay(999, B, b"PILPx"))
        node.expect(delivered(999, b"PILPx"), "relay with a free sender id")
        b.counts("relay", "sender_mismatch", 1, outcome="forwarded")


@scenario(shards=(1, 4))
def strict_sender(case):
    with case.beacon("--strict-relay-source") as b:
        a, node = Node(b).register(A), Node(b).register(B)
        for sender, source in ((999, a), (B, a), (A, Node(b)), (0, a)):
            source.send(relay(sender, B, b"PILPx"))
        a.send(relay(A, B, b"PILPy"))
        node.expect(delivered(A, b"PILPy"), "the only honest relay")
        b.counts("relay", "sender_mismatch", 4, outcome="dropped")
        equal(node.drain(0.05), [], "more deliveries")


@scenario(io=("mmsg",), shards=(1,))
def relay_does_not_refresh(case):
    """Relaying keeps nobody registered: only Discover and PunchRequest do."""
    with case.beacon("--takeover-silence", "1s") as b:
        a, node = Node(b).register(A), Node(b).register(B)
        thief = Node(b, "127.0.0.2")
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            node.send(relay(B, A, b"PILPx"))
            a.receive(what="relay")
            time.sleep(0.1)
        thief.see(discover(B))
        b.counts("discover", "moved", 1)
