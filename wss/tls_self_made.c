#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>
#include "wss/tls_pair.h"

enum { VALID_DAYS = 30, DAY_SECONDS = 86400, SERIAL_BYTES = 16 };

static const struct {
    int kind;
    const char *value;
} extensions[] = {
    {NID_basic_constraints, "critical,CA:FALSE"},
    {NID_key_usage, "critical,digitalSignature"},
    {NID_ext_key_usage, "serverAuth"},
    {NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1,IP:::1"},
};

static bool extensions_add(X509 *cert)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, cert, cert, NULL, NULL, 0);
    for (size_t i = 0; i < sizeof extensions / sizeof extensions[0]; i++) {
        X509_EXTENSION *e =
            X509V3_EXT_conf_nid(NULL, &context, extensions[i].kind, extensions[i].value);
        bool added = e && X509_add_ext(cert, e, -1);
        X509_EXTENSION_free(e);
        if (!added)
            return false;
    }
    return true;
}

/* Browsers refuse a second certificate of one issuer with the same number, so it is random. */
static bool serial_set(X509 *cert)
{
    unsigned char bytes[SERIAL_BYTES];
    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return false;
    bytes[0] = (bytes[0] & 0x7f) | 0x40; /* positive, and of full length */
    BIGNUM *number = BN_bin2bn(bytes, sizeof bytes, NULL);
    bool set = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert));
    BN_free(number);
    return set;
}

static bool cert_fill(X509 *cert, EVP_PKEY *key)
{
    static const unsigned char common_name[] = "localhost";
    X509_NAME *name = X509_get_subject_name(cert);
    return X509_set_version(cert, X509_VERSION_3) && serial_set(cert) &&
           /* From an hour ago: clocks of browsers in virtual machines lag. */
           X509_gmtime_adj(X509_getm_notBefore(cert), -3600) &&
           X509_gmtime_adj(X509_getm_notAfter(cert), VALID_DAYS * DAY_SECONDS) &&
           X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_ASC, common_name, -1, -1, 0) &&
           X509_set_issuer_name(cert, name) && X509_set_pubkey(cert, key) && extensions_add(cert) &&
           X509_sign(cert, key, EVP_sha256()) > 0;
}

bool tls_pair_make(struct tls_pair *ret, char error[static TLS_ERROR_MAX])
{
    ERR_clear_error();
    struct tls_pair p = {
        .leaf = X509_new(), .chain = sk_X509_new_null(), .key = EVP_EC_gen("P-256")};
    if (p.leaf && p.chain && p.key && cert_fill(p.leaf, p.key)) {
        ERR_clear_error();
        *ret = p;
        return true;
    }
    tls_pair_free(&p);
    return tls_fail(error, "self-made certificate: %s", tls_reason());
}
