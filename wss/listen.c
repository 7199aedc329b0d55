#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "proto/sockaddr.h"
#include "wss/listen.h"

enum { BACKLOG = 512, UNIX_MODE = 0660 };

/* --- TCP --- */

static int tcp_bind(int family, struct endpoint *at)
{
    int on = 1, off = 0, err;
    union name name;
    socklen_t len = name_of_endpoint(&name, at, family, 0);
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        goto close_socket;
    if (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) < 0)
        goto close_socket;
    if (bind(fd, &name.any, len) < 0 || listen(fd, BACKLOG) < 0)
        goto close_socket;
    len = sizeof name;
    if (getsockname(fd, &name.any, &len) < 0)
        goto close_socket;
    at->port = endpoint_of_name(&name, NULL).port;
    return fd;

close_socket:
    err = -errno;
    close(fd);
    return err;
}

int listen_tcp(struct endpoint *at)
{
    static const uint8_t any[16];
    if (endpoint_is_v4(at))
        return tcp_bind(AF_INET, at);
    int fd = tcp_bind(AF_INET6, at);
    /* A kernel without IPv6, or with it switched off: "any address" then means any of IPv4. */
    if ((fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL) && memcmp(at->ip, any, sizeof any) == 0)
        return tcp_bind(AF_INET, at);
    return fd;
}

/* --- unix --- */

static int unix_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

/* 0: the name is a socket that nobody accepts on, left behind by a process that was killed. */
static int unix_is_stale(const struct sockaddr_un *name)
{
    struct stat st;
    if (lstat(name->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : -errno; /* its owner has just removed it */
    if (!S_ISSOCK(st.st_mode))
        return -ENOTSOCK;
    int fd = unix_socket();
    if (fd < 0)
        return fd;
    int err = connect(fd, (const struct sockaddr *)name, sizeof *name) < 0 ? errno : 0;
    close(fd);
    return err == ECONNREFUSED ? 0 : -EADDRINUSE;
}

static int unix_bind(int fd, const struct sockaddr_un *name)
{
    if (bind(fd, (const struct sockaddr *)name, sizeof *name) == 0)
        return 0;
    if (errno != EADDRINUSE)
        return -errno;
    int err = unix_is_stale(name);
    if (err < 0)
        return err;
    if (unlink(name->sun_path) < 0 && errno != ENOENT)
        return -errno;
    return bind(fd, (const struct sockaddr *)name, sizeof *name) < 0 ? -errno : 0;
}

int listen_unix(const char *path, struct listen_file *ret)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct stat st;
    int err;
    if (strlen(path) >= sizeof name.sun_path)
        return -ENAMETOOLONG;
    strcpy(name.sun_path, path);

    int fd = unix_socket();
    if (fd < 0)
        return fd;
    /* The file is made with the descriptor's mode less the umask, so it is never open to more; the
     * second call gives the group what the umask took. */
    err = fchmod(fd, UNIX_MODE) < 0 ? -errno : unix_bind(fd, &name);
    if (err < 0)
        goto close_socket;
    if (chmod(path, UNIX_MODE) < 0 || lstat(path, &st) < 0 || listen(fd, BACKLOG) < 0) {
        err = -errno;
        goto remove_file;
    }
    *ret = (struct listen_file){.device = st.st_dev, .inode = st.st_ino};
    return fd;

remove_file:
    (void)unlink(path); /* ours, or gone already */
close_socket:
    close(fd);
    return err;
}

void listen_unix_remove(const char *path, const struct listen_file *file)
{
    struct stat st;
    if (lstat(path, &st) == 0 && st.st_dev == file->device && st.st_ino == file->inode)
        (void)unlink(path); /* a file that stays is replaced at the next start */
}
