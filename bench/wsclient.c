#include "bench/wsclient.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "bench/meter.h"
#include "bench/udp.h"
#include "wss/auth.h"
#include "wss/websocket.h"

enum {
    INPUT_ROOM = 1 << 18,
    READS_A_CALL = 32,
    SMALL_MSS = 536,
    FRAME_HEAD_MAX = 8, /* with 16 bits of length, and the mask */
    RECORD_MAX = 16384,
    HEAD_MAX = 4096, /* of an answer */
    KEY_BASE64_MAX = 45,
    SIGNATURE_BASE64_MAX = 89,
};

SSL_CTX *wsclient_tls(void)
{
    SSL_CTX *c = SSL_CTX_new(TLS_client_method());
    if (!c)
        udp_die("SSL_CTX_new");
    SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(c, SSL_VERIFY_NONE, NULL); /* the handshake's own signature is checked */
    return c;
}

static void fail(struct wsclient *c, const char *why)
{
    if (c->state == WSCLIENT_FAILED || c->state == WSCLIENT_DONE)
        return;
    c->state = WSCLIENT_FAILED;
    c->why = why;
}

int wsclient_dial(uint32_t source_ip, uint16_t port, int rcvbuf)
{
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(source_ip)};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(WSCLIENT_SERVER_IP)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    bool good = setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) == 0 &&
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0;
    if (rcvbuf > 0) { /* small segments too: with those of loopback the kernel of the server holds
                         megabytes before anything is stuck */
        good &= setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf) == 0;
        good &= setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &(int){SMALL_MSS}, sizeof(int)) == 0;
    }
    good = good && bind(fd, (struct sockaddr *)&from, sizeof from) == 0 &&
           (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 || errno == EINPROGRESS);
    if (good)
        return fd;
    int err = -errno;
    close(fd);
    return err;
}

void wsclient_begin(struct wsclient *c, const struct wsclient_target *t, int rcvbuf)
{
    *c = (struct wsclient){.node_id = c->node_id, .source_ip = c->source_ip};
    c->began_ns = meter_now_ns();
    c->state = WSCLIENT_CONNECTING;
    c->fd = wsclient_dial(c->source_ip, t->port, rcvbuf);
    if (c->fd < 0)
        fail(c, c->fd == -EMFILE ? "no descriptor left" : "connect");
}

void wsclient_close(struct wsclient *c)
{
    SSL_free(c->ssl);
    if (c->fd >= 0)
        close(c->fd);
    free(c->held);
    free(c->out);
    *c = (struct wsclient){.fd = -1, .node_id = c->node_id, .source_ip = c->source_ip};
}

uint32_t wsclient_events(const struct wsclient *c)
{
    bool writes = c->state == WSCLIENT_CONNECTING || c->blocked;
    return (c->paused ? 0 : (uint32_t)EPOLLIN) | (writes ? (uint32_t)EPOLLOUT : 0);
}

/* --- writing --- */

static uint8_t *out_take(struct wsclient *c, size_t len)
{
    if (c->out_len + len > c->out_room) {
        c->out_room = c->out_len + len > RECORD_MAX ? (c->out_len + len) * 2 : RECORD_MAX;
        c->out = realloc(c->out, c->out_room);
        if (!c->out)
            udp_die("out of memory");
    }
    uint8_t *at = c->out + c->out_len;
    c->out_len += len;
    return at;
}

static ssize_t write_some(struct wsclient *c, const uint8_t *bytes, size_t len)
{
    size_t n;
    if (!c->ssl)
        return send(c->fd, bytes, len, MSG_NOSIGNAL);
    ERR_clear_error();
    int result = SSL_write_ex(c->ssl, bytes, len < RECORD_MAX ? len : RECORD_MAX, &n);
    if (result == 1)
        return (ssize_t)n;
    errno = SSL_get_error(c->ssl, result) == SSL_ERROR_WANT_WRITE ? EAGAIN : EPIPE;
    return -1;
}

void wsclient_flush(struct wsclient *c)
{
    size_t done = 0;
    c->blocked = false;
    while (done < c->out_len && c->state != WSCLIENT_FAILED) {
        ssize_t n = write_some(c, c->out + done, c->out_len - done);
        if (n > 0) {
            done += (size_t)n;
        } else if (errno == EAGAIN) {
            c->blocked = true;
            break;
        } else {
            fail(c, "write");
        }
    }
    c->out_len -= done;
    if (c->out_len > 0) {
        memmove(c->out, c->out + done, c->out_len);
        return;
    }
    free(c->out);
    c->out = NULL;
    c->out_room = 0;
}

/* Its own random numbers, as clients should; a zero mask would spare the server nothing either. */
static uint32_t mask_next(void)
{
    static uint32_t x = 2463534242u;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return x;
}

static void put_frame(struct wsclient *c, enum websocket_opcode opcode, const uint8_t *bytes,
                      size_t len)
{
    uint32_t mask = mask_next();
    uint8_t key[4];
    assert(len < 65536);
    memcpy(key, &mask, sizeof key);
    uint8_t *at = out_take(c, len + (len < 126 ? 6 : FRAME_HEAD_MAX));
    *at++ = (uint8_t)(0x80 | opcode);
    *at++ = (uint8_t)(0x80 | (len < 126 ? len : 126));
    if (len >= 126) {
        *at++ = (uint8_t)(len >> 8);
        *at++ = (uint8_t)len;
    }
    memcpy(at, key, sizeof key);
    at += sizeof key;
    for (size_t i = 0; i < len; i++)
        at[i] = bytes[i] ^ key[i & 3];
}

void wsclient_put(struct wsclient *c, const uint8_t *bytes, size_t len)
{
    put_frame(c, WEBSOCKET_BINARY, bytes, len);
}

/* --- becoming a session --- */

static void host_of(const struct wsclient_target *t, char ret[static 32])
{
    snprintf(ret, 32, "127.0.0.1:%u", t->port);
}

static void request(struct wsclient *c, const struct wsclient_target *t)
{
    char text[512], host[32];
    host_of(t, host);
    int len = t->goal == WSCLIENT_HEALTH
                  ? snprintf(text, sizeof text, "GET /health HTTP/1.1\r\nHost: %s\r\n\r\n", host)
                  : snprintf(text, sizeof text,
                             "GET /v1/compat HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\n"
                             "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                             "Sec-WebSocket-Protocol: beacon.v2\r\n\r\n",
                             host);
    memcpy(out_take(c, (size_t)len), text, (size_t)len);
    c->state = WSCLIENT_REQUESTED;
    wsclient_flush(c);
}

static bool challenge_read(const char *text, struct auth_challenge *ret)
{
    const char *nonce = strstr(text, "\"nonce\":\""), *ts = strstr(text, "\"ts\":");
    const char *beacon = strstr(text, "\"beacon_id\":");
    if (!nonce || !ts || !beacon || strlen(nonce) < 9 + 2 * AUTH_NONCE_LEN)
        return false;
    ret->version = 2;
    ret->unix_s = strtoll(ts + strlen("\"ts\":"), NULL, 10);
    ret->beacon_id = (uint32_t)strtoul(beacon + strlen("\"beacon_id\":"), NULL, 10);
    return sodium_hex2bin(ret->nonce, sizeof ret->nonce, nonce + 9, 2 * sizeof ret->nonce, NULL,
                          NULL, NULL) == 0;
}

/* The key of a node is made of its id: the same in every run. */
static void node_keys(uint32_t node_id, uint8_t public_key[static crypto_sign_PUBLICKEYBYTES],
                      uint8_t secret_key[static crypto_sign_SECRETKEYBYTES])
{
    uint8_t seed[crypto_sign_SEEDBYTES] = "bench";
    memcpy(seed + 8, &node_id, sizeof node_id);
    crypto_sign_seed_keypair(public_key, secret_key, seed);
}

static void reply(struct wsclient *c, const struct wsclient_target *t, const char *text)
{
    struct auth_challenge challenge = {.version = 2};
    uint8_t public_key[crypto_sign_PUBLICKEYBYTES], secret_key[crypto_sign_SECRETKEYBYTES];
    uint8_t signature[crypto_sign_BYTES];
    char key64[KEY_BASE64_MAX], signature64[SIGNATURE_BASE64_MAX], json[512];
    char signed_text[AUTH_TEXT_MAX], host[32];
    host_of(t, host);
    if (!challenge_read(text, &challenge)) {
        fail(c, "not a challenge");
        return;
    }
    memcpy(challenge.host, host, strlen(host) + 1);
    challenge.has_exporter = c->ssl && tls_exporter(c->ssl, challenge.exporter);
    node_keys(c->node_id, public_key, secret_key);
    size_t len = auth_text2(&challenge, c->node_id, signed_text);
    crypto_sign_detached(signature, NULL, (const uint8_t *)signed_text, len, secret_key);
    sodium_bin2base64(key64, sizeof key64, public_key, sizeof public_key,
                      sodium_base64_VARIANT_ORIGINAL);
    sodium_bin2base64(signature64, sizeof signature64, signature, sizeof signature,
                      sodium_base64_VARIANT_ORIGINAL);
    snprintf(json, sizeof json,
             "{\"type\":\"auth_reply\",\"node_id\":%u,\"public_key\":\"%s\",\"sig\":\"%s\"}",
             c->node_id, key64, signature64);
    put_frame(c, WEBSOCKET_TEXT, (const uint8_t *)json, strlen(json));
    c->state = WSCLIENT_REPLIED;
    wsclient_flush(c);
}

static void text_arrived(struct wsclient *c, const struct wsclient_target *t, const uint8_t *bytes,
                         size_t len)
{
    char text[AUTH_CHALLENGE_MAX + 1];
    if (len >= sizeof text) {
        fail(c, "a long text");
        return;
    }
    memcpy(text, bytes, len);
    text[len] = '\0';
    if (c->state == WSCLIENT_UPGRADED)
        reply(c, t, text);
    else if (c->state == WSCLIENT_REPLIED && strstr(text, "\"auth_ok\""))
        c->state = WSCLIENT_OPEN;
    else
        fail(c, "an unexpected text");
}

static const char *close_reason(const uint8_t *bytes, size_t len)
{
    static const struct {
        unsigned status;
        const char *why;
    } rows[] = {{1000, "closed 1000"}, {1001, "closed 1001"}, {1002, "closed 1002"},
                {1008, "closed 1008"}, {1009, "closed 1009"}, {1011, "closed 1011"}};
    unsigned status = len >= 2 ? (unsigned)bytes[0] << 8 | bytes[1] : 0;
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].status == status)
            return rows[i].why;
    }
    return "closed with another status";
}

/* --- reading --- */

/* Each takes one thing from the front and returns how much that was; 0: not whole yet. */
static size_t take_head(struct wsclient *c, const struct wsclient_target *t, const uint8_t *bytes,
                        size_t len)
{
    const uint8_t *end = memmem(bytes, len, "\r\n\r\n", 4);
    const char *wanted = t->goal == WSCLIENT_HEALTH ? "HTTP/1.1 200" : "HTTP/1.1 101";
    if (!end) {
        if (len > HEAD_MAX)
            fail(c, "a long answer");
        return 0;
    }
    if (memcmp(bytes, wanted, 12) != 0)
        fail(c, memcmp(bytes, "HTTP/1.1 503", 12) == 0 ? "answer 503" : "another answer");
    else
        c->state = t->goal == WSCLIENT_HEALTH ? WSCLIENT_DONE : WSCLIENT_UPGRADED;
    return (size_t)(end - bytes) + 4;
}

static size_t frame_head(const uint8_t *bytes, size_t len, size_t *ret_payload)
{
    if (len < 2)
        return 0;
    *ret_payload = bytes[1] & 0x7f;
    if (*ret_payload < 126)
        return 2;
    if (*ret_payload == 126 && len >= 4) {
        *ret_payload = (size_t)bytes[2] << 8 | bytes[3];
        return 4;
    }
    if (*ret_payload == 127 && len >= 10) { /* beyond 32 bits is beyond what a beacon sends */
        *ret_payload =
            (size_t)bytes[6] << 24 | (size_t)bytes[7] << 16 | (size_t)bytes[8] << 8 | bytes[9];
        return 10;
    }
    return 0;
}

static size_t take_frame(struct wsclient *c, const struct wsclient_target *t, const uint8_t *bytes,
                         size_t len, wsclient_message *message, void *arg)
{
    size_t payload_len, head = frame_head(bytes, len, &payload_len);
    if (head == 0 || payload_len > len - head)
        return 0;
    const uint8_t *payload = bytes + head;
    switch (bytes[0]) {
    case 0x80 | WEBSOCKET_BINARY:
        if (c->state == WSCLIENT_OPEN)
            message(arg, c, payload, payload_len);
        break;
    case 0x80 | WEBSOCKET_TEXT:
        text_arrived(c, t, payload, payload_len);
        break;
    case 0x80 | WEBSOCKET_PING:
        put_frame(c, WEBSOCKET_PONG, payload, payload_len);
        wsclient_flush(c);
        break;
    case 0x80 | WEBSOCKET_PONG:
        break;
    case 0x80 | WEBSOCKET_CLOSE:
        fail(c, close_reason(payload, payload_len));
        break;
    default:
        fail(c, "not a frame that a beacon sends");
    }
    return head + payload_len;
}

static ssize_t read_some(struct wsclient *c, uint8_t *bytes, size_t len)
{
    size_t n;
    if (!c->ssl)
        return recv(c->fd, bytes, len, 0);
    ERR_clear_error();
    int result = SSL_read_ex(c->ssl, bytes, len, &n);
    if (result == 1)
        return (ssize_t)n;
    int error = SSL_get_error(c->ssl, result);
    if (error == SSL_ERROR_ZERO_RETURN)
        return 0;
    errno = error == SSL_ERROR_WANT_READ ? EAGAIN : ECONNRESET;
    return -1;
}

static const char *end_reason(const struct wsclient *c, bool reset)
{
    static const char *const rows[][2] = {
        [WSCLIENT_REQUESTED] = {"end instead of an answer", "reset instead of an answer"},
        [WSCLIENT_UPGRADED] = {"end instead of a challenge", "reset instead of a challenge"},
        [WSCLIENT_REPLIED] = {"end instead of auth_ok", "reset instead of auth_ok"},
        [WSCLIENT_OPEN] = {"end of an open session", "reset of an open session"},
    };
    return rows[c->state][reset];
}

static void take_input(struct wsclient *c, const struct wsclient_target *t,
                       wsclient_message *message, void *arg)
{
    static uint8_t bytes[INPUT_ROOM];
    size_t len = c->held_len;
    if (len > 0)
        memcpy(bytes, c->held, len);
    free(c->held);
    c->held = NULL;
    c->held_len = 0;
    for (int i = 0; i < READS_A_CALL && c->state < WSCLIENT_DONE; i++) {
        ssize_t n = read_some(c, bytes + len, sizeof bytes - len);
        if (n <= 0) {
            if (n == 0 || errno != EAGAIN)
                fail(c, end_reason(c, n < 0));
            break;
        }
        len += (size_t)n;
        size_t at = 0, used = 1;
        while (used > 0 && c->state < WSCLIENT_DONE) {
            used = c->state == WSCLIENT_REQUESTED
                       ? take_head(c, t, bytes + at, len - at)
                       : take_frame(c, t, bytes + at, len - at, message, arg);
            at += used;
        }
        len -= at;
        memmove(bytes, bytes + at, len);
    }
    if (len > 0 && c->state < WSCLIENT_DONE) {
        c->held = malloc(len);
        if (!c->held)
            udp_die("out of memory");
        memcpy(c->held, bytes, len);
        c->held_len = len;
    }
}

static void connected(struct wsclient *c, const struct wsclient_target *t)
{
    int err = 0;
    socklen_t len = sizeof err;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0 || err != 0) {
        fail(c, err == ECONNRESET ? "reset when just connected" : "connect");
        return;
    }
    if (!t->tls) {
        request(c, t);
        return;
    }
    c->ssl = SSL_new(t->tls);
    if (!c->ssl || SSL_set_fd(c->ssl, c->fd) != 1)
        udp_die("SSL_new");
    SSL_set_connect_state(c->ssl);
    c->state = WSCLIENT_HANDSHAKE;
}

static void shake_hands(struct wsclient *c, const struct wsclient_target *t)
{
    ERR_clear_error();
    errno = 0;
    int result = SSL_do_handshake(c->ssl);
    if (result == 1) {
        request(c, t);
        return;
    }
    int system = errno, error = SSL_get_error(c->ssl, result);
    if (error == SSL_ERROR_SYSCALL || error == SSL_ERROR_ZERO_RETURN)
        fail(c, system == ECONNRESET ? "reset in the handshake" : "end in the handshake");
    else if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        fail(c, ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING
                    ? "end in the handshake"
                    : "TLS refused");
}

void wsclient_ready(struct wsclient *c, const struct wsclient_target *t, wsclient_message *message,
                    void *arg)
{
    if (c->state == WSCLIENT_CONNECTING)
        connected(c, t);
    if (c->state == WSCLIENT_HANDSHAKE)
        shake_hands(c, t);
    if (c->blocked)
        wsclient_flush(c);
    if (c->state >= WSCLIENT_REQUESTED && c->state <= WSCLIENT_OPEN && !c->paused)
        take_input(c, t, message, arg);
}
