"""The node table's ends: full, filling, expiring."""

import time

from .frame import equal, eventually, scenario, true, within
from .wire import A, B, Node, discover, relay


@scenario(shards=(1, 4))
def full_table_evicts_and_answers(case):
    """More ids than rows: all are answered, none is lost count of, the newest can be reached."""
    with case.beacon("--max-nodes", "256", "--nursery-percent", "0") as b:
        node = Node(b)
        room = b.metric("beacon_nodes_capacity")
        within(room, 256, 700, "rows of a table for 256")
        for number in range(1, 1001):
            node.see(discover(number))
        new, full = b.verdict("discover", "registered"), b.verdict("discover", "table_full")
        equal(new + full, 1000, "new nodes, stored or refused")
        stored = new - b.metric("beacon_nodes_evicted_total")
        equal(stored, room, "new less evicted, in a full table")
        eventually("the gauge of nodes", lambda: b.metric("beacon_nodes") == stored)
        node.register(1000)
        node.send(relay(A, 1000, b"PILPx"))
        node.receive(what="relay to the newest node")


@scenario(shards=(1,))
def nursery(case):
    """When the table fills, a new id must come twice, a second apart; known ones are not touched."""
    with case.beacon("--max-nodes", "64", "--nursery-percent", "25") as b:
        node = Node(b)
        for number in range(1, 17):
            node.see(discover(number))
        b.counts("discover", "registered", 16)
        for _ in range(3):
            node.see(discover(1000))
        b.counts("discover", "nursery", 3)
        node.see(discover(1))
        b.counts("discover", "refreshed", 1)
        time.sleep(2.05)
        stranger = Node(b, "127.0.0.2")
        stranger.see(discover(1000))
        b.counts("discover", "nursery", 4)
        node.see(discover(1000))  # the stranger took its slot: it starts again
        time.sleep(2.05)
        node.see(discover(1000))
        b.counts("discover", "registered", 17)


@scenario(io=("uring",), shards=(1,))
def expiry(case):
    """A node silent for node-ttl is gone; one that speaks stays."""
    with case.beacon("--node-ttl", "10s") as b:
        silent, alive = Node(b).register(A), Node(b).register(B)
        for _ in range(3):
            time.sleep(2)
            alive.register(B)
        silent.send(relay(A, A, b"PILPx"))
        silent.receive(what="relay before the ttl has passed")

        def expired():
            alive.register(B)
            return b.metric("beacon_nodes_expired_total") == 1
        eventually("expiry", expired, seconds=12)
        b.nodes(1, "nodes")
        alive.silent(relay(B, A, b"PILPx"), what="a relay to an expired node")
        true(b.verdict("relay", "no_route") == 1, "it counts as unknown")
