#include "tests/rig.h"
#include "wss/websocket.h"

#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define V13 "Sec-WebSocket-Version: 13\r\n"
#define ASKS "Upgrade: websocket\r\nConnection: Upgrade\r\n"
#define GOOD ASKS V13 KEY
#define GET_FROM(host) "GET /v1/compat HTTP/1.1\r\nHost: " host "\r\n"
#define GET GET_FROM("a.example")
#define PROTOCOL "Sec-WebSocket-Protocol: "
#define END "\r\n"

static const struct {
    const char *name, *head;
    int want, subprotocol; /* the latter of 101 only */
} upgrades[] = {
    {"smallest", GET GOOD END, 101, -1},
    {"other case", GET "UPGRADE: WebSocket\r\nconnection: uPGRADE\r\n" V13 KEY END, 101, -1},
    {"lists", GET "Upgrade: h2c ,\twebsocket\r\nConnection: keep-alive,Upgrade\r\n" V13 KEY END,
     101, -1},
    {"lists of several fields",
     GET
     "Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: keep-alive\r\nConnection: Upgrade\r\n" V13
         KEY END,
     101, -1},
    {"list with empty elements",
     GET "Upgrade: ,, websocket,\r\nConnection: ,Upgrade,\r\n" V13 KEY END, 101, -1},
    {"extension offered: not taken",
     GET GOOD "Sec-WebSocket-Extensions: permessage-deflate\r\n" END, 101, -1},

    {"POST", "POST / HTTP/1.1\r\nHost: a\r\n" GOOD END, 405, 0},
    {"HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\n" GOOD END, 405, 0},
    {"other method", "CONNECT / HTTP/1.1\r\nHost: a\r\n" GOOD END, 405, 0},
    {"plain GET", GET END, 426, 0},
    {"HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n" GOOD END, 426, 0},
    {"no Upgrade", GET "Connection: Upgrade\r\n" V13 KEY END, 426, 0},
    {"no Connection", GET "Upgrade: websocket\r\n" V13 KEY END, 426, 0},
    {"Upgrade to something else", GET "Upgrade: h2c\r\nConnection: Upgrade\r\n" V13 KEY END, 426,
     0},
    {"Upgrade to websockets", GET "Upgrade: websockets\r\nConnection: Upgrade\r\n" V13 KEY END, 426,
     0},
    {"Upgrade to websocke", GET "Upgrade: websocke\r\nConnection: Upgrade\r\n" V13 KEY END, 426, 0},
    {"Upgrade to web socket", GET "Upgrade: web socket\r\nConnection: Upgrade\r\n" V13 KEY END, 426,
     0},
    {"Connection: close", GET "Upgrade: websocket\r\nConnection: close\r\n" V13 KEY END, 426, 0},
    {"no version", GET ASKS KEY END, 426, 0},
    {"version 8", GET ASKS KEY "Sec-WebSocket-Version: 8\r\n" END, 426, 0},
    {"version 14", GET ASKS KEY "Sec-WebSocket-Version: 14\r\n" END, 426, 0},
    {"version 013", GET ASKS KEY "Sec-WebSocket-Version: 013\r\n" END, 426, 0},
    {"versions", GET ASKS KEY "Sec-WebSocket-Version: 13, 8\r\n" END, 426, 0},
    {"empty version", GET ASKS KEY "Sec-WebSocket-Version:\r\n" END, 426, 0},
    {"version twice", GET GOOD V13 END, 400, 0},
    {"no key", GET ASKS V13 END, 400, 0},
    {"key twice", GET GOOD KEY END, 400, 0},
    {"empty key", GET ASKS V13 "Sec-WebSocket-Key:\r\n" END, 400, 0},
    {"key of 15 bytes", GET ASKS V13 "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0O\r\n" END, 400, 0},
    {"key of 17 bytes", GET ASKS V13 "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODxA=\r\n" END, 400, 0},
    {"key of 18 bytes", GET ASKS V13 "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODxAR\r\n" END, 400, 0},
    {"key without padding", GET ASKS V13 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n" END, 400,
     0},
    {"key in the URL alphabet", GET ASKS V13 "Sec-WebSocket-Key: -GhlIHNhbXBsZSBub25jZQ==\r\n" END,
     400, 0},
    {"key with bits in its padding",
     GET ASKS V13 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==\r\n" END, 400, 0},
    {"with a body", GET GOOD "Content-Length: 1\r\n" END, 400, 0},
    {"with an empty body", GET GOOD "Content-Length: 0\r\n" END, 101, -1},

    {"same origin", GET GOOD "Origin: https://a.example\r\n" END, 101, -1},
    {"origin in other case", GET GOOD "Origin: HTTPS://A.Example\r\n" END, 101, -1},
    {"origin with the default port", GET GOOD "Origin: https://a.example:443\r\n" END, 101, -1},
    {"host with the default port", GET_FROM("a.example:80") GOOD "Origin: http://a.example\r\n" END,
     101, -1},
    {"both with a port", GET_FROM("a:8080") GOOD "Origin: http://a:8080\r\n" END, 101, -1},
    {"origin ws", GET_FROM("a:80") GOOD "Origin: ws://a\r\n" END, 101, -1},
    {"origin wss", GET_FROM("a:443") GOOD "Origin: wss://a\r\n" END, 101, -1},
    {"origin IPv6", GET_FROM("[::1]:8080") GOOD "Origin: http://[::1]:8080\r\n" END, 101, -1},
    {"origin IPv6 without a port", GET_FROM("[::1]") GOOD "Origin: https://[::1]:443\r\n" END, 101,
     -1},
    {"origin pilot", GET GOOD "Origin: pilot://anything\r\n" END, 101, -1},
    {"origin null", GET GOOD "Origin: null\r\n" END, 403, 0},
    {"empty origin", GET GOOD "Origin:\r\n" END, 403, 0},
    {"other host", GET GOOD "Origin: https://b.example\r\n" END, 403, 0},
    {"host in front of another", GET GOOD "Origin: https://a.example.b\r\n" END, 403, 0},
    {"host behind another", GET GOOD "Origin: https://b.a.example\r\n" END, 403, 0},
    {"host as a user", GET GOOD "Origin: https://a.example@b\r\n" END, 403, 0},
    {"host as user and password", GET GOOD "Origin: https://a.example:80@b\r\n" END, 403, 0},
    {"other port", GET GOOD "Origin: https://a.example:8443\r\n" END, 403, 0},
    {"other default port", GET_FROM("a:443") GOOD "Origin: http://a\r\n" END, 403, 0},
    {"other scheme", GET GOOD "Origin: file://a.example\r\n" END, 403, 0},
    {"no scheme", GET GOOD "Origin: a.example\r\n" END, 403, 0},
    {"scheme only", GET GOOD "Origin: https://\r\n" END, 403, 0},
    {"origin with a path", GET GOOD "Origin: https://a.example/\r\n" END, 403, 0},
    {"port 65535", GET_FROM("a:65535") GOOD "Origin: http://a:65535\r\n" END, 101, -1},
    {"port 65536", GET_FROM("a:65536") GOOD "Origin: http://a:65536\r\n" END, 403, 0},
    {"empty port", GET_FROM("a:") GOOD "Origin: http://a:\r\n" END, 403, 0},
    {"port without a host", GET_FROM(":80") GOOD "Origin: http://:80\r\n" END, 403, 0},
    {"port not a number", GET_FROM("a:8x") GOOD "Origin: http://a:8x\r\n" END, 403, 0},
    {"two origins", GET GOOD "Origin: https://a.example\r\nOrigin: https://b\r\n" END, 400, 0},
    {"two origins in one", GET GOOD "Origin: https://a.example https://b\r\n" END, 403, 0},
    {"pilot behind something", GET GOOD "Origin: https://pilot://x\r\n" END, 403, 0},

    {"ours", GET GOOD PROTOCOL "pilot.v1\r\n" END, 101, 1},
    {"ours among others", GET GOOD PROTOCOL "chat, pilot.v1 ,x\r\n" END, 101, 1},
    {"our order, not theirs", GET GOOD PROTOCOL "pilot.v1, beacon.v2\r\n" END, 101, 0},
    {"in two fields", GET GOOD PROTOCOL "pilot.v1\r\n" PROTOCOL "beacon.v2\r\n" END, 101, 0},
    {"others only", GET GOOD PROTOCOL "chat\r\n" END, 101, -1},
    {"case matters", GET GOOD PROTOCOL "Pilot.v1\r\n" END, 101, -1},
    {"beginning of ours", GET GOOD PROTOCOL "pilot.v\r\n" END, 101, -1},
    {"longer than ours", GET GOOD PROTOCOL "pilot.v12\r\n" END, 101, -1},
    {"empty", GET GOOD PROTOCOL "\r\n" END, 101, -1},
};

static const char *const known[] = {"beacon.v2", "pilot.v1", NULL};

static void test_upgrades(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(upgrades); i++) {
        struct http_request q;
        struct websocket_upgrade u;
        if (http_read_head(upgrades[i].head, strlen(upgrades[i].head), &q) != 0)
            fail_msg("%s: no good head", upgrades[i].name);
        websocket_upgrade(&q, known, &u);
        if (u.status != upgrades[i].want)
            fail_msg("%s: %d", upgrades[i].name, u.status);
        if (u.status == 101 && u.subprotocol != upgrades[i].subprotocol)
            fail_msg("%s: subprotocol %d", upgrades[i].name, u.subprotocol);
        if (u.status == 400 || u.status == 403 || u.status == 405)
            assert_string_equal(u.fields, "");
    }
}

static void test_upgrade_fields(void **state)
{
    (void)state;
    static const struct {
        const char *head, *want;
    } fields[] = {
        /* RFC 6455, 1.3 */
        {GET GOOD END,
         "Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"},
        {GET GOOD PROTOCOL "pilot.v1\r\n" END,
         "Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
         "Sec-WebSocket-Protocol: pilot.v1\r\n"},
        {GET END, "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"},
        {GET ASKS KEY "Sec-WebSocket-Version: 12\r\n" END,
         "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"},
    };
    for (size_t i = 0; i < COUNT(fields); i++) {
        struct http_request q;
        struct websocket_upgrade u;
        assert_int_equal(http_read_head(fields[i].head, strlen(fields[i].head), &q), 0);
        websocket_upgrade(&q, known, &u);
        assert_string_equal(u.fields, fields[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_upgrades),
        cmocka_unit_test(test_upgrade_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
