#include "cmd/gossip_key.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool fail(char error[static GOSSIP_KEY_ERROR_MAX], const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static bool fail(char error[static GOSSIP_KEY_ERROR_MAX], const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error, GOSSIP_KEY_ERROR_MAX, format, args);
    va_end(args);
    return false;
}

void gossip_key_mark(const uint8_t key[static SEAL_KEY_LEN], char ret[static GOSSIP_KEY_MARK_MAX])
{
    uint8_t hash[crypto_generichash_BYTES];
    crypto_generichash(hash, sizeof hash, key, SEAL_KEY_LEN, NULL, 0);
    sodium_bin2hex(ret, GOSSIP_KEY_MARK_MAX, hash, GOSSIP_KEY_MARK_MAX / 2);
}

/* --- the ring --- */

static int find(const struct seal_ring *ring, uint8_t id)
{
    for (unsigned i = 0; i < ring->count; i++)
        if (ring->of[i].id == id)
            return (int)i;
    return -1;
}

/* The next free one behind that in use, so that a later key mostly has the larger id. */
static uint8_t choose_id(const struct seal_ring *ring)
{
    uint8_t id = ring->count ? ring->of[ring->in_use].id : 0;
    do
        id++;
    while (find(ring, id) >= 0);
    return id;
}

static bool ring_has_room(const struct seal_ring *ring, char error[static GOSSIP_KEY_ERROR_MAX])
{
    return ring->count < SEAL_KEYS_MAX ||
           fail(error,
                "there are %d keys, and no more may be: remove one that is not used any more",
                SEAL_KEYS_MAX);
}

static bool ring_add(struct seal_ring *ring, const struct gossip_key_wish *wish,
                     char error[static GOSSIP_KEY_ERROR_MAX])
{
    uint8_t id = wish->has_id ? wish->id : choose_id(ring);
    if (!ring_has_room(ring, error))
        return false;
    if (find(ring, id) >= 0)
        return fail(error, "key %u is there already", id);
    ring->of[ring->count].id = id;
    randombytes_buf(ring->of[ring->count].key, SEAL_KEY_LEN);
    ring->count++;
    return true;
}

/* A line by itself is a file only when its key is in use: what it says of that does not matter. */
static bool read_line(FILE *from, struct seal_ring *ret, char error[static GOSSIP_KEY_ERROR_MAX])
{
    char line[128], text[128], id[8], word[8], key[64], why[SEAL_ERROR_MAX];
    bool good = fgets(line, sizeof line, from) != NULL &&
                sscanf(line, "%7s %7s %63s", id, word, key) == 3 &&
                (strcmp(word, "use") == 0 || strcmp(word, "accept") == 0);
    if (!good)
        fail(error, "a line of a keys file is wanted: ID use|accept KEY");
    int len = good ? snprintf(text, sizeof text, "%s use %s\n", id, key) : 0;
    if (good && !seal_ring_read(ret, "the line", text, (size_t)len, why))
        good = fail(error, "%s", why);
    sodium_memzero(line, sizeof line);
    sodium_memzero(text, sizeof text);
    sodium_memzero(key, sizeof key);
    return good;
}

static bool ring_take(struct seal_ring *ring, const struct gossip_key_wish *wish,
                      char error[static GOSSIP_KEY_ERROR_MAX])
{
    struct seal_ring one;
    if (!ring_has_room(ring, error) || !read_line(wish->from, &one, error))
        return false;
    bool good =
        find(ring, one.of[0].id) < 0 || fail(error, "key %u is there already", one.of[0].id);
    for (unsigned i = 0; i < ring->count && good; i++)
        if (sodium_memcmp(ring->of[i].key, one.of[0].key, SEAL_KEY_LEN) == 0)
            good = fail(error, "that key is there already, as %u", ring->of[i].id);
    if (good)
        ring->of[ring->count++] = one.of[0];
    sodium_memzero(&one, sizeof one);
    return good;
}

static bool ring_use(struct seal_ring *ring, const struct gossip_key_wish *wish,
                     char error[static GOSSIP_KEY_ERROR_MAX])
{
    int at = find(ring, wish->id);
    if (at < 0)
        return fail(error, "there is no key %u", wish->id);
    ring->in_use = (unsigned)at;
    return true;
}

static bool ring_remove(struct seal_ring *ring, const struct gossip_key_wish *wish,
                        char error[static GOSSIP_KEY_ERROR_MAX])
{
    int at = find(ring, wish->id);
    if (at < 0)
        return fail(error, "there is no key %u", wish->id);
    if ((unsigned)at == ring->in_use)
        return fail(error, "key %u is in use: use another one first, everywhere", wish->id);
    for (unsigned i = (unsigned)at; i + 1 < ring->count; i++)
        ring->of[i] = ring->of[i + 1];
    ring->in_use -= ring->in_use > (unsigned)at;
    ring->count--;
    sodium_memzero(&ring->of[ring->count], sizeof ring->of[0]);
    return true;
}

/* --- the file --- */

static bool file_read(const char *path, struct seal_ring *ret, struct stat *ret_stat,
                      char error[static GOSSIP_KEY_ERROR_MAX])
{
    char text[GOSSIP_KEY_FILE_MAX + 1], why[SEAL_ERROR_MAX];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 || fstat(fd, ret_stat) < 0 ? -1 : read(fd, text, sizeof text);
    int err = errno;
    if (fd >= 0)
        close(fd);
    if (len < 0)
        return fail(error, "cannot read %s: %s", path, strerror(err));
    if (len > GOSSIP_KEY_FILE_MAX)
        return fail(error, "%s is too long for a keys file", path);
    bool good = seal_ring_read(ret, path, text, (size_t)len, why);
    sodium_memzero(text, sizeof text);
    return good || fail(error, "%s", why);
}

static bool write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0)
            text += n, len -= (size_t)n;
    }
    return fsync(fd) == 0;
}

/* Owner and group as they were. Who may not give it its group, gives it none to read it. */
static bool owner_keep(int fd, const struct stat *old)
{
    mode_t mode = 0600 | (old->st_mode & 0040);
    if (fchown(fd, old->st_uid, old->st_gid) == 0)
        return fchmod(fd, mode) == 0;
    return old->st_uid == geteuid(); /* it is 0600 */
}

/* `old` NULL: there must not be one. */
static bool new_write(const char *path, const char *new, int fd, const struct seal_ring *ring,
                      const struct stat *old, char error[static GOSSIP_KEY_ERROR_MAX])
{
    char text[SEAL_TEXT_MAX];
    size_t len = seal_ring_write(ring, text, sizeof text);
    bool good = write_all(fd, text, len);
    sodium_memzero(text, sizeof text);
    if (!good)
        return fail(error, "cannot write %s: %s", new, strerror(errno));
    if (old && !owner_keep(fd, old))
        return fail(error, "cannot give %s the owner of %s: try it as that user, or as root", new,
                    path);
    if (old ? rename(new, path) < 0 : link(new, path) < 0)
        return fail(error, "cannot make %s: %s", path, strerror(errno));
    return true;
}

/* The name lasts through a crash only when its directory has reached the disk; where a file system
 * cannot say, it is left at that. */
static void directory_sync(const char *path)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = '\0';
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    close(fd);
}

static bool change(const struct gossip_key_wish *wish, struct seal_ring *ring,
                   char error[static GOSSIP_KEY_ERROR_MAX])
{
    switch (wish->action) {
    case GOSSIP_KEY_GENERATE:
    case GOSSIP_KEY_ADD:
        return ring_add(ring, wish, error);
    case GOSSIP_KEY_TAKE:
        return ring_take(ring, wish, error);
    case GOSSIP_KEY_USE:
        return ring_use(ring, wish, error);
    case GOSSIP_KEY_REMOVE:
        return ring_remove(ring, wish, error);
    case GOSSIP_KEY_LIST:
    case GOSSIP_KEY_ACTIONS:
        break;
    }
    return true;
}

/* With the lock held. */
static bool file_change(const char *path, const char *new, int fd,
                        const struct gossip_key_wish *wish, struct seal_ring *ret,
                        char error[static GOSSIP_KEY_ERROR_MAX])
{
    struct stat old;
    bool fresh = wish->action == GOSSIP_KEY_GENERATE;
    if (fresh && access(path, F_OK) == 0)
        return fail(error, "%s is there already: add a key to it", path);
    if (!fresh && !file_read(path, ret, &old, error))
        return false;
    if (!change(wish, ret, error) || !new_write(path, new, fd, ret, fresh ? NULL : &old, error))
        return false;
    directory_sync(path);
    return true;
}

bool gossip_key_edit(const char *path, const struct gossip_key_wish *wish, struct seal_ring *ret,
                     char error[static GOSSIP_KEY_ERROR_MAX])
{
    char real[PATH_MAX], new[PATH_MAX + 8];
    struct stat ignored;
    memset(ret, 0, sizeof *ret);
    if (wish->action == GOSSIP_KEY_LIST)
        return file_read(path, ret, &ignored, error);
    if (wish->action != GOSSIP_KEY_GENERATE && !realpath(path, real))
        return fail(error, "cannot read %s: %s", path, strerror(errno));
    if (wish->action == GOSSIP_KEY_GENERATE &&
        snprintf(real, sizeof real, "%s", path) >= (int)sizeof real)
        return fail(error, "the name of the file is too long");
    snprintf(new, sizeof new, "%s.new", real);
    int fd = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        return fail(
            error, "%s is there: somebody edits the keys, or was interrupted; then remove it", new);
    if (fd < 0)
        return fail(error, "cannot make %s: %s", new, strerror(errno));
    bool good = file_change(real, new, fd, wish, ret, error);
    close(fd);
    /* Where it was renamed, this name may by now be another editor's. */
    if (!good || wish->action == GOSSIP_KEY_GENERATE)
        (void)unlink(new);
    if (!good)
        sodium_memzero(ret, sizeof *ret);
    return good;
}

/* --- the command --- */

static const struct {
    const char *name;
    bool wants_id;
} actions[GOSSIP_KEY_ACTIONS] = {
    [GOSSIP_KEY_GENERATE] = {"generate", false},
    [GOSSIP_KEY_LIST] = {"list", false},
    [GOSSIP_KEY_ADD] = {"add", false},
    [GOSSIP_KEY_TAKE] = {"", false},
    [GOSSIP_KEY_USE] = {"use", true},
    [GOSSIP_KEY_REMOVE] = {"remove", true},
};

static bool read_key_id(const char *text, uint8_t *ret)
{
    char *end;
    unsigned long id = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || strlen(text) > 3 || *end || id > UINT8_MAX)
        return false;
    *ret = (uint8_t)id;
    return true;
}

/* 0 or an exit code. */
static int read_wish(const char *action, const char *id, struct gossip_key_wish *ret)
{
    int found = -1;
    for (int i = 0; i < GOSSIP_KEY_ACTIONS; i++)
        if (i != GOSSIP_KEY_TAKE && strcmp(actions[i].name, action) == 0)
            found = i;
    if (found < 0)
        return complain(CTL_USAGE, "%s is none of generate, list, add, use and remove", action);
    *ret = (struct gossip_key_wish){.action = (enum gossip_key_action)found, .from = stdin};
    if (actions[found].wants_id && !id)
        return complain(CTL_USAGE, "gossip-key %s wants the id of a key", action);
    if (found == GOSSIP_KEY_LIST && id)
        return complain(CTL_USAGE, "%s is too much for gossip-key list", id);
    if (found == GOSSIP_KEY_ADD && id && strcmp(id, "-") == 0) {
        ret->action = GOSSIP_KEY_TAKE;
        return 0;
    }
    ret->has_id = id != NULL;
    if (id && !read_key_id(id, &ret->id))
        return complain(CTL_USAGE, "%s is no id of a key, 0 to 255", id);
    return 0;
}

static void ring_show(const struct seal_ring *ring, bool as_json)
{
    fputs(as_json ? "{\"keys\":[" : " ID STATE   FINGERPRINT\n", stdout);
    for (unsigned i = 0; i < ring->count; i++) {
        char mark[GOSSIP_KEY_MARK_MAX];
        const char *state = i == ring->in_use ? "use" : "accept";
        gossip_key_mark(ring->of[i].key, mark);
        if (as_json)
            printf("%s{\"id\":%u,\"state\":\"%s\",\"fingerprint\":\"%s\"}", i ? "," : "",
                   ring->of[i].id, state, mark);
        else
            printf("%3u %-7s %s\n", ring->of[i].id, state, mark);
    }
    if (as_json)
        fputs("]}\n", stdout);
}

int gossip_key_run(struct ctl *c, const char *action, const char *id)
{
    char error[GOSSIP_KEY_ERROR_MAX];
    struct gossip_key_wish wish;
    struct seal_ring ring;
    int code = read_wish(action, id, &wish);
    if (code != 0)
        return code;
    if (!c->file)
        return complain(CTL_USAGE, "gossip-key wants --file, the file that the option gossip-keys "
                                   "of the beacon names");
    if (sodium_init() < 0 || !gossip_key_edit(c->file, &wish, &ring, error))
        return complain(EXIT_FAILURE, "%s", error);
    ring_show(&ring, c->json);
    sodium_memzero(&ring, sizeof ring);
    /* A beacon that runs has a file, and does not look for another. */
    if (c->no_reload || wish.action == GOSSIP_KEY_LIST || wish.action == GOSSIP_KEY_GENERATE)
        return 0;
    code = ctl_reload(c);
    if (code != 0)
        fputs("hint: the file has been changed; --no-reload leaves the beacon alone\n", stderr);
    return code;
}
