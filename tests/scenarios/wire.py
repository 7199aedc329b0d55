"""The messages, and a node that speaks them.

Written from docs/PROTOCOL.md alone: sharing code with proto/ would hide a mistake made there.
"""

import ipaddress
import os
import socket
import struct
import time
import zlib

from . import ed25519, lab
from .frame import PATIENCE, SLOW, Failure, equal

COOKIE = 0x2112A442
A, B = 123456, 654321  # the node ids of the golden vectors

# RFC 8032, 7.1, tests 1 and 2.
SECRET1 = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
KEY1 = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
SECRET2 = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
KEY2 = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")


def discover(node, key=b"", kind=1):
    return struct.pack(">BI", kind, node) + key


def discover_ex(node, key=b""):
    return discover(node, key, kind=8)


def relay(sender, dest, payload=b""):
    return struct.pack(">BII", 5, sender, dest) + payload


def delivered(sender, payload=b""):
    return struct.pack(">BI", 6, sender) + payload


def delivered_dest(sender, dest, payload=b""):
    return struct.pack(">BII", 9, sender, dest) + payload


def punch(requester, target, grant=b""):
    return struct.pack(">BII", 3, requester, target) + grant


def grant(secret, requester, target, expiry):
    text = "punch-grant:%d:%d:%d" % (requester, target, expiry)
    return struct.pack(">q", expiry) + ed25519.sign(secret, text.encode())


def address(kind, at):
    """DiscoverReply (2) or PunchCommand (4) that names the socket address `at`."""
    ip = ipaddress.ip_address(at[0].split("%")[0]).packed
    return bytes([kind, len(ip)]) + ip + struct.pack(">H", at[1])


def stun_attribute(kind, value):
    return struct.pack(">HH", kind, len(value)) + value + bytes(-len(value) % 4)


def stun(attributes=b"", kind=1, ident=None, cookie=True, fingerprint=False):
    """A STUN message; `ident` is 12 bytes after the cookie, or all 16 of an RFC 3489 client."""
    ident = ident or os.urandom(12 if cookie else 16)
    head = struct.pack(">I", COOKIE) + ident if cookie else ident
    length = len(attributes) + (8 if fingerprint else 0)
    message = struct.pack(">HH", kind, length) + head + attributes
    if fingerprint:
        message += stun_attribute(0x8028, struct.pack(">I", zlib.crc32(message) ^ 0x5354554E))
    return message


def stun_attributes(message):
    """{type: value} of a message whose lengths are right."""
    kind, length = struct.unpack_from(">HH", message)
    equal(length, len(message) - 20, "length field of the STUN answer")
    found, at = {}, 20
    while at < len(message):
        name, size = struct.unpack_from(">HH", message, at)
        found[name] = message[at + 4:at + 4 + size]
        at += 4 + size + -size % 4
    equal(at, len(message), "end of the last STUN attribute")
    return found


def stun_mapped(message, value, xor=True):
    """The socket address in a (XOR-)MAPPED-ADDRESS value of `message`."""
    family, port = value[1], struct.unpack_from(">H", value, 2)[0]
    ip = value[4:]
    equal((family, len(ip)) in ((1, 4), (2, 16)), True, "family and length of the mapped address")
    if xor:
        port ^= COOKIE >> 16
        ip = bytes(a ^ b for a, b in zip(ip, message[4:20]))
    return str(ipaddress.ip_address(ip)), port


UDP_SEGMENT = 103  # linux/udp.h


class Node:
    """One UDP socket that talks to one beacon and believes nobody else."""

    def __init__(self, beacon, ip=None, port=0, node=None, space=None, to=None):
        self.to = to or beacon.udp
        self.node = node
        ip = ip or ("::1" if ":" in self.to[0] else "127.0.0.1")
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        with lab.inside(space):
            self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind((ip, port))
        self.at = self.socket.getsockname()[:2]
        beacon.keep(self.socket)

    def send(self, message):
        self.socket.sendto(message, self.to)

    def receive(self, seconds=PATIENCE, what="an answer"):
        self.socket.settimeout(seconds)
        try:
            message, source = self.socket.recvfrom(65535)
        except TimeoutError:
            raise Failure("%s did not arrive at %s:%d" % ((what,) + self.at)) from None
        equal(source[:2], self.to, "source of %s" % what)
        return message

    def ask(self, message, what="an answer"):
        self.send(message)
        return self.receive(what=what)

    def expect(self, want, what):
        equal(self.receive(what=what), want, what)

    def see(self, message, what="DiscoverReply"):
        """Asks with a Discover; the reply must name this socket."""
        equal(self.ask(message, what), address(2, self.at), what)

    def register(self, node=None, key=b"", kind=1):
        self.node = self.node if node is None else node
        self.see(discover(self.node, key, kind), "reply to Discover %d" % self.node)
        return self

    def silent(self, message=None, seconds=0.1, what="nothing"):
        """After `message` nothing comes but the reply to a Discover of id 0 sent behind it."""
        if message is not None:
            self.send(message)
        self.see(discover(0), "the fence behind %s" % what)
        got = self.drain(seconds)
        if got:
            raise Failure("wanted silence after %s, got %s" % (what, got[0][:60].hex()))

    def drain(self, seconds=0.6 if SLOW else 0.2):
        """Everything that arrives until it has been quiet for so long."""
        got = []
        while True:
            self.socket.settimeout(seconds)
            try:
                got.append(self.socket.recvfrom(65535)[0])
            except (TimeoutError, BlockingIOError):
                self.socket.settimeout(2)
                return got

    def close(self):
        self.socket.close()


def unix_now():
    return int(time.time())
