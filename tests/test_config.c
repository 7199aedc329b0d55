/* config - every option from every source, good and bad and at both sides of each limit; what is
 * said about mistakes; that a dump reads back as the same. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>
#include "server/options.h"

static struct config c, other;
static struct config_error error;

static bool read_as(const char *path, const char *text)
{
    config_init(&c);
    error.text[0] = '\0';
    return config_read(&c, path, text, strlen(text), &error);
}

/* The value in effect, as text. Eight live at a time. */
static const char *value_of(const struct config *from, const char *name)
{
    static char text[8][CONFIG_VALUE_MAX];
    static unsigned next;

    return option_format(option_find(name), from, text[next++ % 8], CONFIG_VALUE_MAX);
}

static const char *origin_of(const char *name)
{
    return c.origin[option_index(option_find(name))];
}

static char *printed(void (*print)(FILE *))
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    print(out);
    fclose(out);
    return text;
}

static char *dumped(const struct config *from)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    config_dump(from, out);
    fclose(out);
    return text;
}

#define X16 "xxxxxxxxxxxxxxxx"
#define X256 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16
#define X1008 X256 X256 X256 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16
#define NOT_BOOL "not true or false"
#define NOT_NUMBER "not a whole number"
#define NOT_TIME "not a time, like 90, 90s, 10m, 1h or 1d"
#define NOT_SIZE "not a size, like 4194304, 64KiB, 8MiB or 1GiB"
#define NOT_RATE "not a rate, like 20 or 20/50 (a second, and at once)"
#define RATE_HIGH "rate and burst must be at most 1000000000"
#define RATE_BURST "a burst of 0 would let nothing pass (a rate of 0 is off)"
#define NOT_ENDPOINT                                                                               \
    "not an address and port, like 203.0.113.7:9001, [2001:db8::1]:9001 or :9001 (host names are " \
    "not looked up)"

#define NOT_ADMIN                                                                                  \
    "not an address and port, like 127.0.0.1:8081, and not a unix socket, like "                   \
    "unix:/run/beacon/admin.sock"
#define NOT_PREFIX " is not an address or prefix, like 10.0.0.0/8"
#define UNIX_107 "/" X16 X16 X16 X16 X16 X16 "xxxxxxxxxx" /* as much as a unix address holds */

/* Good: `want` is the value in effect, NULL for the same as `value`. Bad: `why`. */
static const struct {
    const char *name, *value, *want, *why;
} values[] = {
    {"config", "/etc/beacon/beacon.conf", NULL, NULL},
    {"config", X1008 "too long by one!", NULL, "too long"},
    {"dev", "true", NULL, NULL},
    {"dev", "maybe", NULL, NOT_BOOL},
    {"addr", ":9001", "[::]:9001", NULL},
    {"addr", "0.0.0.0:9001", NULL, NULL},
    {"addr", "203.0.113.7:0", NULL, NULL},
    {"addr", "203.0.113.7:65535", NULL, NULL},
    {"addr", "[2001:db8::1]:9001", NULL, NULL},
    {"addr", "localhost:9001", "127.0.0.1:9001", NULL},
    {"addr", "LocalHost:9001", "127.0.0.1:9001", NULL},
    {"addr", "", NULL, NOT_ENDPOINT},
    {"addr", "9001", NULL, NOT_ENDPOINT},
    {"addr", "203.0.113.7", NULL, NOT_ENDPOINT},
    {"addr", "203.0.113.7:65536", NULL, NOT_ENDPOINT},
    {"addr", "203.0.113.256:1", NULL, NOT_ENDPOINT},
    {"addr", "localhost", NULL, NOT_ENDPOINT},
    {"addr", "localhost:", NULL, NOT_ENDPOINT},
    {"addr", "localhost:9001x", NULL, NOT_ENDPOINT},
    {"addr", "localhost:" X256, NULL, NOT_ENDPOINT},
    {"addr", "beacon.example.org:9001", NULL, NOT_ENDPOINT},
    {"advertise-addr", "beacon.example.org:9001", NULL, NULL},
    {"advertise-addr", "", NULL, NULL},
    {"advertise-addr", X1008 "sixteen minus 1", NULL, NULL},
    {"advertise-addr", X1008 "sixteen, exactly", NULL, "too long"},
    {"advertise-addr", "a\x1b[2J", NULL, "holds a control character"},
    {"advertise-addr", "a\x7f", NULL, "holds a control character"},
    {"advertise-addr", "a\nb", NULL, "holds a control character"},
    {"advertise-addr", "\xff", NULL, "not UTF-8"},
    {"io", "auto", NULL, NULL},
    {"io", "uring", NULL, NULL},
    {"io", "mmsg", NULL, NULL},
    {"io", "MMSG", "mmsg", NULL},
    {"io", "", NULL, "must be one of auto|uring|mmsg"},
    {"io", "uri", NULL, "must be one of auto|uring|mmsg"},
    {"io", "auto|uring", NULL, "must be one of auto|uring|mmsg"},
    {"io", "epoll", NULL, "must be one of auto|uring|mmsg"},
    {"shards", "0", NULL, NULL},
    {"shards", "64", NULL, NULL},
    {"shards", "65", NULL, "must be 0 to 64"},
    {"shards", "-1", NULL, NOT_NUMBER},
    {"shards", "", NULL, NOT_NUMBER},
    {"shards", "4x", NULL, NOT_NUMBER},
    {"shards", " 4", NULL, NOT_NUMBER},
    {"busy-poll", "yes", "true", NULL},
    {"busy-poll", "no", "false", NULL},
    {"busy-poll", "2", NULL, NOT_BOOL},
    {"max-nodes", "1", NULL, NULL},
    {"max-nodes", "100000000", NULL, NULL},
    {"max-nodes", "0", NULL, "must be 1 to 100000000"},
    {"max-nodes", "100000001", NULL, "must be 1 to 100000000"},
    {"max-nodes", "1e6", NULL, NOT_NUMBER},
    {"max-nodes", "18446744073709551616", NULL, "must be 1 to 100000000"},
    {"max-nodes", "184467440737095516160000000001", NULL, "must be 1 to 100000000"},
    {"node-ttl", "10", "10s", NULL},
    {"node-ttl", "10s", NULL, NULL},
    {"node-ttl", "600s", "10m", NULL},
    {"node-ttl", "90M", "90m", NULL},
    {"node-ttl", "24h", "1d", NULL},
    {"node-ttl", "1d", NULL, NULL},
    {"node-ttl", "9", NULL, "must be 10s to 1d"},
    {"node-ttl", "86401", NULL, "must be 10s to 1d"},
    {"node-ttl", "2d", NULL, "must be 10s to 1d"},
    {"node-ttl", "18446744073709551615d", NULL, "must be 10s to 1d"},
    {"node-ttl", "10ms", NULL, NOT_TIME},
    {"node-ttl", "1.5h", NULL, NOT_TIME},
    {"node-ttl", "s", NULL, NOT_TIME},
    {"node-ttl", "", NULL, NOT_TIME},
    {"node-ttl", "-10s", NULL, NOT_TIME},
    {"receive-buffer", "4096", "4KiB", NULL},
    {"receive-buffer", "4097", NULL, NULL},
    {"receive-buffer", "64KiB", NULL, NULL},
    {"receive-buffer", "64kib", "64KiB", NULL},
    {"receive-buffer", "1GiB", NULL, NULL},
    {"receive-buffer", "4095", NULL, "must be 4KiB to 1GiB"},
    {"receive-buffer", "1073741825", NULL, "must be 4KiB to 1GiB"},
    {"receive-buffer", "17179869184GiB", NULL, "must be 4KiB to 1GiB"},
    {"receive-buffer", "64K", NULL, NOT_SIZE},
    {"receive-buffer", "64 KiB", NULL, NOT_SIZE},
    {"send-buffer", "1GiB", NULL, NULL},
    {"send-buffer", "2GiB", NULL, "must be 4KiB to 1GiB"},
    {"send-buffer", "4KiB", NULL, NULL},
    {"send-buffer", "3KiB", NULL, "must be 4KiB to 1GiB"},
    {"takeover-silence", "0", NULL, NULL},
    {"takeover-silence", "1d", NULL, NULL},
    {"takeover-silence", "86401", NULL, "must be 0 to 1d"},
    {"allow-private", "auto", NULL, NULL},
    {"allow-private", "yes", NULL, NULL},
    {"allow-private", "no", NULL, NULL},
    {"allow-private", "true", NULL, "must be one of auto|yes|no"},
    {"drain-time", "0", NULL, NULL},
    {"drain-time", "1h", NULL, NULL},
    {"drain-time", "3601", NULL, "must be 0 to 1h"},

    {"punch-whitelist", "", NULL, NULL},
    {"punch-whitelist", "*", NULL, NULL},
    {"punch-whitelist", "all", "*", NULL},
    {"punch-whitelist", "203.0.113.7", NULL, NULL},
    {"punch-whitelist", " 203.0.113.7 ,\t2001:db8::1,,", "203.0.113.7,2001:db8::1", NULL},
    {"punch-whitelist", "203.0.113.7,*,::1", "*,203.0.113.7,::1", NULL},
    {"punch-whitelist", "::ffff:203.0.113.7", "203.0.113.7", NULL},
    {"punch-whitelist", "203.0.113.7:1", NULL, "203.0.113.7:1 is not an IP address"},
    {"punch-whitelist", "203.0.113.0/24", NULL, "203.0.113.0/24 is not an IP address"},
    {"punch-whitelist", "203.0.113.7,example.org", NULL, "example.org is not an IP address"},
    {"require-punch-token", "on", "true", NULL},
    {"require-punch-token", "", NULL, NOT_BOOL},
    {"grant-lifetime", "0", NULL, NULL},
    {"grant-lifetime", "3650d", NULL, NULL},
    {"grant-lifetime", "3651d", NULL, "must be 0 to 3650d"},

    {"relay-rate", "0", "0/1", NULL},
    {"relay-rate", "10", "10/10", NULL},
    {"relay-rate", "1000000000/1000000000", NULL, NULL},
    {"relay-rate", "1000000001", NULL, RATE_HIGH},
    {"relay-rate", "1/1000000001", NULL, RATE_HIGH},
    {"relay-rate", "10/0", NULL, RATE_BURST},
    {"relay-rate", "10/", NULL, NOT_RATE},
    {"relay-rate", "/10", NULL, NOT_RATE},
    {"relay-rate", "10/20/30", NULL, NOT_RATE},
    {"relay-rate", "10 / 20", NULL, NOT_RATE},
    {"relay-rate", "fast", NULL, NOT_RATE},
    {"relay-rate", "", NULL, NOT_RATE},
    {"relay-ip-rate", "7", "7/7", NULL},
    {"relay-ip-rate", "-7", NULL, NOT_RATE},
    {"reply-rate", "40", "40/100", NULL},
    {"reply-rate", "1000000000", "1000000000/1000000000", NULL},
    {"reply-rate", "1.5", NULL, NOT_RATE},
    {"reply-total", "100", "100/100", NULL},
    {"reply-total", "100/s", NULL, NOT_RATE},
    {"punch-rate", "4", "4/20", NULL},
    {"punch-rate", "4/", NULL, NOT_RATE},
    {"punch-pair-rate", "4", "4/8", NULL},
    {"punch-pair-rate", "x", NULL, NOT_RATE},
    {"punch-victim-rate", "10", "10/20", NULL},
    {"punch-victim-rate", "10/0", NULL, RATE_BURST},
    {"punch-total", "1", "1/1", NULL},
    {"punch-total", "1k", NULL, NOT_RATE},
    {"verify-rate", "1", "1/4", NULL},
    {"verify-rate", "0x1", NULL, NOT_RATE},
    {"notify-rate", "2/3", NULL, NULL},
    {"notify-rate", "2:3", NULL, NOT_RATE},
    {"nodes-per-ipv4", "1", NULL, NULL},
    {"nodes-per-ipv4", "100000000", NULL, NULL},
    {"nodes-per-ipv4", "0", NULL, NULL},
    {"nodes-per-ipv4", "100000001", NULL, "must be 0 to 100000000"},
    {"nodes-per-ipv4-24", "-1", NULL, "not a whole number"},
    {"nodes-per-ipv4-24", "0", NULL, NULL},
    {"nodes-per-ipv6-64", "-1", NULL, "not a whole number"},
    {"nodes-per-ipv6-64", "0", NULL, NULL},
    {"nodes-per-ipv6-48", "-1", NULL, "not a whole number"},
    {"nodes-per-ipv6-48", "0", NULL, NULL},
    {"nursery-percent", "0", NULL, NULL},
    {"nursery-percent", "100", NULL, NULL},
    {"nursery-percent", "101", NULL, "must be 0 to 100"},
    {"nursery-percent", "70%", NULL, NOT_NUMBER},
    {"strict-relay-source", "1", "true", NULL},
    {"strict-relay-source", "strict", NULL, NOT_BOOL},

    {"wss", ":443", "[::]:443", NULL},
    {"wss", "", NULL, NULL},
    {"wss", "443", NULL, NOT_ENDPOINT},
    {"wss", "wss://beacon.example.org:443", NULL, NOT_ENDPOINT},
    {"wss-plain", "127.0.0.1:8443", NULL, NULL},
    {"wss-plain", "", NULL, NULL},
    {"wss-plain", ":", NULL, NOT_ENDPOINT},
    {"tls-cert", "/etc/beacon/a.pem", NULL, NULL},
    {"tls-cert", "", NULL, NULL},
    {"tls-cert", " /etc/beacon/a.pem ,\t/etc/b c.pem,,", "/etc/beacon/a.pem,/etc/b c.pem", NULL},
    {"tls-cert", " , ", "", NULL},
    {"tls-cert", X1008 "sixteen minus 1", NULL, NULL},
    {"tls-cert", X1008 "sixteen, exactly", NULL, "too long"},
    {"tls-key", "a.key, b.key", "a.key,b.key", NULL},
    {"tls-key", "a\x01", NULL, "holds a control character"},
    {"proxy-protocol-from", "", NULL, NULL},
    {"proxy-protocol-from", "10.0.0.0/8", NULL, NULL},
    {"proxy-protocol-from", "192.0.2.7", NULL, NULL},
    {"proxy-protocol-from", "192.0.2.7/32", "192.0.2.7", NULL},
    {"proxy-protocol-from", "0.0.0.0/0", NULL, NULL},
    {"proxy-protocol-from", "::/0", NULL, NULL},
    {"proxy-protocol-from", "2001:db8::/33", NULL, NULL},
    {"proxy-protocol-from", "2001:DB8::1/128", "2001:db8::1", NULL},
    {"proxy-protocol-from", " 10.0.0.0/8 ,, 2001:db8::/32\t", "10.0.0.0/8,2001:db8::/32", NULL},
    {"proxy-protocol-from", "::ffff:10.0.0.0/104", "10.0.0.0/8", NULL},
    {"proxy-protocol-from", "::ffff:0.0.0.0/96", "0.0.0.0/0", NULL},
    {"proxy-protocol-from", "::ffff:192.0.2.7/128", "192.0.2.7", NULL},
    {"proxy-protocol-from", "::ffff:0.0.0.0/95", NULL, "::ffff:0.0.0.0/95" NOT_PREFIX},
    {"proxy-protocol-from", "::ffff:10.0.0.0/129", NULL, "::ffff:10.0.0.0/129" NOT_PREFIX},
    {"proxy-protocol-from", "10.0.0.0/33", NULL, "10.0.0.0/33" NOT_PREFIX},
    {"proxy-protocol-from", "2001:db8::/129", NULL, "2001:db8::/129" NOT_PREFIX},
    {"proxy-protocol-from", "10.0.0.0/", NULL, "10.0.0.0/" NOT_PREFIX},
    {"proxy-protocol-from", "10.0.0.0/8/8", NULL, "10.0.0.0/8/8" NOT_PREFIX},
    {"proxy-protocol-from", "10.0.0.0/-8", NULL, "10.0.0.0/-8" NOT_PREFIX},
    {"proxy-protocol-from", "10.0.0.0/255.0.0.0", NULL, "10.0.0.0/255.0.0.0" NOT_PREFIX},
    {"proxy-protocol-from", "10.0.0.0/4294967304", NULL, "10.0.0.0/4294967304" NOT_PREFIX},
    {"proxy-protocol-from", "10/8", NULL, "10/8" NOT_PREFIX},
    {"proxy-protocol-from", "/8", NULL, "/8" NOT_PREFIX},
    {"proxy-protocol-from", "*", NULL, "*" NOT_PREFIX},
    {"proxy-protocol-from", "192.0.2.7:80", NULL, "192.0.2.7:80" NOT_PREFIX},
    {"proxy-protocol-from", "192.0.2.1,proxy.example.org", NULL, "proxy.example.org" NOT_PREFIX},
    {"proxy-protocol-from", "10.1.0.0/8", NULL,
     "10.1.0.0/8 is no whole block, which begins at 10.0.0.0"},
    {"proxy-protocol-from", "2001:db8::1/64", NULL,
     "2001:db8::1/64 is no whole block, which begins at 2001:db8::"},
    {"wss-sessions", "1", NULL, NULL},
    {"wss-sessions", "1000000", NULL, NULL},
    {"wss-sessions", "0", NULL, "must be 1 to 1000000"},
    {"wss-sessions", "1000001", NULL, "must be 1 to 1000000"},
    {"wss-per-ipv4", "1", NULL, NULL},
    {"wss-per-ipv4", "1000000", NULL, NULL},
    {"wss-per-ipv4", "0", NULL, "must be 1 to 1000000"},
    {"wss-per-ipv6-64", "1000000", NULL, NULL},
    {"wss-per-ipv6-64", "1000001", NULL, "must be 1 to 1000000"},
    {"wss-handshake-rate", "10", "10/40", NULL},
    {"wss-handshake-rate", "0", "0/1", NULL},
    {"wss-handshake-rate", "5/0", NULL, RATE_BURST},
    {"wss-handshake-total", "100", "100/100", NULL},
    {"wss-handshake-total", "all", NULL, NOT_RATE},
    {"wss-queue", "65600", NULL, NULL},
    {"wss-queue", "1GiB", NULL, NULL},
    {"wss-queue", "65599", NULL, "must be 65600 to 1GiB"},
    {"wss-queue", "1073741825", NULL, "must be 65600 to 1GiB"},
    {"wss-queue-total", "65600", NULL, NULL},
    {"wss-queue-total", "1024GiB", NULL, NULL},
    {"wss-queue-total", "64KiB", NULL, "must be 65600 to 1024GiB"},
    {"wss-queue-total", "1025GiB", NULL, "must be 65600 to 1024GiB"},
    {"wss-legacy-auth", "no", "false", NULL},
    {"wss-legacy-auth", "v1", NULL, NOT_BOOL},
    {"wss-first-use", "yes", "true", NULL},
    {"wss-first-use", "", NULL, NOT_BOOL},
    {"keys", "/etc/beacon/keys", NULL, NULL},
    {"keys", "", NULL, NULL},
    {"keys", "/etc/beacon/a,b", NULL, NULL},
    {"keys", "/etc/\xff", NULL, "not UTF-8"},
    {"registry-lookup", "none", NULL, NULL},
    {"registry-lookup", "binary", NULL, NULL},
    {"registry-lookup", "JSON", "json", NULL},
    {"registry-lookup", "yes", NULL, "must be one of none|binary|json"},

    {"health", "", NULL, NULL},
    {"health", ":8080", "[::]:8080", NULL},
    {"health", "127.0.0.1:8080", NULL, NULL},
    {"health", " ", NULL, NOT_ENDPOINT},
    {"health", "8080", NULL, NOT_ENDPOINT},
    {"metrics", "", NULL, NULL},
    {"metrics", "localhost:9090", "127.0.0.1:9090", NULL},
    {"metrics", "metrics.example.org:9090", NULL, NOT_ENDPOINT},

    {"admin", "", NULL, NULL},
    {"admin", "127.0.0.1:8081", NULL, NULL},
    {"admin", "localhost:8081", "127.0.0.1:8081", NULL},
    {"admin", ":8081", "[::]:8081", NULL},
    {"admin", "[::1]:8081", NULL, NULL},
    {"admin", "unix:/run/beacon/admin.sock", NULL, NULL},
    {"admin", "unix:/run/a \"b\" #c", NULL, NULL},
    {"admin", "unix:" UNIX_107, NULL, NULL},
    {"admin", "unix:" UNIX_107 "x", NULL, "the path is longer than 107 bytes"},
    {"admin", "unix:", NULL, "the path must begin with a slash"},
    {"admin", "unix:admin.sock", NULL, "the path must begin with a slash"},
    {"admin", "unix:@beacon", NULL, "the path must begin with a slash"},
    {"admin", "/run/beacon/admin.sock", NULL, NOT_ADMIN},
    {"admin", "UNIX:/run/a", NULL, NOT_ADMIN},
    {"admin", "8081", NULL, NOT_ADMIN},
    {"admin", "off", NULL, NOT_ADMIN},
    {"admin", "admin.example.org:8081", NULL, NOT_ADMIN},
    {"admin-token", "0123456789abcdef", NULL, NULL},
    {"admin-token", "", NULL, NULL},
    {"admin-token", "a\x7f", NULL, "holds a control character"},

    {"log-level", "debug", NULL, NULL},
    {"log-level", "info", NULL, NULL},
    {"log-level", "warn", NULL, NULL},
    {"log-level", "warning", "warn", NULL},
    {"log-level", "ERROR", "error", NULL},
    {"log-level", "trace", NULL, "must be one of debug|info|warn|error"},
    {"log-format", "text", NULL, NULL},
    {"log-format", "logfmt", NULL, NULL},
    {"log-format", "json", NULL, NULL},
    {"log-format", "xml", NULL, "must be one of text|logfmt|json"},

    {"beacon-id", "0", NULL, NULL},
    {"beacon-id", "1000000", NULL, NULL},
    {"beacon-id", "4294967295", NULL, NULL},
    {"beacon-id", "4294967296", NULL, "must be 0 to 4294967295"},
    {"peers", "192.0.2.1:9001,b.example.org:9001", NULL, NULL},
    {"peers", "192.0.2.1:9001, b.example.org:9001 ,", "192.0.2.1:9001,b.example.org:9001", NULL},
    {"peers", "\xc0\x80", NULL, "not UTF-8"},
    {"registry", "registry.example.org:9000", NULL, NULL},
    {"registry", "a\x01", NULL, "holds a control character"},
    {"registry-admin-token", "hunter2 \"\\#", NULL, NULL},
    {"registry-admin-token", "\r", NULL, "holds a control character"},
    {"strict-gossip", "TRUE", "true", NULL},
    {"strict-gossip", "tru", NULL, NOT_BOOL},
    {"peers-file", "/etc/beacon/peers", NULL, NULL},
    {"peers-file", "/etc/\xff", NULL, "not UTF-8"},
    {"peers-dns", "beacons.example.org", NULL, NULL},
    {"peers-dns", "a\x7f", NULL, "holds a control character"},
    {"gossip-keys", "/etc/beacon/gossip.keys", NULL, NULL},
    {"gossip-keys", "\r", NULL, "holds a control character"},
    {"max-routes", "1", NULL, NULL},
    {"max-routes", "100000000", NULL, NULL},
    {"max-routes", "0", NULL, "must be 1 to 100000000"},
    {"max-routes", "100000001", NULL, "must be 1 to 100000000"},
    {"max-routes-each", "0", NULL, NULL},
    {"max-routes-each", "100000001", NULL, "must be 0 to 100000000"},
    {"peer-rate", "1000/2000", NULL, NULL},
    {"peer-rate", "fast", NULL, "not a rate, like 20 or 20/50 (a second, and at once)"},
    {"registry-tls", "yes", "true", NULL},
    {"registry-tls", "1.3", NULL, NOT_BOOL},
    {"registry-ca", "/etc/ssl/ca.pem", NULL, NULL},
    {"registry-ca", "\x01", NULL, "holds a control character"},
    {"takeover-socket", "/run/beacon/takeover", NULL, NULL},
    {"takeover-socket", "\xff", NULL, "not UTF-8"},
    {"takeover", "on", "true", NULL},
    {"takeover", "maybe", NULL, NOT_BOOL},
};

static void test_each_value(void **state)
{
    bool good[CONFIG_OPTIONS_MAX] = {false}, bad[CONFIG_OPTIONS_MAX] = {false};
    char want[CONFIG_ERROR_MAX], shown[OPTION_SHOWN_MAX];

    (void)state;
    for (unsigned i = 0; i < sizeof values / sizeof values[0]; i++) {
        const struct option *o = option_find(values[i].name);
        assert_non_null(o);
        config_init(&c);
        bool done = config_set(&c, o->name, values[i].value, "here", &error);
        if (done != (values[i].why == NULL))
            fail_msg("%s = %s: %s", o->name, values[i].value, done ? "taken" : error.text);
        if (done) {
            good[option_index(o)] = true;
            assert_string_equal(value_of(&c, o->name),
                                values[i].want != NULL ? values[i].want : values[i].value);
            assert_string_equal(origin_of(o->name), "here");
            continue;
        }
        bad[option_index(o)] = true;
        text_show(values[i].value, shown);
        snprintf(want, sizeof want, o->secret ? "here: %s%s%s: %s" : "here: %s = %s%s: %s", o->name,
                 o->secret ? "" : shown, "", values[i].why);
        assert_string_equal(error.text, want);
        config_init(&other); /* refused: nothing changed */
        assert_memory_equal(&c, &other, sizeof c);
    }
    for (unsigned i = 0; i < option_count; i++)
        if (!good[i] || !bad[i])
            fail_msg("%s has no good or no bad row", option_table[i].name);
}

static void test_defaults(void **state)
{
    static const struct {
        const char *name, *want;
    } rows[] = {
        {"config", ""},
        {"dev", "false"},
        {"addr", "[::]:9001"},
        {"advertise-addr", ""},
        {"io", "auto"},
        {"shards", "0"},
        {"busy-poll", "false"},
        {"max-nodes", "500000"},
        {"node-ttl", "10m"},
        {"receive-buffer", "16MiB"},
        {"send-buffer", "16MiB"},
        {"takeover-silence", "90s"},
        {"allow-private", "auto"},
        {"drain-time", "10s"},
        {"takeover-socket", ""},
        {"takeover", "false"},
        {"punch-whitelist", ""},
        {"require-punch-token", "false"},
        {"grant-lifetime", "1d"},
        {"relay-rate", "4000/4000"},
        {"relay-ip-rate", "40000/40000"},
        {"reply-rate", "20/50"},
        {"reply-total", "50000/50000"},
        {"punch-rate", "2/10"},
        {"punch-pair-rate", "2/4"},
        {"punch-victim-rate", "5/10"},
        {"punch-total", "10000/10000"},
        {"verify-rate", "10/40"},
        {"notify-rate", "1/1"},
        {"nodes-per-ipv4", "1024"},
        {"nodes-per-ipv4-24", "4096"},
        {"nodes-per-ipv6-64", "64"},
        {"nodes-per-ipv6-48", "512"},
        {"nursery-percent", "70"},
        {"strict-relay-source", "false"},
        {"wss", ""},
        {"wss-plain", ""},
        {"tls-cert", ""},
        {"tls-key", ""},
        {"proxy-protocol-from", ""},
        {"wss-sessions", "16384"},
        {"wss-per-ipv4", "64"},
        {"wss-per-ipv6-64", "16"},
        {"wss-handshake-rate", "5/20"},
        {"wss-handshake-total", "1500/1500"},
        {"wss-queue", "256KiB"},
        {"wss-queue-total", "64MiB"},
        {"wss-legacy-auth", "true"},
        {"wss-first-use", "false"},
        {"keys", ""},
        {"registry-lookup", "none"},
        {"health", ""},
        {"metrics", ""},
        {"admin", ""},
        {"admin-token", ""},
        {"log-level", "info"},
        {"log-format", "text"},
        {"beacon-id", "0"},
        {"peers", ""},
        {"peers-file", ""},
        {"peers-dns", ""},
        {"gossip-keys", ""},
        {"max-routes", "1000000"},
        {"max-routes-each", "0"},
        {"peer-rate", "500000/500000"},
        {"strict-gossip", "true"},
        {"registry", ""},
        {"registry-admin-token", ""},
        {"registry-tls", "false"},
        {"registry-ca", ""},
    };

    (void)state;
    config_init(&c);
    assert_int_equal(sizeof rows / sizeof rows[0], option_count);
    for (unsigned i = 0; i < option_count; i++) {
        assert_string_equal(option_table[i].name, rows[i].name);
        assert_string_equal(value_of(&c, rows[i].name), rows[i].want);
        assert_string_equal(origin_of(rows[i].name), "");
    }
    assert_true(config_finish(&c, &error));
    assert_false(c.has_health || c.has_metrics || c.has_wss || c.has_wss_plain);
    assert_int_equal(c.admin.kind, ADMIN_OFF);
}

/* A burst that is given and the default must agree where the table says so. */
static void test_default_burst_follows_from_the_rate(void **state)
{
    char rate[64];

    (void)state;
    for (unsigned i = 0; i < option_count; i++) {
        const struct option *o = &option_table[i];
        if (o->type != OPTION_RATE)
            continue;
        snprintf(rate, sizeof rate, "%.*s", (int)strcspn(o->fallback, "/"), o->fallback);
        config_init(&c);
        assert_true(config_set(&c, o->name, rate, "here", &error));
        assert_string_equal(value_of(&c, o->name), o->fallback);
    }
}

static void test_booleans(void **state)
{
    static const char *const yes[] = {"1", "true", "True", "TRUE", "t", "T", "yes", "Yes", "on"};
    static const char *const no[] = {"0", "false", "False", "FALSE", "f", "F", "no", "No", "off"};
    static const char *const neither[] = {"", "2", "10", "y", "n", "tr", "truee", " true", "-1"};

    (void)state;
    for (unsigned i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        config_init(&c);
        assert_true(config_set(&c, "strict-gossip", yes[i], "here", &error));
        assert_true(c.strict_gossip);
        assert_true(config_set(&c, "strict_gossip", no[i], "here", &error));
        assert_false(c.strict_gossip);
        assert_false(config_set(&c, "strict-gossip", neither[i], "here", &error));
    }
}

static void test_whitelist_is_bounded(void **state)
{
    char list[(CONFIG_WHITELIST_MAX + 1) * sizeof "2001:db8::1:0000"] = "", *at = list;

    (void)state;
    for (int i = 0; i < CONFIG_WHITELIST_MAX; i++)
        at += sprintf(at, "%s2001:db8::1:%x", i > 0 ? "," : "", (unsigned)i + 1);
    config_init(&c);
    assert_true(config_set(&c, "punch-whitelist", list, "here", &error));
    assert_int_equal(c.rules.punch_whitelist.count, CONFIG_WHITELIST_MAX);
    assert_string_equal(value_of(&c, "punch-whitelist"), list);
    strcpy(at, ",*");
    assert_true(config_set(&c, "punch-whitelist", list, "here", &error));
    assert_true(c.rules.punch_whitelist.all);
    strcpy(at, ",::1");
    assert_false(config_set(&c, "punch-whitelist", list, "here", &error));
    assert_non_null(strstr(error.text, "...: more than 256 addresses"));
}

static void test_prefixes_are_bounded(void **state)
{
    char list[(CONFIG_PREFIXES_MAX + 1) * sizeof "10.100.0.0/16,"] = "", *at = list;

    (void)state;
    for (unsigned i = 0; i < CONFIG_PREFIXES_MAX; i++)
        at += sprintf(at, "%s10.%u.0.0/16", i > 0 ? "," : "", i);
    config_init(&c);
    assert_true(config_set(&c, "proxy-protocol-from", list, "here", &error));
    assert_int_equal(c.proxies.count, CONFIG_PREFIXES_MAX);
    assert_string_equal(value_of(&c, "proxy-protocol-from"), list);
    strcpy(at, ",::1");
    assert_false(config_set(&c, "proxy-protocol-from", list, "here", &error));
    assert_non_null(strstr(error.text, "...: more than 64 prefixes"));
    assert_int_equal(c.proxies.count, CONFIG_PREFIXES_MAX);
}

static void test_prefixes_have_what_they_cover(void **state)
{
    static const struct {
        const char *list, *at;
        bool want;
    } cases[] = {
        {"", "192.0.2.1:1", false},
        {"10.0.0.0/8", "10.0.0.0:1", true},
        {"10.0.0.0/8", "10.255.255.255:65535", true},
        {"10.0.0.0/8", "9.255.255.255:1", false},
        {"10.0.0.0/8", "11.0.0.0:1", false},
        {"10.0.0.0/8", "[::ffff:10.1.2.3]:1", true},
        {"10.0.0.0/8", "[a00::]:1", false},
        {"10.0.0.4/31", "10.0.0.5:1", true},
        {"10.0.0.4/31", "10.0.0.6:1", false},
        {"192.0.2.7", "192.0.2.7:1", true},
        {"192.0.2.7", "192.0.2.6:1", false},
        {"2001:db8::/33", "[2001:db8:7fff::1]:1", true},
        {"2001:db8::/33", "[2001:db8:8000::]:1", false},
        {"::1", "[::1]:1", true},
        {"::1", "[::]:1", false},
        {"0.0.0.0/0", "203.0.113.7:1", true},
        {"0.0.0.0/0", "[2001:db8::1]:1", false},
        {"::/0", "[2001:db8::1]:1", true},
        {"::/0", "203.0.113.7:1", false}, /* an IPv4 source is trusted only by name */
        {"192.0.2.1,10.0.0.0/8,::1", "10.9.9.9:1", true},
        {"192.0.2.1,10.0.0.0/8,::1", "[::1]:1", true},
        {"192.0.2.1,10.0.0.0/8,::1", "192.0.2.2:1", false},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct endpoint at;
        config_init(&c);
        assert_true(config_set(&c, "proxy-protocol-from", cases[i].list, "here", &error));
        assert_true(endpoint_parse(cases[i].at, &at));
        if (prefixes_have(&c.proxies, &at) != cases[i].want)
            fail_msg("%s in %s", cases[i].at, cases[i].list);
    }
}

/* What is in the file, and either the value of an option or the whole error. */
struct file_case {
    const char *text, *name, *want, *error;
};

static void check_files(const char *path, const struct file_case *cases, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        bool done = read_as(path, cases[i].text);
        if (done != (cases[i].error == NULL))
            fail_msg("%s: %s", cases[i].text, done ? "taken" : error.text);
        if (done)
            assert_string_equal(value_of(&c, cases[i].name), cases[i].want);
        else
            assert_string_equal(error.text, cases[i].error);
    }
}

static void test_text_files(void **state)
{
    static const struct file_case cases[] = {
        {"", "shards", "0", NULL},
        {"\n\n# shards = 9\n   # shards = 8\n", "shards", "0", NULL},
        {"shards = 3", "shards", "3", NULL},
        {"shards=3\n", "shards", "3", NULL},
        {"\tshards  =\t3  \n", "shards", "3", NULL},
        {"shards = 3\r\nio = mmsg\r\n", "io", "mmsg", NULL},
        {"\xef\xbb\xbfshards = 3\n", "shards", "3", NULL},
        {"max_nodes = 7\n", "max-nodes", "7", NULL},
        {"shards = 3 # three\n", "shards", "3", NULL},
        {"health = # off\n", "health", "", NULL},
        {"health =\n", "health", "", NULL},
        {"health = \"\"\n", "health", "", NULL},
        {"registry = a#b\n", "registry", "a#b", NULL},
        {"registry = \"a #b\" # c\n", "registry", "a #b", NULL},
        {"registry = \"a\"# c\n", "registry", "a", NULL},
        {"registry = \"\\\"a\\\\\"\n", "registry", "\"a\\", NULL},
        {"registry = a\"b\\\n", "registry", "a\"b\\", NULL},
        {"registry = \" a \"\n", "registry", " a ", NULL},
        {"registry = a=b\n", "registry", "a=b", NULL},
        {"registry = caf\xc3\xa9\n", "registry", "caf\xc3\xa9", NULL},
        {"[server]\nshards = 3\n", "shards", "3", NULL},
        {" [ server ] # part\nshards = 3\n", "shards", "3", NULL},
        {"shards = 3\n[log]\nlog-level = debug\n[server]\nio = mmsg\n", "io", "mmsg", NULL},

        {"shards = 65\n", NULL, NULL, "b.conf:1: shards = 65: must be 0 to 64"},
        {"\n\r\n# x\nshards = many\n", NULL, NULL, "b.conf:4: shards = many: " NOT_NUMBER},
        {"shards =\n", NULL, NULL, "b.conf:1: shards = \"\": " NOT_NUMBER},
        {"relay-rate = fast\n", NULL, NULL, "b.conf:1: relay-rate = fast: " NOT_RATE},
        {"shards 3\n", NULL, NULL, "b.conf:1: shards 3: not \"key = value\""},
        {"= 3\n", NULL, NULL, "b.conf:1: = 3: not \"key = value\""},
        {"  = 3\n", NULL, NULL, "b.conf:1: = 3: not \"key = value\""},
        {"shard = 3\n", NULL, NULL, "b.conf:1: unknown option shard (did you mean shards?)"},
        {"max_node = 3\n", NULL, NULL,
         "b.conf:1: unknown option max_node (did you mean max-nodes?)"},
        {"relay-rat = 3\n", NULL, NULL,
         "b.conf:1: unknown option relay-rat (did you mean relay-rate?)"},
        {"frobnicate = 3\n", NULL, NULL, "b.conf:1: unknown option frobnicate"},
        {"Shards = 3\n", NULL, NULL, "b.conf:1: unknown option Shards (did you mean shards?)"},
        {"config = a\n", NULL, NULL, "b.conf:1: config: cannot stand in a file (use --config)"},
        {"dev = yes\n", NULL, NULL, "b.conf:1: dev: cannot stand in a file (use --dev)"},
        {"[log]\nshards = 3\n", NULL, NULL, "b.conf:2: shards: belongs in [server], not [log]"},
        {"[limit]\n", NULL, NULL, "b.conf:1: unknown section limit (did you mean limits?)"},
        {"[wonder\x7f]\n", NULL, NULL, "b.conf:1: wonder?: unknown section"},
        {"[]\n", NULL, NULL, "b.conf:1: \"\": unknown section"},
        {"[server\n", NULL, NULL, "b.conf:1: [server: not a section, like [server]"},
        {"[server] x\n", NULL, NULL, "b.conf:1: [server] x: not a section, like [server]"},
        {"shards = 3\nio = auto\nshards = 3\n", NULL, NULL,
         "b.conf:3: shards: already set on line 1"},
        {"max-nodes = 3\nmax_nodes = 4\n", NULL, NULL,
         "b.conf:2: max-nodes: already set on line 1"},
        {"registry = \"a\n", NULL, NULL, "b.conf:1: registry: the closing quote is missing"},
        {"registry = \"a\\\n", NULL, NULL,
         "b.conf:1: registry: only \\\" and \\\\ can follow a backslash in quotes"},
        {"registry = \"a\\\"\n", NULL, NULL, "b.conf:1: registry: the closing quote is missing"},
        {"registry = \"a\\n\"\n", NULL, NULL,
         "b.conf:1: registry: only \\\" and \\\\ can follow a backslash in quotes"},
        {"registry = \"a\" b\n", NULL, NULL, "b.conf:1: registry: text behind the closing quote"},
        {"\nregistry = a\xff\n", NULL, NULL, "b.conf:2: not UTF-8"},
        {"# \xed\xa0\x80\n", NULL, NULL, "b.conf:1: not UTF-8"},
        {"registry-admin-token = a\x01\n", NULL, NULL,
         "b.conf:1: registry-admin-token: holds a control character"},
    };

    (void)state;
    check_files("b.conf", cases, sizeof cases / sizeof cases[0]);
}

static void test_json_files(void **state)
{
    static const struct file_case cases[] = {
        {"{}", "shards", "0", NULL},
        {"\xef\xbb\xbf{\"shards\": 3}", "shards", "3", NULL},
        {"{\"addr\": \":9100\"}", "addr", "[::]:9100", NULL},
        {"{\"max_nodes\": 7}", "max-nodes", "7", NULL},
        {"{\"max-nodes\": \"7\"}", "max-nodes", "7", NULL},
        {"{\"beacon_id\": 1000000}", "beacon-id", "1000000", NULL},
        {"{\"beacon_id\": 4294967295}", "beacon-id", "4294967295", NULL},
        {"{\"require-punch-token\": true}", "require-punch-token", "true", NULL},
        {"{\"require_punch_token\": false}", "require-punch-token", "false", NULL},
        {"{\"require_punch_token\": 1}", "require-punch-token", "true", NULL},
        {"{\"require_punch_token\": \"yes\"}", "require-punch-token", "true", NULL},
        {"{\"relay-rate\": 10}", "relay-rate", "10/10", NULL},
        {"{\"registry_admin_token\": 12345}", "registry-admin-token", "12345", NULL},
        {"{\"registry_admin_token\": \"{\\\"\\\\\"}", "registry-admin-token", "{\"\\", NULL},
        {"{\"peers\": \"a:1,b:2\"}", "peers", "a:1,b:2", NULL},
        {"{\"peers\": [\"a:1\", \"b:2\"]}", "peers", "a:1,b:2", NULL},
        {"{\"peers\": []}", "peers", "", NULL},
        {"{\"tls_cert\": [\"a.pem\", \"b.pem\"]}", "tls-cert", "a.pem,b.pem", NULL},
        {"{\"tls-key\": \"a.key, b.key\"}", "tls-key", "a.key,b.key", NULL},
        {"{\"proxy_protocol_from\": [\"10.0.0.0/8\", \"::1\"]}", "proxy-protocol-from",
         "10.0.0.0/8,::1", NULL},
        {"{\"wss-sessions\": 5}", "wss-sessions", "5", NULL},
        {"{\"wss_legacy_auth\": false}", "wss-legacy-auth", "false", NULL},
        {"{\"admin\": \"unix:/run/b\"}", "admin", "unix:/run/b", NULL},
        {"{\"punch_whitelist\": [\"::1\", \"192.0.2.1\"]}", "punch-whitelist", "::1,192.0.2.1",
         NULL},

        {"{\n\"shards\": 65}", NULL, NULL, "b.json:2: shards = 65: must be 0 to 64"},
        {"{\"io\": \"auto\",\n\n \"shards\"\n:\n-1}", NULL, NULL,
         "b.json:3: shards = -1: " NOT_NUMBER},
        {"{\n\"beacon_id\":\n1e6}", NULL, NULL,
         "b.json:2: beacon-id = 1000000.0: a number with a fraction or an exponent"},
        {"{\"beacon_id\": 1.5}", NULL, NULL,
         "b.json:1: beacon-id = 1.5: a number with a fraction or an exponent"},
        {"{\"io\": \"auto\",\n\"beacon_id\": 99999999999999999999}", NULL, NULL,
         "b.json:2: beacon_id: too big integer near '99999999999999999999'"},
        {"{\n\n\"peers\": null}", NULL, NULL, "b.json:3: peers = null: takes no null"},
        {"{\"peers\": {\"a\": [1]}}", NULL, NULL, "b.json:1: peers = {\"a\":[1]}: takes no object"},
        {"{\"peers\": [\"a\", 1]}", NULL, NULL,
         "b.json:1: peers = [\"a\",1]: a list may only hold strings"},
        {"{\"peers\": true}", NULL, NULL, "b.json:1: peers = true: takes no boolean"},
        {"{\"addr\": [\":9001\"]}", NULL, NULL, "b.json:1: addr = [\":9001\"]: takes no list"},
        {"{\"registry-admin-token\": [\"hunter2\"]}", NULL, NULL,
         "b.json:1: registry-admin-token: takes no list"},
        {"{\"addr\": 9001}", NULL, NULL, "b.json:1: addr = 9001: " NOT_ENDPOINT},
        {"{\"keys\": [\"a\"]}", NULL, NULL, "b.json:1: keys = [\"a\"]: takes no list"},
        {"{\"admin-token\": [\"hunter2\"]}", NULL, NULL, "b.json:1: admin-token: takes no list"},
        {"{\"addr\": \":1\",\n\"wss_addr\": \"\"}", NULL, NULL,
         "b.json:2: unknown option wss_addr"},
        {"{\"a,{\\\"b\": 1}", NULL, NULL, "b.json:1: unknown option a,{\"b"},
        {"{\"peers\": [\"a,\", \"{\", \"}\"],\n\"shard\": 1}", NULL, NULL,
         "b.json:2: unknown option shard (did you mean shards?)"},
        {"{\"dev\": true}", NULL, NULL, "b.json:1: dev: cannot stand in a file (use --dev)"},
        {"{\"max-nodes\": 3,\n\"max_nodes\": 3}", NULL, NULL,
         "b.json:2: max-nodes: already set on line 1"},
        {"{\"io\": \"auto\",\n\"io\": \"auto\"}", NULL, NULL,
         "b.json:2: duplicate object key near '\"io\"'"},
        {"[]", NULL, NULL, "b.json:1: not a JSON object"},
        {"", NULL, NULL, "b.json:1: '[' or '{' expected near end of file"},
        {"{\"io\": \"auto\"", NULL, NULL, "b.json:1: '}' expected near end of file"},
        {"{}\n{}", NULL, NULL, "b.json:2: end of file expected near '{'"},
        {"{\"a\":\n[[[[[[[[1]]]]]]]]}", NULL, NULL, "b.json:2: nested too deep"},
        {"{\"peers\": [[[[[[[1]]]]]]]}", NULL, NULL,
         "b.json:1: peers = [[[[[[[1]]]]]]]: a list may only hold strings"},
        {"{\"peers\":\n\"\xff\"}", NULL, NULL, "b.json:2: not UTF-8"},
        {"{\"peers\": \"\\u0000\"}", NULL, NULL,
         "b.json:1: \\u0000 is not allowed without JSON_ALLOW_NUL near '\"\\u0000\"'"},
        {"{\"peers\": \"\\n\"}", NULL, NULL, "b.json:1: peers = ?: holds a control character"},
    };

    (void)state;
    check_files("b.json", cases, sizeof cases / sizeof cases[0]);
    check_files("b.JSON", cases, 1);
    assert_true(read_as("plain.conf", " \n{\"shards\": 3}")); /* by its first character */
    assert_int_equal(c.shards, 3);
    assert_false(read_as("b.json", "shards = 3"));
}

static void test_nul_bytes_are_refused(void **state)
{
    static const char text[] = "shards = 3\nio = a\0uto\n", json[] = "{\"io\":\n\"auto\"}\0";

    (void)state;
    config_init(&c);
    assert_false(config_read(&c, "b.conf", text, sizeof text - 1, &error));
    assert_string_equal(error.text, "b.conf:2: a NUL byte");
    assert_false(config_read(&c, "b.json", json, sizeof json - 1, &error));
    assert_string_equal(error.text, "b.json:2: a NUL byte");
}

static void test_long_lines_are_refused(void **state)
{
    char *text = calloc(1, CONFIG_VALUE_MAX + 32);

    (void)state;
    strcpy(text, "shards = 3\n#");
    memset(text + strlen(text), 'x', CONFIG_VALUE_MAX - 2);
    assert_true(read_as("b.conf", text));
    strcat(text, "x");
    assert_false(read_as("b.conf", text));
    assert_string_equal(error.text, "b.conf:2: the line is too long");
    free(text);
}

static unsigned unknown_count;
static char unknown_last[128];

static void note_unknown(const char *name)
{
    unknown_count++;
    snprintf(unknown_last, sizeof unknown_last, "%s", name);
}

/* Files of the secrets, as the program would find them. */
static const struct {
    const char *path, *text;
    size_t len;
} files[] = {
#define FILE_OF(path, text)                                                                        \
    {                                                                                              \
        path, text, sizeof text - 1                                                                \
    }
    FILE_OF("/line", "0123456789abcdef\n"),
    FILE_OF("/bare", "0123456789abcdef"),
    FILE_OF("/dos", "0123456789abcdef\r\nmore\r\n"),
    FILE_OF("/more", "0123456789abcdef\nmore\0more\n"),
    FILE_OF("/blank", " 0123456789abcdef \n"),
    FILE_OF("/fits", X1008 "sixteen minus 1\n"),
    FILE_OF("/fits-bare", X1008 "sixteen minus 1"),
    FILE_OF("/long", X1008 "sixteen, exactly\n"),
    FILE_OF("/longer", X1008 X1008 X1008 "\n"),
    FILE_OF("/empty", ""),
    FILE_OF("/newline", "\n0123456789abcdef\n"),
    FILE_OF("/return", "\r\n"),
    FILE_OF("/nul", "0123456789\0abcdef\n"),
    FILE_OF("/control", "hunter2\x01\n"),
    FILE_OF("/latin1", "hunter2\xe9\n"),
};

static const char *read_file(const char *path, char *text, size_t capacity, size_t *ret_len)
{
    for (unsigned i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (strcmp(files[i].path, path) != 0)
            continue;
        *ret_len = files[i].len < capacity ? files[i].len : capacity;
        memcpy(text, files[i].text, *ret_len);
        return NULL;
    }
    return "No such file or directory";
}

/* Entries are separated by ';'. */
static bool read_environment(const char *entries)
{
    char copy[512], *environment[4] = {NULL}, *rest = NULL;
    struct config_environment e = {environment, note_unknown, read_file};
    unsigned count = 0;

    snprintf(copy, sizeof copy, "%s", entries);
    for (char *at = strtok_r(copy, ";", &rest); at != NULL; at = strtok_r(NULL, ";", &rest))
        environment[count++] = at;
    config_init(&c);
    unknown_count = 0;
    return config_read_environment(&c, &e, &error);
}

static void test_environment(void **state)
{
    static const struct {
        const char *entry, *name, *want, *unknown, *error;
    } cases[] = {
        {"BEACON_SHARDS=3", "shards", "3", NULL, NULL},
        {"BEACON_MAX_NODES=7", "max-nodes", "7", NULL, NULL},
        {"BEACON_NODES_PER_IPV4_24=7", "nodes-per-ipv4-24", "7", NULL, NULL},
        {"BEACON_REQUIRE_PUNCH_TOKEN=1", "require-punch-token", "true", NULL, NULL},
        {"BEACON_STRICT_GOSSIP=1", "strict-gossip", "true", NULL, NULL},
        {"BEACON_PUNCH_WHITELIST=all", "punch-whitelist", "*", NULL, NULL},
        {"BEACON_REGISTRY=a=b", "registry", "a=b", NULL, NULL},
        {"BEACON_DEV=yes", "dev", "true", NULL, NULL},
        {"BEACON_SHARDS=", "shards", "0", NULL, NULL},
        {"SHARDS=3", "shards", "0", NULL, NULL},
        {"BEACON_SHARDS", "shards", "0", NULL, NULL},
        {"XBEACON_SHARDS=3", "shards", "0", NULL, NULL},
        {"beacon_shards=3", "shards", "0", NULL, NULL},
        {"BEACON_PORT_9001_UDP=x", "shards", "0", "BEACON_PORT_9001_UDP", NULL},
        {"BEACON_shards=3", "shards", "0", "BEACON_shards", NULL},
        {"BEACON_=3", "shards", "0", "BEACON_", NULL},
        {"BEACON_MAX-NODES=3", "max-nodes", "3", NULL, NULL},
        {"BEACON_WSS=:443", "wss", "[::]:443", NULL, NULL},
        {"BEACON_ADMIN=unix:/run/b", "admin", "unix:/run/b", NULL, NULL},
        {"BEACON_SHARDS=2;BEACON_IO=mmsg", "io", "mmsg", NULL, NULL},
        {"BEACON_SHARDS_FILE=/line", "shards", "0", "BEACON_SHARDS_FILE", NULL},
        {"BEACON_KEYS_FILE=/line", "keys", "", "BEACON_KEYS_FILE", NULL},
        {"BEACON__FILE=/line", "shards", "0", "BEACON__FILE", NULL},
        {"BEACON_FILE=/line", "shards", "0", "BEACON_FILE", NULL},
        {"BEACON_SHARDS=x", NULL, NULL, NULL, "$BEACON_SHARDS: shards = x: " NOT_NUMBER},
        {"BEACON_STRICT_GOSSIP=2", NULL, NULL, NULL,
         "$BEACON_STRICT_GOSSIP: strict-gossip = 2: " NOT_BOOL},
        {"BEACON_REGISTRY_ADMIN_TOKEN=hunter2\x01", NULL, NULL, NULL,
         "$BEACON_REGISTRY_ADMIN_TOKEN: registry-admin-token: holds a control character"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool done = read_environment(cases[i].entry);
        if (done != (cases[i].error == NULL))
            fail_msg("%s: %s", cases[i].entry, done ? "taken" : error.text);
        if (!done) {
            assert_string_equal(error.text, cases[i].error);
            continue;
        }
        assert_string_equal(value_of(&c, cases[i].name), cases[i].want);
        assert_int_equal(unknown_count, cases[i].unknown != NULL);
        if (cases[i].unknown != NULL)
            assert_string_equal(unknown_last, cases[i].unknown);
    }
    assert_true(read_environment("BEACON_" X256 "=1"));
    assert_int_equal(unknown_count, 1);
}

#define TOKEN_FILE "$BEACON_ADMIN_TOKEN_FILE: admin-token: "

static void test_secrets_in_files(void **state)
{
    static const struct {
        const char *entries, *want, *error;
    } cases[] = {
        {"BEACON_ADMIN_TOKEN_FILE=/line", "0123456789abcdef", NULL},
        {"BEACON_ADMIN_TOKEN_FILE=/bare", "0123456789abcdef", NULL},
        {"BEACON_ADMIN_TOKEN_FILE=/dos", "0123456789abcdef", NULL},
        {"BEACON_ADMIN_TOKEN_FILE=/more", "0123456789abcdef", NULL},
        {"BEACON_ADMIN_TOKEN_FILE=/blank", " 0123456789abcdef ", NULL},
        {"BEACON_ADMIN_TOKEN_FILE=/fits", X1008 "sixteen minus 1", NULL},
        {"BEACON_ADMIN_TOKEN_FILE=/fits-bare", X1008 "sixteen minus 1", NULL},
        {"BEACON_ADMIN_TOKEN_FILE=", "", NULL},
        {"BEACON_ADMIN_TOKEN_FILE=;BEACON_ADMIN_TOKEN=direct", "direct", NULL},
        {"BEACON_ADMIN_TOKEN_FILE=/line;BEACON_ADMIN_TOKEN=", "0123456789abcdef", NULL},

        {"BEACON_ADMIN_TOKEN_FILE=/none", NULL, TOKEN_FILE "/none: No such file or directory"},
        {"BEACON_ADMIN_TOKEN_FILE=/no\nne", NULL, TOKEN_FILE "/no?ne: No such file or directory"},
        {"BEACON_ADMIN_TOKEN_FILE=/long", NULL, TOKEN_FILE "too long"},
        {"BEACON_ADMIN_TOKEN_FILE=/longer", NULL, TOKEN_FILE "too long"},
        {"BEACON_ADMIN_TOKEN_FILE=/empty", NULL, TOKEN_FILE "/empty: the first line is empty"},
        {"BEACON_ADMIN_TOKEN_FILE=/newline", NULL, TOKEN_FILE "/newline: the first line is empty"},
        {"BEACON_ADMIN_TOKEN_FILE=/return", NULL, TOKEN_FILE "/return: the first line is empty"},
        {"BEACON_ADMIN_TOKEN_FILE=/nul", NULL, TOKEN_FILE "/nul: a NUL byte in the first line"},
        {"BEACON_ADMIN_TOKEN_FILE=/control", NULL, TOKEN_FILE "holds a control character"},
        {"BEACON_ADMIN_TOKEN_FILE=/latin1", NULL, TOKEN_FILE "not UTF-8"},
        {"BEACON_ADMIN_TOKEN=direct;BEACON_ADMIN_TOKEN_FILE=/line", NULL,
         TOKEN_FILE "already set by $BEACON_ADMIN_TOKEN"},
        {"BEACON_ADMIN_TOKEN_FILE=/line;BEACON_ADMIN_TOKEN=direct", NULL,
         "$BEACON_ADMIN_TOKEN: admin-token: already set by $BEACON_ADMIN_TOKEN_FILE"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool done = read_environment(cases[i].entries);
        if (done != (cases[i].error == NULL))
            fail_msg("%s: %s", cases[i].entries, done ? "taken" : error.text);
        if (done)
            assert_string_equal(c.admin_token, cases[i].want);
        else
            assert_string_equal(error.text, cases[i].error);
        assert_int_equal(unknown_count, 0);
    }
    assert_true(read_environment("BEACON_REGISTRY_ADMIN_TOKEN_FILE=/line"));
    assert_string_equal(c.registry_admin_token, "0123456789abcdef");
    assert_string_equal(origin_of("registry-admin-token"), "$BEACON_REGISTRY_ADMIN_TOKEN_FILE");
}

/* The environment wins over the file, also where the file's name looks like a variable. */
static void test_secret_of_the_environment_wins(void **state)
{
    static const char text[] = "admin-token = of-the-file\n";
    char variable[] = "BEACON_ADMIN_TOKEN_FILE=/line", *variables[] = {variable, NULL};
    struct config_environment e = {variables, NULL, read_file};

    (void)state;
    assert_true(read_as("$file", text));
    assert_true(config_read_environment(&c, &e, &error));
    assert_string_equal(c.admin_token, "0123456789abcdef");
}

enum { ARGUMENTS_MAX = 6 };

static void test_flags(void **state)
{
    static const struct {
        const char *argument[ARGUMENTS_MAX], *name, *want, *error;
    } cases[] = {
        {{NULL}, "shards", "0", NULL},
        {{"--shards", "3"}, "shards", "3", NULL},
        {{"-shards", "3"}, "shards", "3", NULL},
        {{"--shards=3"}, "shards", "3", NULL},
        {{"-shards=3"}, "shards", "3", NULL},
        {{"--shards=3", "-shards", "4"}, "shards", "4", NULL},
        {{"--max_nodes=7"}, "max-nodes", "7", NULL},
        {{"-addr", ":9100", "-beacon-id", "5"}, "addr", "[::]:9100", NULL},
        {{"-addr", ":9100", "-beacon-id", "5"}, "beacon-id", "5", NULL},
        {{"-beacon-id", "1000000"}, "beacon-id", "1000000", NULL},
        {{"-require-punch-token"}, "require-punch-token", "true", NULL},
        {{"--busy-poll"}, "busy-poll", "true", NULL},
        {{"--busy-poll=true"}, "busy-poll", "true", NULL},
        {{"--busy-poll=false"}, "busy-poll", "false", NULL},
        {{"--busy-poll", "--shards", "3"}, "shards", "3", NULL},
        {{"--registry=a=b"}, "registry", "a=b", NULL},
        {{"--registry=--dev"}, "registry", "--dev", NULL},
        {{"--registry", ""}, "registry", "", NULL},
        {{"--health="}, "health", "", NULL},

        {{"--shards"}, NULL, NULL, "--shards: needs a value (--shards=VALUE)"},
        {{"-shards"}, NULL, NULL, "--shards: needs a value (--shards=VALUE)"},
        {{"--registry", "--dev"}, NULL, NULL, "--registry: needs a value (--registry=VALUE)"},
        {{"--shards", "-1"}, NULL, NULL, "--shards: needs a value (--shards=VALUE)"},
        {{"--shards=-1"}, NULL, NULL, "--shards: shards = -1: " NOT_NUMBER},
        {{"-shards=x"}, NULL, NULL, "--shards: shards = x: " NOT_NUMBER},
        {{"--shards="}, NULL, NULL, "--shards: shards = \"\": " NOT_NUMBER},
        {{"--busy-poll="}, NULL, NULL, "--busy-poll: busy-poll = \"\": " NOT_BOOL},
        {{"--busy-poll", "false"},
         NULL,
         NULL,
         "false: unexpected argument (for a value write --busy-poll=false)"},
        {{"9001"}, NULL, NULL, "9001: unexpected argument"},
        {{"--shards", "3", "4"}, NULL, NULL, "4: unexpected argument"},
        {{"--busy-poll=true", "x"}, NULL, NULL, "x: unexpected argument"},
        {{""}, NULL, NULL, "\"\": unexpected argument"},
        {{"-"}, NULL, NULL, "-: unexpected argument"},
        {{"--"}, NULL, NULL, "--: unexpected argument"},
        {{"--=3"}, NULL, NULL, "--=3: unexpected argument"},
        {{"---shards=3"}, NULL, NULL, "---shards: unknown option (did you mean --shards?)"},
        {{"--shard=3"}, NULL, NULL, "--shard: unknown option (did you mean --shards?)"},
        {{"-adr", ":1"}, NULL, NULL, "--adr: unknown option (did you mean --addr?)"},
        {{"--versoin"}, NULL, NULL, "--versoin: unknown option (did you mean --version?)"},
        {{"--frobnicate"}, NULL, NULL, "--frobnicate: unknown option"},
        {{"--x"}, NULL, NULL, "--x: unknown option"},
        {{"--sh\nards"}, NULL, NULL, "--sh?ards: unknown option (did you mean --shards?)"},
        {{"--registry-admin-token=hunter2\n"},
         NULL,
         NULL,
         "--registry-admin-token: registry-admin-token: holds a control character"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[ARGUMENTS_MAX + 1][64] = {"beacon"}, *argv[ARGUMENTS_MAX + 2] = {text[0]};
        int argc = 1;
        for (; cases[i].argument[argc - 1] != NULL; argc++)
            argv[argc] = strcpy(text[argc], cases[i].argument[argc - 1]);
        config_init(&c);
        bool done = config_read_flags(&c, argc, argv, &error);
        if (done != (cases[i].error == NULL))
            fail_msg("row %u: %s", i, done ? "taken" : error.text);
        if (done)
            assert_string_equal(value_of(&c, cases[i].name), cases[i].want);
        else
            assert_string_equal(error.text, cases[i].error);
    }
}

static void test_file_is_found(void **state)
{
    char p[] = "beacon", dash2[] = "--config", dash1[] = "-config", a[] = "a", b[] = "b";
    char eq[] = "--config=c", none[] = "--config=", dev[] = "--dev", wrong[] = "--configs=d";
    char variable[] = "BEACON_CONFIG=e", empty[] = "BEACON_CONFIG=", longer[] = "BEACON_CONFIGS=f";
    char *nothing[] = {NULL}, *set[] = {longer, variable, NULL}, *unset[] = {empty, NULL};
    struct {
        char *argv[6];
        int argc;
        char **environment;
        const char *want;
    } cases[] = {
        {{p}, 1, nothing, NULL},
        {{p}, 1, unset, NULL},
        {{p}, 1, set, "e"},
        {{p, dash2, a}, 3, nothing, "a"},
        {{p, dash1, a}, 3, set, "a"},
        {{p, dev, eq}, 3, nothing, "c"},
        {{p, dash1, a, dash2, b}, 5, nothing, "b"},
        {{p, eq, dash2, b}, 4, nothing, "b"},
        {{p, none}, 2, set, NULL},
        {{p, dash2}, 2, nothing, NULL},
        {{p, dash2, dev}, 3, set, "e"},
        {{p, wrong}, 2, nothing, NULL},
        {{p, a, b}, 3, nothing, NULL},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *got = config_find_file(cases[i].argc, cases[i].argv, cases[i].environment);
        if (cases[i].want == NULL)
            assert_null(got);
        else
            assert_string_equal(got, cases[i].want);
    }
}

static void test_later_sources_win(void **state)
{
    static const char text[] = "shards = 1\nmax-nodes = 11\nio = mmsg\n";
    char shards[] = "BEACON_SHARDS=2", nodes[] = "BEACON_MAX_NODES=22",
         *env[] = {shards, nodes, NULL};
    struct config_environment e = {env, NULL, read_file};
    char name[] = "beacon", flag[] = "--shards=3", *argv[] = {name, flag, NULL};

    (void)state;
    config_init(&c);
    assert_true(config_read(&c, "/etc/b.conf", text, sizeof text - 1, &error));
    assert_true(config_read_environment(&c, &e, &error));
    assert_true(config_read_flags(&c, 2, argv, &error));
    assert_true(config_finish(&c, &error));
    assert_int_equal(c.shards, 3);
    assert_int_equal(c.max_nodes, 22);
    assert_int_equal(c.io, IO_MMSG);
    assert_string_equal(origin_of("shards"), "--shards");
    assert_string_equal(origin_of("max-nodes"), "$BEACON_MAX_NODES");
    assert_string_equal(origin_of("io"), "/etc/b.conf:3");
    assert_string_equal(origin_of("addr"), "");
}

static void set(const char *name, const char *value)
{
    if (!config_set(&c, name, value, "here", &error))
        fail_msg("%s", error.text);
}

static void test_dev_fills_what_nobody_set(void **state)
{
    (void)state;
    config_init(&c);
    set("dev", "true");
    assert_true(config_finish(&c, &error));
    assert_string_equal(value_of(&c, "health"), "[::]:8080");
    assert_string_equal(value_of(&c, "allow-private"), "yes");
    assert_string_equal(value_of(&c, "drain-time"), "1s");
    assert_string_equal(origin_of("health"), "--dev");
    assert_string_equal(value_of(&c, "wss"), "[::]:8443");
    assert_string_equal(value_of(&c, "wss-first-use"), "true");
    assert_string_equal(value_of(&c, "admin"), "127.0.0.1:8081");

    config_init(&c);
    set("dev", "true");
    set("health", "");
    set("allow-private", "no");
    set("drain-time", "10s"); /* the default, but somebody said so */
    set("wss", "");
    set("wss-first-use", "false");
    set("admin", "unix:/run/b");
    assert_true(config_finish(&c, &error));
    assert_false(c.has_health || c.has_wss || c.first_use);
    assert_string_equal(value_of(&c, "admin"), "unix:/run/b");
    assert_string_equal(value_of(&c, "allow-private"), "no");
    assert_string_equal(value_of(&c, "drain-time"), "10s");
}

static void test_global_advertised_address_shuts_private_ones_out(void **state)
{
    (void)state;
    static const struct {
        const char *advertised, *want;
    } cases[] = {
        {"", "auto"},           {"10.0.0.1:9001", "auto"}, {"beacon.example.org:9001", "auto"},
        {"8.8.8.8:9001", "no"}, {"8.8.8.8", "no"},         {"[2600::1]:9001", "no"},
        {"fd00::1", "auto"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        config_init(&c);
        set("advertise-addr", cases[i].advertised);
        assert_true(config_finish(&c, &error));
        assert_string_equal(value_of(&c, "allow-private"), cases[i].want);
    }
    config_init(&c);
    set("advertise-addr", "8.8.8.8:9001");
    set("allow-private", "yes");
    assert_true(config_finish(&c, &error));
    assert_string_equal(value_of(&c, "allow-private"), "yes");
}

static void test_options_that_contradict(void **state)
{
    (void)state;
    config_init(&c);
    set("node-ttl", "30s"); /* below takeover-silence's default, which then follows */
    assert_true(config_finish(&c, &error));
    assert_int_equal(c.rules.takeover_silence_s, 30);
    assert_true(config_finish(&c, &error));

    config_init(&c);
    set("node-ttl", "90s");
    set("takeover-silence", "90s");
    assert_true(config_finish(&c, &error));
    set("takeover-silence", "91s");
    assert_false(config_finish(&c, &error));
    assert_string_equal(error.text, "here: takeover-silence = 91s: longer than node-ttl (90s)");
}

/* Lines of beacon.conf, and what config_finish says: NULL for good. */
static const struct {
    const char *text, *error;
} together[] = {
    {"health = 127.0.0.1:8080\nmetrics = 127.0.0.1:8081\n", NULL},
    {"health = 127.0.0.1:8080\nmetrics = localhost:8080\n",
     "2: metrics: health listens there already"},
    {"metrics = 127.0.0.1:8080\nhealth = 127.0.0.1:8080\n",
     "1: metrics: health listens there already"},
    {"health = 127.0.0.1:0\nmetrics = 127.0.0.1:0\n", NULL}, /* any port: two different ones */
    {"health = 127.0.0.1:8080\nmetrics = 127.0.0.2:8080\n", NULL},
    {"health = 127.0.0.1:8080\nmetrics = [::1]:8080\n", NULL},
    {"health = :8080\nmetrics = 127.0.0.1:8080\n", "2: metrics: health listens there already"},
    {"health = 127.0.0.1:8080\nmetrics = :8080\n", "2: metrics: health listens there already"},
    {"health = :8080\nmetrics = [::1]:8080\n", "2: metrics: health listens there already"},
    {"health = :8080\nmetrics = 0.0.0.0:8080\n", "2: metrics: health listens there already"},
    {"health = 0.0.0.0:8080\nmetrics = 192.0.2.1:8080\n",
     "2: metrics: health listens there already"},
    {"health = 0.0.0.0:8080\nmetrics = [::1]:8080\n", NULL},
    {"health = :8080\nmetrics = :8081\nadmin = 127.0.0.1:8081\n",
     "3: admin: metrics listens there already"},
    {"health = :8080\nadmin = unix:/run/8080\n", NULL},
    {"addr = :8080\nhealth = :8080\n", NULL}, /* UDP and TCP */
    {"health = :443\nkeys = k\ntls-cert = a\ntls-key = b\nwss = :443\n",
     "5: wss: health listens there already"},
    {"keys = k\nwss-plain = :443\ntls-cert = a\ntls-key = b\nwss = :443\n",
     "2: wss-plain: wss listens there already"},
    {"wss-plain = 127.0.0.1:80\nadmin = localhost:80\nkeys = k\n",
     "2: admin: wss-plain listens there already"},

    {"wss = :443\ntls-cert = a\ntls-key = b\nkeys = k\n", NULL},
    {"wss = :443\nkeys = k\n",
     "1: wss: needs tls-cert and tls-key (behind a TLS proxy, wss-plain needs none)"},
    {"wss-plain = :80\nkeys = k\n", NULL},
    {"wss = :443\ntls-cert = a\nkeys = k\n",
     "2: tls-cert: each certificate needs its key, but tls-cert names 1 and tls-key 0"},
    {"wss = :443\nkeys = k\ntls-key = a\n",
     "3: tls-key: each certificate needs its key, but tls-cert names 0 and tls-key 1"},
    {"wss = :443\ntls-cert = a, b\ntls-key = a\nkeys = k\n",
     "2: tls-cert: each certificate needs its key, but tls-cert names 2 and tls-key 1"},
    {"wss = :443\ntls-cert = 1,2,3,4,5,6,7,8\ntls-key = 1,2,3,4,5,6,7,8\nkeys = k\n", NULL},
    {"wss = :443\ntls-cert = 1,2,3,4,5,6,7,8,9\ntls-key = 1,2,3,4,5,6,7,8,9\nkeys = k\n",
     "2: tls-cert: more than 8 certificates"},
    {"tls-cert = a\ntls-key = b\n",
     "1: tls-cert: not used, since neither wss nor an admin address beyond loopback is set"},
    {"tls-cert = a\ntls-key = b\nadmin = 127.0.0.1:8081\nwss-plain = :80\nkeys = k\n",
     "1: tls-cert: not used, since neither wss nor an admin address beyond loopback is set"},
    {"tls-cert = a\ntls-key = b\nadmin = unix:/run/b\n",
     "1: tls-cert: not used, since neither wss nor an admin address beyond loopback is set"},

    {"wss-plain = :80\n",
     "1: wss-plain: nobody could authenticate: set keys, registry-lookup or wss-first-use"},
    {"wss = :443\ntls-cert = a\ntls-key = b\nwss-plain = :80\n",
     "1: wss: nobody could authenticate: set keys, registry-lookup or wss-first-use"},
    {"wss-plain = :80\nwss-first-use = yes\n", NULL},
    {"wss-plain = :80\nregistry-lookup = json\nregistry = r:9000\n", NULL},
    {"wss-plain = :80\nregistry = r:9000\n",
     "1: wss-plain: nobody could authenticate: set keys, registry-lookup or wss-first-use"},
    {"registry-lookup = json\n", "1: registry-lookup: needs registry, the address to ask"},
    {"registry-lookup = none\n", NULL},
    {"registry-lookup = binary\nregistry = [2001:db8::1]:65535\n", NULL},
#define BAD_REGISTRY(text)                                                                         \
    {                                                                                              \
        "registry-lookup = binary\nregistry = " text "\n",                                         \
            "2: registry = " text ": not a host and port, like registry.example.org:9000, as "     \
            "registry-lookup needs it"                                                             \
    }
    BAD_REGISTRY("r"),
    BAD_REGISTRY("r:"),
    BAD_REGISTRY(":9000"),
    BAD_REGISTRY("r:0"),
    BAD_REGISTRY("r:65536"),
    BAD_REGISTRY("r:4294967297"),
    BAD_REGISTRY("r:90x"),
    {"registry = r\n", NULL}, /* the Pilot beacon's file may hold anything */

    {"wss-queue = 1MiB\nwss-queue-total = 1MiB\n", NULL},
    {"wss-queue = 1MiB\nwss-queue-total = 1048575\n",
     "2: wss-queue-total: wss-queue-total (1048575) is less than wss-queue (1MiB)"},
    {"wss-queue = 65MiB\n", "1: wss-queue: wss-queue-total (64MiB) is less than wss-queue (65MiB)"},
    {"wss-queue-total = 128KiB\n",
     "1: wss-queue-total: wss-queue-total (128KiB) is less than wss-queue (256KiB)"},

#define TOKEN_WRONG "admin-token: must be 16 to 200 visible ASCII characters without blanks"
#define TOKEN_200 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 X16 "xxxxxxxx"
    {"admin = 127.0.0.1:8081\n", NULL},
    {"admin = 127.255.0.1:8081\n", NULL},
    {"admin = [::1]:8081\nadmin-token = " X16 "\n", NULL},
    {"admin = unix:/run/b\n", NULL},
    {"admin-token = \"!#$%&'()*+,-./:;<=~\"\n", NULL},
    {"admin-token = " TOKEN_200 "\n", NULL},
    {"admin-token = " TOKEN_200 "x\n", "1: " TOKEN_WRONG},
    {"admin-token = 123456789012345\n", "1: " TOKEN_WRONG},
    {"admin-token = \"12345678 12345678\"\n", "1: " TOKEN_WRONG},
    {"admin-token = \"12345678\t12345678\"\n", "1: " TOKEN_WRONG},
    {"admin-token = 123456789012345\xc3\xa9\n", "1: " TOKEN_WRONG},
    {"admin = unix:/run/b\nadmin-token = short\n", "2: " TOKEN_WRONG},
    {"admin = :8081\nadmin-token = " X16 "\ntls-cert = a\ntls-key = b\n", NULL},
    {"admin = :8081\ntls-cert = a\ntls-key = b\n",
     "1: admin: needs admin-token, since others can reach an address beyond loopback"},
    {"admin = 10.0.0.1:8081\n",
     "1: admin: needs admin-token, since others can reach an address beyond loopback"},
    {"admin = [2001:db8::1]:8081\nadmin-token = " X16 "\n",
     "1: admin: needs tls-cert and tls-key, since admin-token must not cross a network in clear"},
};

static void test_options_that_go_together(void **state)
{
    char want[CONFIG_ERROR_MAX];

    (void)state;
    for (unsigned i = 0; i < sizeof together / sizeof together[0]; i++) {
        if (!read_as("b.conf", together[i].text))
            fail_msg("%s", error.text);
        bool done = config_finish(&c, &error);
        if (done != (together[i].error == NULL))
            fail_msg("%s: %s", together[i].text, done ? "taken" : error.text);
        if (done)
            continue;
        snprintf(want, sizeof want, "b.conf:%s", together[i].error);
        assert_string_equal(error.text, want);
    }
}

/* --dev makes the certificate, and nothing else less strict. */
static void test_dev_is_checked_too(void **state)
{
    static const struct {
        const char *name, *value, *error;
    } cases[] = {
        {"shards", "1", NULL},
        {"wss", ":443", NULL},
        {"tls-cert", "a",
         "here: tls-cert: each certificate needs its key, but tls-cert names 1 and tls-key 0"},
        {"wss-first-use", "false",
         "--dev: wss: nobody could authenticate: set keys, registry-lookup or wss-first-use"},
        {"metrics", "127.0.0.1:8081", "--dev: admin: metrics listens there already"},
        {"admin", ":8082",
         "here: admin: needs admin-token, since others can reach an address beyond loopback"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        config_init(&c);
        set("dev", "true");
        set(cases[i].name, cases[i].value);
        bool done = config_finish(&c, &error);
        if (done != (cases[i].error == NULL))
            fail_msg("%s: %s", cases[i].name, done ? "taken" : error.text);
        if (!done)
            assert_string_equal(error.text, cases[i].error);
    }
}

/* Reads a dump of `c` into `other`; both without what a dump leaves out. */
static void check_dump(void)
{
    char *text = dumped(&c);

    config_init(&other);
    if (!config_read(&other, "dump", text, strlen(text), &error))
        fail_msg("%s", error.text);
    free(text);
    for (unsigned i = 0; i < option_count; i++) {
        const struct option *o = &option_table[i];
        if (!o->not_in_file && !o->secret)
            assert_string_equal(value_of(&other, o->name), value_of(&c, o->name));
    }
}

static void test_dump_reads_back(void **state)
{
    (void)state;
    config_init(&c);
    check_dump();
    for (unsigned i = 0; i < sizeof values / sizeof values[0]; i++) {
        config_init(&c);
        if (values[i].why != NULL)
            continue;
        set(values[i].name, values[i].value);
        check_dump();
    }
    config_init(&c);
    assert_true(config_set(&c, "registry", "a \"b\\ #c", "odd\n\xff" X256 "\xc3\xa9:12", &error));
    check_dump();
}

static void test_dump_tells_origins_and_no_secret(void **state)
{
    (void)state;
    assert_true(
        read_as("b.conf", "shards = 3\nregistry-admin-token = hunter2\nadmin-token = hunter2\n"));
    char *text = dumped(&c);
    assert_non_null(strstr(text, "[server]\n"));
    assert_non_null(strstr(text, "\nshards = 3 # b.conf:1\n"));
    assert_non_null(strstr(text, "\nmax-nodes = 500000 # default\n"));
    assert_non_null(strstr(text, "\n# registry-admin-token = ******** # b.conf:2\n"));
    assert_non_null(strstr(text, "\n# admin-token = ******** # b.conf:3\n"));
    assert_null(strstr(text, "hunter2"));
    free(text);
}

static void test_what_needs_a_restart(void **state)
{
    char names[64];

    (void)state;
    config_init(&c);
    config_init(&other);
    assert_int_equal(config_needs_restart(&other, &c, names, sizeof names), 0);
    assert_string_equal(names, "");
    for (unsigned i = 0; i < option_count; i++)
        if (option_table[i].reloadable && option_table[i].type == OPTION_RATE)
            set(option_table[i].name, "123/456");
    set("log-level", "debug");
    set("punch-whitelist", "*");
    assert_int_equal(config_needs_restart(&other, &c, names, sizeof names), 0);
    set("addr", ":9002");
    set("health", ":8080");
    assert_int_equal(config_needs_restart(&other, &c, names, sizeof names), 2);
    assert_string_equal(names, "addr,health");
    assert_int_equal(config_needs_restart(&other, &c, names, 8), 2);
    assert_string_equal(names, "addr,he");
}

/* Names of files; what is in them is read again without a word. */
static void test_the_edge_needs_a_restart(void **state)
{
    static const struct {
        const char *name, *value;
    } rows[] = {
        {"wss", ":443"},
        {"wss-plain", ":80"},
        {"tls-cert", "a"},
        {"tls-key", "b"},
        {"proxy-protocol-from", "::1"},
        {"wss-sessions", "1"},
        {"wss-per-ipv4", "1"},
        {"wss-per-ipv6-64", "1"},
        {"wss-handshake-rate", "1"},
        {"wss-handshake-total", "1"},
        {"wss-queue", "1MiB"},
        {"wss-queue-total", "1MiB"},
        {"wss-legacy-auth", "false"},
        {"wss-first-use", "true"},
        {"keys", "k"},
        {"registry-lookup", "json"},
        {"admin", "unix:/run/b"},
        {"admin", "127.0.0.1:1"},
        {"admin-token", X16},
        {"beacon-id", "1"},
        {"registry", "r:1"},
    };
    char names[64];

    (void)state;
    config_init(&other);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        config_init(&c);
        set(rows[i].name, rows[i].value);
        assert_int_equal(config_needs_restart(&other, &c, names, sizeof names), 1);
        assert_string_equal(names, rows[i].name);
        assert_int_equal(config_needs_restart(&c, &c, names, sizeof names), 0);
    }
}

/* Exactly those that act on rules and the log. */
static void test_what_is_reloadable(void **state)
{
    (void)state;
    for (unsigned i = 0; i < option_count; i++) {
        const struct option *o = &option_table[i];
        size_t rules = offsetof(struct config, rules);
        bool of_rules = o->offset >= rules && o->offset < rules + sizeof c.rules;
        assert_int_equal(o->reloadable, of_rules || strcmp(o->section, "log") == 0);
    }
}

static void test_names_are_told_apart(void **state)
{
    (void)state;
    for (unsigned i = 0; i < option_count; i++) {
        const char *name = option_table[i].name;
        assert_ptr_equal(option_find(name), &option_table[i]);
        assert_string_equal(option_guess(name, true), name);
        assert_true(option_table[i].help[strlen(option_table[i].help) - 1] != '.');
        for (unsigned k = 0; command_names[k] != NULL; k++)
            assert_string_not_equal(name, command_names[k]);
    }
    assert_null(option_find(""));
    assert_null(option_find("shardsx"));
    assert_null(option_find("shard"));
}

static void test_every_option_is_documented(void **state)
{
    char *help = printed(config_help), *man = printed(config_man);
    char *completion = printed(config_completion), want[64];

    (void)state;
    for (unsigned i = 0; i < option_count; i++) {
        snprintf(want, sizeof want, "  --%s", option_table[i].name);
        assert_non_null(strstr(help, want));
        snprintf(want, sizeof want, ".It Fl -%s", option_table[i].name);
        assert_non_null(strstr(man, want));
        snprintf(want, sizeof want, "--%s ", option_table[i].name);
        assert_non_null(strstr(completion, want));
    }
    for (const char *line = help; *line != '\0'; line += strcspn(line, "\n") + 1)
        assert_true(strcspn(line, "\n") <= 100);
    assert_non_null(strstr(
        completion,
        "\n    --config|--tls-cert|--tls-key|--keys|--peers-file|--gossip-keys|--registry-ca)\n"));
    free(help);
    free(man);
    free(completion);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_value),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_default_burst_follows_from_the_rate),
        cmocka_unit_test(test_booleans),
        cmocka_unit_test(test_whitelist_is_bounded),
        cmocka_unit_test(test_prefixes_are_bounded),
        cmocka_unit_test(test_prefixes_have_what_they_cover),
        cmocka_unit_test(test_text_files),
        cmocka_unit_test(test_json_files),
        cmocka_unit_test(test_nul_bytes_are_refused),
        cmocka_unit_test(test_long_lines_are_refused),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_secrets_in_files),
        cmocka_unit_test(test_secret_of_the_environment_wins),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_file_is_found),
        cmocka_unit_test(test_later_sources_win),
        cmocka_unit_test(test_dev_fills_what_nobody_set),
        cmocka_unit_test(test_global_advertised_address_shuts_private_ones_out),
        cmocka_unit_test(test_options_that_contradict),
        cmocka_unit_test(test_options_that_go_together),
        cmocka_unit_test(test_dev_is_checked_too),
        cmocka_unit_test(test_dump_reads_back),
        cmocka_unit_test(test_dump_tells_origins_and_no_secret),
        cmocka_unit_test(test_what_needs_a_restart),
        cmocka_unit_test(test_the_edge_needs_a_restart),
        cmocka_unit_test(test_what_is_reloadable),
        cmocka_unit_test(test_names_are_told_apart),
        cmocka_unit_test(test_every_option_is_documented),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
