#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wss/stream.h"

/* The server's end is a stream; the client's an OpenSSL of its own on the other end, either on the
 * socket or on memory, where the test decides which bytes travel when. */
struct pair {
    struct stream stream;
    int fd; /* the client's */
    SSL *client;
    BIO *in, *out; /* the client's memory; NULL: it is on the socket */
};

static struct tls *tls;
static SSL_CTX *client_context;

static int set_up(void **state)
{
    char error[TLS_ERROR_MAX];
    (void)state;
    signal(SIGPIPE, SIG_IGN); /* as the program does */
    tls = tls_open_self_made(error);
    client_context = SSL_CTX_new(TLS_client_method());
    if (client_context)
        SSL_CTX_set_mode(client_context, SSL_MODE_ENABLE_PARTIAL_WRITE);
    return tls && client_context ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    tls_close(tls);
    SSL_CTX_free(client_context);
    return 0;
}

/* A connected pair over TCP, nonblocking, where resets are resets. */
static void connect_tcp(int fd[static 2])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_return_code(bind(listener, (struct sockaddr *)&at, sizeof at), errno);
    assert_return_code(listen(listener, 1), errno);
    assert_return_code(getsockname(listener, (struct sockaddr *)&at, &len), errno);
    fd[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_return_code(connect(fd[1], (struct sockaddr *)&at, sizeof at), errno);
    fd[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_return_code(fd[0], errno);
    assert_return_code(fcntl(fd[1], F_SETFL, O_NONBLOCK), errno);
    for (int i = 0; i < 2; i++)
        setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    close(listener);
}

static struct pair plain_open(void)
{
    struct pair p = {.client = NULL};
    int fd[2];
    connect_tcp(fd);
    stream_open(&p.stream, fd[0]);
    p.fd = fd[1];
    return p;
}

/* --- a client on memory --- */

/* Lets the client's memory take what the server has sent. */
static void carry_in(struct pair *p)
{
    char bytes[20000];
    ssize_t n;
    while ((n = recv(p->fd, bytes, sizeof bytes, 0)) > 0)
        assert_int_equal(BIO_write(p->in, bytes, (int)n), n);
}

/* Sends up to `max` bytes of what the client wants to send. */
static size_t carry_out(struct pair *p, size_t max)
{
    char bytes[20000];
    assert_true(max <= sizeof bytes);
    int n = BIO_read(p->out, bytes, (int)max);
    if (n <= 0)
        return 0;
    assert_int_equal(send(p->fd, bytes, (size_t)n, 0), n);
    return (size_t)n;
}

static struct pair tls_begin_pair(int version, bool on_memory)
{
    struct pair p = plain_open();
    assert_int_equal(stream_start_tls(&p.stream, tls), 0);
    p.client = SSL_new(client_context);
    assert_non_null(p.client);
    SSL_set_connect_state(p.client);
    assert_true(SSL_set_min_proto_version(p.client, version));
    assert_true(SSL_set_max_proto_version(p.client, version));
    if (on_memory) {
        p.in = BIO_new(BIO_s_mem());
        p.out = BIO_new(BIO_s_mem());
        BIO_set_mem_eof_return(p.in, -1);
        SSL_set_bio(p.client, p.in, p.out);
    } else {
        assert_true(SSL_set_fd(p.client, p.fd));
    }
    return p;
}

/* Turns both sides until both are done. */
static void shake_hands(struct pair *p)
{
    int server = -EAGAIN, client = 0;
    for (int i = 0; i < 1000 && (server != 0 || client != 1); i++) {
        if (p->in)
            carry_in(p);
        ERR_clear_error();
        if (client != 1)
            client = SSL_do_handshake(p->client);
        if (p->out)
            carry_out(p, 20000);
        if (server != 0)
            server = stream_handshake(&p->stream);
        assert_true(server == 0 || server == -EAGAIN);
    }
    assert_int_equal(server, 0);
    assert_int_equal(client, 1);
}

static struct pair tls_open_pair(int version, bool on_memory)
{
    struct pair p = tls_begin_pair(version, on_memory);
    shake_hands(&p);
    return p;
}

static void pair_close(struct pair *p)
{
    stream_close(&p->stream, false);
    SSL_free(p->client);
    close(p->fd);
}

/* A read that may have to wait for the loopback. */
static ssize_t read_soon(struct pair *p, void *bytes, size_t len)
{
    ssize_t n;
    for (int i = 0; i < 200; i++) {
        n = stream_read(&p->stream, bytes, len);
        if (n != -EAGAIN)
            return n;
        struct pollfd wait = {.fd = p->stream.fd, .events = POLLIN};
        poll(&wait, 1, 10);
    }
    return n;
}

static void assert_reads(struct pair *p, const char *want)
{
    char bytes[256];
    ssize_t n = read_soon(p, bytes, sizeof bytes);
    assert_int_equal(n, strlen(want));
    assert_memory_equal(bytes, want, strlen(want));
}

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
enum { VERSIONS = sizeof versions / sizeof versions[0] };

/* --- plain --- */

static void test_plain(void **state)
{
    (void)state;
    struct pair p = plain_open();
    char bytes[16];
    assert_int_equal(stream_read(&p.stream, bytes, sizeof bytes), -EAGAIN);
    assert_false(stream_has_input(&p.stream));
    assert_int_equal(send(p.fd, "abc", 3, 0), 3);
    assert_reads(&p, "abc");
    assert_int_equal(stream_write(&p.stream, "xyz", 3, false), 3);
    struct pollfd wait = {.fd = p.fd, .events = POLLIN};
    assert_int_equal(poll(&wait, 1, 2000), 1);
    assert_int_equal(recv(p.fd, bytes, sizeof bytes, 0), 3);
    /* Each direction ends alone. */
    stream_shut(&p.stream);
    assert_int_equal(poll(&wait, 1, 2000), 1);
    assert_int_equal(recv(p.fd, bytes, sizeof bytes, 0), 0);
    assert_int_equal(send(p.fd, "abc", 3, 0), 3);
    assert_reads(&p, "abc");
    shutdown(p.fd, SHUT_WR);
    assert_int_equal(read_soon(&p, bytes, sizeof bytes), 0);
    pair_close(&p);
}

static void test_plain_more_waits(void **state)
{
    (void)state;
    struct pair p = plain_open();
    char bytes[16];
    struct pollfd wait = {.fd = p.fd, .events = POLLIN};
    assert_int_equal(stream_write(&p.stream, "head", 4, true), 4);
    assert_int_equal(poll(&wait, 1, 20), 0); /* the kernel holds it for 200 ms at most */
    assert_int_equal(stream_write(&p.stream, "body", 4, false), 4);
    assert_int_equal(poll(&wait, 1, 2000), 1);
    assert_int_equal(recv(p.fd, bytes, sizeof bytes, 0), 8);
    pair_close(&p);
}

static void test_plain_full_and_gone(void **state)
{
    (void)state;
    struct pair p = plain_open();
    static const char bytes[65536];
    ssize_t n, sum = 0;
    while ((n = stream_write(&p.stream, bytes, sizeof bytes, false)) > 0)
        sum += n;
    assert_int_equal(n, -EAGAIN);
    assert_true(sum > 0);
    close(p.fd); /* with unread input: a reset */
    p.fd = -1;
    do
        n = stream_write(&p.stream, bytes, sizeof bytes, false);
    while (n > 0 || n == -EAGAIN);
    assert_true(n == -EPIPE || n == -ECONNRESET);
    pair_close(&p);
}

static void test_close_with_and_without_reset(void **state)
{
    (void)state;
    for (int tls_too = 0; tls_too < 2; tls_too++)
        for (int reset = 0; reset < 2; reset++) {
            struct pair p = tls_too ? tls_open_pair(TLS1_3_VERSION, true) : plain_open();
            struct pollfd wait = {.fd = p.fd, .events = POLLIN};
            char byte;
            stream_close(&p.stream, reset);
            assert_int_equal(p.stream.fd, -1);
            assert_int_equal(poll(&wait, 1, 2000), 1);
            assert_int_equal(recv(p.fd, &byte, 1, 0), reset ? -1 : 0);
            if (reset)
                assert_int_equal(errno, ECONNRESET);
            SSL_free(p.client);
            close(p.fd);
        }
}

/* --- TLS --- */

static void test_tls_both_ways(void **state)
{
    (void)state;
    for (int v = 0; v < VERSIONS; v++) {
        struct pair p = tls_open_pair(versions[v], false);
        char bytes[16];
        assert_int_equal(stream_read(&p.stream, bytes, sizeof bytes), -EAGAIN);
        assert_false(p.stream.read_wants_write);
        assert_false(stream_has_input(&p.stream));
        assert_int_equal(SSL_write(p.client, "abc", 3), 3);
        assert_reads(&p, "abc");
        assert_int_equal(stream_write(&p.stream, "xyz", 3, true), 3);
        struct pollfd wait = {.fd = p.fd, .events = POLLIN};
        assert_int_equal(poll(&wait, 1, 2000), 1);
        assert_int_equal(SSL_read(p.client, bytes, sizeof bytes), 3);
        assert_memory_equal(bytes, "xyz", 3);
        pair_close(&p);
    }
}

/* Offers the rest from another place each time, as an answer does that is queued behind. */
static ssize_t write_moved(struct stream *s, const uint8_t *bytes, size_t len)
{
    uint8_t *elsewhere = malloc(len);
    assert_non_null(elsewhere);
    memcpy(elsewhere, bytes, len);
    ssize_t n = stream_write(s, elsewhere, len, false);
    memset(elsewhere, 0xee, len);
    free(elsewhere);
    return n;
}

static void test_tls_full_socket(void **state)
{
    (void)state;
    enum { LEN = 1 << 20 };
    uint8_t *sent = malloc(LEN), *got = malloc(LEN);
    assert_true(sent && got);
    for (size_t i = 0; i < LEN; i++)
        sent[i] = (uint8_t)(i * 31 + i / 251);
    for (int v = 0; v < VERSIONS; v++) {
        struct pair p = tls_open_pair(versions[v], false);
        int small = 8192;
        setsockopt(p.stream.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
        size_t out = 0, in = 0;
        unsigned full = 0, partial = 0;
        for (int i = 0; i < 1000000 && in < LEN; i++) {
            /* What stands behind the next record may change meanwhile. */
            size_t offered = LEN - out;
            if (offered > 40000)
                offered = full % 2 ? 40000 : 16384;
            ssize_t n = offered > 0 ? write_moved(&p.stream, sent + out, offered) : 0;
            assert_true(n >= 0 || n == -EAGAIN);
            assert_false(p.stream.write_wants_read);
            partial += n > 0 && (size_t)n < offered;
            out += n > 0 ? (size_t)n : 0;
            full += n == -EAGAIN;
            if (n != -EAGAIN && offered > 0)
                continue;
            int r = SSL_read(p.client, got + in, LEN - (int)in);
            in += r > 0 ? (size_t)r : 0;
        }
        assert_int_equal(in, LEN);
        assert_memory_equal(sent, got, LEN);
        assert_true(full > 0);
        assert_true(partial > 0);
        pair_close(&p);
    }
    free(sent);
    free(got);
}

static void test_tls_many_records_one_read(void **state)
{
    (void)state;
    static const struct {
        unsigned records;
        size_t room, want;
        bool want_more;
    } cases[] = {
        {1, 64, 1, false},
        {5, 64, 5, false},
        {STREAM_RECORDS_A_READ, 64, STREAM_RECORDS_A_READ, false},
        {STREAM_RECORDS_A_READ + 1, 64, STREAM_RECORDS_A_READ, true},
        {5, 4, 4, true},
        {5, 5, 5, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pair p = tls_open_pair(TLS1_3_VERSION, true);
        char bytes[64];
        for (unsigned r = 0; r < cases[i].records; r++)
            assert_int_equal(SSL_write(p.client, "x", 1), 1);
        while (carry_out(&p, 20000) > 0)
            ;
        assert_int_equal(read_soon(&p, bytes, cases[i].room), cases[i].want);
        assert_int_equal(stream_has_input(&p.stream), cases[i].want_more);
        if (cases[i].want_more)
            assert_int_equal(stream_read(&p.stream, bytes, sizeof bytes),
                             cases[i].records - cases[i].want);
        assert_int_equal(stream_read(&p.stream, bytes, sizeof bytes), -EAGAIN);
        assert_false(stream_has_input(&p.stream));
        pair_close(&p);
    }
}

/* Half a record lies in OpenSSL's memory: a loop that took that for input would spin. */
static void test_tls_half_a_record(void **state)
{
    (void)state;
    for (int v = 0; v < VERSIONS; v++) {
        struct pair p = tls_open_pair(versions[v], true);
        char bytes[64];
        assert_int_equal(SSL_write(p.client, "one", 3), 3);
        size_t record = BIO_ctrl_pending(p.out);
        assert_int_equal(SSL_write(p.client, "two", 3), 3);
        assert_int_equal(carry_out(&p, record + 7), record + 7);
        assert_reads(&p, "one");
        assert_false(stream_has_input(&p.stream));
        assert_int_equal(stream_read(&p.stream, bytes, sizeof bytes), -EAGAIN);
        assert_false(stream_has_input(&p.stream));
        assert_true(carry_out(&p, 20000) > 0);
        assert_reads(&p, "two");
        pair_close(&p);
    }
}

static void test_tls_request_with_the_last_flight(void **state)
{
    (void)state;
    struct pair p = tls_begin_pair(TLS1_3_VERSION, true);
    assert_int_equal(SSL_do_handshake(p.client), -1); /* ClientHello */
    carry_out(&p, 20000);
    int server = -EAGAIN, client = -1;
    for (int i = 0; i < 1000 && client != 1; i++) {
        assert_int_equal(stream_handshake(&p.stream), -EAGAIN);
        assert_false(p.stream.read_wants_write);
        carry_in(&p);
        ERR_clear_error();
        client = SSL_do_handshake(p.client);
    }
    assert_int_equal(client, 1);
    assert_int_equal(SSL_write(p.client, "at once", 7), 7);
    carry_out(&p, 20000);
    for (int i = 0; i < 1000 && server == -EAGAIN; i++)
        server = stream_handshake(&p.stream);
    assert_int_equal(server, 0);
    struct pollfd wait = {.fd = p.stream.fd, .events = POLLIN};
    assert_int_equal(poll(&wait, 1, 0), 0); /* epoll would not tell */
    assert_true(stream_has_input(&p.stream));
    assert_reads(&p, "at once");
    assert_false(stream_has_input(&p.stream));
    pair_close(&p);
}

/* --- ends --- */

static void test_tls_client_ends_first(void **state)
{
    (void)state;
    for (int v = 0; v < VERSIONS; v++) {
        struct pair p = tls_open_pair(versions[v], true);
        char bytes[64];
        assert_int_equal(SSL_write(p.client, "last", 4), 4);
        assert_int_equal(SSL_shutdown(p.client), 0);
        carry_out(&p, 20000); /* no FIN: epoll has nothing more to tell */
        assert_reads(&p, "last");
        assert_true(stream_has_input(&p.stream));
        assert_int_equal(stream_read(&p.stream, bytes, sizeof bytes), 0);
        assert_false(stream_has_input(&p.stream));
        assert_int_equal(stream_read(&p.stream, bytes, sizeof bytes), 0);
        /* Our half is still open. */
        assert_int_equal(stream_write(&p.stream, "answer", 6, false), 6);
        stream_shut(&p.stream);
        struct pollfd wait = {.fd = p.fd, .events = POLLRDHUP};
        assert_int_equal(poll(&wait, 1, 2000), 1);
        carry_in(&p);
        assert_int_equal(SSL_read(p.client, bytes, sizeof bytes), 6);
        int n = SSL_read(p.client, bytes, sizeof bytes);
        assert_int_equal(SSL_get_error(p.client, n), SSL_ERROR_ZERO_RETURN);
        pair_close(&p);
    }
}

static void test_tls_server_ends_first(void **state)
{
    (void)state;
    for (int v = 0; v < VERSIONS; v++) {
        struct pair p = tls_open_pair(versions[v], false);
        char bytes[64];
        struct pollfd wait = {.fd = p.fd, .events = POLLRDHUP};
        stream_shut(&p.stream);
        assert_int_equal(poll(&wait, 1, 2000), 1);
        int n = SSL_read(p.client, bytes, sizeof bytes);
        assert_int_equal(SSL_get_error(p.client, n), SSL_ERROR_ZERO_RETURN);
        assert_int_equal(SSL_write(p.client, "late", 4), 4);
        assert_reads(&p, "late"); /* lingering reads it */
        assert_int_equal(SSL_write(p.client, "later", 5), 5);
        wait = (struct pollfd){.fd = p.stream.fd, .events = POLLIN};
        assert_int_equal(poll(&wait, 1, 2000), 1);
        assert_true(stream_discard(&p.stream) > 5); /* or throws it away, encrypted */
        assert_int_equal(stream_discard(&p.stream), -EAGAIN);
        pair_close(&p);
    }
}

static void test_tls_plain_fin_is_an_end(void **state)
{
    (void)state;
    for (int v = 0; v < VERSIONS; v++) {
        struct pair p = tls_open_pair(versions[v], false);
        char bytes[64];
        assert_int_equal(SSL_write(p.client, "last", 4), 4);
        shutdown(p.fd, SHUT_WR);
        assert_reads(&p, "last");
        assert_int_equal(read_soon(&p, bytes, sizeof bytes), 0);
        assert_int_equal(stream_write(&p.stream, "answer", 6, false), 6);
        pair_close(&p);
    }
}

static void test_tls_peer_gone(void **state)
{
    (void)state;
    struct pair p = tls_open_pair(TLS1_3_VERSION, false);
    struct linger none = {.l_onoff = 1, .l_linger = 0};
    char bytes[64];
    setsockopt(p.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    SSL_free(p.client);
    p.client = NULL;
    close(p.fd);
    p.fd = -1;
    assert_int_equal(read_soon(&p, bytes, sizeof bytes), -ECONNRESET);
    assert_true(stream_write(&p.stream, "x", 1, false) < 0);
    assert_int_equal(ERR_peek_error(), 0);
    stream_shut(&p.stream);
    pair_close(&p);
}

/* --- what is no TLS --- */

/* A record of the first flight that claims a ClientHello of 0x030000 bytes, more than any is. */
#define HUGE_HELLO "\x16\x03\x01\x00\x08\x01\x03\x00\x00\x03\x03\x00\x00"

static const struct {
    const char *name, *bytes;
    size_t len;
    int want, alert; /* 0: none, as the client cannot be speaking TLS */
} garbage[] = {
    {"http", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27, -EPROTO, 0},
    {"ssh", "SSH-2.0-OpenSSH_9.2p1\r\n", 23, -EPROTO, 0},
    {"zeros", "\0\0\0\0\0\0\0\0\0\0\0\0", 12, -EPROTO, 0},
    {"nothing whole", "\x16\x03\x01\x02\x00\x01", 6, -EAGAIN, 0},
    {"application data first", "\x17\x03\x03\x00\x01x", 6, -EPROTO, SSL_AD_UNEXPECTED_MESSAGE},
    {"huge hello", HUGE_HELLO, sizeof HUGE_HELLO - 1, -EPROTO, SSL_AD_ILLEGAL_PARAMETER},
    {"hello cut short", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", 10, -EPROTO,
     SSL_AD_DECODE_ERROR},
    {"client's alert", "\x15\x03\x01\x00\x02\x02\x28", 7, -EPROTO, SSL_AD_UNEXPECTED_MESSAGE},
};

static void test_garbage(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
        struct pair p = plain_open();
        uint8_t answer[64];
        assert_int_equal(stream_start_tls(&p.stream, tls), 0);
        assert_int_equal(stream_handshake(&p.stream), -EAGAIN);
        assert_int_equal(send(p.fd, garbage[i].bytes, garbage[i].len, 0), garbage[i].len);
        struct pollfd wait = {.fd = p.stream.fd, .events = POLLIN};
        assert_int_equal(poll(&wait, 1, 2000), 1);
        int err = stream_handshake(&p.stream);
        if (err != garbage[i].want)
            fail_msg("%s: %d instead of %d", garbage[i].name, err, garbage[i].want);
        assert_int_equal(ERR_peek_error(), 0);
        if (err != -EAGAIN) { /* it stays so */
            assert_int_equal(stream_handshake(&p.stream), -EPROTO);
            assert_int_equal(stream_read(&p.stream, answer, sizeof answer), -EPROTO);
            assert_int_equal(stream_write(&p.stream, "x", 1, false), -EPROTO);
            assert_false(stream_has_input(&p.stream));
        }
        stream_shut(&p.stream);
        stream_close(&p.stream, false);

        /* The alert, then the end: no reset. */
        wait = (struct pollfd){.fd = p.fd, .events = POLLRDHUP};
        assert_int_equal(poll(&wait, 1, 2000), 1);
        ssize_t n = recv(p.fd, answer, sizeof answer, 0);
        if (n != (garbage[i].alert ? 7 : 0) || (n > 0 && answer[6] != garbage[i].alert))
            fail_msg("%s: %zd bytes, alert %d", garbage[i].name, n, n == 7 ? answer[6] : -1);
        assert_int_equal(recv(p.fd, answer, sizeof answer, 0), 0);
        close(p.fd);
    }
}

/* More than OpenSSL reads ahead lies in the kernel when the answer is no. */
static void test_long_garbage_ends_without_reset(void **state)
{
    (void)state;
    static char bytes[60000] = "\x17\x03\x03\x00\x01x";
    struct pair p = plain_open();
    uint8_t answer[64];
    int on_client = 1 << 18;
    setsockopt(p.fd, SOL_SOCKET, SO_SNDBUF, &on_client, sizeof on_client);
    assert_int_equal(stream_start_tls(&p.stream, tls), 0);
    assert_int_equal(send(p.fd, bytes, sizeof bytes, 0), sizeof bytes);
    int there = 0;
    for (int i = 0; i < 200 && there < (int)sizeof bytes; i++) {
        assert_int_equal(ioctl(p.stream.fd, FIONREAD, &there), 0);
        poll(NULL, 0, 10);
    }
    assert_int_equal(there, sizeof bytes);
    assert_int_equal(stream_handshake(&p.stream), -EPROTO);
    stream_close(&p.stream, false);
    struct pollfd wait = {.fd = p.fd, .events = POLLRDHUP};
    assert_int_equal(poll(&wait, 1, 2000), 1);
    assert_int_equal(recv(p.fd, answer, sizeof answer, 0), 7);
    assert_int_equal(recv(p.fd, answer, sizeof answer, 0), 0);
    close(p.fd);
}

static void test_handshake_cut(void **state)
{
    (void)state;
    for (int v = 0; v < VERSIONS; v++)
        for (int spoken = 0; spoken < 2; spoken++) {
            struct pair p = tls_begin_pair(versions[v], true);
            if (spoken) {
                assert_int_equal(SSL_do_handshake(p.client), -1);
                carry_out(&p, 20000);
            }
            shutdown(p.fd, SHUT_WR);
            int err = -EAGAIN;
            for (int i = 0; i < 200 && err == -EAGAIN; i++) {
                struct pollfd wait = {.fd = p.stream.fd, .events = POLLIN};
                poll(&wait, 1, 10);
                err = stream_handshake(&p.stream);
            }
            assert_int_equal(err, -ECONNRESET);
            assert_int_equal(ERR_peek_error(), 0);
            stream_shut(&p.stream);
            pair_close(&p);
        }
}

static void update_keys(struct pair *p, unsigned count, int how)
{
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(SSL_key_update(p->client, how), 1);
        assert_int_equal(SSL_do_handshake(p->client), 1);
        carry_out(p, 20000);
    }
}

/* A client may change its keys now and then. It must not keep one read busy for as long as it
 * likes, which is what SSL_read would do. */
static void test_tls_key_updates(void **state)
{
    static const int how[] = {SSL_KEY_UPDATE_NOT_REQUESTED, SSL_KEY_UPDATE_REQUESTED};
    (void)state;
    for (size_t i = 0; i < sizeof how / sizeof how[0]; i++) {
        struct pair p = tls_open_pair(TLS1_3_VERSION, true);
        char bytes[16];
        assert_in_range(p.stream.records_other, 1, 8);
        update_keys(&p, STREAM_RECORDS_OTHER_MAX - p.stream.records_other, how[i]);
        assert_int_equal(SSL_write(p.client, "abc", 3), 3);
        carry_out(&p, 20000);
        assert_reads(&p, "abc");
        assert_int_equal(p.stream.records_other, STREAM_RECORDS_OTHER_MAX);
        assert_int_equal(stream_read(&p.stream, bytes, sizeof bytes), -EAGAIN);
        update_keys(&p, 1, how[i]);
        ssize_t n = read_soon(&p, bytes, sizeof bytes);
        assert_true(n < 0);
        assert_int_not_equal(n, -EAGAIN);
        /* However many more wait. */
        update_keys(&p, 1000, how[i]);
        unsigned seen = p.stream.records_other;
        assert_true(read_soon(&p, bytes, sizeof bytes) < 0);
        assert_int_equal(p.stream.records_other, seen);
        pair_close(&p);
    }
}

/* All in the socket at once: one read must not go through them all. */
static void test_tls_key_updates_in_one_read(void **state)
{
    (void)state;
    struct pair p = tls_open_pair(TLS1_3_VERSION, true);
    char bytes[16];
    update_keys(&p, 5000, SSL_KEY_UPDATE_NOT_REQUESTED);
    ssize_t n = read_soon(&p, bytes, sizeof bytes);
    assert_true(n < 0);
    assert_int_not_equal(n, -EAGAIN);
    assert_in_range(p.stream.records_other, STREAM_RECORDS_OTHER_MAX + 1,
                    STREAM_RECORDS_OTHER_MAX + 1000); /* what one read of the socket gave */
    pair_close(&p);
}

static void test_bad_record(void **state)
{
    (void)state;
    static const char forged[] = "\x17\x03\x03\x00\x20"
                                 "0123456789abcdef0123456789abcdef";
    for (int v = 0; v < VERSIONS; v++)
        for (int behind = 0; behind < 2; behind++) {
            struct pair p = tls_open_pair(versions[v], true);
            char bytes[64];
            if (behind) /* good bytes first, in the same segment */
                assert_int_equal(SSL_write(p.client, "good", 4), 4);
            assert_int_equal(BIO_write(p.out, forged, sizeof forged - 1), sizeof forged - 1);
            carry_out(&p, 20000);
            if (behind) {
                assert_reads(&p, "good");
                assert_true(stream_has_input(&p.stream)); /* the failure */
            }
            assert_int_equal(read_soon(&p, bytes, sizeof bytes), -EPROTO);
            assert_false(stream_has_input(&p.stream));
            assert_int_equal(stream_read(&p.stream, bytes, sizeof bytes), -EPROTO);
            assert_int_equal(stream_write(&p.stream, "x", 1, false), -EPROTO);
            stream_shut(&p.stream);
            struct pollfd wait = {.fd = p.fd, .events = POLLRDHUP};
            assert_int_equal(poll(&wait, 1, 2000), 1);
            carry_in(&p);
            ERR_clear_error();
            int n = SSL_read(p.client, bytes, sizeof bytes);
            assert_int_equal(SSL_get_error(p.client, n), SSL_ERROR_SSL);
            assert_int_equal(ERR_GET_REASON(ERR_peek_error()),
                             SSL_AD_REASON_OFFSET + SSL_AD_BAD_RECORD_MAC);
            pair_close(&p);
        }
}

/* What another user of OpenSSL left in this thread's queue is not this connection's error. */
static void test_errors_of_others(void **state)
{
    (void)state;
    struct pair p = tls_open_pair(TLS1_3_VERSION, false);
    char bytes[64];
    ERR_raise(ERR_LIB_SSL, SSL_R_BAD_LENGTH);
    assert_int_equal(stream_read(&p.stream, bytes, sizeof bytes), -EAGAIN);
    ERR_raise(ERR_LIB_SSL, SSL_R_BAD_LENGTH);
    assert_int_equal(SSL_shutdown(p.client), 0);
    ERR_raise(ERR_LIB_SSL, SSL_R_BAD_LENGTH);
    assert_int_equal(read_soon(&p, bytes, sizeof bytes), 0);
    ERR_raise(ERR_LIB_SSL, SSL_R_BAD_LENGTH);
    stream_shut(&p.stream);
    assert_int_equal(ERR_peek_error(), 0);
    pair_close(&p);

    p = tls_begin_pair(TLS1_3_VERSION, false);
    ERR_raise(ERR_LIB_SSL, SSL_R_BAD_LENGTH);
    assert_int_equal(stream_handshake(&p.stream), -EAGAIN);
    pair_close(&p);
}

/* --- memory --- */

/* An idle connection has no record buffers. The clients are freed: only the server's side counts.
 */
static void test_idle_memory(void **state)
{
    (void)state;
    enum { COUNT = 300, EACH_MAX = 16 * 1024 };
    static struct pair p[COUNT];
    size_t before = mallinfo2().uordblks;
    if (before == 0)
        skip();                                              /* a sanitizer's malloc does not say */
    struct pair warm = tls_open_pair(TLS1_3_VERSION, false); /* what OpenSSL keeps once */
    pair_close(&warm);
    for (int v = 0; v < VERSIONS; v++) {
        before = mallinfo2().uordblks;
        for (int i = 0; i < COUNT; i++) {
            p[i] = tls_open_pair(versions[v], false);
            assert_int_equal(SSL_write(p[i].client, "abc", 3), 3);
            assert_reads(&p[i], "abc");
            assert_int_equal(stream_write(&p[i].stream, "xyz", 3, false), 3);
            SSL_free(p[i].client);
            p[i].client = NULL;
        }
        size_t each = (mallinfo2().uordblks - before) / COUNT;
        print_message("an idle connection of %s: %zu bytes\n", SSL_get_version(p[0].stream.ssl),
                      each);
        assert_true(each > 1024);
        assert_true(each < EACH_MAX);
        for (int i = 0; i < COUNT; i++)
            pair_close(&p[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_plain_more_waits),
        cmocka_unit_test(test_plain_full_and_gone),
        cmocka_unit_test(test_close_with_and_without_reset),
        cmocka_unit_test(test_tls_both_ways),
        cmocka_unit_test(test_tls_full_socket),
        cmocka_unit_test(test_tls_many_records_one_read),
        cmocka_unit_test(test_tls_half_a_record),
        cmocka_unit_test(test_tls_request_with_the_last_flight),
        cmocka_unit_test(test_tls_client_ends_first),
        cmocka_unit_test(test_tls_server_ends_first),
        cmocka_unit_test(test_tls_plain_fin_is_an_end),
        cmocka_unit_test(test_tls_peer_gone),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_long_garbage_ends_without_reset),
        cmocka_unit_test(test_handshake_cut),
        cmocka_unit_test(test_tls_key_updates),
        cmocka_unit_test(test_tls_key_updates_in_one_read),
        cmocka_unit_test(test_bad_record),
        cmocka_unit_test(test_errors_of_others),
        cmocka_unit_test(test_idle_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
