#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <sys/socket.h>
#include <unistd.h>
#include "wss/stream.h"

enum { DISCARD_CALLS = 16 }; /* a garbage "ClientHello" up to 64 KiB */

/* --- plain --- */

static ssize_t plain_read(int fd, void *bytes, size_t len)
{
    ssize_t n;
    do
        n = recv(fd, bytes, len, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static ssize_t plain_write(int fd, const void *bytes, size_t len, bool more)
{
    ssize_t n;
    do
        n = send(fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ssize_t stream_discard(struct stream *s)
{
    char bytes[STREAM_DISCARD_A_CALL];
    return plain_read(s->fd, bytes, sizeof bytes);
}

/* --- TLS --- */

/* SSL_read goes on from one KeyUpdate to the next, and from one refused renegotiation to the next,
 * for as long as they come in: a client that never pauses would have the thread for itself. Records
 * that are no data are counted here ... */
static void tls_record_named(int sent, int version, int what, const void *bytes, size_t len,
                             SSL *ssl, void *arg)
{
    struct stream *s = arg;
    const uint8_t *type = bytes;
    /* In TLS 1.3 each record calls itself data; what it is stands inside. */
    bool names_type = what == SSL3_RT_HEADER || what == SSL3_RT_INNER_CONTENT_TYPE;
    (void)version, (void)ssl;
    if (!sent && names_type && len > 0 && *type != SSL3_RT_APPLICATION_DATA)
        s->records_other++;
}

/* ... and end with what has been read already: too many make the next read of the socket fail. */
static long tls_before_read(BIO *bio, int operation, const char *bytes, size_t len, int argi,
                            long argl, int result, size_t *processed)
{
    const void *arg = BIO_get_callback_arg(bio);
    const struct stream *s = arg;
    (void)bytes, (void)len, (void)argi, (void)argl, (void)processed;
    if (operation != BIO_CB_READ || s->records_other <= STREAM_RECORDS_OTHER_MAX)
        return result;
    BIO_clear_retry_flags(bio);
    return -1;
}

/* SSL_get_error looks at the thread's queue of errors and at errno. */
static void tls_begin(struct stream *s)
{
    SSL_set_msg_callback_arg(s->ssl, s); /* each time: a stream may move */
    BIO_set_callback_arg(SSL_get_rbio(s->ssl), (void *)s);
    ERR_clear_error();
    errno = 0;
}

/* OpenSSL has written the alert. What has come already must not make a reset of the close. */
static int tls_broken(struct stream *s, int err)
{
    s->broken = true;
    for (int i = 0; i < DISCARD_CALLS && stream_discard(s) > 0; i++)
        ;
    return err;
}

/* What a call came to that did not succeed. `direction` is the one that the caller expects to wait
 * for, SSL_ERROR_WANT_READ or _WRITE; *wants_other is set if it is not that. */
static int tls_failed(struct stream *s, int result, int direction, bool *wants_other)
{
    int system = errno;
    int error = SSL_get_error(s->ssl, result);
    ERR_clear_error();
    switch (error) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        *wants_other = error != direction;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL: /* without an errno it ended where it may not */
        s->broken = true;
        return system != 0 ? -system : -ECONNRESET;
    default:
        return tls_broken(s, -EPROTO);
    }
}

/* One record's worth. */
static ssize_t tls_read_record(struct stream *s, uint8_t *bytes, size_t len)
{
    size_t n;
    tls_begin(s);
    int result = SSL_read_ex(s->ssl, bytes, len, &n);
    if (result == 1)
        return (ssize_t)n;
    return tls_failed(s, result, SSL_ERROR_WANT_READ, &s->read_wants_write);
}

/* Goes on while records may lie in OpenSSL's memory: the caller gets them in one piece, and the
 * socket is asked once for all of them. An end or error that follows is told by the next call. */
static ssize_t tls_read(struct stream *s, uint8_t *bytes, size_t len)
{
    size_t got = 0;
    ssize_t n = 0;
    if (s->end_waits) {
        s->end_waits = false;
        return s->end;
    }
    if (s->broken)
        return -EPROTO;
    s->read_wants_write = false;
    s->starved = false;
    for (int i = 0; i < STREAM_RECORDS_A_READ && got < len; i++) {
        if (i > 0 && !SSL_has_pending(s->ssl))
            break;
        n = tls_read_record(s, bytes + got, len - got);
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    s->starved = n == -EAGAIN;
    if (got == 0)
        return n;
    s->end_waits = n <= 0 && n != -EAGAIN;
    s->end = (int)(n <= 0 ? n : 0);
    return (ssize_t)got;
}

static ssize_t tls_write(struct stream *s, const void *bytes, size_t len)
{
    size_t n;
    s->write_wants_read = false;
    /* With more, OpenSSL may take one record, fail on the next, and tell neither: a retry would
     * have to offer all of it again. */
    if (len > SSL3_RT_MAX_PLAIN_LENGTH)
        len = SSL3_RT_MAX_PLAIN_LENGTH;
    tls_begin(s);
    int result = SSL_write_ex(s->ssl, bytes, len, &n);
    if (result == 1)
        return (ssize_t)n;
    int err = tls_failed(s, result, SSL_ERROR_WANT_WRITE, &s->write_wants_read);
    return err != 0 ? err : -EPIPE; /* the other side's end is none of ours */
}

/* --- either --- */

void stream_open(struct stream *s, int fd)
{
    *s = (struct stream){.fd = fd};
}

int stream_start_tls(struct stream *s, struct tls *t)
{
    assert(!s->ssl);
    s->ssl = tls_accept(t, s->fd);
    if (!s->ssl)
        return -ENOMEM;
    SSL_set_msg_callback(s->ssl, tls_record_named);
    BIO_set_callback_ex(SSL_get_rbio(s->ssl), tls_before_read);
    return 0;
}

int stream_handshake(struct stream *s)
{
    assert(s->ssl);
    if (s->broken)
        return -EPROTO;
    s->read_wants_write = false;
    tls_begin(s);
    int result = SSL_do_handshake(s->ssl);
    if (result == 1)
        return 0;
    int err = tls_failed(s, result, SSL_ERROR_WANT_READ, &s->read_wants_write);
    if (err == 0) { /* it closed in the middle */
        s->broken = true;
        return -ECONNRESET;
    }
    return err;
}

ssize_t stream_read(struct stream *s, void *bytes, size_t len)
{
    assert(len > 0);
    if (!s->ssl)
        return plain_read(s->fd, bytes, len);
    return tls_read(s, bytes, len);
}

ssize_t stream_write(struct stream *s, const void *bytes, size_t len, bool more)
{
    assert(len > 0); /* TLS would send an empty record */
    if (!s->ssl)
        return plain_write(s->fd, bytes, len, more);
    return s->broken ? -EPROTO : tls_write(s, bytes, len);
}

bool stream_has_input(const struct stream *s)
{
    if (s->end_waits)
        return true;
    /* Less than a record may be pending, too: then the read before said so. */
    return s->ssl && !s->broken && !s->starved && SSL_has_pending(s->ssl);
}

void stream_shut(struct stream *s)
{
    /* A full socket loses the close_notify; the FIN behind it is then all that we can say. */
    if (s->ssl && !s->broken && SSL_is_init_finished(s->ssl)) {
        tls_begin(s);
        (void)SSL_shutdown(s->ssl);
        ERR_clear_error();
    }
    /* Fails only when the peer is gone, which the next read tells too. */
    (void)shutdown(s->fd, SHUT_WR);
}

void stream_close(struct stream *s, bool reset)
{
    if (reset) {
        struct linger none = {.l_onoff = 1, .l_linger = 0};
        /* Without it, the kernel only tries a little longer. */
        (void)setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    }
    SSL_free(s->ssl);
    close(s->fd);
    *s = (struct stream){.fd = -1};
}
