"""STUN on the beacon's port: requests made by hand, and the clients that Debian ships."""

import re
import struct
import subprocess

from .frame import equal, scenario, true
from .wire import Node, relay, stun, stun_attribute, stun_attributes, stun_mapped

RFC5769_V1 = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b1"
    "51263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf")
SMALLEST = bytes.fromhex("000100082112a442000102030405060708090a0b802800045b0ff6fc")


def check_success(node, request):
    """The answer is a success with our address and nothing that was not asked for."""
    answer = node.ask(request, "STUN answer")
    equal(answer[:2], b"\x01\x01", "type of the answer")
    equal(answer[4:20], request[4:20], "cookie and transaction id")
    found = stun_attributes(answer)
    asked = struct.pack(">HH", 0x8028, 4) in request
    equal(sorted(found), [0x0020, 0x8028] if asked else [0x0020], "attributes of the answer")
    equal(stun_mapped(answer, found[0x0020]), node.at, "mapped address")
    if asked:
        bare = answer[:-8]
        equal(stun(bare[20:], kind=0x0101, ident=bare[8:20], fingerprint=True), answer, "answer with FINGERPRINT")


@scenario(shards=(1, 4))
def binding(case):
    with case.beacon(addr="[::]:0") as b:
        for ip in ("127.0.0.1", "::1"):
            node = Node(b, ip, to=b.udp_at(ip))
            check_success(node, stun())
            check_success(node, stun(fingerprint=True))
            check_success(node, SMALLEST)
            check_success(node, RFC5769_V1)
            check_success(node, stun(stun_attribute(0x8022, b"a client") + stun_attribute(0xFFFE, bytes(7))))
            check_success(node, stun(stun_attribute(0x0003, bytes(4))))  # CHANGE-REQUEST that asks nothing
            check_success(node, stun(stun_attribute(0x0006, b"user:name") + stun_attribute(0x0008, bytes(20))))


@scenario()
def binding_of_rfc3489(case):
    """A client without the cookie: its 16 bytes come back, with MAPPED-ADDRESS."""
    with case.beacon() as b:
        node = Node(b)
        for attributes in (b"", stun_attribute(0x0003, bytes(4))):
            request = stun(attributes, ident=bytes(range(0x40, 0x50)), cookie=False)
            answer = node.ask(request)
            equal(answer[:2] + answer[4:20], b"\x01\x01" + request[4:20], "type and id")
            equal(stun_mapped(answer, stun_attributes(answer)[0x0001], xor=False), node.at, "MAPPED-ADDRESS")


@scenario()
def unknown_attributes(case):
    with case.beacon() as b:
        node = Node(b)
        cases = {
            (0x0026,): stun_attribute(0x0026, bytes(8)),
            (0x0003,): stun_attribute(0x0003, b"\0\0\0\x06"),
            (0x0027, 0x7FFF): stun_attribute(0x0027, bytes(4)) + stun_attribute(0x7FFF, b"x"),
        }
        for unknown, attributes in cases.items():
            request = stun(attributes, fingerprint=unknown == (0x0026,))
            answer = node.ask(request, "420")
            equal(answer[:2] + answer[4:20], b"\x01\x11" + request[4:20], "type and id")
            found = stun_attributes(answer)
            equal(found[0x0009][2:4], b"\x04\x14", "ERROR-CODE")
            equal(found[0x000A], struct.pack(">%dH" % len(unknown), *unknown), "UNKNOWN-ATTRIBUTES")
            equal(0x8028 in found, unknown == (0x0026,), "FINGERPRINT")
        many = stun(b"".join(stun_attribute(0x4000 + n, b"") for n in range(300)))
        true(len(node.ask(many)) < 128, "300 unknown attributes have a small answer")
        b.counts("stun", "unknown_attribute", 4)


@scenario(shards=(1, 4))
def silent_on_all_but_requests(case):
    with case.beacon() as b:
        node = Node(b)
        bad_print = stun(fingerprint=True)
        silent = {
            "indication": (stun(kind=0x0011), "indication"),
            "wrong FINGERPRINT": (bad_print[:-1] + bytes([bad_print[-1] ^ 1]), "bad_fingerprint"),
            "unknown method": (stun(kind=0x0003), "malformed"),
            "19 bytes": (stun()[:19], "malformed"),
            "length beyond the datagram": (b"\0\x01\0\x08" + stun()[4:], "malformed"),
            "length short of the datagram": (stun() + bytes(4), "malformed"),
            "length not a multiple of 4": (b"\0\x01\0\x02" + stun()[4:] + bytes(2), "malformed"),
            "attribute beyond the message": (stun(struct.pack(">HH", 0x8022, 8) + bytes(4)), "malformed"),
            "one zero byte": (b"\0", "malformed"),
            "reflected success": (stun(stun_attribute(0x0020, bytes(8)), kind=0x0101), "reflected"),
            "reflected error": (stun(kind=0x0111), "reflected"),
        }
        for what, (message, _) in silent.items():
            node.silent(message, seconds=0.01, what=what)
        for reason in {why for _, why in silent.values()}:
            b.counts("stun", reason, sum(why == reason for _, why in silent.values()))


@scenario(shards=(1, 4))
def reflected_response_registers_nobody(case):
    """A success response is 0x01 0x01 ...: read as a Discover it would store id 0x01000c21."""
    with case.beacon() as b:
        node = Node(b)
        message = stun(stun_attribute(0x0020, bytes(8)), kind=0x0101)
        node.silent(message, what="a reflected response")
        node.silent(relay(1, int.from_bytes(message[1:5], "big"), b"PILPx"), what="a relay to the id it spells")
        b.nodes(0, "nodes")


@scenario()
def other_messages_still_work_between(case):
    """STUN needs no registration and leaves none behind."""
    with case.beacon() as b:
        node = Node(b).register(5)
        check_success(node, stun())
        node.send(relay(5, 5, b"PILPx"))
        node.receive(what="relay after STUN")
        b.nodes(1, "nodes")


@scenario(needs=("turnutils_stunclient",))
def client_of_coturn(case):
    with case.beacon() as b:
        done = run_client("turnutils_stunclient", "-p", str(b.udp[1]), b.udp[0])
        mapped = re.findall(r"UDP reflexive addr: ([\d.]+):(\d+)", done)
        true(mapped and mapped[0][0] == "127.0.0.1", "turnutils_stunclient found its address: %r" % done)


@scenario(needs=("stun",))
def client_of_vovida(case):
    """Debian's stun-client: RFC 3489, no cookie, a CHANGE-REQUEST in every request."""
    with case.beacon() as b:
        done = run_client("stun", "%s:%d" % b.udp, "1", "-v")
        true(re.search(r"MappedAddress = 127\.0\.0\.1:\d+\n", done), "stun found its address: %r" % done)


def run_client(*words):
    """All that it printed. Exit codes say what kind of NAT it saw, so they are not judged here."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=10)
    return done.stdout
