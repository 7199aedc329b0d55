/* tls_certs - certificates for tests, made when they are needed, in a directory that goes with
 * them. Include after cmocka.h. */
#ifndef BEACON_TESTS_TLS_CERTS_H
#define BEACON_TESTS_TLS_CERTS_H

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "wss/tls.h"

static char dir[] = "/tmp/beacon-test-tls-XXXXXX";

enum { DAY = 86400, TEXT_MAX = 600 };

/* What a pair of files NAME.crt and NAME.key is made of. */
struct recipe {
    const char *name, *common_name, *names; /* of subjectAltName; NULL: none */
    long from_days, until_days;
    int rsa_bits; /* 0: P-256 */
};

static const struct recipe recipes[] = {
    {"one", "one.test", "DNS:one.test,DNS:alias.test", -1, 90, 0},
    {"two", "ignored.test", "DNS:two.test,DNS:*.wild.test", -1, 90, 0},
    {"exact", "-", "DNS:a.wild.test", -1, 90, 0},
    {"plain", "cn.test", NULL, -1, 90, 0}, /* names it in the old way */
    {"address", "\xc3\xa9 \"x\"\n", "IP:127.0.0.1", -1, 90, 0},
    {"rsa", "rsa.test", "DNS:rsa.test", -1, 90, 2048},
    {"small", "small.test", "DNS:small.test", -1, 90, 1024},
    {"expired", "expired.test", "DNS:expired.test", -30, -1, 0},
    {"early", "early.test", "DNS:early.test", 2, 90, 0},
    {"soon", "soon.test", "DNS:soon.test", -80, 10, 0},
};

/* A path in our directory; two texts live at once. */
static const char *path(const char *name, const char *suffix)
{
    static char text[4][TEXT_MAX];
    static unsigned turn;
    char *ret = text[turn++ % 4];
    snprintf(ret, TEXT_MAX, "%s/%s%s", dir, name, suffix);
    return ret;
}

static void write_file(const char *name, const char *bytes, size_t len, mode_t mode)
{
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(name, mode), 0);
}

static X509 *cert_new(const struct recipe *r, EVP_PKEY *key)
{
    X509 *cert = X509_new();
    X509_NAME *name = X509_get_subject_name(cert);
    const unsigned char *cn = (const unsigned char *)r->common_name;
    assert_true(X509_set_version(cert, X509_VERSION_3));
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 7);
    X509_gmtime_adj(X509_getm_notBefore(cert), r->from_days * DAY);
    X509_gmtime_adj(X509_getm_notAfter(cert), r->until_days * DAY);
    assert_true(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, cn, -1, -1, 0));
    assert_true(X509_set_issuer_name(cert, name));
    assert_true(X509_set_pubkey(cert, key));
    if (r->names) {
        X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, r->names);
        assert_non_null(e);
        assert_true(X509_add_ext(cert, e, -1));
        X509_EXTENSION_free(e);
    }
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    return cert;
}

/* Takes what a memory BIO holds into a file. */
static void bio_to_file(BIO *bio, const char *name, mode_t mode)
{
    char *bytes;
    long len = BIO_get_mem_data(bio, &bytes);
    write_file(name, bytes, (size_t)len, mode);
    BIO_free(bio);
}

static void pair_make(const struct recipe *r)
{
    EVP_PKEY *key = r->rsa_bits ? EVP_RSA_gen((unsigned)r->rsa_bits) : EVP_EC_gen("P-256");
    assert_non_null(key);
    X509 *cert = cert_new(r, key);
    BIO *bio = BIO_new(BIO_s_mem());
    assert_true(PEM_write_bio_X509(bio, cert));
    bio_to_file(bio, path(r->name, ".crt"), 0644);
    bio = BIO_new(BIO_s_mem());
    assert_true(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL));
    bio_to_file(bio, path(r->name, ".key"), 0600);
    if (strcmp(r->name, "one") == 0) { /* the same key once more, under a passphrase */
        unsigned char word[] = "word";
        bio = BIO_new(BIO_s_mem());
        assert_true(PEM_write_bio_PrivateKey(bio, key, EVP_aes_128_cbc(), word, 4, NULL, NULL));
        bio_to_file(bio, path("locked", ".key"), 0600);
        bio = BIO_new(BIO_s_mem());
        assert_true(
            PEM_write_bio_PrivateKey_traditional(bio, key, EVP_aes_128_cbc(), word, 4, NULL, NULL));
        bio_to_file(bio, path("lockedold", ".key"), 0600);
        bio = BIO_new(BIO_s_mem());
        assert_true(i2d_X509_bio(bio, cert));
        bio_to_file(bio, path("der", ".crt"), 0644);
    }
    X509_free(cert);
    EVP_PKEY_free(key);
}

/* Valid until the next call. */
static char *file_text(const char *name)
{
    static char text[8192];
    FILE *f = fopen(name, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    return text;
}

static int certs_make(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(dir))
        return -1;
    for (size_t i = 0; i < sizeof recipes / sizeof recipes[0]; i++)
        pair_make(&recipes[i]);
    return 0;
}

static int certs_remove(void **state)
{
    (void)state;
    char command[TEXT_MAX];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

/* Comma-separated names become comma-separated paths. */
static const char *paths(const char *names, const char *suffix, char ret[static TEXT_MAX])
{
    char copy[TEXT_MAX], *rest = copy, *name;
    size_t used = 0;
    snprintf(copy, sizeof copy, "%s", names);
    ret[0] = '\0';
    while ((name = strsep(&rest, ",")))
        used += (size_t)snprintf(ret + used, TEXT_MAX - used, "%s%s%s%s%s", used ? " , " : "", dir,
                                 *name ? "/" : "", name, *name ? suffix : "");
    return ret;
}

/* Opens the pairs of those names. */
static struct tls *open_pairs(const char *names)
{
    char certs[TEXT_MAX], keys[TEXT_MAX], error[TLS_ERROR_MAX] = "";
    struct tls *t = tls_open(paths(names, ".crt", certs), paths(names, ".key", keys), error);
    if (!t)
        fail_msg("%s", error);
    assert_int_equal(ERR_peek_error(), 0);
    return t;
}

#endif
