"""Punch requests: both sides told, silence on refusal, grants, budgets."""

import time

from .frame import equal, scenario, within
from .wire import (A, B, KEY1, KEY2, SECRET1, SECRET2, Node, address, discover, grant, punch, relay, unix_now)


def told(requester, target):
    requester.expect(address(4, target.at), "command to the requester")
    target.expect(address(4, requester.at), "command to the target")


@scenario(shards=(1, 4))
def both_sides(case):
    with case.beacon() as b:
        a, node = Node(b), Node(b).register(B)
        a.send(punch(A, B))  # registers its sender
        told(a, node)
        node.send(punch(B, A))
        told(node, a)
        node.send(relay(B, A, b"PILPx"))
        equal(a.receive(), b"\x06" + B.to_bytes(4, "big") + b"PILPx", "relay to a node known by its punch")
        b.counts("punch", "commanded", 2)


@scenario(shards=(1, 4))
def unknown_target_registers_the_requester(case):
    with case.beacon() as b:
        a, node = Node(b), Node(b).register(B)
        a.silent(punch(A, 5555), what="a punch for nobody")
        node.send(relay(B, A, b"PILPx"))
        a.receive(what="relay to the requester")
        b.counts("punch", "unknown_target", 1)


@scenario()
def oneself(case):
    with case.beacon() as b:
        a = Node(b).register(A)
        a.send(punch(A, A))
        for _ in range(2):
            a.expect(address(4, a.at), "command that names the asker")


@scenario()
def requester_zero_is_refused(case):
    with case.beacon() as b:
        a, node = Node(b), Node(b).register(B)
        a.silent(punch(0, B), what="a punch by id 0")
        equal(node.drain(0.05), [], "what the target got")
        b.counts("punch", "requester_refused", 1)


@scenario(shards=(1, 4))
def trailer_is_ignored_without_enforcement(case):
    with case.beacon() as b:
        a, node = Node(b).register(A), Node(b).register(B)
        for trailer in (b"\0", bytes(71), bytes(72), bytes(500)):
            a.send(punch(A, B, trailer))
            told(a, node)


@scenario(shards=(1, 4))
def grants(case):
    """Signed by the target for this requester, alive, not too long-lived; each refusal is silent."""
    with case.beacon("--require-punch-token", "--verify-rate", "1000/1000", "--punch-pair-rate", "100/100") as b:
        a, node, keyless = Node(b).register(A), Node(b).register(B, KEY1), Node(b).register(77)
        good = grant(SECRET1, A, B, unix_now() + 30)
        refused = {
            "no grant": (b"", "grant_missing"),
            "71 bytes": (good[:71], "grant_missing"),
            "another's signature": (grant(SECRET2, A, B, unix_now() + 30), "grant_bad"),
            "for another requester": (grant(SECRET1, 77, B, unix_now() + 30), "grant_bad"),
            "for another target": (grant(SECRET1, A, 77, unix_now() + 30), "grant_bad"),
            "expired": (grant(SECRET1, A, B, unix_now() - 2), "grant_bad"),
            "far too long-lived": (grant(SECRET1, A, B, 1 << 62), "grant_bad"),
            "negative": (grant(SECRET1, A, B, -1), "grant_bad"),
            "a bit flipped": (good[:40] + bytes([good[40] ^ 1]) + good[41:], "grant_bad"),
        }
        for what, (trailer, _) in refused.items():
            a.silent(punch(A, B, trailer), seconds=0.01, what=what)
        equal(node.drain(0.05), [], "what the target got")
        for reason in ("grant_missing", "grant_bad"):
            b.counts("punch", reason, sum(why == reason for _, why in refused.values()))
        a.silent(punch(A, 77, good), what="a target without a key")
        b.counts("punch", "grant_no_key", 1)
        equal(keyless.drain(0.05), [], "what the target without a key got")

        a.send(punch(A, B, good + b"trailing bytes"))
        told(a, node)
        a.send(punch(A, B, good))  # a lost command is asked for again
        told(a, node)


@scenario(shards=(1, 4))
def grant_overheard(case):
    """Who overhears a grant cannot use it from another address, even when the requester's id is free."""
    with case.beacon("--require-punch-token", "--takeover-silence", "1s") as b:
        a, node, thief = Node(b).register(A), Node(b).register(B, KEY1), Node(b, "127.0.0.2")
        good = grant(SECRET1, A, B, unix_now() + 60)
        a.send(punch(A, B, good))
        told(a, node)
        time.sleep(2.2)  # now the id may be taken over, the grant may not
        thief.silent(punch(A, B, good), what="a replayed grant")
        equal(node.drain(0.05), [], "what the target got")
        b.counts("punch", "grant_replayed", 1)


@scenario()
def grant_lifetime(case):
    with case.beacon("--require-punch-token", "--grant-lifetime", "60s") as b:
        a, node = Node(b).register(A), Node(b).register(B, KEY1)
        a.silent(punch(A, B, grant(SECRET1, A, B, unix_now() + 90)), what="a grant longer than allowed")
        b.counts("punch", "grant_bad", 1)
        a.send(punch(A, B, grant(SECRET1, A, B, unix_now() + 50)))
        told(a, node)


@scenario(shards=(1, 4))
def first_key_stays(case):
    """A second key for a live id is not taken: grants go on with the first."""
    with case.beacon("--require-punch-token") as b:
        a, node = Node(b).register(A), Node(b).register(B, KEY1)
        node.register(B, KEY2)
        Node(b, "127.0.0.2").see(discover(B, KEY2))
        a.silent(punch(A, B, grant(SECRET2, A, B, unix_now() + 30)), what="a grant by the second key")
        a.send(punch(A, B, grant(SECRET1, A, B, unix_now() + 30)))
        told(a, node)


@scenario()
def whitelist_does_not_lift_grants(case):
    with case.beacon("--require-punch-token", "--punch-whitelist", "127.0.0.1") as b:
        a = Node(b).register(A)
        Node(b).register(B, KEY1)
        a.silent(punch(A, B), what="a whitelisted source without a grant")
        b.counts("punch", "grant_missing", 1)


@scenario()
def verify_budget(case):
    """Signatures are dear: bad ones spend a budget of their source, and honest punches go on elsewhere."""
    with case.beacon("--require-punch-token", "--verify-rate", "1/5") as b:
        a, node = Node(b).register(A), Node(b).register(B, KEY1)
        bad = grant(SECRET2, A, B, unix_now() + 30)
        for _ in range(40):
            a.send(punch(A, B, bad))
        a.silent(what="forged grants")
        done = b.verdict("punch", "grant_bad")
        within(done, 5, 7, "signatures verified")
        b.counts("punch", "verify_limited", 40 - done)
        other = Node(b, "127.0.0.2").register(78)
        other.send(punch(78, B, grant(SECRET1, 78, B, unix_now() + 30)))
        told(other, node)


@scenario(shards=(1, 4))
def pair_budget(case):
    """One pair cannot be asked for at any rate; another pair of the same node still can."""
    with case.beacon("--punch-pair-rate", "1/3") as b:
        a, node, third = Node(b).register(A), Node(b).register(B), Node(b).register(78)
        for _ in range(20):
            a.send(punch(A, B))
        a_got, node_got = a.drain(), node.drain(0.05)
        within(len(a_got), 3, 4, "commands to the requester")
        equal(len(node_got), len(a_got), "commands to the target")
        b.counts("punch", "pair_limited", 20 - len(a_got))
        a.send(punch(A, 78))
        told(a, third)


@scenario(shards=(1,))
def total_budget(case):
    with case.beacon("--punch-total", "1/4", "--punch-pair-rate", "0") as b:
        Node(b).register(B)
        a = Node(b).register(A)
        for _ in range(20):
            a.send(punch(A, B))
        got = len(a.drain())
        within(got, 2, 5, "commands within the shard's total")
        b.counts("punch", "total_limited", 20 - got)
