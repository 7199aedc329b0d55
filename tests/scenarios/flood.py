"""Random and mutated datagrams by the ten thousand: nothing breaks, grows or is lost count of."""

import random

from .frame import SLOW, scenario, true
from .wire import A, B, KEY1, Node, delivered, discover, discover_ex, punch, relay, stun, stun_attribute

SEED = 20260101
COUNT = 4000 if SLOW else 30000


def mutated(chance, seeds):
    message = bytearray(chance.choice(seeds))
    for _ in range(chance.randrange(4)):
        what = chance.randrange(4)
        if what == 0 and message:
            message[chance.randrange(len(message))] ^= 1 << chance.randrange(8)
        elif what == 1:
            del message[chance.randrange(len(message) + 1):]
        elif what == 2:
            message += chance.randbytes(chance.randrange(40))
        elif message:
            at = chance.randrange(len(message))
            message[at:at + 1] = chance.choice((b"", b"\0\0", b"\xff\xff\xff\xff"))
    return bytes(message)


def storm(b, chance, count):
    seeds = [discover(A), discover(B, KEY1), discover_ex(77), punch(A, B), punch(A, B, bytes(72)),
             relay(A, B, b"PILP" * 20),
             relay(A, 99), stun(), stun(stun_attribute(0x26, b"")), stun(fingerprint=True), stun(cookie=False),
             stun(kind=0x101), b"", b"\x07\0\0\0\x01\xff\xff", bytes(1400)]
    senders = [Node(b, "127.0.0.%d" % n) for n in range(2, 10)]
    for number in range(count):
        random_bytes = number % 5 == 0
        message = chance.randbytes(chance.randrange(80)) if random_bytes else mutated(chance, seeds)
        chance.choice(senders).send(message)
        if number % 100 == 99:  # let it keep up, and empty our own buffers
            for node in senders:
                node.drain(0)
    for node in senders:
        node.close()


@scenario(shards=(1, 4))
def random_and_mutated(case):
    with case.beacon("--takeover-silence", "60s") as b:
        honest, peer = Node(b).register(500001), Node(b).register(500002)
        chance = random.Random(SEED)
        storm(b, chance, COUNT // 2)
        before = b.resident_kib()
        storm(b, chance, COUNT // 2)
        grown = b.resident_kib() - before
        if not SLOW:  # a sanitizer's own shadow grows
            true(grown < 2048, "memory grew by %d KiB (seed %d)" % (grown, SEED))
        honest.drain(0.05)
        peer.drain(0.05)
        honest.send(relay(500001, 500002, b"PILPx"))
        peer.expect(delivered(500001, b"PILPx"), "relay after the flood (seed %d)" % SEED)
        total = b.metric("beacon_received_packets_total")
        dropped = b.metric("beacon_kernel_dropped_packets_total")
        true(total + dropped >= COUNT, "the flood arrived: %d received, %d dropped by the kernel" % (total, dropped))
