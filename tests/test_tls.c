#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/tls_certs.h"

/* --- connections --- */

/* How a client comes. Zero: any version, no SNI, no ALPN, all suites. */
struct client {
    int version;
    const char *sni, *suites, *groups;
    const char *alpn; /* as on the wire */
    bool no_ems;
};

struct link {
    SSL_CTX *context;
    SSL *client, *server;
    int client_result, server_result;
    int fd[2];
    unsigned long client_reason, server_reason;
};

static struct link link_open(struct tls *t, const struct client *c)
{
    struct link l = {.client_result = 0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, l.fd), 0);
    l.context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(l.context, 0); /* what it may say is the server's to refuse */
    if (c->version) {
        assert_true(SSL_CTX_set_min_proto_version(l.context, c->version));
        assert_true(SSL_CTX_set_max_proto_version(l.context, c->version));
    }
    if (c->suites)
        assert_true(SSL_CTX_set_cipher_list(l.context, c->suites));
    if (c->groups) {
        char groups[64];
        snprintf(groups, sizeof groups, "%s", c->groups);
        assert_true(SSL_CTX_set1_groups_list(l.context, groups));
    }
    if (c->no_ems)
        SSL_CTX_set_options(l.context, SSL_OP_NO_EXTENDED_MASTER_SECRET);
    l.client = SSL_new(l.context);
    if (c->sni) {
        char name[64];
        snprintf(name, sizeof name, "%s", c->sni);
        assert_true(
            SSL_ctrl(l.client, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name) == 1);
    }
    if (c->alpn)
        assert_int_equal(SSL_set_alpn_protos(l.client, (const unsigned char *)c->alpn,
                                             (unsigned)strlen(c->alpn)),
                         0);
    assert_true(SSL_set_fd(l.client, l.fd[1]));
    SSL_set_connect_state(l.client);
    l.server = tls_accept(t, l.fd[0]);
    assert_non_null(l.server);
    return l;
}

/* One step of one side: 1 done, 0 goes on, -1 over, with the reason. */
static int link_step(SSL *ssl, unsigned long *reason)
{
    ERR_clear_error();
    int n = SSL_do_handshake(ssl), error = SSL_get_error(ssl, n);
    if (n == 1)
        return 1;
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return 0;
    *reason = (unsigned long)ERR_GET_REASON(ERR_peek_error());
    ERR_clear_error();
    return -1;
}

static void link_shake(struct link *l)
{
    for (int i = 0; i < 20; i++) {
        if (l->client_result == 0)
            l->client_result = link_step(l->client, &l->client_reason);
        if (l->server_result == 0)
            l->server_result = link_step(l->server, &l->server_reason);
    }
}

static void link_close(struct link *l)
{
    SSL_free(l->client);
    SSL_free(l->server);
    SSL_CTX_free(l->context);
    close(l->fd[0]);
    close(l->fd[1]);
}

/* "a" goes to the server and "b" back. */
static void assert_link_works(struct link *l)
{
    char byte = 0;
    assert_int_equal(SSL_write(l->client, "a", 1), 1);
    assert_int_equal(SSL_read(l->server, &byte, 1), 1);
    assert_int_equal(byte, 'a');
    assert_int_equal(SSL_write(l->server, "b", 1), 1);
    assert_int_equal(SSL_read(l->client, &byte, 1), 1);
    assert_int_equal(byte, 'b');
}

#define ALERT(a) (SSL_AD_REASON_OFFSET + SSL_AD_##a)

static const struct {
    const char *name, *pairs;
    struct client client;
    int alert; /* that the client gets; 0: it works */
} handshakes[] = {
    {"anything", "one", {0}, 0},
    {"1.3", "one", {.version = TLS1_3_VERSION}, 0},
    {"1.2", "one", {.version = TLS1_2_VERSION}, 0},
    {"1.1", "one", {.version = TLS1_1_VERSION}, ALERT(PROTOCOL_VERSION)},
    {"1.0", "one", {.version = TLS1_VERSION}, ALERT(PROTOCOL_VERSION)},
    {"rsa certificate", "rsa", {.version = TLS1_2_VERSION}, 0},
    {"rsa certificate, 1.3", "rsa", {.version = TLS1_3_VERSION}, 0},
    {"rsa key exchange",
     "rsa",
     {TLS1_2_VERSION, .suites = "AES128-GCM-SHA256"},
     ALERT(HANDSHAKE_FAILURE)},
    {"dhe",
     "rsa",
     {TLS1_2_VERSION, .suites = "DHE-RSA-AES128-GCM-SHA256"},
     ALERT(HANDSHAKE_FAILURE)},
    {"cbc", "one", {TLS1_2_VERSION, .suites = "ECDHE-ECDSA-AES128-SHA"}, ALERT(HANDSHAKE_FAILURE)},
    {"cbc with sha256",
     "one",
     {TLS1_2_VERSION, .suites = "ECDHE-ECDSA-AES128-SHA256"},
     ALERT(HANDSHAKE_FAILURE)},
    {"ccm", "one", {TLS1_2_VERSION, .suites = "ECDHE-ECDSA-AES128-CCM"}, ALERT(HANDSHAKE_FAILURE)},
    {"no authentication",
     "one",
     {TLS1_2_VERSION, .suites = "AECDH-AES128-SHA"},
     ALERT(HANDSHAKE_FAILURE)},
    {"gcm", "one", {TLS1_2_VERSION, .suites = "ECDHE-ECDSA-AES128-GCM-SHA256"}, 0},
    {"chacha", "rsa", {TLS1_2_VERSION, .suites = "ECDHE-RSA-CHACHA20-POLY1305"}, 0},
    {"x25519", "one", {.groups = "X25519"}, 0},
    {"p-256", "one", {.groups = "P-256"}, 0},
    {"p-384", "one", {.groups = "P-384"}, 0},
    {"p-521", "one", {TLS1_3_VERSION, .groups = "P-521"}, ALERT(HANDSHAKE_FAILURE)},
    {"x448", "one", {TLS1_3_VERSION, .groups = "X448"}, ALERT(HANDSHAKE_FAILURE)},
    {"ffdhe", "one", {TLS1_3_VERSION, .groups = "ffdhe2048"}, ALERT(HANDSHAKE_FAILURE)},
    {"second group", "one", {TLS1_3_VERSION, .groups = "X448:P-384"}, 0},
    {"alpn", "one", {.alpn = "\x08http/1.1"}, 0},
    {"alpn, second", "one", {.alpn = "\x02h2\x08http/1.1"}, 0},
    {"alpn of others", "one", {.alpn = "\x02h2\x08http/1.0"}, ALERT(NO_APPLICATION_PROTOCOL)},
    {"alpn of others, 1.2",
     "one",
     {TLS1_2_VERSION, .alpn = "\x02h2"},
     ALERT(NO_APPLICATION_PROTOCOL)},
    {"alpn, longer", "one", {.alpn = "\x09http/1.1x"}, ALERT(NO_APPLICATION_PROTOCOL)},
    {"alpn at another pair",
     "one,two",
     {.sni = "two.test", .alpn = "\x02h2"},
     ALERT(NO_APPLICATION_PROTOCOL)},
};

static void test_handshakes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof handshakes / sizeof handshakes[0]; i++) {
        struct tls *t = open_pairs(handshakes[i].pairs);
        struct link l = link_open(t, &handshakes[i].client);
        link_shake(&l);
        bool good = l.client_result == 1 && l.server_result == 1;
        if (good != (handshakes[i].alert == 0) ||
            (!good && (l.server_result != -1 || l.client_reason != (unsigned)handshakes[i].alert)))
            fail_msg("%s: client %d (reason %lu) server %d (reason %lu)", handshakes[i].name,
                     l.client_result, l.client_reason, l.server_result, l.server_reason);
        if (good) {
            const unsigned char *alpn;
            unsigned len;
            SSL_get0_alpn_selected(l.client, &alpn, &len);
            assert_int_equal(len, handshakes[i].client.alpn ? 8 : 0);
            if (len > 0)
                assert_memory_equal(alpn, "http/1.1", 8);
            assert_link_works(&l);
        }
        link_close(&l);
        tls_close(t);
    }
}

static const struct {
    const char *sni, *want; /* the certificate's name */
} names[] = {
    {NULL, "one.test"},
    {"one.test", "one.test"},
    {"two.test", "two.test"},
    {"TWO.Test", "two.test"},
    {"unknown.test", "one.test"},
    {"b.wild.test", "two.test"},
    {"B.WILD.test", "two.test"},
    {"a.wild.test", "a.wild.test"}, /* exact, though the wildcard comes first */
    {"A.wild.test", "a.wild.test"},
    {"b.a.wild.test", "one.test"}, /* a wildcard is one label */
    {"wild.test", "one.test"},
    {".wild.test", "one.test"},
    {".test", "one.test"},
    {"cn.test", "cn.test"},       /* no DNS names: the common name counts */
    {"ignored.test", "one.test"}, /* there are: it does not */
    {"alias.test", "one.test"},
    {"127.0.0.1", "one.test"},
    {"*.wild.test", "two.test"}, /* literally */
};

/* The name that tls_name gives for the certificate that the client saw. */
static const char *seen_name(const SSL *client, struct tls *t)
{
    X509 *cert = SSL_get0_peer_certificate(client);
    assert_non_null(cert);
    for (unsigned i = 0; i < tls_count(t); i++) {
        char host[TLS_NAME_MAX];
        snprintf(host, sizeof host, "%s", tls_name(t, i));
        if (host[0] == '*')
            host[0] = 'b';
        if (X509_check_host(cert, host, 0, 0, NULL) == 1)
            return tls_name(t, i);
    }
    return "?";
}

static void test_sni(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct tls *t = open_pairs("one,two,exact,plain");
    for (size_t i = 0; i < 2 * sizeof names / sizeof names[0]; i++) {
        /* In 1.3 the hello is asked for again: the choice is made twice. */
        struct client c = {.version = versions[i % 2], .sni = names[i / 2].sni};
        if (i % 2)
            c.groups = "X448:P-256";
        struct link l = link_open(t, &c);
        link_shake(&l);
        assert_int_equal(l.client_result, 1);
        if (strcmp(seen_name(l.client, t), names[i / 2].want) != 0)
            fail_msg("%s: got %s", c.sni ? c.sni : "no SNI", seen_name(l.client, t));
        assert_link_works(&l);
        link_close(&l);
    }
    tls_close(t);
}

/* The old certificates are gone for new connections only: established ones and those in the middle
 * of a handshake, whatever name they are about to ask for, go on with them. */
static void test_swap(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (int v = 0; v < 2; v++) {
        struct client c = {.version = versions[v], .sni = "two.test", .alpn = "\x08http/1.1"};
        struct tls *old = open_pairs("one,two"), *new = open_pairs("exact,plain");
        struct link established = link_open(old, &c), silent = link_open(old, &c),
                    half = link_open(old, &c);
        link_shake(&established);
        assert_int_equal(link_step(half.client, &half.client_reason), 0);
        assert_int_equal(link_step(half.server, &half.server_reason), 0);
        struct link never = link_open(old, &c);
        tls_close(old);

        struct link fresh = link_open(new, &c);
        link_close(&never);
        link_shake(&silent);
        link_shake(&half);
        link_shake(&fresh);
        X509 *want = SSL_get0_peer_certificate(established.client);
        assert_link_works(&established);
        assert_link_works(&silent);
        assert_link_works(&half);
        assert_link_works(&fresh);
        assert_int_equal(X509_check_host(want, "two.test", 0, 0, NULL), 1);
        assert_int_equal(X509_cmp(want, SSL_get0_peer_certificate(silent.client)), 0);
        assert_int_equal(X509_cmp(want, SSL_get0_peer_certificate(half.client)), 0);
        assert_string_equal(seen_name(fresh.client, new), "a.wild.test");
        link_close(&established);
        link_close(&silent);
        link_close(&half);
        tls_close(new);
        assert_link_works(&fresh);
        link_close(&fresh);
    }
}

static void test_renegotiation_refused(void **state)
{
    (void)state;
    struct tls *t = open_pairs("one");
    struct link l = link_open(t, &(struct client){.version = TLS1_2_VERSION});
    char byte;
    link_shake(&l);
    assert_link_works(&l);
    assert_true(SSL_renegotiate(l.client));
    assert_int_equal(link_step(l.client, &l.client_reason), 0);
    int n = SSL_read(l.server, &byte, 1);
    assert_int_equal(SSL_get_error(l.server, n), SSL_ERROR_WANT_READ);
    assert_int_equal(link_step(l.client, &l.client_reason), -1);
    assert_int_equal(l.client_reason, SSL_R_NO_RENEGOTIATION);
    link_close(&l);
    tls_close(t);
}

static int tickets_seen;

static int ticket_came(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl, (void)session;
    tickets_seen++;
    return 0;
}

static void test_no_resumption(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct tls *t = open_pairs("one");
    for (int v = 0; v < 2; v++) {
        struct link l = link_open(t, &(struct client){.version = versions[v]});
        SSL_CTX_set_session_cache_mode(l.context, SSL_SESS_CACHE_CLIENT);
        SSL_CTX_sess_set_new_cb(l.context, ticket_came);
        tickets_seen = 0;
        link_shake(&l);
        assert_link_works(&l);
        if (versions[v] == TLS1_3_VERSION)
            assert_int_equal(tickets_seen, 0);
        SSL_SESSION *session = SSL_get1_session(l.client);
        assert_false(SSL_SESSION_has_ticket(session));
        unsigned len;
        SSL_SESSION_get_id(session, &len);
        assert_int_equal(len, 0);
        assert_int_equal(SSL_SESSION_get_max_early_data(session), 0);
        SSL_SESSION_free(session);
        assert_true(SSL_shutdown(l.client) >= 0);
        link_close(&l);
    }
    tls_close(t);
}

static void test_exporter(void **state)
{
    (void)state;
    static const struct {
        int version;
        bool no_ems, want;
    } cases[] = {
        {TLS1_3_VERSION, false, true},
        {TLS1_2_VERSION, false, true},
        {TLS1_2_VERSION, true, false},
    };
    static const char label[] = "EXPORTER-Channel-Binding";
    struct tls *t = open_pairs("one");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct client c = {.version = cases[i].version, .no_ems = cases[i].no_ems};
        struct link l = link_open(t, &c), other = link_open(t, &c);
        uint8_t ours[TLS_EXPORTER_LEN] = {0}, theirs[TLS_EXPORTER_LEN], others[TLS_EXPORTER_LEN];
        assert_false(tls_exporter(l.server, ours)); /* not yet shaken hands */
        link_shake(&l);
        link_shake(&other);
        assert_int_equal(tls_exporter(l.server, ours), cases[i].want);
        assert_int_equal(ERR_peek_error(), 0);
        if (cases[i].want) {
            assert_int_equal(SSL_export_keying_material(l.client, theirs, sizeof theirs, label, 24,
                                                        (const unsigned char *)"", 0, 1),
                             1);
            assert_memory_equal(ours, theirs, sizeof ours);
            assert_true(tls_exporter(other.server, others));
            assert_memory_not_equal(ours, others, sizeof ours);
        }
        link_close(&l);
        link_close(&other);
    }
    tls_close(t);
}

static void test_self_made(void **state)
{
    (void)state;
    char error[TLS_ERROR_MAX] = "";
    struct tls *t = tls_open_self_made(error), *again = tls_open_self_made(error);
    assert_non_null(t);
    assert_non_null(again);
    assert_int_equal(tls_count(t), 1);
    assert_string_equal(tls_name(t, 0), "localhost");
    assert_null(tls_warning(t));
    assert_in_range(tls_not_after(t, 0) - time(NULL) - 30 * DAY + 60, 0, 61);

    /* A client that was given this very certificate trusts it, for the names that it has. */
    struct link probe = link_open(t, &(struct client){0});
    link_shake(&probe);
    X509 *cert = SSL_get0_peer_certificate(probe.client);
    static const char *const hosts[] = {"localhost", "127.0.0.1", "::1", "other.test"};
    for (int i = 0; i < 4; i++) {
        struct link l = link_open(t, &(struct client){0});
        X509_VERIFY_PARAM *param = SSL_get0_param(l.client);
        assert_true(X509_STORE_add_cert(SSL_CTX_get_cert_store(l.context), cert));
        SSL_set_verify(l.client, SSL_VERIFY_PEER, NULL);
        if (i == 0 || i == 3)
            assert_true(X509_VERIFY_PARAM_set1_host(param, hosts[i], 0));
        else
            assert_true(X509_VERIFY_PARAM_set1_ip_asc(param, hosts[i]));
        link_shake(&l);
        assert_int_equal(l.client_result, i < 3 ? 1 : -1);
        assert_int_equal(SSL_get_verify_result(l.client),
                         i < 3 ? X509_V_OK : X509_V_ERR_HOSTNAME_MISMATCH);
        link_close(&l);
    }

    struct link second = link_open(again, &(struct client){0});
    link_shake(&second);
    X509 *fresh = SSL_get0_peer_certificate(second.client);
    assert_int_not_equal(
        ASN1_INTEGER_cmp(X509_get0_serialNumber(cert), X509_get0_serialNumber(fresh)), 0);
    link_close(&probe);
    link_close(&second);
    tls_close(t);
    tls_close(again);
}

/* The whole chain is sent, in its order. */
static void test_chain_is_sent(void **state)
{
    (void)state;
    char error[TLS_ERROR_MAX] = "", text[16384];
    int n = snprintf(text, sizeof text, "%s", file_text(path("one", ".crt")));
    n += snprintf(text + n, sizeof text - (size_t)n, "%s", file_text(path("two", ".crt")));
    write_file(path("both", ".crt"), text, (size_t)n, 0644);
    struct tls *t = tls_open(path("both", ".crt"), path("one", ".key"), error);
    assert_non_null(t);
    struct link l = link_open(t, &(struct client){0});
    link_shake(&l);
    STACK_OF(X509) *sent = SSL_get_peer_cert_chain(l.client);
    assert_int_equal(sk_X509_num(sent), 2);
    assert_int_equal(X509_check_host(sk_X509_value(sent, 0), "one.test", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(sk_X509_value(sent, 1), "two.test", 0, 0, NULL), 1);
    link_close(&l);
    tls_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handshakes),    cmocka_unit_test(test_sni),
        cmocka_unit_test(test_swap),          cmocka_unit_test(test_renegotiation_refused),
        cmocka_unit_test(test_no_resumption), cmocka_unit_test(test_exporter),
        cmocka_unit_test(test_self_made),     cmocka_unit_test(test_chain_is_sent),
    };
    return cmocka_run_group_tests(tests, certs_make, certs_remove);
}
