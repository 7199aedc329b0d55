/* stream - the byte stream below HTTP: a plain TCP or unix socket, or TLS over one.
 *
 * Nonblocking. All calls return the number of bytes, 0 at the end of the peer's stream, or -errno.
 * -EAGAIN waits for the direction of the call, or for the other one where read_wants_write or
 * write_wants_read says so. Any other -errno is the end of the stream; -EPROTO: TLS refused what
 * came, the alert has been sent, and only stream_discard, stream_shut and stream_close make sense.
 *
 * TLS looks ahead: bytes may wait in its memory where epoll cannot see them, also right after the
 * handshake. Before waiting, ask stream_has_input.
 *
 * After -EAGAIN from stream_write the same bytes must be offered again first, and not fewer; they
 * may have moved, and more may stand behind them.
 *
 * A client that updates its keys, or asks to renegotiate, without end is an -errno, too.
 *
 * OpenSSL writes with write(2): the process must ignore SIGPIPE. One connection's TLS error never
 * shows in another. The edge's thread only. */
#ifndef BEACON_WSS_STREAM_H
#define BEACON_WSS_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "wss/tls.h"

enum {
    STREAM_RECORDS_A_READ = 16, /* of TLS; a peer may put a byte in each */
    STREAM_DISCARD_A_CALL = 4096,
    STREAM_RECORDS_OTHER_MAX = 256, /* of TLS that are no data, in the life of a connection */
};

struct stream {
    int fd;
    SSL *ssl;                                /* NULL: plain */
    bool read_wants_write, write_wants_read; /* TLS may want the other direction */
    bool broken;                             /* TLS failed: no close_notify may be sent */
    bool starved;   /* TLS has not one whole record left: only the socket can bring more */
    bool end_waits; /* a read met it behind its last bytes; the next one returns `end` */
    int end;
    unsigned records_other; /* received that are no data */
};

void stream_open(struct stream *s, int fd);
/* Makes it a TLS stream; the handshake is still to be done. 0 or -ENOMEM. */
int stream_start_tls(struct stream *s, struct tls *t);
/* 0 when done, -EAGAIN (waits for input, or to write if read_wants_write), or another -errno
 * (-EPROTO: one side refused; our alert has been sent). Bounds no time: the caller does. */
int stream_handshake(struct stream *s);

ssize_t stream_read(struct stream *s, void *bytes, size_t len);
/* `more` follows at once: a plain socket then waits for it; TLS makes a record of each call. May
 * take less than all, TLS at most a record (16 KiB). */
ssize_t stream_write(struct stream *s, const void *bytes, size_t len, bool more);
/* Something to read, bytes or the end, that epoll cannot see. */
bool stream_has_input(const struct stream *s);

/* Says that nothing more will be written (close_notify, FIN). Never blocks. */
void stream_shut(struct stream *s);
/* Throws away some of what has arrived, undecrypted, as stream_read otherwise; also after a
 * failure. For lingering: a close with unread input is a reset, which overtakes the last words. */
ssize_t stream_discard(struct stream *s);
/* Closes without a farewell; `reset`: unread output is discarded by the kernel, too. Nothing may be
 * called afterwards. */
void stream_close(struct stream *s, bool reset);

#endif
