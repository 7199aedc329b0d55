/* Whatever a registry answers or a peers file says: what is taken of it makes sense, and says the
 * same when it is written and read again. Errors are lines of printable text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gossip/registry.h"

#define CHECK(fact) ((fact) ? (void)0 : abort())

enum { NAMES = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check_error(bool good, const char *error)
{
    CHECK(good == (error[0] == '\0'));
    CHECK(strlen(error) < REGISTRY_ERROR_MAX);
    for (; *error; error++)
        CHECK(*error >= ' ' && *error <= '~');
}

static void check_host(const char *host, uint16_t port)
{
    char text[PEER_TEXT_MAX];
    struct peer_name again;
    size_t len = peer_name_write(text, host, port);
    CHECK(len > 0 && len == strlen(text));
    CHECK(peer_host_read(text, len, 0, &again));
    CHECK(again.port == port && strcmp(again.host, host) == 0);
    CHECK(!peer_host_read(text, len - 1, 0, &again) || again.port < port);
}

static void check_list(const char *json, size_t len)
{
    static struct registry_list list;
    char error[REGISTRY_ERROR_MAX] = "";
    bool good = registry_listed(json, len, &list, error);
    check_error(good, error);
    CHECK(!good || list.count <= REGISTRY_BEACONS_MAX);
    for (unsigned i = 0; good && i < list.count; i++) {
        CHECK(list.of[i].id != 0 && list.of[i].port != 0);
        check_host(list.of[i].host, list.of[i].port);
    }
}

static void check_registration(const char *json, size_t len)
{
    char one[REGISTRY_ERROR_MAX] = "", other[REGISTRY_ERROR_MAX] = "";
    bool is_one = registry_registered(json, len, 1, one);
    bool is_other = registry_registered(json, len, 4294967295, other);
    check_error(is_one, one);
    check_error(is_other, other);
    CHECK(!(is_one && is_other));
}

static void check_names(const char *text, size_t len)
{
    static struct peer_name name[NAMES], again[NAMES];
    static char written[NAMES * (PEER_TEXT_MAX + 8)];
    char error[REGISTRY_ERROR_MAX] = "";
    size_t at = 0;
    int count = peer_names_read("file", text, len, name, NAMES, error);
    check_error(count >= 0, error);
    CHECK(count >= 0 || strncmp(error, "file:", 5) == 0);
    for (int i = 0; i < count; i++) {
        check_host(name[i].host, name[i].port);
        at += (size_t)sprintf(written + at, "%s", name[i].is_pilot ? "pilot:" : "");
        at += peer_name_write(written + at, name[i].host, name[i].port);
        written[at++] = i % 2 ? ',' : '\n';
    }
    CHECK(count < 0 || peer_names_read("again", written, at, again, NAMES, error) == count);
    for (int i = 0; i < count; i++)
        CHECK(strcmp(name[i].host, again[i].host) == 0 && name[i].port == again[i].port &&
              name[i].is_pilot == again[i].is_pilot);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    char *copy = malloc(len + (len == 0)); /* of its size: a byte too far is seen */
    CHECK(copy);
    memcpy(copy, bytes, len);
    size_t frame = registry_frame_len(bytes, len);
    CHECK((frame == 0) == (len < 4));
    CHECK(frame == 0 || frame == SIZE_MAX || (frame >= 4 && frame <= REGISTRY_ANSWER_MAX + 4));
    check_list(copy, len);
    check_registration(copy, len);
    check_names(copy, len);
    free(copy);
    return 0;
}
