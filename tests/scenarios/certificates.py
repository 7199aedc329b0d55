"""Certificates: how new ones are taken, and what happens to bad ones."""

import contextlib
import os
import shutil
import signal
import subprocess
import time

from . import lab
from .admin import CONFIG, NOBODY, Events, become_nobody, good, plain_at, secret_file, start_refused, told
from .beacon import run
from .frame import BUILD, Failure, equal, eventually, scenario, true, within
from .running import write
from .websock import Certificate, Stream, WsNode, keys_file
from .wire import A, SECRET1, Node, delivered, relay
from .wss import C, serving

ONE = ("mmsg",)  # nothing here depends on the I/O port
REFUSED = "certificate refused, the old one stays"


def served(b, name="localhost", listener="wss", space=None):
    """Serial and first name of the certificate that a client asking for that name gets."""
    s = Stream(b, listener, sni=name, space=space)
    raw = s.socket.getpeercert(binary_form=True)
    s.close()
    text = subprocess.run(["openssl", "x509", "-inform", "DER", "-noout", "-serial", "-subject"], input=raw,
                          capture_output=True, check=True).stdout.decode().split()
    return text[0], text[-1]


def serial(path):
    return subprocess.run(["openssl", "x509", "-in", path, "-noout", "-serial"], capture_output=True, text=True,
                          check=True).stdout.strip()


def taken(b, want, name="localhost", seconds=4.0):
    eventually("the certificate %s is served" % want, lambda: served(b, name)[0] == want, seconds)


FREE = ("--wss-handshake-rate", "0", "--admin", "127.0.0.1:0")


# --- taking new ones ---

@scenario(io=ONE)
def renewed_on_hup(case):
    own = Certificate()
    with serving(case, *FREE, certificate=own) as b:
        udp, ws = Node(b).register(C), WsNode(b, A, SECRET1)
        ws.fence()
        old = serial(own.cert)
        equal(served(b)[0], old, "the certificate at first")
        own.make(("localhost",), days=5)
        b.signal(signal.SIGHUP)
        b.wait_log("reloaded")
        equal(served(b)[0], serial(own.cert), "the certificate after HUP")
        udp.send(relay(C, A, b"old session"))
        ws.expect(delivered(C, b"old session"), "a session that began with the old one lives on")
        WsNode(b, C, bytes(range(32))).fence()
        within(b.metric("beacon_tls_certificate_not_after_timestamp_seconds") - time.time(),
               5 * 86400 - 120, 5 * 86400, "the metric is of the new one")
        true(told(plain_at(b), "status")["certificates"][0]["days_left"] in (4, 5), "so is the status")
        warning = [line["warning"] for line in b.lines if line.get("warning")]
        true(any("localhost" in w and "expire" in w for w in warning), "a warning that it ends soon: %s" % warning)
    own.close()


@scenario(io=ONE)
def renewed_by_its_files(case):
    """Nobody has to tell the beacon: written in place, or renamed over, certificate first or key first."""
    own, other = Certificate(), Certificate()
    with serving(case, *FREE, certificate=own) as b:
        ws, events = WsNode(b, A, SECRET1), Events(b)
        ws.fence()
        for how in ("in place", "renamed, key first"):
            other.make(("localhost",))
            pairs = [(other.cert, own.cert), (other.key, own.key)]
            for source, to in pairs if how == "in place" else pairs[::-1]:
                if how == "in place":
                    shutil.copyfile(source, to)
                else:
                    shutil.copy2(source, to + ".new")
                    os.replace(to + ".new", to)
            taken(b, serial(other.cert))
            events.wait("certificate", "new files taken")
            ws.fence()
        equal([line for line in b.lines if line.get("msg") == REFUSED], [], "refusals on the way")
    own.close(), other.close()


@scenario(io=ONE)
def renewed_by_symlinks(case):
    """As Kubernetes mounts secrets (..data is a link to a folder) and as certbot and lego keep live/: links are swapped."""
    own = Certificate()
    folder = own.folder.name

    def issue(name, kind="ec"):
        fresh = Certificate(kind=kind)
        os.mkdir(os.path.join(folder, name))
        for source, to in ((fresh.cert, "tls.crt"), (fresh.key, "tls.key")):
            shutil.copy2(source, os.path.join(folder, name, to))
        fresh.close()
        return serial(os.path.join(folder, name, "tls.crt"))

    def point(link, to):
        os.symlink(to, os.path.join(folder, link + ".new"))
        os.replace(os.path.join(folder, link + ".new"), os.path.join(folder, link))
    first = issue("..2026_1")
    point("..data", "..2026_1")
    for name in ("tls.crt", "tls.key"):
        point(name, "..data/" + name)
    own.cert, own.key = os.path.join(folder, "tls.crt"), os.path.join(folder, "tls.key")
    with serving(case, *FREE, certificate=own) as b:
        ws = WsNode(b, A, SECRET1)
        equal(served(b)[0], first, "the first one")
        second = issue("..2026_2", "rsa:2048")
        point("..data", "..2026_2")
        shutil.rmtree(os.path.join(folder, "..2026_1"))
        taken(b, second)
        ws.fence()
        third = issue("archive")  # certbot: a link for each file
        for name in ("tls.key", "tls.crt"):
            point(name, "archive/" + name)
        taken(b, third)
        equal(b.metric("beacon_tls_handshakes_total", result="failed"), 0, "failed handshakes")
        ws.fence()
    own.close()


@scenario(io=ONE)
def several_by_name(case):
    """Each name has its own; one is renewed, the others stay."""
    all_ = [Certificate(("first.example",)), Certificate(("second.example", "*.third.example")), Certificate(("fourth.example",))]
    keys = keys_file(all_[0].folder.name, {A: SECRET1})
    listen = ("--wss", "127.0.0.1:0", "--keys", keys, "--tls-cert", ", ".join(c.cert for c in all_),
              "--tls-key", ",".join(c.key for c in all_))
    with case.beacon(*listen, *FREE) as b:
        def names():
            return [served(b, name) for name in ("first.example", "second.example", "x.third.example", "fourth.example", "other")]
        before = names()
        equal([n for _, n in before], ["first.example", "second.example", "second.example", "fourth.example", "first.example"],
              "names by SNI")
        all_[1].make(("second.example", "*.third.example"), days=3)
        taken(b, serial(all_[1].cert), "second.example")
        after = names()
        equal([x == y for x, y in zip(before, after)], [True, False, False, True, True], "which have changed")
        equal(len(good(plain_at(b), "status").split("cert  ")), 4, "each has a line in the status")
        ends = {l["name"]: v for n, l, v in b.samples() if n == "beacon_tls_certificate_not_after_timestamp_seconds"}
        equal(sorted(ends), ["first.example", "fourth.example", "second.example"], "and a series")
        true(ends["second.example"] < ends["first.example"], "that of the renewed one is its own")
        write(all_[2].key, "garbage\n")
        os.chmod(all_[2].key, 0o600)
        b.wait_log(REFUSED, seconds=5)
        equal(names(), after, "one bad pair changes none")
    for c in all_:
        c.close()


@scenario(io=ONE, needs=("root", "ip"))
def admin_follows(case):
    """The admin interface beyond loopback has the same certificates."""
    space = case.lab.space("adm")
    lab.ip("-n", space, "address", "add", "11.1.0.1/32", "dev", "lo")
    own = Certificate()
    with case.beacon("--admin", "11.1.0.1:0", *own.flags(), space=space, env={"BEACON_ADMIN_TOKEN": "0123456789abcdef"}) as b:
        equal(served(b, listener="admin", space=space)[0], serial(own.cert), "its certificate")
        own.make(("localhost",))
        eventually("the new one", lambda: served(b, listener="admin", space=space)[0] == serial(own.cert), 4)
    own.close()


# --- bad ones ---

def faults(own, folder):
    """(what, words of the message, function that spoils the pair). Each gets a good pair."""
    other = Certificate()

    def put(path, text, mode=0o600):
        write(path, text)
        os.chmod(path, mode)

    def text_of(path):
        with open(path) as f:
            return f.read()

    def passphrase():
        subprocess.run(["openssl", "pkey", "-in", own.key, "-aes256", "-passout", "pass:secret", "-out", own.key + ".new"],
                       check=True, capture_output=True)
        os.replace(own.key + ".new", own.key)
    return (
        ("a key of another certificate", (own.key, "does not belong", own.cert), lambda: shutil.copy2(other.key, own.key)),
        ("garbage for a certificate", ("certificate " + own.cert, "PEM"), lambda: put(own.cert, "garbage\n")),
        ("garbage for a key", ("key " + own.key, "PEM"), lambda: put(own.key, "garbage\n")),
        ("an empty certificate", (own.cert, "PEM"), lambda: put(own.cert, "")),
        ("an empty key", (own.key, "PEM"), lambda: put(own.key, "")),
        ("half of a certificate", (own.cert,), lambda: put(own.cert, text_of(own.cert)[:300])),
        ("the two exchanged", (own.cert, "PEM"),
         lambda: (lambda c, k: (put(own.cert, k), put(own.key, c)))(text_of(own.cert), text_of(own.key))),
        ("a chain with a broken second", (own.cert, "number 2"),
         lambda: put(own.cert, text_of(own.cert) + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
        ("a key under a passphrase", (own.key, "passphrase"), passphrase),
        ("a key that everyone can read", (own.key, "mode 0644", "chmod o-rwx"), lambda: os.chmod(own.key, 0o644)),
        ("a folder for a key", (own.key, "regular file"), lambda: (os.unlink(own.key), os.mkdir(own.key))),
        ("a FIFO for a certificate", (own.cert, "regular file"), lambda: (os.unlink(own.cert), os.mkfifo(own.cert))),
        ("a key of 1024 bits", (own.key, "1024", "2048"), lambda: own.make(("localhost",), "rsa:1024")),
    )


def renew(own):
    for path in (own.cert, own.key):
        if os.path.isdir(path):
            os.rmdir(path)
        elif os.path.lexists(path):
            os.unlink(path)
    own.make(("localhost",))


@scenario(io=ONE)
def refused_at_the_start(case):
    """With a message that names the file; --check-config finds the same, and starts nothing."""
    own = Certificate()
    listen = ("--wss", "127.0.0.1:0", "--wss-first-use")
    table = faults(own, own.folder.name) + (
        ("no certificate", (own.cert, "No such file"), lambda: os.unlink(own.cert)),
        ("no key", (own.key, "No such file"), lambda: os.unlink(own.key)))
    for what, words, spoil in table:
        renew(own)
        spoil()
        for more in ((), ("--check-config",)):
            try:
                start_refused(*listen, *own.flags(), *more, words=words)
            except Failure as why:
                raise Failure("%s: %s" % (what, why)) from None
    renew(own)
    code, out, err = run(BUILD, *listen, *own.flags(), "--check-config")
    equal((code, out, err), (0, "configuration ok\n", ""), "--check-config of a good pair")
    for flags, words in (
            (listen, ("wss", "tls-cert")), (listen + own.flags()[:2], ("tls-cert", "key")),
            (listen + ("--tls-cert", own.cert + "," + own.cert, "--tls-key", own.key), ("2", "1")),
            (own.flags(), ("tls-cert", "not used"))):
        for more in ((), ("--check-config",)):
            start_refused(*flags, *more, words=words)
    own.close()


@scenario(io=ONE, needs=("root",))
def readable_by_its_user_only(case):
    """The service's user is not root and the key is root's: said with user, path and mode."""
    own = Certificate()
    folder = own.folder.name
    listen = ("--wss", "127.0.0.1:0", "--wss-first-use", *own.flags())
    shutil.copy(os.path.join(BUILD, "beacon"), folder)  # a build folder may be closed to others
    os.chmod(folder, 0o711)
    for more in ((), ("--check-config",)):
        code, out, err = as_nobody(folder, *listen, *more)
        equal((code, out), (CONFIG, ""), "exit code and stdout of nobody with root's key; stderr %r" % err)
        for word in ("nobody", own.key, "0600", "root"):
            true(word in err, "the message says %s: %r" % (word, err))
    os.chown(own.key, 0, NOBODY)
    os.chmod(own.key, 0o640)
    equal(as_nobody(folder, *listen, "--check-config")[0], 0, "a key that its group may read")
    os.mkdir(os.path.join(folder, "live"), 0o700)  # as certbot makes it
    for path in (own.cert, own.key):
        shutil.move(path, os.path.join(folder, "live"))
        os.symlink(os.path.join("live", os.path.basename(path)), path)
    code, _, err = as_nobody(folder, *listen)
    equal(code, CONFIG, "exit code with a closed folder behind the link; stderr %r" % err)
    for word in ("nobody", own.cert, "link"):
        true(word in err, "the message says %s: %r" % (word, err))
    keys = secret_file(folder, "1 %s\n" % ("A" * 43 + "="), "keys")
    os.chmod(os.path.join(folder, "live"), 0o711)
    code, _, err = as_nobody(folder, *listen, "--keys", keys)
    equal(code, CONFIG, "exit code with a keys file of root; stderr %r" % err)
    true(keys in err and "Permission denied" in err, "the message names it: %r" % err)
    own.close()


def as_nobody(folder, *flags):
    done = subprocess.run([os.path.join(folder, "beacon"), "--addr", "127.0.0.1:0", "--max-nodes", "1024", *flags],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, preexec_fn=become_nobody, timeout=10,
                          cwd="/")
    return done.returncode, done.stdout, done.stderr


def reload(b, message, what):
    """The line that the log has of it."""
    seen = len(b.lines)
    b.signal(signal.SIGHUP)
    return eventually("the log line %r %s" % (message, what),
                      lambda: [line for line in b.lines[seen:] if line.get("msg") == message])[0]


@scenario(io=ONE)
def a_bad_one_changes_nothing(case):
    """The old pair is served on, the log and an event say why; a good pair is then taken at once."""
    own = Certificate()
    with serving(case, *FREE, certificate=own) as b:
        ws, events = WsNode(b, A, SECRET1), Events(b)
        now = serial(own.cert)
        for what, words, spoil in faults(own, own.folder.name):
            if what == "a key of 1024 bits":
                continue  # a whole second longer, and nothing new
            spoil()
            time.sleep(0.12)  # the log takes ten lines of a kind a second
            refused = reload(b, "reload refused, the old configuration stays", "after " + what)
            for word in words:
                true(word in refused["error"], "%s: the log says %r: %s" % (what, word, refused))
            equal(served(b)[0], now, "the certificate after %s" % what)
            renew(own)
            reload(b, "reloaded", "after the repair of " + what)
            now = serial(own.cert)
            equal(served(b)[0], now, "the certificate after the repair of %s" % what)
        ws.fence()
        for what, words, _ in faults(own, own.folder.name)[:2]:
            text = events.wait("reload", words[0])[1]["text"]
            true(all(word in text for word in words[:2]), "an event says it of %s, too: %s" % (what, text))
        equal(b.metric("beacon_config_last_reload_successful"), 1, "in the end")
    own.close()


@scenario(io=ONE)
def a_bad_one_by_its_files(case):
    """Found without a signal: said once, and not again each second."""
    own = Certificate()
    with serving(case, *FREE, certificate=own) as b:
        events, now = Events(b), serial(own.cert)
        stray = Certificate()
        shutil.copy2(stray.key, own.key)
        line = b.wait_log(REFUSED, seconds=5)
        true("does not belong" in line["error"] and own.key in line["error"], "the log says why: %s" % line)
        true("does not belong" in events.wait("certificate", "refused")[1]["text"], "so does an event")
        equal(served(b)[0], now, "the old one is served")
        time.sleep(2.2)
        equal(sum(line.get("msg") == REFUSED for line in b.lines), 1, "how often it was said")
        shutil.copy2(stray.cert, own.cert)
        taken(b, serial(stray.cert))
        stray.close()
    own.close()


@scenario(io=ONE)
def a_missing_file_changes_nothing(case):
    own = Certificate()
    with serving(case, *FREE, certificate=own) as b:
        now = serial(own.cert)
        os.unlink(own.key)
        time.sleep(2.2)
        equal(served(b)[0], now, "the certificate without its key's file")
        b.signal(signal.SIGHUP)
        line = b.wait_log("reload refused, the old configuration stays")
        true(own.key in line["error"] and "No such file" in line["error"], "HUP says it: %s" % line)
        equal(served(b)[0], now, "the certificate after HUP")
        os.unlink(own.cert)
        own.make(("localhost",))
        taken(b, serial(own.cert))
    own.close()


def expire(own):
    """The same pair, but of the year 2020: only openssl ca signs for the past."""
    folder, old = own.folder.name, own.cert + ".old"
    secret_file(folder, "", "database")
    secret_file(folder, "[ca]\ndefault_ca = own\n[own]\ndatabase = %s/database\nnew_certs_dir = %s\nrand_serial = yes\n"
                "default_md = sha256\npolicy = names\n[names]\ncommonName = supplied\n" % (folder, folder), "ca.conf")
    for command in (["req", "-new", "-key", own.key, "-subj", "/CN=localhost", "-out", folder + "/csr"],
                    ["ca", "-batch", "-config", folder + "/ca.conf", "-selfsign", "-keyfile", own.key, "-in", folder + "/csr",
                     "-notext", "-out", old, "-startdate", "20200101000000Z", "-enddate", "20200201000000Z"]):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    os.replace(old, own.cert)


@scenario(io=ONE)
def an_expired_one_warns(case):
    """A node that does not look at dates is still served; the operator hears of it."""
    own = Certificate()
    expire(own)
    with serving(case, *FREE, certificate=own) as b:
        true("expired on" in b.wait_log("certificate", level="warn")["warning"], "the warning")
        WsNode(b, A, SECRET1).fence()
        true(told(plain_at(b), "status")["certificates"][0]["days_left"] < 0, "days left")
        true(b.metric("beacon_tls_certificate_not_after_timestamp_seconds") < time.time(), "the metric")
        true(", expired" in good(plain_at(b), "status"), "the text")
        equal(b.get("/readyz")[0], 200, "no reason to send all traffic away")
    code, out, err = run(BUILD, "--wss", "127.0.0.1:0", "--wss-first-use", *own.flags(), "--check-config")
    equal((code, out), (0, "configuration ok\n"), "--check-config")
    true("expired on" in err, "it warns, too: %r" % err)
    own.close()


# --- without ---

@scenario(io=ONE)
def made_for_development(case):
    """--dev makes a certificate of its own, another each time, and keeps it in memory only."""
    serials = []
    for _ in range(2):
        with case.beacon("--dev", "--wss", "127.0.0.1:0", "--admin", "127.0.0.1:0") as b:
            serials.append(served(b))
            b.wait_log("self-made certificate: clients must not check it")
            WsNode(b, A, SECRET1).fence()
            equal([c["name"] for c in told(plain_at(b), "status")["certificates"]], ["localhost"], "in the status")
    true(serials[0][0] != serials[1][0], "another one each time: %s" % serials)
    own = Certificate(("mine.example",))
    with case.beacon("--dev", "--wss", "127.0.0.1:0", "--admin", "127.0.0.1:0", *own.flags()) as b:
        equal(served(b)[1], "mine.example", "one that was given is used with --dev, too")
    own.close()


def listening(pid, space=None):
    """Ports on which that process listens on TCP."""
    inodes = set()
    for fd in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(OSError):
            target = os.readlink("/proc/%d/fd/%s" % (pid, fd))
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        with open("/proc/%d/net/%s" % (pid, table)) as f:
            for fields in (line.split() for line in f.readlines()[1:]):
                if fields[3] == "0A" and fields[9] in inodes:
                    found.append(int(fields[1].rsplit(":", 1)[1], 16))
    return sorted(found)


@scenario(io=ONE)
def nothing_in_clear(case):
    """Only what was asked for listens, and what is to speak TLS says nothing to those who do not."""
    own = Certificate()
    with serving(case, certificate=own) as b:
        equal(listening(b.process.pid), sorted(at[1] for name in ("health", "metrics", "wss") for at in b.at[name]),
              "the listening ports")
        for first in (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n\r\n", b"\r\n" * 9, b"\x00" * 64):
            s = Stream(b, "wss", tls=False, first=first)
            true(s.ended(8), "the connection ends after %r" % first)
            true(b"HTTP" not in s.input and len(s.input) <= 7, "nothing but a TLS alert: %r" % s.input)
        own.make(("localhost",))
        write(own.key, "garbage\n")
        b.signal(signal.SIGHUP)
        b.wait_log("reload refused, the old configuration stays")
        true(Stream(b, "wss", tls=False, first=b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").ended(8), "after a failed reload, too")
    with case.beacon(health=None, metrics=None, checks=False) as b:
        equal(listening(b.process.pid), [], "without listeners")
    own.close()
