"""Other people's programs against the TCP edge: WebSocket libraries, curl, openssl, scanners, a browser."""

import base64
import json
import os
import re
import socket
import subprocess
import tempfile
import time

from . import ed25519
from .beacon import environment
from .frame import SLOW, Failure, equal, eventually, scenario, true
from .websock import Certificate, Stream, WsNode
from .wire import A, B, SECRET1, SECRET2, Node, delivered, relay
from .wss import C, serving

ONE = ("mmsg",)  # nothing here depends on the I/O port

PYTHON_CLIENT = """
import asyncio, json, ssl, sys, websockets
async def main(url, node, sign):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with websockets.connect(url, ssl=context, subprotocols=["pilot.v1"]) as ws:
        challenge = json.loads(await ws.recv())
        print(json.dumps(challenge), flush=True)
        await ws.send(sys.stdin.readline())
        assert json.loads(await ws.recv()) == {"type": "auth_ok"}
        await (await ws.ping())
        await ws.send(bytes.fromhex(sign))
        print((await ws.recv()).hex(), flush=True)
        sys.stdin.readline()
asyncio.run(main(*sys.argv[1:4]))
"""
NODE_CLIENT = """
const WebSocket = require('ws'), readline = require('readline');
const lines = readline.createInterface({input: process.stdin});
const ws = new WebSocket(process.argv[1], ['pilot.v1'], {rejectUnauthorized: false});
let step = 0;
lines.on('line', line => { if (step++ === 0) ws.send(line); else { ws.close(1000); lines.close(); } });
ws.on('message', (data, binary) => {
  if (binary) return console.log(data.toString('hex'));
  const message = JSON.parse(data);
  if (message.type === 'auth_challenge') console.log(JSON.stringify(message));
  else ws.send(Buffer.from(process.argv[3], 'hex'));
});
ws.on('error', error => { console.error(error); process.exit(1); });
"""


def library_client(case, command, env=None):
    """A relay from a library's client to UDP and one back."""
    with serving(case) as b:
        udp = Node(b).register(C)
        url = "wss://127.0.0.1:%d/v1/compat" % b.at["wss"][0][1]
        client = subprocess.Popen(command + [url, str(A), relay(A, C, b"from a library").hex()], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(env))
        try:
            challenge = json.loads(client.stdout.readline() or "{}")
            text = "compat_auth:%d:%d:%s" % (A, challenge.get("ts", 0), challenge.get("nonce", ""))
            client.stdin.write(json.dumps({"type": "auth_reply", "node_id": A, "sig": base64.b64encode(
                ed25519.sign(SECRET1, text.encode())).decode()}) + "\n")
            client.stdin.flush()
            udp.expect(delivered(A, b"from a library"), "relay of the library's client")
            udp.send(relay(C, A, b"to a library"))
            equal(client.stdout.readline().strip(), delivered(C, b"to a library").hex(), "what the library got")
            _, err = client.communicate("\n", timeout=10)
            equal(client.returncode, 0, "exit code of the client (%s)" % err[-300:])
        finally:
            client.kill()
            client.wait()
        eventually("the session is over", lambda: b.metric("beacon_wss_sessions") == 0)


@scenario(io=ONE, needs=("/usr/bin/python3",))
def python_websockets(case):
    library_client(case, ["/usr/bin/python3", "-c", PYTHON_CLIENT])


@scenario(io=ONE, needs=("node",))
def node_ws(case):
    library_client(case, ["node", "-e", NODE_CLIENT], {"NODE_PATH": "/usr/share/nodejs:/usr/lib/nodejs"})


def output(*command, seconds=20, give=""):
    done = subprocess.run(command, input=give, capture_output=True, text=True, timeout=seconds, env=environment())
    return done.returncode, done.stdout + done.stderr


@scenario(io=ONE, needs=("curl",))
def curl(case):
    certificate = Certificate()
    with serving(case, certificate=certificate) as b:
        port = b.at["wss"][0][1]
        for path, want in (("/health", "200"), ("/v1/compat", "426"), ("/none", "404")):
            code, text = output("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", certificate.cert,
                                "https://localhost:%d%s" % (port, path))
            equal((code, text), (0, want), "curl %s, its certificate verified" % path)
        code, _ = output("curl", "-s", "https://localhost:%d/health" % port)
        true(code in (60, 77), "curl does not trust a self-signed certificate (77: it knows no authority at all): %d" % code)
    certificate.close()


@scenario(io=ONE, needs=("openssl",))
def openssl_s_client(case):
    first, second = Certificate(("first.example",)), Certificate(("second.example", "*.third.example"), "rsa:2048")
    pair = "%s,%s" % (first.cert, second.cert), "%s,%s" % (first.key, second.key)
    with case.beacon("--wss", "127.0.0.1:0", "--tls-cert", pair[0], "--tls-key", pair[1], "--wss-first-use",
                     "--wss-handshake-rate", "1000/1000") as b:
        at = "127.0.0.1:%d" % b.at["wss"][0][1]
        for version, good in (("-tls1_3", True), ("-tls1_2", True), ("-tls1_1", False), ("-tls1", False)):
            _, text = output("openssl", "s_client", "-connect", at, version, "-cipher", "ALL:@SECLEVEL=0")
            equal("Cipher is (NONE)" not in text and "Server certificate" in text, good, "openssl s_client %s" % version)
        for cipher, good in (("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-RSA-CHACHA20-POLY1305", True),
                             ("AES128-GCM-SHA256", False), ("ECDHE-RSA-AES128-SHA", False), ("DHE-RSA-AES128-GCM-SHA256", False)):
            _, text = output("openssl", "s_client", "-connect", at, "-tls1_2", "-cipher", cipher, "-servername",
                             "second.example" if "-RSA-" in cipher else "first.example")
            equal("Cipher is " + cipher in text, good, "cipher %s" % cipher)
        for name, want in (("first.example", "first.example"), ("second.example", "second.example"),
                           ("a.third.example", "second.example"), ("a.b.third.example", "first.example"),
                           ("unknown.example", "first.example")):
            _, text = output("openssl", "s_client", "-connect", at, "-servername", name)
            equal(re.search(r"subject=CN = (\S+)", text)[1], want, "certificate for %s" % name)
        _, text = output("openssl", "s_client", "-connect", at, "-tls1_2", give="R\n")
        true("RENEGOTIATING" in text and "no renegotiation" in text, "renegotiation is refused: %s" % text[-200:])
        _, text = output("openssl", "s_client", "-connect", at, "-alpn", "h2,http/1.1")
        true("ALPN protocol: http/1.1" in text, "ALPN")
        _, text = output("openssl", "s_client", "-connect", at, "-alpn", "h2")
        true("no application protocol" in text, "ALPN without http/1.1 is refused")
    first.close(), second.close()


@scenario(io=ONE, needs=("sslscan",))
def sslscan(case):
    with serving(case, "--wss-handshake-rate", "1000/1000") as b:
        code, text = output("sslscan", "--no-colour", "--xml=-", "127.0.0.1:%d" % b.at["wss"][0][1], seconds=25)
        equal(code, 0, "exit code of sslscan")
        enabled = re.findall(r'<protocol type="(\w+)" version="([\d.]+)" enabled="1"', text)
        equal(sorted(enabled), [("tls", "1.2"), ("tls", "1.3")], "protocols")
        for bad in ('<compression supported="1"', '<renegotiation supported="1" secure="0"', 'vulnerable="1"',
                    'strength="weak"', 'strength="medium"', "<ephemeral"):
            true(bad not in text, "sslscan found %s" % bad)
        ciphers = re.findall(r'<cipher status="\w+" sslversion="[^"]*" bits="(\d+)" cipher="([^"]*)"', text)
        true(len(ciphers) >= 4, "sslscan found ciphers: %s" % ciphers)
        for bits, name in ciphers:
            true(int(bits) >= 128 and ("GCM" in name or "CHACHA20" in name), "cipher %s" % name)


@scenario(io=ONE, needs=("slowhttptest",))
def slowhttptest(case):
    """Two hundred connections that drip a head byte by byte; strangers are served meanwhile."""
    with serving(case, plain=True) as b:
        url = "http://127.0.0.1:%d/v1/compat" % b.at["wss-plain"][0][1]
        attack = subprocess.Popen(["slowhttptest", "-c", "200", "-H", "-i", "2", "-r", "200", "-l", "10", "-u", url, "-x",
                                   "8", "-p", "3"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        worst = 0.0
        try:
            end = time.monotonic() + 9
            while time.monotonic() < end:
                asked = time.monotonic()
                s = Stream(b, "wss-plain", tls=False, source="127.0.0.77")
                equal(s.ask("GET", "/health")[0], 200, "/health under attack")
                s.close()
                worst = max(worst, time.monotonic() - asked)
                time.sleep(0.05)
        finally:
            attack.terminate()
            attack.wait()
        true(worst < (2.0 if SLOW else 0.5), "the slowest answer took %.3f s" % worst)
        true(b.metric("beacon_http_timeouts_total") + b.metric("beacon_http_connections_refused_total") > 50,
             "slow connections were cut")


SMUGGLED = (
    (b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nGET /x", 400),
    (b"GET /health HTTP/1.1\nHost: a\n\n", 400),
    (b"GET /health HTTP/1.1\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", 400),
    (b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    (b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    (b"POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xyzzy\r\n\r\n", 501),
)


@scenario(io=ONE)
def smuggling(case):
    """What a lenient parser in front and we might read differently is refused, and ends the connection."""
    with serving(case, plain=True) as b:
        for raw, want in SMUGGLED:
            for listener, tls in (("wss", True), ("wss-plain", False)):
                s = Stream(b, listener, tls, source="127.0.0.78" if tls else None)
                s.send(raw)
                status, fields = s.head()
                true(status in (want, 400, 501), "status of %r: %d" % (raw, status))
                equal(fields.get("connection"), "close", "Connection after %r" % raw)
                true(s.ended(), "the connection ends after %r" % raw)
                true(b"HTTP/1.1" not in s.input, "a second answer after %r" % raw)
                s.close()
                time.sleep(0.05)  # within the budget of handshakes


@scenario(io=ONE)
def dripped_head(case):
    """A byte every now and then does not hold a connection longer than the deadline for all of it."""
    with serving(case, plain=True) as b:
        s = Stream(b, "wss-plain", tls=False)
        began = time.monotonic()
        try:
            for byte in b"GET /health HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 40:
                s.send(bytes([byte]))
                time.sleep(0.4)
                if time.monotonic() - began > 12:
                    break
        except OSError:
            pass
        true(4 < time.monotonic() - began < (11 if SLOW else 8), "cut after %.1f s" % (time.monotonic() - began))


@scenario(io=ONE, needs=("chromium",))
def chromium(case):
    """The status page in a real browser shows live values."""
    with serving(case, "--admin", "127.0.0.1:0") as b:
        Node(b).register(C)
        WsNode(b, A, SECRET1).fence()
        with tempfile.TemporaryDirectory() as profile:
            _, dom = output("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                            "--user-data-dir=" + profile, "--virtual-time-budget=4000", "--timeout=6000", "--dump-dom",
                            "http://127.0.0.1:%d/" % b.at["admin"][0][1], seconds=28)
        def text_of(ident):
            found = re.search(r'id="%s"[^>]*>(.*?)</' % ident, dom, re.S)
            if not found:
                raise Failure("no element %s in the page: %s" % (ident, dom[-300:]))
            return re.sub(r"<[^>]*>", " ", found[1]).strip()
        equal(text_of("live"), "live", "the stream runs in the browser")
        true("ready" in text_of("state"), "state: %s" % text_of("state"))
        true("1" in text_of("sessions"), "sessions: %s" % text_of("sessions"))
