/* The thread that finds other beacons, against a registry, name servers and files that behave and
 * misbehave. */
#include "tests/discover_rig.h"

#include "gossip/seeds.h"

static struct {
    struct discover *d;
    struct discover_config c;
    char registry[64];
    int count; /* of the seeds taken last */
    struct gossip_seed seeds[GOSSIP_SEEDS_MAX];
} t;

static struct endpoint at(const char *text)
{
    struct endpoint e;
    if (!endpoint_parse(text, &e))
        fail_msg("%s is no endpoint", text);
    return e;
}

/* Everything is quick and nothing is configured. */
static void config(void)
{
    t.c = (struct discover_config){.peers = "",
                                   .peers_file = "",
                                   .peers_dns = "",
                                   .registry = "",
                                   .registry_ca = "",
                                   .registry_token = "",
                                   .advertise = "",
                                   .bound = at("0.0.0.0:9001"),
                                   .say = rig_say,
                                   .period_ms = 50};
    t.c.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    t.count = 0;
    forget_said();
}

static void begin(void)
{
    char error[REGISTRY_ERROR_MAX] = "";
    t.d = discover_open(&t.c, error);
    if (!t.d)
        fail_msg("%s", error);
}

static void end(void)
{
    uint64_t start_ms = rig_now_ms();
    discover_close(t.d);
    close(t.c.wake);
    assert_true(rig_now_ms() - start_ms < 1000);
}

static void use_registry(uint32_t beacon_id)
{
    snprintf(t.registry, sizeof t.registry, "127.0.0.1:%u", registry.port);
    t.c.registry = t.registry;
    t.c.beacon_id = beacon_id;
}

static bool has(const char *text, uint32_t id, bool is_pilot)
{
    struct endpoint e = at(text);
    for (int i = 0; i < t.count; i++)
        if (endpoint_equal(&t.seeds[i].at, &e))
            return t.seeds[i].id == id && t.seeds[i].is_pilot == is_pilot;
    return false;
}

/* Until the result is of `count`; it is announced. */
static void wait_count(int count)
{
    for (uint64_t end_ms = rig_now_ms() + 15000; rig_now_ms() < end_ms;) {
        int n = discover_take(t.d, t.seeds);
        t.count = n >= 0 ? n : t.count;
        if (t.count == count)
            return;
        struct pollfd p = {.fd = t.c.wake, .events = POLLIN};
        eventfd_t rung;
        poll(&p, 1, 100);
        (void)eventfd_read(t.c.wake, &rung);
    }
    fail_msg("%d seeds, not %d", t.count, count);
}

static void wait_for(_Atomic unsigned *counter, unsigned more)
{
    unsigned from = atomic_load(counter);
    for (uint64_t end_ms = rig_now_ms() + 15000; rig_now_ms() < end_ms; poll(NULL, 0, 5))
        if (atomic_load(counter) - from >= more)
            return;
    fail_msg("it did not come");
}

/* --- options --- */

static void test_option(void **state)
{
    (void)state;
    config();
    t.c.peers = "192.0.2.1:9001, pilot:192.0.2.2:7,[2001:db8::1]:8, 192.0.2.1, pilot:192.0.2.1:1";
    begin();
    t.count = discover_take(t.d, t.seeds); /* at once */
    assert_int_equal(t.count, 4);
    assert_true(has("192.0.2.1:9001", 0, false) && has("192.0.2.2:7", 0, true));
    assert_true(has("[2001:db8::1]:8", 0, false) && has("192.0.2.1:1", 0, true));
    poll(NULL, 0, 100);
    assert_int_equal(discover_take(t.d, t.seeds), -1);
    struct discover_status s;
    discover_status(t.d, &s);
    assert_true(!s.registry_used && !s.registry_ok && s.registry_ok_unix_s == 0 && !s.error[0]);
    end();
    config();
    t.c.peers = "192.0.2.1:9001";
    t.c.pilot_default = true;
    begin();
    wait_count(1);
    assert_true(has("192.0.2.1:9001", 0, true));
    end();
    assert_int_equal(said.count, 0);
}

static const struct {
    const char *name;
    struct discover_config c;
    const char *error;
} bad[] = {
    {"peers", {.peers = "a b"}, "peers:1: not a peer"},
    {"dns", {.peers_dns = "a b"}, "peers-dns = a b: not a name"},
    {"registry", {.registry = "a", .beacon_id = 7}, "registry = a: not a host and port"},
    {"advertise",
     {.registry = "a:1", .beacon_id = 7, .advertise = "a b"},
     "advertise-addr = a b: not a host and port"},
    {"authorities",
     {.registry = "a:1", .beacon_id = 7, .registry_tls = true, .registry_ca = "/nowhere/ca"},
     "/nowhere/ca: cannot take the authorities"},
};

static void test_bad_options(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        char error[REGISTRY_ERROR_MAX] = "";
        struct discover_config c = bad[i].c;
        c.bound = at("0.0.0.0:9001");
        assert_null(discover_open(&c, error));
        if (!strstr(error, bad[i].error))
            fail_msg("%s: %s", bad[i].name, error);
    }
}

/* --- the registry --- */

#define LISTED_SOME                                                                                \
    "{\"id\":7,\"addr\":\"127.0.0.1:9001\"},{\"id\":8,\"addr\":\"127.0.0.1:9008\"},"               \
    "{\"id\":9,\"addr\":\"192.0.2.9:9009\"},{\"id\":10,\"addr\":\"0.0.0.0:1\"},"                   \
    "{\"id\":11,\"addr\":\"224.0.0.1:1\"},{\"id\":12,\"addr\":\"169.254.1.1:1\"},"                 \
    "{\"id\":13,\"addr\":\"8.8.8.8:13\"},{\"id\":14}"

static void test_cycle(void **state)
{
    (void)state;
    struct discover_status s;
    registry_open(ANSWERS, NULL);
    registry_lists(LISTED_SOME);
    config();
    use_registry(7);
    t.c.registry_token = "hunter2";
    begin();
    wait_count(3); /* we are on loopback ourselves, so another one may be, too */
    assert_true(has("127.0.0.1:9008", 8, false) && has("192.0.2.9:9009", 9, false));
    assert_true(has("8.8.8.8:13", 13, false));
    assert_true(registry_was_told("\"addr\":\"127.0.0.1:9001\"")); /* instead of the wildcard */
    assert_true(registry_was_told("\"admin_token\":\"hunter2\""));
    wait_for(&registry.connections, 3);
    assert_int_equal(times_said(false, "registry", "registered as 127.0.0.1:9001"), 1);
    assert_int_equal(times_said(true, "registry", "1 entries of the list make no sense"), 1);
    discover_status(t.d, &s);
    assert_true(s.registry_used && s.registry_ok && s.listed == 7 && s.error[0] == '\0');
    assert_true(s.registry_ok_unix_s > time(NULL) - 60);
    registry_lists("{\"id\":8,\"addr\":\"127.0.0.1:9008\"}");
    wait_count(1);
    registry_lists("");
    wait_count(0);
    end();
    registry_close();
}

static const struct {
    const char *advertise, *bound, *want;
    int seeds; /* of the list above */
} addresses[] = {
    {"", "127.0.0.1:9005", "127.0.0.1:9005", 3},
    {"", "[::]:9005", "127.0.0.1:9005", 3},
    {"", "192.0.2.5:9005", "192.0.2.5:9005", 2},
    {"", "8.8.4.4:9005", "8.8.4.4:9005", 1}, /* then nothing private may be meant */
    {"8.8.4.4:1", "127.0.0.1:9005", "8.8.4.4:1", 1},
    {"8.8.4.4", "127.0.0.1:9005", "8.8.4.4:9005", 1},
    {"[2001:db8::5]:1", "127.0.0.1:9005", "[2001:db8::5]:1", 2},
    {"2001:db8::5", "127.0.0.1:9005", "[2001:db8::5]:9005", 2},
    {"beacon.test", "127.0.0.1:9005", "beacon.test:9005", 3},
};

static void test_addresses(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(addresses); i++) {
        char want[128];
        print_message("%s %s\n", addresses[i].advertise, addresses[i].bound);
        registry_open(ANSWERS, NULL);
        registry_lists(LISTED_SOME);
        config();
        use_registry(77);
        t.c.advertise = addresses[i].advertise;
        t.c.bound = at(addresses[i].bound);
        begin();
        /* Id 7 is somebody else now, on loopback. */
        wait_count(addresses[i].seeds + (addresses[i].seeds == 3));
        snprintf(want, sizeof want, "\"addr\":\"%s\"", addresses[i].want);
        assert_true(registry_was_told(want));
        assert_false(registry_was_told("admin_token"));
        end();
        registry_close();
    }
}

static const struct {
    enum manner manner;
    const char *error;
    int seeds; /* 3: what it lists now; 1: what was known before */
} failures[] = {
    {REFUSES, "cannot register: the registry says: bad admin token", 3},
    {CONFUSES, "cannot register: the registry confirms another beacon id", 3},
    {NO_LIST, "cannot list: the registry says: no list today", 1},
    {NULL_LIST, "cannot list: the answer has no array of beacons", 1},
    {GARBAGE, "the answer is not a JSON object", 1},
    {SPEAKS_HTTP, "the answer is no frame, or too long", 1},
    {SAYS_NOTHING, "the answer is not a JSON object", 1},
    {CUTS, "Connection reset by peer", 1},
    {CLOSES, "Connection reset by peer", 1},
};

/* What fails is said once, shows in the status, and costs nothing that is known. */
static void test_failures(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(failures); i++) {
        struct discover_status s;
        print_message("%s\n", failures[i].error);
        registry_open(ANSWERS, NULL);
        registry_lists("{\"id\":8,\"addr\":\"127.0.0.1:9008\"}");
        config();
        use_registry(7);
        begin();
        wait_count(1);
        atomic_store(&registry.manner, failures[i].manner);
        registry_lists(LISTED_SOME);
        wait_said(true, "registry", failures[i].error);
        wait_for(&registry.connections, 4);
        wait_count(failures[i].seeds);
        assert_int_equal(times_said(true, "registry", failures[i].error), 1);
        discover_status(t.d, &s);
        assert_true(!s.registry_ok && s.registry_ok_unix_s > 0);
        assert_non_null(strstr(s.error, failures[i].error));
        forget_said();
        atomic_store(&registry.manner, DRIPS);
        wait_said(false, "registry", "registered as");
        wait_count(3);
        discover_status(t.d, &s);
        assert_true(s.registry_ok && s.error[0] == '\0');
        end();
        registry_close();
    }
}

static void test_absent(void **state)
{
    (void)state;
    struct discover_status s;
    registry_open(ANSWERS, NULL);
    config();
    use_registry(7);
    registry_close(); /* now nobody is there */
    t.c.peers = "192.0.2.1:1";
    begin();
    wait_said(true, "registry", "cannot connect: Connection refused");
    wait_count(1);
    discover_status(t.d, &s);
    assert_true(s.registry_used && !s.registry_ok && s.registry_ok_unix_s == 0);
    end();
}

/* A silent one holds nothing up: neither the others nor the end. */
static void test_silent(void **state)
{
    (void)state;
    char path[] = "/tmp/beacon-test-peers-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    registry_open(SILENT, NULL);
    config();
    use_registry(7);
    t.c.peers_file = path;
    begin();
    wait_for(&registry.registers, 1);
    assert_int_equal(write(fd, "192.0.2.1\n", 10), 10);
    wait_count(1);
    end();
    registry_close();
    close(fd);
    unlink(path);
}

static void test_not_asked(void **state)
{
    (void)state;
    registry_open(ANSWERS, NULL);
    config();
    use_registry(0);
    begin();
    poll(NULL, 0, 200);
    assert_int_equal(atomic_load(&registry.connections), 0);
    end();
    registry_close();
}

static void test_twice(void **state)
{
    (void)state;
    registry_open(ANSWERS, NULL);
    registry_lists("{\"id\":7,\"addr\":\"127.0.0.1:9001\"}");
    config();
    use_registry(7);
    begin();
    wait_for(&registry.connections, 3);
    assert_int_equal(times_said(true, "registry", ""), 0);
    registry_lists("{\"id\":7,\"addr\":\"192.0.2.66:9001\"}");
    wait_said(true, "registry", "beacon id 7 is also registered by 192.0.2.66:9001");
    wait_for(&registry.connections, 4);
    assert_int_equal(times_said(true, "registry", "also"), 1);
    registry_lists("{\"id\":8,\"addr\":\"192.0.2.8:1\"},{\"id\":8,\"addr\":\"192.0.2.9:1\"}");
    wait_said(true, "registry", "beacon id 8 is registered by 192.0.2.8:1 and by 192.0.2.9:1");
    wait_count(2);
    wait_for(&registry.connections, 3);
    assert_int_equal(times_said(true, "registry", "and by"), 1);
    registry_lists("");
    wait_count(0);
    registry_lists("{\"id\":7,\"addr\":\"192.0.2.66:9001\"}"); /* again: it is said again */
    for (uint64_t end_ms = rig_now_ms() + 5000; times_said(true, "registry", "also") < 2;)
        assert_true(rig_now_ms() < end_ms);
    end();
    registry_close();
}

/* --- TLS --- */

static const struct {
    const char *name, *cert_names, *host;
    bool server_tls, right_ca;
    const char *error; /* NULL: it works */
} handshakes[] = {
    {"by address", "IP:127.0.0.1", "127.0.0.1", true, true, NULL},
    {"by name", "DNS:localhost", "localhost", true, true, NULL},
    {"by name to the root", "DNS:localhost", "localhost.", true, true, NULL},
    {"another name", "DNS:registry.test", "localhost", true, true, "hostname mismatch"},
    {"another address", "IP:127.0.0.2", "127.0.0.1", true, true, "IP address mismatch"},
    {"a name is no address", "DNS:127.0.0.1", "127.0.0.1", true, true, "IP address mismatch"},
    {"another authority", "IP:127.0.0.1", "127.0.0.1", true, false, "self-signed certificate"},
    {"no TLS there", "IP:127.0.0.1", "127.0.0.1", false, true, "cannot begin TLS"},
};

static void test_tls(void **state)
{
    (void)state;
    char dir[] = "/tmp/beacon-test-ca-XXXXXX", ca[64], other[64], address[64];
    assert_non_null(mkdtemp(dir));
    snprintf(ca, sizeof ca, "%s/ca", dir);
    snprintf(other, sizeof other, "%s/other", dir);
    SSL_CTX_free(tls_server("IP:127.0.0.1", other));
    for (size_t i = 0; i < COUNT(handshakes); i++) {
        if (strcmp(handshakes[i].host, "localhost.") == 0 && !names.works)
            continue; /* nobody would know that name */
        print_message("%s\n", handshakes[i].name);
        SSL_CTX *tls = tls_server(handshakes[i].cert_names, ca);
        if (!handshakes[i].server_tls)
            SSL_CTX_free(tls);
        registry_open(handshakes[i].server_tls ? ANSWERS : SPEAKS_HTTP,
                      handshakes[i].server_tls ? tls : NULL);
        registry_lists("{\"id\":8,\"addr\":\"127.0.0.1:9008\"}");
        config();
        snprintf(address, sizeof address, "%s:%u", handshakes[i].host, registry.port);
        t.c.registry = address;
        t.c.beacon_id = 7;
        t.c.registry_token = "hunter2";
        t.c.registry_tls = true;
        t.c.registry_ca = handshakes[i].right_ca ? ca : other;
        begin();
        if (handshakes[i].error) {
            wait_said(true, "registry", handshakes[i].error);
            assert_int_equal(atomic_load(&registry.registers), 0); /* no token has left */
        } else {
            wait_count(1);
            assert_true(registry_was_told("hunter2"));
        }
        end();
        registry_close();
    }
    unlink(ca);
    unlink(other);
    rmdir(dir);
}

/* --- the peers file --- */

static void put_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void test_file(void **state)
{
    (void)state;
    char dir[] = "/tmp/beacon-test-peers-XXXXXX", path[64], fresh[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/peers", dir);
    snprintf(fresh, sizeof fresh, "%s/fresh", dir);
    config();
    t.c.peers_file = path;
    t.c.peers = "192.0.2.9:1";
    begin();
    wait_count(1);
    wait_said(true, "peers", "No such file or directory");
    put_file(path, "192.0.2.1:1 # one\npilot:192.0.2.2:2\n");
    wait_count(3);
    assert_true(has("192.0.2.1:1", 0, false) && has("192.0.2.2:2", 0, true));
    assert_int_equal(times_said(false, "peers", "peers: 2 peers"), 1);
    put_file(path, "192.0.2.1:1\noh no\n"); /* the old ones stay */
    wait_said(true, "peers", "peers:2: not a peer, like beacon.example.org:9001: oh no");
    assert_int_equal(discover_take(t.d, t.seeds), -1);
    put_file(fresh, "192.0.2.3:3\n");
    assert_int_equal(rename(fresh, path), 0);
    wait_count(2);
    assert_true(has("192.0.2.3:3", 0, false) && has("192.0.2.9:1", 0, false));
    forget_said();
    unlink(path);
    wait_said(true, "peers", "No such file or directory");
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody will ever write to it */
    wait_said(true, "peers", "Invalid argument");
    unlink(path);
    assert_int_equal(discover_take(t.d, t.seeds), -1);
    put_file(path, "");
    wait_count(1);
    end();
    assert_int_equal(times_said(true, "peers", "Invalid argument"), 1);
    unlink(path);
    rmdir(dir);
}

/* --- names --- */

static void test_names(void **state)
{
    (void)state;
    if (!names.works)
        skip();
    config();
    t.c.peers = "localhost:7, nowhere.test:8, 192.0.2.1:9, pilot:localhost:7";
    begin();
    assert_int_equal(discover_take(t.d, t.seeds), 1); /* nothing waits for a lookup */
    wait_said(true, "dns", "nowhere.test: ");
    for (uint64_t end_ms = rig_now_ms() + 10000; !has("127.0.0.1:7", 0, true); poll(NULL, 0, 5)) {
        int n = discover_take(t.d, t.seeds);
        t.count = n >= 0 ? n : t.count;
        assert_true(rig_now_ms() < end_ms);
    }
    poll(NULL, 0, 300); /* some more lookups */
    assert_int_equal(times_said(true, "dns", "nowhere.test: "), 1);
    assert_true(atomic_load(&names.questions) > 0);
    end();
}

static void test_service(void **state)
{
    (void)state;
    if (!names.works)
        skip();
    struct resolved local; /* one address or two */
    resolve_host("localhost", 1, &local);
    int each = (int)local.count;
    atomic_store(&names.targets, 3);
    config();
    t.c.peers_dns = "pilot:fleet.test";
    begin();
    wait_count(3 * each);
    assert_true(has("127.0.0.1:7001", 0, true) && has("127.0.0.1:7003", 0, true));
    atomic_store(&names.targets, 5);
    wait_count(5 * each);
    atomic_store(&names.refuses, true); /* what is known stays */
    wait_said(true, "dns", "fleet.test: SRV records");
    assert_int_equal(discover_take(t.d, t.seeds), -1);
    atomic_store(&names.refuses, false);
    wait_said(false, "dns", "fleet.test: found");
    atomic_store(&names.targets, 2);
    wait_count(2 * each);
    end();
    config();
    t.c.peers_dns = "localhost:70"; /* no service: its addresses */
    begin();
    for (uint64_t end_ms = rig_now_ms() + 10000; !has("127.0.0.1:70", 0, false); poll(NULL, 0, 5)) {
        int n = discover_take(t.d, t.seeds);
        t.count = n >= 0 ? n : t.count;
        assert_true(rig_now_ms() < end_ms);
    }
    end();
}

/* More names hang than there are threads for them; files and the end do not wait for it. */
static void test_hanging(void **state)
{
    (void)state;
    char path[] = "/tmp/beacon-test-peers-XXXXXX";
    if (!names.works)
        skip();
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    atomic_store(&names.silent, true);
    config();
    t.c.peers = "a.test,b.test,c.test,d.test,e.test,f.test,192.0.2.1:1";
    t.c.peers_file = path;
    begin();
    wait_for(&names.questions, 4);
    assert_int_equal(write(fd, "192.0.2.2\n", 10), 10);
    uint64_t start_ms = rig_now_ms();
    wait_count(2);
    assert_true(rig_now_ms() - start_ms < 3000);
    end();
    atomic_store(&names.silent, false);
    close(fd);
    unlink(path);
}

/* --- the union --- */

static void test_union(void **state)
{
    (void)state;
    struct seeds *s = calloc(1, sizeof *s);
    struct gossip_seed seeds[GOSSIP_SEEDS_MAX];
    unsigned left;
    for (unsigned source = 0; source < SEEDS_SOURCES; source++) {
        seeds_begin(s, (enum seeds_source)source);
        for (unsigned i = 0; i < 200; i++) {
            struct peer_name n = {.host = "8.8.8.8", .port = (uint16_t)(1 + 80 * source + i)};
            seeds_add(s, (enum seeds_source)source, &n, source == SEEDS_REGISTRY ? i + 1 : 0,
                      source == SEEDS_DNS);
        }
        seeds_end(s, (enum seeds_source)source);
    }
    assert_int_equal(seeds_union(s, SCOPE_GLOBAL, false, seeds, &left), GOSSIP_SEEDS_MAX);
    assert_int_equal(left, 24 + 104 + 184); /* of the file, DNS, the registry */
    for (unsigned i = 0; i < GOSSIP_SEEDS_MAX; i++) {
        assert_int_equal(seeds[i].at.port, i + 1);
        assert_int_equal(seeds[i].id, i < 240 ? 0 : i - 239);
    }
    assert_null(seeds_due(s, UINT64_MAX - 1));
    free(s);
}

/* What is known of a name outlives a new list that has it, and goes with one that has not. */
static void test_kept_names(void **state)
{
    (void)state;
    static const struct peer_name a = {.host = "a.test", .port = 1}, b = {"b.test", 1, false};
    struct seeds *s = calloc(1, sizeof *s);
    struct gossip_seed seeds[GOSSIP_SEEDS_MAX];
    unsigned left;
    for (unsigned round = 0; round < 3; round++) {
        seeds_begin(s, SEEDS_REGISTRY);
        if (round != 2)
            seeds_add(s, SEEDS_REGISTRY, &a, 5 + round, false);
        seeds_add(s, SEEDS_REGISTRY, &b, 50, false);
        seeds_end(s, SEEDS_REGISTRY);
        struct place *p = seeds_next(s, NULL, &a, false);
        assert_true((p != NULL) == (round != 2));
        assert_null(seeds_next(s, NULL, &a, true));
        if (round == 0) {
            assert_true(seeds_due(s, 100) == p);
            p->at[0] = at("8.8.8.8:1");
            p->count = 1;
            p->next_ns = 200;
            assert_true(strcmp(seeds_due(s, 100)->name.host, "b.test") == 0);
        }
        assert_int_equal(seeds_union(s, SCOPE_GLOBAL, false, seeds, &left), round != 2);
        assert_true(round == 2 || seeds[0].id == 5 + round);
        assert_true(round == 2 || p->next_ns == 200);
    }
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_option),   cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_cycle),    cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_failures), cmocka_unit_test(test_absent),
        cmocka_unit_test(test_silent),   cmocka_unit_test(test_not_asked),
        cmocka_unit_test(test_twice),    cmocka_unit_test(test_tls),
        cmocka_unit_test(test_file),     cmocka_unit_test(test_names),
        cmocka_unit_test(test_service),  cmocka_unit_test(test_hanging),
        cmocka_unit_test(test_union),    cmocka_unit_test(test_kept_names),
    };
    return cmocka_run_group_tests(tests, names_open, names_close);
}
