#include <assert.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "proto/siphash.h"
#include "server/config.h"
#include "wss/tls_pair.h"

enum { WARNING_MAX = 512, DAY_SECONDS = 86400 };
static_assert((int)TLS_PAIRS_MAX == (int)CONFIG_CERTIFICATES_MAX, "what may be configured fits");

/* Lives as long as the first pair's context, whose ex_data it is: every connection holds that one,
 * whichever pair it was given, so the SNI callback can look here even after tls_close. */
struct tls {
    unsigned count;
    struct {
        SSL_CTX *context;
        char name[TLS_NAME_MAX];
        time_t not_after;
    } pair[TLS_PAIRS_MAX];
    char warning[WARNING_MAX];
};

/* --- lifetime --- */

static pthread_once_t owner_once = PTHREAD_ONCE_INIT;
static int owner_index; /* of the ex_data; negative: no memory */

/* The other contexts are referred to by this list and by connections that chose them. */
static void tls_free(struct tls *t)
{
    for (unsigned i = 1; i < t->count; i++)
        SSL_CTX_free(t->pair[i].context);
    free(t);
}

static void owner_freed(void *parent, void *value, CRYPTO_EX_DATA *all, int index, long argl,
                        void *argp)
{
    (void)parent, (void)all, (void)index, (void)argl, (void)argp;
    if (value)
        tls_free(value);
}

static void owner_register(void)
{
    owner_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, owner_freed);
}

void tls_close(struct tls *t)
{
    if (!t)
        return;
    if (t->count == 0)
        free(t);
    else
        SSL_CTX_free(t->pair[0].context); /* the last one who does takes `t` along */
}

/* --- choices in the ClientHello --- */

/* Exact names go before wildcards, whatever the order of the files. */
static unsigned tls_find(const struct tls *t, const char *name)
{
    static const unsigned passes[] = {
        X509_CHECK_FLAG_NO_WILDCARDS,
        X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS,
    };
    if (name[0] == '\0' || name[0] == '.') /* OpenSSL takes ".a" for every name below "a" */
        return 0;
    for (size_t p = 0; p < sizeof passes / sizeof passes[0]; p++)
        for (unsigned i = 0; i < t->count; i++) {
            X509 *leaf = SSL_CTX_get0_certificate(t->pair[i].context);
            if (X509_check_host(leaf, name, strlen(name), passes[p], NULL) == 1)
                return i;
        }
    return 0;
}

static int servername_given(SSL *ssl, int *alert, void *arg)
{
    const struct tls *t = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (!name)
        return SSL_TLSEXT_ERR_NOACK;
    unsigned i = tls_find(t, name);
    if (i > 0 && !SSL_set_SSL_CTX(ssl, t->pair[i].context)) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    return SSL_TLSEXT_ERR_OK;
}

static int alpn_offered(SSL *ssl, const unsigned char **ret, unsigned char *ret_len,
                        const unsigned char *offered, unsigned offered_len, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *chosen;
    (void)ssl, (void)arg;
    if (SSL_select_next_proto(&chosen, ret_len, ours, sizeof ours - 1, offered, offered_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL; /* no_application_protocol */
    *ret = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* --- contexts --- */

/* All is set here, so that the host's openssl.cnf changes nothing. */
static bool context_set(SSL_CTX *c)
{
    static char groups[] = "X25519:P-256:P-384"; /* the macro casts const away */
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                               /* Clients without AES in hardware put ChaCha20 first: let them. */
                               SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                               /* HTTP and WebSocket know their own ends: a peer that closes without
                                * close_notify is no error. */
                               SSL_OP_IGNORE_UNEXPECTED_EOF);
    /* An idle connection holds no record buffers; what is to be written may move meanwhile. */
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                            SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* One read(2) for all records that are there, instead of two for each. */
    SSL_CTX_set_read_ahead(c, 1);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_security_level(c, 2); /* 112 bits; RSA from 2048 on, no SHA-1 */
    SSL_CTX_set_alpn_select_cb(c, alpn_offered, NULL);
    return SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION) &&
           SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) &&
           SSL_CTX_set_cipher_list(c, "ECDHE+AESGCM:ECDHE+CHACHA20") &&
           SSL_CTX_set_ciphersuites(c, "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:"
                                       "TLS_AES_128_GCM_SHA256") &&
           SSL_CTX_set1_groups_list(c, groups) && SSL_CTX_set_num_tickets(c, 0) &&
           SSL_CTX_set_max_early_data(c, 0) && SSL_CTX_set_recv_max_early_data(c, 0);
}

static SSL_CTX *context_new(const struct tls_pair *p)
{
    SSL_CTX *c = SSL_CTX_new(TLS_server_method());
    if (c && context_set(c) &&
        SSL_CTX_use_cert_and_key(c, p->leaf, p->key, p->chain, 1 /* replace */) == 1)
        return c;
    SSL_CTX_free(c);
    return NULL;
}

/* --- what the operator sees of a certificate --- */

/* It stands in log lines and labels of metrics: nothing that would need quoting there. */
static void name_copy(char ret[static TLS_NAME_MAX], const ASN1_STRING *name)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789*._-";
    const unsigned char *bytes = ASN1_STRING_get0_data(name);
    int len = ASN1_STRING_length(name), i;
    for (i = 0; i < len && i < TLS_NAME_MAX - 1; i++)
        ret[i] = bytes[i] != '\0' && strchr(plain, bytes[i]) ? (char)bytes[i] : '?';
    ret[i] = '\0';
}

static bool name_from_dns(char ret[static TLS_NAME_MAX], const X509 *leaf)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    bool found = false;
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && !found; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        found = name->type == GEN_DNS;
        if (found)
            name_copy(ret, name->d.dNSName);
    }
    GENERAL_NAMES_free(names);
    return found;
}

static void name_of_cert(char ret[static TLS_NAME_MAX], const X509 *leaf)
{
    const X509_NAME *subject = X509_get_subject_name(leaf);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (name_from_dns(ret, leaf))
        return;
    if (at >= 0)
        name_copy(ret, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    else
        strcpy(ret, "-");
}

static time_t seconds_of(const ASN1_TIME *at)
{
    struct tm fields;
    return ASN1_TIME_to_tm(at, &fields) ? timegm(&fields) : 0;
}

static void warning_add(struct tls *t, const char *name, const char *what, time_t at)
{
    size_t used = strlen(t->warning);
    struct tm day;
    char text[sizeof "-2147481748-12-31"] = "?";
    if (gmtime_r(&at, &day))
        strftime(text, sizeof text, "%Y-%m-%d", &day);
    (void)snprintf(t->warning + used, sizeof t->warning - used, "%scertificate %s %s %s",
                   used > 0 ? "; " : "", name, what, text);
}

static void warning_consider(struct tls *t, unsigned i, const X509 *leaf, time_t now)
{
    time_t from = seconds_of(X509_get0_notBefore(leaf)), until = t->pair[i].not_after;
    if (until < now)
        warning_add(t, t->pair[i].name, "expired on", until);
    else if (from > now)
        warning_add(t, t->pair[i].name, "is not valid before", from);
    else if (until - now < (time_t)TLS_WARNING_DAYS * DAY_SECONDS)
        warning_add(t, t->pair[i].name, "expires on", until);
}

/* --- opening --- */

/* Takes what it needs of `p`. `what` is the pair's file, or what else to call it. */
static bool tls_add(struct tls *t, const struct tls_pair *p, const char *what,
                    char error[static TLS_ERROR_MAX])
{
    unsigned i = t->count;
    assert(i < TLS_PAIRS_MAX);
    SSL_CTX *c = context_new(p);
    if (!c)
        return tls_fail(error, "certificate %s: %s", what, tls_reason());
    if (i == 0 && !SSL_CTX_set_ex_data(c, owner_index, t)) {
        SSL_CTX_free(c);
        return tls_fail(error, "certificate %s: no memory", what);
    }
    t->pair[i].context = c;
    t->pair[i].not_after = seconds_of(X509_get0_notAfter(p->leaf));
    name_of_cert(t->pair[i].name, p->leaf);
    warning_consider(t, i, p->leaf, time(NULL));
    t->count = i + 1;
    return true;
}

static struct tls *tls_new(char error[static TLS_ERROR_MAX])
{
    /* Fails only on a once-control that is none. */
    (void)pthread_once(&owner_once, owner_register);
    struct tls *t = owner_index >= 0 ? calloc(1, sizeof *t) : NULL;
    if (!t)
        tls_fail(error, "TLS: no memory");
    return t;
}

/* One name of a comma-separated list, blanks around it taken off; *at goes behind it. False: the
 * list is at its end. A name that is too long comes out empty. */
static bool list_next(const char **at, char ret[static PATH_MAX])
{
    if (!*at)
        return false;
    const char *from = *at + strspn(*at, " \t"), *comma = strchr(from, ',');
    size_t len = comma ? (size_t)(comma - from) : strlen(from);
    while (len > 0 && strchr(" \t", from[len - 1]))
        len--;
    if (len >= PATH_MAX)
        len = 0;
    memcpy(ret, from, len);
    ret[len] = '\0';
    *at = comma ? comma + 1 : NULL;
    return true;
}

static bool tls_read(struct tls *t, const char *cert_path, const char *key_path,
                     char error[static TLS_ERROR_MAX])
{
    struct tls_pair p;
    if (!tls_pair_read(&p, cert_path, key_path, error))
        return false;
    bool added = tls_add(t, &p, cert_path, error);
    tls_pair_free(&p);
    return added;
}

static bool tls_read_all(struct tls *t, const char *certs, const char *keys,
                         char error[static TLS_ERROR_MAX])
{
    char cert_path[PATH_MAX], key_path[PATH_MAX];
    for (;;) {
        bool cert = list_next(&certs, cert_path), key = list_next(&keys, key_path);
        if (!cert && !key)
            return true;
        if (cert != key)
            return tls_fail(error, "TLS: there are more %s files than %s files",
                            cert ? "certificate" : "key", cert ? "key" : "certificate");
        if (cert_path[0] == '\0' || key_path[0] == '\0')
            return tls_fail(error, "TLS: name %u of the %s files is empty or too long",
                            t->count + 1, cert_path[0] == '\0' ? "certificate" : "key");
        if (t->count == TLS_PAIRS_MAX)
            return tls_fail(error, "TLS: more than %d certificates", TLS_PAIRS_MAX);
        if (!tls_read(t, cert_path, key_path, error))
            return false;
    }
}

/* Asks for the name only where there is something to choose. */
static struct tls *tls_finish(struct tls *t)
{
    if (t->count > 1) {
        SSL_CTX_set_tlsext_servername_callback(t->pair[0].context, servername_given);
        SSL_CTX_set_tlsext_servername_arg(t->pair[0].context, t);
    }
    ERR_clear_error();
    return t;
}

struct tls *tls_open(const char *certs, const char *keys, char error[static TLS_ERROR_MAX])
{
    struct tls *t = tls_new(error);
    if (t && tls_read_all(t, certs, keys, error))
        return tls_finish(t);
    tls_close(t);
    return NULL;
}

struct tls *tls_open_self_made(char error[static TLS_ERROR_MAX])
{
    struct tls *t = tls_new(error);
    struct tls_pair p = {.leaf = NULL};
    bool good = t && tls_pair_make(&p, error) && tls_add(t, &p, "made by ourselves", error);
    tls_pair_free(&p);
    if (good)
        return tls_finish(t);
    tls_close(t);
    return NULL;
}

unsigned tls_count(const struct tls *t)
{
    return t->count;
}

const char *tls_name(const struct tls *t, unsigned i)
{
    assert(i < t->count);
    return t->pair[i].name;
}

time_t tls_not_after(const struct tls *t, unsigned i)
{
    assert(i < t->count);
    return t->pair[i].not_after;
}

const char *tls_warning(const struct tls *t)
{
    return t->warning[0] != '\0' ? t->warning : NULL;
}

/* --- connections --- */

SSL *tls_accept(struct tls *t, int fd)
{
    SSL *ssl = SSL_new(t->pair[0].context);
    if (ssl && SSL_set_fd(ssl, fd)) {
        SSL_set_accept_state(ssl);
        return ssl;
    }
    SSL_free(ssl);
    ERR_clear_error();
    return NULL;
}

bool tls_exporter(SSL *ssl, uint8_t ret[static TLS_EXPORTER_LEN])
{
    static const char label[] = "EXPORTER-Channel-Binding";
    if (!SSL_is_init_finished(ssl))
        return false;
    /* RFC 9266, 4.2: without the extended master secret, two connections can be made to have the
     * same one. TLS 1.3 always binds the handshake. */
    if (SSL_version(ssl) < TLS1_3_VERSION && SSL_get_extms_support(ssl) != 1)
        return false;
    /* "The context value is a zero-length string": given, and empty. TLS 1.2 tells that from none.
     */
    bool good = SSL_export_keying_material(ssl, ret, TLS_EXPORTER_LEN, label, sizeof label - 1,
                                           (const unsigned char *)"", 0, 1) == 1;
    ERR_clear_error();
    return good;
}

/* --- watching --- */

struct file_facts {
    uint64_t before, device, inode, size;
    int64_t changed_s, changed_ns, modified_s, modified_ns;
};

/* False: one is missing. */
static bool stamp_add(const char *list, uint64_t *hash)
{
    static const struct siphash_key key = {0}; /* whoever can choose inodes has other ways */
    char path[PATH_MAX];
    struct stat st;
    while (list_next(&list, path)) {
        if (stat(path, &st) < 0)
            return false;
        struct file_facts facts = {
            .before = *hash,
            .device = st.st_dev,
            .inode = st.st_ino,
            .size = (uint64_t)st.st_size,
            .changed_s = st.st_ctim.tv_sec, /* also chmod: what we complained of may be mended */
            .changed_ns = st.st_ctim.tv_nsec,
            .modified_s = st.st_mtim.tv_sec,
            .modified_ns = st.st_mtim.tv_nsec,
        };
        *hash = siphash(&key, &facts, sizeof facts);
    }
    return true;
}

struct tls_stamp tls_stamp(const char *certs, const char *keys)
{
    uint64_t hash = 1;
    if (!stamp_add(certs, &hash) || !stamp_add(keys, &hash))
        return (struct tls_stamp){.hash = 0};
    return (struct tls_stamp){.hash = hash != 0 ? hash : 1};
}
