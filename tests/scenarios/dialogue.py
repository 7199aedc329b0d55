"""The golden dialogue of the wire: registration, replies, marks, malformed messages."""

import socket
import time

from .frame import equal, eventually, scenario, true
from .wire import (A, B, KEY1, KEY2, Node, address, delivered, delivered_dest, discover, discover_ex, punch,
                   relay)

HELLO = b"PILPhello"


def golden(case, addr, ip):
    """V1 to V17, M1 to M5 with their exact bytes; addresses in answers are those of our sockets."""
    with case.beacon(addr=addr) as b:
        a, peer = Node(b, ip), Node(b, ip)
        equal(a.ask(bytes.fromhex("010001e240")), address(2, a.at), "V1 answered as V4/V5")
        equal(a.ask(bytes.fromhex("0100000000")), address(2, a.at), "V2, id 0")
        equal(peer.ask(bytes.fromhex("010009fbf1") + KEY1), address(2, peer.at), "V3, with key")

        a.send(bytes.fromhex("030001e2400009fbf1"))  # V6
        a.expect(address(4, peer.at), "V8/V9 to the requester")
        peer.expect(address(4, a.at), "V8/V9 to the target")

        v10 = bytes.fromhex("050001e2400009fbf150494c5068656c6c6f")
        a.send(v10)
        peer.expect(bytes.fromhex("060001e24050494c5068656c6c6f"), "V11, plain endpoint")
        equal(peer.ask(bytes.fromhex("080009fbf1")), address(2, peer.at), "V13")
        a.send(v10)
        peer.expect(bytes.fromhex("090001e2400009fbf150494c5068656c6c6f"), "V12, dest-carrying endpoint")
        peer.register(B)
        a.send(bytes.fromhex("050001e2400009fbf1"))
        peer.expect(bytes.fromhex("060001e240"), "M4, empty payload")
        equal(a.ask(bytes.fromhex("010001e240cb0071071f90")), address(2, a.at), "M5, stray bytes")

        silent = {
            "V14, Sync without nodes": "07000000070000",
            "V15, Sync": "07000000070003000000010001e240ffffffff",
            "V16, Notify": "0a01",
            "V17, PILP": "50494c50",
            "M1, short Discover": "010001e2",
            "M2, short Relay": "050001e2400009fb",
            "M3, Sync that lies": "0700000001ffff00000064000000c8",
            "DiscoverReply": "0204cb0071079c40",
            "PunchCommand": "0404c63364090fa0",
            "RelayDeliver": "060001e24050494c5068656c6c6f",
            "RelayDeliverDest": "090001e2400009fbf150494c5068656c6c6f",
            "short PunchRequest": "030001e2400009fb",
            "short DiscoverEx": "080009fb",
            "type 0x0b": "0b0001e240",
            "type 0x10": "100001e240",
            "type 0xff": "ff" * 64,
        }
        for what, text in silent.items():
            a.silent(bytes.fromhex(text), seconds=0.01, what=what)
        a.silent(b"", what="an empty datagram")
        equal(peer.drain(0.05), [], "what the other node got meanwhile")
        b.counts("discover", "registered", 2)
        b.counts("punch", "commanded", 1)
        b.counts("relay", "", 3)
        b.counts("other", "for_nodes", 5)
        b.counts("other", "malformed", 4)
        b.counts("other", "unknown_type", 4)
        b.counts("other", "empty", 1)
        b.counts("sync", "unsupported", 3)


@scenario(shards=(1, 4))
def golden_ipv4(case):
    golden(case, "127.0.0.1:0", "127.0.0.1")


@scenario(shards=(1, 4))
def golden_ipv6(case):
    golden(case, "[::1]:0", "::1")


@scenario(shards=(1, 4))
def both_families_on_one_wildcard(case):
    """IPv4 nodes of a dual-stack socket are seen as IPv4, and reach IPv6 nodes."""
    with case.beacon(addr="[::]:0") as b:
        four = Node(b, "127.0.0.1", to=b.udp_at("127.0.0.1")).register(1)
        six = Node(b, "::1", to=b.udp_at("::1")).register(2)
        four.send(relay(1, 2, HELLO))
        six.expect(delivered(1, HELLO), "relay from IPv4 to IPv6")
        six.send(relay(2, 1, HELLO))
        four.expect(delivered(2, HELLO), "relay from IPv6 to IPv4")
        four.send(punch(1, 2))
        four.expect(address(4, six.at), "command with an IPv6 address")
        six.expect(address(4, four.at), "command with an IPv4 address")
        b.nodes(1, "IPv4 nodes", transport="udp4")
        b.nodes(1, "IPv6 nodes", transport="udp6")


@scenario()
def answers_from_the_address_asked(case):
    """Daemons believe only the exact address they sent to; so also relays come from there."""
    for wildcard in ("0.0.0.0:0", "[::]:0"):
        with case.beacon(addr=wildcard) as b:
            nodes = [Node(b, "127.0.0.9", to=b.udp_at(ip)) for ip in ("127.0.0.2", "127.0.0.3")]
            for number, node in enumerate(nodes):
                node.register(number + 1)
            nodes[1].send(relay(2, 1, HELLO))
            nodes[0].expect(delivered(2, HELLO), "relay to a node registered at 127.0.0.2")
            nodes[0].send(punch(1, 2))
            for node, other in (nodes, nodes[::-1]):
                node.expect(address(4, other.at), "command from the registered address")


@scenario()
def id_zero_is_answered_not_stored(case):
    with case.beacon() as b:
        a, other = Node(b).register(A), Node(b)
        for kind in (1, 8):
            other.see(discover(0, kind=kind))
        other.see(discover(0, KEY1))
        a.silent(relay(A, 0, HELLO), what="a relay to id 0")
        a.silent(punch(A, 0), what="a punch for id 0")
        b.counts("relay", "no_route", 1)
        b.counts("discover", "id_zero", 5)  # three, and the fences
        b.nodes(1, "nodes")


@scenario()
def every_length_of_discover(case):
    with case.beacon() as b:
        node = Node(b)
        for size in (5, 6, 36, 37, 38, 81, 1200):
            node.see((discover(7) + KEY1 + bytes(1200))[:size], "Discover of %d bytes" % size)
        for size in range(1, 5):
            node.silent(discover(7)[:size], seconds=0.01, what="Discover of %d bytes" % size)
        b.counts("other", "malformed", 4)


@scenario(shards=(1, 4))
def dest_mark(case):
    """0x08 asks for 0x09, 0x01 from the same endpoint takes it back; nobody else can do either."""
    with case.beacon() as b:
        a, node, forger = Node(b).register(A), Node(b).register(B), Node(b, "127.0.0.2")
        forger.see(discover_ex(B))
        a.send(relay(A, B, HELLO))
        node.expect(delivered(A, HELLO), "still 0x06 after a forged 0x08")
        node.register(B, kind=8)
        a.send(relay(A, B, HELLO))
        node.expect(delivered_dest(A, B, HELLO), "0x09 after 0x08")
        forger.see(discover(B))
        a.send(relay(A, B, HELLO))
        node.expect(delivered_dest(A, B, HELLO), "still 0x09 after a forged 0x01")
        node.register(B)
        a.send(relay(A, B, HELLO))
        node.expect(delivered(A, HELLO), "0x06 after 0x01")
        equal(forger.drain(0.05), [], "what the forger got")
        b.counts("discover", "conflict", 2)


@scenario(shards=(1, 4))
def port_moves_at_once(case):
    """A NAT that gives another port: taken at once, without the 30 s of the original."""
    with case.beacon() as b:
        a, old = Node(b).register(A), Node(b).register(B)
        new = Node(b).register(B)
        a.send(relay(A, B, HELLO))
        new.expect(delivered(A, HELLO), "relay to the new port")
        newer = Node(b)
        newer.send(punch(B, A))
        newer.expect(address(4, a.at), "command to the moved requester")
        a.expect(address(4, newer.at), "its new port in the other command")
        equal(old.drain(0.05), [], "what the old port got")
        b.counts("discover", "moved", 1)


@scenario(shards=(1, 4))
def takeover_waits_for_silence(case):
    """Another address gets an id only when its holder has been silent; it learns its address anyway."""
    with case.beacon("--takeover-silence", "1s") as b:
        a, owner, thief = Node(b).register(A), Node(b).register(B), Node(b, "127.0.0.2")
        thief.see(discover(B, KEY2))
        thief.send(punch(B, A))
        a.send(relay(A, B, HELLO))
        owner.expect(delivered(A, HELLO), "relay to the owner")
        b.counts("punch", "requester_refused", 1)
        equal(thief.drain(0.05) + a.drain(0.05), [], "commands after a stolen punch")

        def taken():
            thief.see(discover(B))
            return b.verdict("discover", "moved") == 1
        eventually("takeover of a silent id", taken, seconds=4)
        a.send(relay(A, B, HELLO))
        thief.expect(delivered(A, HELLO), "relay to the new holder")
        owner.silent(what="the takeover")


@scenario(shards=(1,))
def owner_that_speaks_keeps_its_id(case):
    with case.beacon("--takeover-silence", "2s") as b:
        owner, thief = Node(b).register(B), Node(b, "127.0.0.2")
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            owner.register(B)
            thief.see(discover(B))
            time.sleep(0.25)
        equal(b.verdict("discover", "moved"), 0, "takeovers")
        true(b.verdict("discover", "conflict") >= 10, "the thief was refused each time")


@scenario(shards=(4,))
def daemon_recipe(case):
    """What a deployed daemon does, from its first probe to the relayed dial."""
    with case.beacon(addr="[::]:0") as b:
        probe = Node(b, to=b.udp_at("127.0.0.1"))
        probe.see(discover(0), "the start-up probe")
        probe.close()
        daemons = []
        for number in (70001, 70002):
            daemon = Node(b, to=b.udp_at("127.0.0.1"))
            daemon.see(discover(0), "own address, before the registry gave an id")
            daemons.append(daemon.register(number))
        first, second = daemons
        first.send(punch(70001, 70002))
        for here, there in (daemons, daemons[::-1]):
            here.expect(address(4, there.at), "PunchCommand")
        for here, there in (daemons, daemons[::-1]):
            for _ in range(3):
                here.socket.sendto(b"PILP", there.at)
        for node in daemons:
            got = [node.socket.recvfrom(100)[0] for _ in range(3)]
            equal(got, [b"PILP"] * 3, "punches of the other side")
        for frame in (b"PILK" + bytes(120), b"PILA" + bytes(300), b"PILS" + bytes(4200), b"PILT" + bytes(1200)):
            first.send(relay(70001, 70002, frame))
            second.expect(delivered(70001, frame), frame[:4].decode())
            second.send(relay(70002, 70001, frame[::-1]))
            first.expect(delivered(70002, frame[::-1]), "its answer")
        for node in daemons:
            for _ in range(3):  # recovery: several Discovers in a row, all answered
                node.register()
        b.counts("discover", "refreshed", 6)


@scenario(shards=(4,), needs=("root",))
def port_zero_and_own_address_are_refused(case):
    """A source that cannot be answered, and our own address, are dropped as what they are."""
    for addr in ("[::]:0", "127.0.0.1:0"):
        with case.beacon(addr=addr) as b, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
            ours = b.udp[1].to_bytes(2, "big")
            for port in (b"\0\0", ours):
                raw.sendto(port + ours + b"\x00\x0d\x00\x00" + discover(9), b.udp_at("127.0.0.1"))
            b.counts("other", "bad_source", 2)
            b.nodes(0, "nodes stored from there, with --addr %s" % addr)
