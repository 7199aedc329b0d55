/* listen - sockets that wait for connections: TCP, and unix sockets with their file.
 *
 * All descriptors are nonblocking and close-on-exec. */
#ifndef BEACON_WSS_LISTEN_H
#define BEACON_WSS_LISTEN_H

#include <sys/types.h>
#include "proto/endpoint.h"

/* The descriptor or -errno. The port that the kernel gave is written back. An IPv6 wildcard takes
 * IPv4 too, and is an IPv4 wildcard where the host has no IPv6. */
int listen_tcp(struct endpoint *at);

/* Which file a unix socket is: another process may have put its own in that place since. */
struct listen_file {
    dev_t device;
    ino_t inode;
};

/* Mode 0660. The descriptor or -errno; -EADDRINUSE: somebody listens there; -ENOTSOCK: something
 * else has that name. A socket that nobody listens on is replaced. */
int listen_unix(const char *path, struct listen_file *ret);
/* Removes the file if it is still ours. */
void listen_unix_remove(const char *path, const struct listen_file *file);

#endif
