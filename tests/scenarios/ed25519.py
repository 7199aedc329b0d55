"""Ed25519 signing (RFC 8032, 5.1): enough to make punch grants. Slow and not constant-time."""

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
BASE_Y = 4 * pow(5, P - 2, P) % P


def base_x():
    xx = (BASE_Y * BASE_Y - 1) * pow(D * BASE_Y * BASE_Y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return P - x if x & 1 else x


BASE = (base_x(), BASE_Y, 1, base_x() * BASE_Y % P)


def add(a, b):
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    return ((f - e) * (h - g) % P, (h + g) * (f + e) % P, (h - g) * (h + g) % P, (f - e) * (f + e) % P)


def multiply(n):
    """n times the base point, encoded."""
    total, step = (0, 1, 1, 0), BASE
    while n:
        if n & 1:
            total = add(total, step)
        step, n = add(step, step), n >> 1
    scale = pow(total[2], P - 2, P)
    x, y = total[0] * scale % P, total[1] * scale % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def expand(secret):
    h = hashlib.sha512(secret).digest()
    a = int.from_bytes(h[:32], "little") & ((1 << 254) - 8) | 1 << 254
    return a, h[32:]


def public(secret):
    return multiply(expand(secret)[0])


def sign(secret, message):
    a, prefix = expand(secret)
    r = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % L
    point = multiply(r)
    k = int.from_bytes(hashlib.sha512(point + multiply(a) + message).digest(), "little") % L
    return point + ((r + k * a) % L).to_bytes(32, "little")
