/* turn - just enough of a TURN client (RFC 8656) to put load on a server without credentials. */
#ifndef BEACON_BENCH_TURN_H
#define BEACON_BENCH_TURN_H

#include <stddef.h>
#include <stdint.h>

enum {
    TURN_CLIENTS = 64,
    TURN_CHANNEL = 0x4000,
    TURN_HEAD_LEN = 4, /* ChannelData: channel, length of what follows */
};

/* The address of client i; all clients share one socket and its port. */
static inline uint32_t turn_client(unsigned i)
{
    return 0x7f000200 + i;
}

/* For every client on socket `fd`: Allocate, CreatePermission and ChannelBind of TURN_CHANNEL to
 * 127.0.0.1:peer_port at the server 127.0.0.1:port. Ends the process when the server refuses. */
void turn_open(int fd, uint16_t port, uint16_t peer_port);

/* The header of a ChannelData message with `len` bytes behind it. */
void turn_write_head(uint8_t *at, size_t len);

#endif
