"""Network namespaces of this run, and a kernel that refuses things.

Names carry a random prefix, so runs on one host do not meet. close() removes what was made; the
runner calls it after every scenario, failed or not.
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import struct
import subprocess
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000


def ip(*words):
    done = subprocess.run(("ip",) + words, capture_output=True, text=True)
    if done.returncode:
        raise OSError("ip %s: %s" % (" ".join(words), done.stderr.strip()))
    return done.stdout


def carried(space, device):
    """Waits until the kernel has noticed that the other end is up: it does so a little later, at times a
    second, and what was sent before that moment may be lost with the state it resets."""
    end = time.monotonic() + 10
    while True:
        link, = json.loads(ip("-j", "-n", space, "link", "show", "dev", device))
        if link["operstate"] == "UP":
            return
        if time.monotonic() > end:
            raise OSError("%s in %s has no carrier: %s" % (device, space, link))
        time.sleep(0.01)


class Lab:
    def __init__(self):
        self.prefix = "bt" + os.urandom(3).hex()
        self.spaces, self.links = [], 0

    def space(self, name):
        full = "%s-%s" % (self.prefix, name)
        ip("netns", "add", full)
        self.spaces.append(full)
        ip("-n", full, "link", "set", "lo", "up")
        return full

    def link(self, left, left_ips, right, right_ips):
        """A cable between two namespaces; addresses with prefix length."""
        self.links += 1
        ends = ["%s%s%d" % (self.prefix, side, self.links) for side in "lr"]
        ip("link", "add", ends[0], "netns", left, "type", "veth", "peer", "name", ends[1], "netns", right)
        for space, end, ips in ((left, ends[0], left_ips), (right, ends[1], right_ips)):
            for address in ips:
                nodad = ("nodad",) if ":" in address else ()
                ip("-n", space, "address", "add", address, "dev", end, *nodad)
            ip("-n", space, "link", "set", end, "up")
        for space, end in ((left, ends[0]), (right, ends[1])):
            carried(space, end)

    def sysctl(self, space, name, value):
        with inside(space), open("/proc/sys/net/" + name, "w") as f:
            f.write(value)

    def close(self):
        for name in self.spaces:
            subprocess.run(("ip", "netns", "del", name), capture_output=True)
        self.spaces = []


@contextlib.contextmanager
def inside(space):
    """Sockets and programs made meanwhile belong to that namespace (None: stay here)."""
    if space is None:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        with open("/run/netns/" + space) as there:
            enter(there.fileno())
        try:
            yield
        finally:
            enter(home)
    finally:
        os.close(home)


def enter(fd):
    if LIBC.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


# x86-64 system calls, for refusals below.
SOCKET, IO_URING_SETUP = 41, 425


def refuse_call(number, error, first_argument=None):
    """For preexec_fn: that system call fails with `error` (only with this first argument)."""
    load = lambda at: (0x20, 0, 0, at)  # BPF_LD | BPF_W | BPF_ABS into struct seccomp_data
    test = lambda value, skip: (0x15, 0, skip, value)  # BPF_JMP | BPF_JEQ
    give = lambda value: (0x06, 0, 0, value)
    program = [load(0), test(number, 1 if first_argument is None else 3)]
    if first_argument is not None:
        program += [load(16), test(first_argument, 1)]
    program += [give(0x00050000 | error), give(0x7FFF0000)]

    def install():
        code = b"".join(struct.pack("HBBI", *line) for line in program)
        buffer = ctypes.create_string_buffer(code)
        head = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(buffer))
        if LIBC.prctl(38, 1, 0, 0, 0) or LIBC.prctl(22, 2, head, 0, 0):  # no new privileges; filter
            raise OSError(ctypes.get_errno(), "seccomp")
    return install


def no_io_uring():
    return refuse_call(IO_URING_SETUP, errno.EPERM)


def no_ipv6():
    return refuse_call(SOCKET, errno.EAFNOSUPPORT, 10)


def few_files(count):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
