"""The operator's side: beaconctl, and the admin interface behind it."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import tempfile
import time

from . import lab
from .beacon import environment, run
from .frame import BUILD, SLOW, Failure, equal, eventually, scenario, true
from .running import write
from .websock import Certificate, Stream, WsNode, upgrade_fields
from .wire import A, SECRET1, Node, relay
from .wss import C, serving

ONE = ("mmsg",)  # nothing here depends on the I/O port
USAGE, UNAVAILABLE, NO_PERMISSION, CONFIG = 2, 69, 77, 78
CTL = os.path.join(BUILD, "beaconctl")
NOBODY = 65534
TOKEN = "0123456789abcdef-token"
PUBLIC = "11.1.0.1"
NOTIFY = b"\x0a\x01"


def plain_at(b):
    return "127.0.0.1:%d" % b.at["admin"][0][1]


def ctl(at, *words, space=None, env=None, preexec=None):
    """(exit code, stdout, stderr) of beaconctl; `at` None: its own default."""
    admin = ("--admin", at) if at else ()
    with lab.inside(space):
        done = subprocess.run([CTL, *admin, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              env=environment(env), preexec_fn=preexec, timeout=20)
    return done.returncode, done.stdout, done.stderr


def good(at, *words, **how):
    code, out, err = ctl(at, *words, **how)
    equal((code, err), (0, ""), "exit code and stderr of beaconctl %s" % " ".join(words))
    return out


def told(at, *words, **how):
    return json.loads(good(at, "--json", *words, **how))


def fails(at, want, text, *words, **how):
    """Ends with that code, says that text on stderr and nothing on stdout."""
    code, out, err = ctl(at, *words, **how)
    equal((code, out), (want, ""), "exit code and stdout of beaconctl %s; stderr %r" % (" ".join(words), err))
    true(text in err, "beaconctl %s says %r: %r" % (" ".join(words), text, err))
    true(len(err.splitlines()) <= 3, "its message is short: %r" % err)


def become_nobody():
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def secret_file(folder, text, name="token"):
    path = os.path.join(folder, name)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, 0o600)
    return path


def start_refused(*flags, code=CONFIG, words=(), env=None, preexec=None):
    """The beacon must not start, and say why in a line or two."""
    got, out, err = run(BUILD, "--addr", "127.0.0.1:0", "--max-nodes", "1024", *flags, env=env, preexec=preexec)
    equal((got, out), (code, ""), "exit code and stdout with %s; stderr %r" % (" ".join(flags), err))
    for word in words:
        true(word in err, "message with %s says %r: %r" % (" ".join(flags), word, err))
    true(len(err.splitlines()) <= 4, "message with %s is short: %r" % (" ".join(flags), err))


def curl(b, path, *words):
    """(status, body) by curl from the admin listener on loopback."""
    done = subprocess.run(["curl", "-s", "-g", "-m", "5", "-w", "\n%{http_code}", *words,
                           "http://%s%s" % (plain_at(b), path)], capture_output=True, text=True, env=environment())
    equal(done.returncode, 0, "exit code of curl %s %s: %s" % (path, words, done.stderr))
    body, status = done.stdout.rsplit("\n", 1)
    return int(status), body


class Keep:
    """GETs of JSON on one connection to the admin listener."""

    def __init__(self, b):
        self.stream = Stream(b, "admin", tls=False)

    def get(self, path):
        status, fields = self.stream.ask("GET", path)
        body = self.stream.take(int(fields["content-length"]))
        equal(status, 200, "status of GET %s: %s" % (path, body[:200]))
        return json.loads(body)


class Events(Stream):
    """One reader of /v1/events."""

    def __init__(self, b, *fields, source=None, receive_buffer=None):
        super().__init__(b, "admin", tls=False, source=source, receive_buffer=receive_buffer)
        self.status, self.fields = self.ask("GET", "/v1/events", fields)

    def next(self, seconds=3):
        """{"event", "id", "data"} of the next frame; comments are frames without any."""
        self.socket.settimeout(seconds)
        try:
            while b"\n\n" not in self.input:
                if not self.more():
                    raise Failure("the event stream has ended")
        except TimeoutError:
            raise Failure("no event came") from None
        frame, self.input = self.input.split(b"\n\n", 1)
        return dict(line.split(": ", 1) for line in frame.decode().splitlines())

    def wait(self, kind, text=""):
        """The next event of that kind with that text."""
        while True:
            frame = self.next()
            if frame.get("event") == "event" and text in frame["data"]:
                said = json.loads(frame["data"])
                if said["kind"] == kind:
                    return frame["id"], said


def stream_text(b, *fields):
    """(status, what the stream says at once)."""
    s = Events(b, *fields)
    if s.status != 200:
        return s.status, ""
    end = time.monotonic() + (2.0 if SLOW else 0.5)  # it says more each second, so silence is no end
    try:
        while time.monotonic() < end:
            s.socket.settimeout(max(end - time.monotonic(), 0.01))
            if not s.more():
                break
    except TimeoutError:
        pass
    text = s.input.decode()
    s.close()
    return 200, text


# --- beaconctl ---

@scenario(io=ONE, shards=(1, 4))
def shows(case):
    """What beaconctl shows is what the nodes did, for people and as JSON."""
    with serving(case, "--admin", "127.0.0.1:0") as b:
        at = plain_at(b)
        udp, ws = Node(b).register(C), WsNode(b, A, SECRET1)
        ws.fence()
        udp.send(relay(C, 4711))  # nobody: a drop
        b.counts("relay", "no_route", 1)
        text = good(at, "status")
        for line in (r"beacon +\S+ \(\S+\), ready, up \d+ s, %d shards?, io mmsg$" % case.shards, r"checks .*udp4=ok .*wss=ok",
                     r"sessions +1$", r"cert +localhost, (29|30) days left$", r"dropped +1 relay: no_route",
                     r"config +ok, log level info$", r"nodes +2 \(IPv4 1, IPv6 0, WSS 1\), room for \d+$"):
            true(re.search("^" + line, text, re.M), "status has a line %s: %s" % (line, text))
        status = told(at, "status")
        equal((status["state"], status["sessions"], status["nodes"]["udp4"], status["nodes"]["wss"]),
              ("ready", 1, 1, 1), "status as JSON")
        nodes = {n["node_id"]: n for n in told(at, "nodes")["nodes"]}
        equal(sorted(nodes), sorted((A, C)), "the nodes")
        equal((nodes[A]["transport"], nodes[A]["class"], nodes[C]["transport"], nodes[C]["class"]),
              ("wss", "keyed", "udp4", "unverified"), "how they are reached and proven")
        equal(nodes[C]["endpoint"], "%s:%d" % udp.at, "endpoint of the UDP node")
        equal(nodes[A]["endpoint"], "%s:%d" % ws.at, "endpoint of the session")
        one = told(at, "nodes", str(C))
        one["silent_s"] = nodes[C]["silent_s"]
        equal(one, nodes[C], "one node is shown as in the list")
        equal(len(good(at, "nodes").splitlines()), 3, "a head and two nodes")
        true(re.search(r"^ *%d +%s:%d +udp4 +unverified +\d+ s$" % ((C,) + udp.at), good(at, "nodes", str(C)), re.M),
             "a node for people: %s" % good(at, "nodes", str(C)))
        session = told(at, "sessions")["sessions"]
        equal([(s["node_id"], s["auth_version"], s["tls"]) for s in session], [(A, 1, True)], "the sessions")
        true(session[0]["frames_in"] >= 1, "frames of the session")
        equal(len(good(at, "sessions").splitlines()), 2, "a head and a session")
        equal(told(at, "talkers")["window_s"], 10, "window of the talkers")
        equal(good(at, "log-level"), "info\n", "the log level")
        equal(good(at, "health"), "ok\n", "health")
        equal(good(at, "health", "127.0.0.1:%d" % b.at["health"][0][1]), "ok\n", "health of the other listener")
        fails(at, 1, "no such node", "nodes", "4711")


@scenario(io=ONE)
def wrong_usage(case):
    with case.beacon("--admin", "127.0.0.1:0") as b:
        at = plain_at(b)
        for words in ((), ("stat",), ("status", "now"), ("nodes", "0"), ("nodes", "x"), ("nodes", "4294967296"),
                      ("nodes", "1", "2"), ("notify",), ("notify", "-1"), ("log-level", "loud"), ("--limit", "0", "nodes"),
                      ("--limit", "x", "nodes"), ("--timeout", "0", "status"), ("--nosuch", "status"), ("--json",),
                      ("health", "nowhere")):
            code, out, err = ctl(at, *words)
            equal((code, out), (USAGE, ""), "exit code of beaconctl %s; stderr %r" % (" ".join(words), err))
            true(err.startswith(("beaconctl: ", CTL + ": ")), "it says what is wrong: %r" % err)
        for bad in ("127.0.0.1", "unix:", "ftp://127.0.0.1:1", "127.0.0.1:x", "https://"):
            fails(bad, USAGE, "is no address", "status")
        for words, word in ((("--help",), "usage: beaconctl"), (("--version",), "beaconctl ")):
            true(good(None, *words).startswith(word), "beaconctl %s" % words)
    fails(at, UNAVAILABLE, "Connection refused", "status")
    fails("unix:/nonexistent/admin.sock", UNAVAILABLE, "No such file", "status")
    with case.beacon() as b:  # a listener that is none for operators
        code, out, err = ctl("127.0.0.1:%d" % b.at["metrics"][0][1], "status")
        equal((code, out), (1, ""), "exit code where another page is served; stderr %r" % err)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        fails("127.0.0.1:%d" % mute.getsockname()[1], UNAVAILABLE, "timed out", "--timeout", "1", "status")


@scenario(io=ONE, needs=("curl",))
def over_a_unix_socket(case):
    """Who may enter its directory commands the beacon; what a killed one left there is no obstacle."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "admin.sock")
        at = "unix:" + path
        with case.beacon("--admin", at, checks=False) as b:
            equal(stat.S_IMODE(os.stat(path).st_mode), 0o660, "mode of the socket")
            equal(told(at, "status")["state"], "ready", "status")
            equal(good(None, "health", env={"BEACON_ADMIN": at}), "ok\n", "the address from the environment")
            start_refused("--admin", at, code=UNAVAILABLE, words=("admin", path, "Address already in use"))
            if os.geteuid() == 0:
                os.chmod(folder, 0o755)
                fails(at, NO_PERMISSION, "Permission denied", "status", preexec=become_nobody)
            b.process.kill()
            b.process.wait()
        true(os.path.exists(path), "a killed beacon leaves its socket")
        with case.beacon("--admin", at) as b:
            equal(good(at, "drain"), "draining\n", "drain")
            for host, want in (("localhost", "200"), ("127.0.0.1:8081", "200"), ("evil.example", "403")):
                done = subprocess.run(["curl", "-s", "-o", os.devnull, "-w", "%{http_code}", "--unix-socket", path, "-H",
                                       "Host: " + host, "http://localhost/v1/status"], capture_output=True, text=True)
                equal(done.stdout, want, "status by the name %s, as a browser behind a forwarded port sends it" % host)
        true(not os.path.exists(path), "an orderly end takes the socket away")
        secret_file(folder, "precious", "admin.sock")
        start_refused("--admin", at, code=1, words=("admin", path))
        equal(open(path).read(), "precious", "a file with that name stays")


@scenario(io=ONE, needs=("curl",))
def tokens(case):
    """Right, wrong and missing, by file and by environment; the token itself shows nowhere."""
    with tempfile.TemporaryDirectory() as folder:
        right, wrong = secret_file(folder, TOKEN + "\n", "right"), secret_file(folder, TOKEN + "x\n", "wrong")
        for env, flags in (({"BEACON_ADMIN_TOKEN": TOKEN}, ()), ({"BEACON_ADMIN_TOKEN_FILE": right}, ())):
            with case.beacon("--admin", "127.0.0.1:0", *flags, env=env) as b:
                at = plain_at(b)
                equal(told(at, "--token-file", right, "status")["state"], "ready", "status with the token of a file")
                equal(good(at, "log-level", env={"BEACON_ADMIN_TOKEN": TOKEN}), "info\n", "with one of the environment")
                equal(good(at, "log-level", env={"BEACON_ADMIN_TOKEN_FILE": right}), "info\n", "with a file that it names")
                fails(at, 1, "both", "status", env={"BEACON_ADMIN_TOKEN": TOKEN, "BEACON_ADMIN_TOKEN_FILE": right})
                equal(good(at, "health"), "ok\n", "load balancers need no token")
                fails(at, NO_PERMISSION, "401", "status", env={"BEACON_ADMIN_TOKEN": "", "BEACON_ADMIN_TOKEN_FILE": ""})
                for how in ({}, {"env": {"BEACON_ADMIN_TOKEN": TOKEN[:-1]}}, {"env": {"BEACON_ADMIN_TOKEN": TOKEN + "x"}}):
                    fails(at, NO_PERMISSION, "401", "status", **how)
                fails(at, NO_PERMISSION, "401", "--token-file", wrong, "status", env={"BEACON_ADMIN_TOKEN": TOKEN})
                fails(at, NO_PERMISSION, "401", "drain")
                fails(at, 1, "No such file", "--token-file", folder + "/none", "status")
                fails(at, 1, "holds no token", "--token-file", secret_file(folder, "\n", "empty"), "status")
                equal(curl(b, "/")[0], 200, "the page itself asks for the token")
                equal(curl(b, "/metrics")[0], 401, "/metrics without it")
                equal(curl(b, "/v1/status", "-H", "Authorization: bearer " + TOKEN)[0], 200, "the scheme in another case")
                equal(curl(b, "/v1/status", "-H", "Authorization: Basic " + TOKEN)[0], 401, "another scheme")
                status, text = stream_text(b, "Authorization: Bearer " + TOKEN[::-1])
                equal(status, 401, "the event stream with a wrong token")
                said = json.dumps(b.lines) + json.dumps(told(at, "--token-file", right, "status"))
                true(TOKEN not in said, "the token is neither logged nor shown")
                status, text = stream_text(b, "Authorization: Bearer " + TOKEN)
                true(status == 200 and "admin token refused from 127.0.0.1:" in text, "an event tells: %r" % text)
                true(TOKEN not in text, "but not the token")
        start_refused("--admin", "127.0.0.1:0", words=("admin-token", "16"), env={"BEACON_ADMIN_TOKEN": TOKEN[:15]})
        start_refused("--admin", "127.0.0.1:0", words=("ADMIN_TOKEN",),
                      env={"BEACON_ADMIN_TOKEN": TOKEN, "BEACON_ADMIN_TOKEN_FILE": right})
        start_refused("--admin", "127.0.0.1:0", words=("ADMIN_TOKEN_FILE", "No such file"),
                      env={"BEACON_ADMIN_TOKEN_FILE": folder + "/none"})
        code, out, _ = run(BUILD, "--dump-config", env={"BEACON_ADMIN_TOKEN": TOKEN})
        true(code == 0 and TOKEN not in out and "admin-token" in out, "--dump-config masks it")


@scenario(io=ONE, needs=("root", "ip", "curl"))
def beyond_loopback(case):
    """Only with TLS and a token; never in clear, also not by mistake."""
    space = case.lab.space("adm")
    lab.ip("-n", space, "address", "add", PUBLIC + "/32", "dev", "lo")
    # Names of the certificate go into subjectAltName as they are, so one can bring an address with it.
    certificate = Certificate(("localhost", "beacon.example,IP:" + PUBLIC))
    token = secret_file(certificate.folder.name, TOKEN + "\r\n")
    far = ("--admin", PUBLIC + ":0")
    start_refused(*far, *certificate.flags(), words=("admin", "token"))
    start_refused(*far, words=("admin", "tls-cert"), env={"BEACON_ADMIN_TOKEN": TOKEN})
    start_refused("--admin", ":0", words=("admin", "token"))
    with case.beacon(*far, *certificate.flags(), space=space, env={"BEACON_ADMIN_TOKEN": TOKEN}) as b:
        equal(b.wait_log("listening", component="admin")["tls"], "yes", "TLS of the admin listener")
        at = "%s:%d" % b.at["admin"][0]
        url, known = "https://" + at, ("--ca", certificate.cert, "--token-file", token)
        equal(told(url, *known, "status", space=space)["state"], "ready", "status over https")
        equal(good(url, *known, "drain", space=space), "draining\n", "a command over https")
        fails(url, UNAVAILABLE, "certificate", "--token-file", token, "status", space=space)
        fails(url, NO_PERMISSION, "401", "--ca", certificate.cert, "status", space=space)
        equal(told(url, "--insecure", "--token-file", token, "status", space=space)["draining"], True, "--insecure")
        fails("https://localhost:%d" % b.at["admin"][0][1], UNAVAILABLE, "refused", *known, "status", space=space)
        code, out, err = ctl(at, "--token-file", token, "status", space=space)
        equal((code, out), (UNAVAILABLE, ""), "http where https is spoken; stderr %r" % err)
        with lab.inside(space):
            done = subprocess.run(["curl", "-s", "--cacert", certificate.cert, "-H", "Authorization: Bearer " + TOKEN,
                                   url + "/readyz"], capture_output=True, text=True, env=environment(), timeout=10)
        true(done.returncode == 0 and "draining" in done.stdout, "curl verifies the address: %s" % done)
    certificate.close()


# --- commands and their guards ---

@scenario(io=ONE, needs=("curl",))
def guards(case):
    """What a page in a browser on this host can send is refused; so are commands that are not as written."""
    with case.beacon("--admin", "127.0.0.1:0") as b:
        port = b.at["admin"][0][1]
        js = ("-H", "Content-Type: application/json")
        for words, want in (
                ((), 200), (("-H", "Host: localhost"), 200), (("-H", "Host: LOCALHOST:1"), 200),
                (("-H", "Host: [::1]:%d" % port), 200), (("-H", "Host: evil.example"), 403),
                (("-H", "Host: localhost.evil.example"), 403), (("-H", "Host: 127.0.0.1.evil.example"), 403),
                (("-H", "Host: evil.example:%d" % port), 403), (("-H", "Host:"), 400),
                (("-H", "Origin: http://127.0.0.1:%d" % port), 200), (("-H", "Origin: http://evil.example"), 403),
                (("-H", "Origin: http://127.0.0.1:1"), 403), (("-H", "Origin: null"), 403),
                (("-H", "Origin: http://127.0.0.1:%d.evil.example" % port), 403)):
            equal(curl(b, "/v1/status", *words)[0], want, "GET /v1/status with %s" % (words,))
        drain = ("-d", '{"on":true}')
        for words, want in (
                (drain, 415), (drain + ("-H", "Content-Type: text/plain"), 415), (drain + ("-H", "Content-Type:"), 415),
                (drain + ("-H", "Content-Type: application/jsonx"), 415),
                (drain + js + ("-H", "Origin: http://evil.example"), 403),
                (drain + js + ("-H", "Host: evil.example"), 403),
                (("-X", "GET"), 405), (("-X", "PUT") + js, 405), (("-X", "DELETE"), 405)):
            equal(curl(b, "/v1/drain", *words)[0], want, "/v1/drain with %s" % (words,))
        bodies = ("", "{", "[]", "true", '"on"', "{}", '{"on":1}', '{"on":"true"}', '{"on":null}', '{"off":true}',
                  '{"on":true,"more":1}', '{"on":true,"on":false}', '{"on":true} x', "\xff", '{"on":true,"":[' + "[" * 3000,
                  '{"on":' + " " * 16000 + "1}")
        for body in bodies:
            status, text = curl(b, "/v1/drain", *js, "--data-binary", body)
            equal(status, 400, "/v1/drain with the body %.40r" % body)
            true(json.loads(text)["error"], "it says why: %s" % text)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            f.write('{"on":true' + " " * 16385 + "}")
            f.flush()
            equal(curl(b, "/v1/drain", *js, "--data-binary", "@" + f.name)[0], 413, "a body over 16 KiB")
        for path, body in (("reload", '{"now":true}'), ("log-level", '{"level":"loud"}'), ("log-level", '{"level":3}'),
                           ("log-level", "{}"), ("notify", '{"node_id":0}'), ("notify", '{"node_id":4294967296}'),
                           ("notify", '{"node_id":1.5}'), ("notify", '{"node_id":"1"}'), ("notify", '{"node_id":1e3}')):
            equal(curl(b, "/v1/" + path, *js, "-d", body)[0], 400, "/v1/%s with %s" % (path, body))
        equal(curl(b, "/v1/notify", *js, "-d", '{"node_id":4711}')[0], 404, "notify of nobody")
        for path, want in (("/v1/nodes?limit=0", 400), ("/v1/nodes?limit=1001", 400), ("/v1/nodes?after=x", 400),
                           ("/v1/nodes?limit=99999999999999999999", 400), ("/v1/nodes/x", 400), ("/v1/nodes/", 400),
                           ("/v1/sessions?after=-1", 400), ("/v1", 404), ("/v1/nosuch", 404), ("/v1/status/", 404),
                           ("/../etc/passwd", 404), ("/v1/nodes?limit=1000&after=0-0", 200), ("/v1/nodes?after=64-4294967295", 200)):
            equal(curl(b, path, "--path-as-is")[0], want, "GET %s" % path)
        equal(b.get("/readyz")[0], 200, "nothing of that has drained it")
        status, page = curl(b, "/", "-i")
        for field in ("content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "cache-control: no-store"):
            true(field in page.lower(), "the page has %s: %s" % (field, page[:700]))
        equal(curl(b, "/v1/log-level", *js[:1], "content-type: APPLICATION/JSON; charset=utf-8", "-d", '{"level":"warn"}')[0],
              200, "the type in capitals and with a parameter")


@scenario(io=ONE)
def draining(case):
    """USR1 and the admin interface turn the same switch, and each sees what the other did."""
    with serving(case, "--admin", "127.0.0.1:0") as b:
        at = plain_at(b)

        def is_drained(want, by):
            eventually("draining: %s, by %s" % (want, by), lambda: told(at, "status")["draining"] is want)
            equal(b.metric("beacon_draining"), int(want), "the metric after " + by)
            equal(b.get("/readyz")[0], 503 if want else 200, "/readyz after " + by)
            code, out, _ = ctl(at, "health")
            equal((code, out), (1, "draining\n") if want else (0, "ok\n"), "beaconctl health after " + by)
        session = WsNode(b, A, SECRET1)
        session.fence()
        equal(good(at, "drain"), "draining\n", "beaconctl drain")
        is_drained(True, "the interface")
        session.closes(1001, "beacon shutting down", seconds=8)
        equal(Stream(b).ask("GET", "/v1/compat", upgrade_fields())[0], 503, "a new session meanwhile")
        Node(b).register(C)
        good(at, "drain")
        is_drained(True, "asking again")
        b.signal(signal.SIGUSR1)
        is_drained(False, "USR1")
        WsNode(b, A, SECRET1).fence()
        b.signal(signal.SIGUSR1)
        is_drained(True, "a second USR1")
        equal(told(at, "undrain"), {"draining": False}, "beaconctl --json undrain")
        is_drained(False, "the interface")
        b.wait_log("draining, until told otherwise")
        b.wait_log("serving again")


@scenario(io=ONE)
def reload_tells_the_error(case):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "beacon.conf")
        write(path, "[limits]\nrelay-rate = 10/10\n")
        with case.beacon("--config", path, "--admin", "127.0.0.1:0") as b:
            at = plain_at(b)
            before = told(at, "status")["reload"]["sequence"]
            equal(good(at, "reload"), "reloaded\n", "a good file")
            result = told(at, "reload")
            true(result["ok"] and result["error"] is None and result["sequence"] > before, "with --json: %s" % result)
            write(path, "[limits]\nrelay-rate = fast\n")
            fails(at, 1, "beacon.conf:2: relay-rate = fast", "reload")
            status = told(at, "status")
            equal(status["reload"]["ok"], False, "the status remembers")
            true("beacon.conf:2" in status["reload"]["error"], "with the reason: %s" % status["reload"])
            true("refused, the old one stays: " in good(at, "status"), "so does the text")
            equal(b.metric("beacon_config_last_reload_successful"), 0, "and the metric")
            code, out, _ = ctl(at, "--json", "reload")
            equal((code, json.loads(out)["ok"]), (1, False), "a refused reload with --json")
            os.unlink(path)
            fails(at, 1, "No such file", "reload")
            write(path, "wss-sessions = 100\n")
            equal(good(at, "reload"), "reloaded\n", "the repaired file")
            true("wss-sessions" in b.wait_log("changed options need a restart")["options"], "what waits for a restart")
            started = [subprocess.Popen([CTL, "--admin", at, "reload"], stdout=subprocess.PIPE, text=True) for _ in range(10)]
            equal({p.communicate()[0] for p in started}, {"reloaded\n"}, "ten at once, each is told how its own ended")
            equal(b.metric("beacon_config_last_reload_successful"), 1, "in the end")


@scenario(io=ONE)
def log_level(case):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "beacon.conf")
        write(path, "log-level = info\n")
        with case.beacon("--config", path, "--admin", "127.0.0.1:0") as b:
            at = plain_at(b)

            def logged():
                count = sum(line.get("component") == "beacon" for line in b.lines)
                good(at, "drain")
                eventually("drained", lambda: told(at, "status")["draining"])
                good(at, "undrain")
                eventually("undrained", lambda: not told(at, "status")["draining"])
                time.sleep(0.5 if SLOW else 0.1)
                return sum(line.get("component") == "beacon" for line in b.lines) - count
            equal(logged(), 2, "lines at level info")
            equal(good(at, "log-level", "error"), "error\n", "beaconctl log-level error")
            eventually("the new level is shown", lambda: good(at, "log-level") == "error\n")
            equal(logged(), 0, "lines at level error")
            equal(told(at, "log-level", "debug"), {"level": "debug"}, "with --json")
            eventually("the new level is shown", lambda: good(at, "log-level") == "debug\n")
            equal(logged(), 2, "lines at level debug")
            good(at, "log-level", "error")
            good(at, "reload")
            equal(good(at, "log-level"), "info\n", "a reload brings the file's level back")
            equal(logged(), 2, "lines after the reload")


@scenario(io=ONE, shards=(1, 4))
def notify(case):
    """The message reaches a node over UDP and one over WebSocket, and nobody else."""
    with serving(case, "--admin", "127.0.0.1:0", "--notify-rate", "0") as b:
        at = plain_at(b)
        udp, other, ws = Node(b).register(C), Node(b).register(4711), WsNode(b, A, SECRET1)
        ws.fence()
        eventually("the session is in the table", lambda: ctl(at, "nodes", str(A))[0] == 0)
        for _ in range(3):
            equal(good(at, "notify", str(C)), "notified\n", "notify of the UDP node")
            udp.expect(NOTIFY, "the notification over UDP")
            equal(told(at, "notify", str(A)), {"node_id": A}, "notify of the node over WebSocket")
            ws.expect(NOTIFY, "the notification over WebSocket")
        other.silent(what="notifications of others")
        fails(at, 1, "404", "notify", "999")
