#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "wss/tls_pair.h"

bool tls_fail(char error[static TLS_ERROR_MAX], const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(error, TLS_ERROR_MAX, format, args); /* cut, if a path is that long */
    va_end(args);
    return false;
}

const char *tls_reason(void)
{
    unsigned long code = ERR_peek_error();
    const char *reason =
        ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : ERR_reason_error_string(code);
    ERR_clear_error();
    return reason ? reason : "unknown reason";
}

void tls_pair_free(struct tls_pair *p)
{
    X509_free(p->leaf);
    sk_X509_pop_free(p->chain, X509_free);
    EVP_PKEY_free(p->key);
    *p = (struct tls_pair){.leaf = NULL};
}

/* --- why a file cannot be read --- */

enum { USER_MAX = 64 };

static const char *user_name(uid_t uid, char ret[static USER_MAX])
{
    struct passwd entry, *found = NULL;
    char texts[1024];
    if (getpwuid_r(uid, &entry, texts, sizeof texts, &found) == 0 && found)
        (void)snprintf(ret, USER_MAX, "%s (uid %u)", found->pw_name, (unsigned)uid);
    else
        (void)snprintf(ret, USER_MAX, "uid %u", (unsigned)uid);
    return ret;
}

/* The deepest place on the way to `path` that can still be looked at: the file itself, or the
 * directory that lets nobody through. */
static bool obstacle_find(const char *path, char place[static PATH_MAX], struct stat *ret)
{
    if (strlen(path) >= PATH_MAX)
        return false;
    strcpy(place, path);
    while (stat(place, ret) < 0) {
        char *slash = strrchr(place, '/');
        if (!slash)
            strcpy(place, ".");
        else if (slash == place)
            strcpy(place, "/");
        else
            *slash = '\0';
        if (!slash || slash == place)
            return stat(place, ret) == 0;
    }
    return true;
}

/* The usual first hour: the service's user is not root, and the key is root's. */
static bool fail_denied(const char *what, const char *path, char error[static TLS_ERROR_MAX])
{
    char user[USER_MAX], owner[USER_MAX], place[PATH_MAX];
    struct stat st;
    (void)user_name(geteuid(), user);
    if (!obstacle_find(path, place, &st))
        return tls_fail(error, "%s %s: Permission denied for user %s", what, path, user);
    /* A link in a good directory may point into one that is closed. */
    struct stat link;
    bool behind_link = strcmp(place, path) != 0 && lstat(path, &link) == 0;
    return tls_fail(error, "%s %s: Permission denied for user %s: %s%s has mode %04o and owner %s",
                    what, path, user,
                    behind_link ? "it is a link to where this user may not go; " : "", place,
                    (unsigned)(st.st_mode & 07777), user_name(st.st_uid, owner));
}

/* --- reading --- */

/* A file's bytes, and what they are in messages: "certificate" or "key". */
struct file {
    const char *what, *path;
    char *bytes;
    size_t len;
};

static void file_free(struct file *f)
{
    OPENSSL_clear_free(f->bytes, TLS_FILE_MAX + 1); /* it may be a key */
}

static bool file_check(const struct file *f, int fd, bool secret, char error[static TLS_ERROR_MAX])
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return tls_fail(error, "%s %s: %s", f->what, f->path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return tls_fail(error, "%s %s: not a regular file", f->what, f->path);
    if (st.st_size > TLS_FILE_MAX)
        return tls_fail(error, "%s %s: larger than 1 MiB", f->what, f->path);
    if (secret && (st.st_mode & (S_IROTH | S_IWOTH)))
        return tls_fail(error, "%s %s: mode %04o opens it to everyone on this host: chmod o-rwx",
                        f->what, f->path, (unsigned)(st.st_mode & 07777));
    return true;
}

static bool file_take(struct file *f, int fd, char error[static TLS_ERROR_MAX])
{
    f->bytes = OPENSSL_zalloc(TLS_FILE_MAX + 1);
    if (!f->bytes)
        return tls_fail(error, "%s %s: no memory", f->what, f->path);
    while (f->len <= TLS_FILE_MAX) {
        ssize_t n = read(fd, f->bytes + f->len, TLS_FILE_MAX + 1 - f->len);
        if (n == 0)
            return true;
        if (n < 0 && errno != EINTR) {
            tls_fail(error, "%s %s: %s", f->what, f->path, strerror(errno));
            break;
        }
        if (n > 0)
            f->len += (size_t)n;
    }
    if (f->len > TLS_FILE_MAX) /* it grew under our hands */
        tls_fail(error, "%s %s: larger than 1 MiB", f->what, f->path);
    file_free(f);
    return false;
}

static bool file_read(struct file *f, bool secret, char error[static TLS_ERROR_MAX])
{
    /* Nonblocking: a FIFO would make us wait for its writer before fstat can refuse it. */
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == EACCES)
        return fail_denied(f->what, f->path, error);
    if (fd < 0)
        return tls_fail(error, "%s %s: %s", f->what, f->path, strerror(errno));
    bool good = file_check(f, fd, secret, error) && file_take(f, fd, error);
    close(fd);
    return good;
}

/* --- PEM --- */

/* Instead of OpenSSL's own, which would ask the terminal. */
static int passphrase_asked(char *bytes, int size, int writing, void *arg)
{
    (void)bytes, (void)size, (void)writing;
    *(bool *)arg = true;
    return -1;
}

/* True: the error that OpenSSL noted last only says that no block is left. */
static bool pem_is_over(void)
{
    unsigned long code = ERR_peek_last_error();
    return ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
}

static bool certs_parse(struct tls_pair *p, const struct file *f, BIO *bio,
                        char error[static TLS_ERROR_MAX])
{
    bool asked = false;
    unsigned count = 0;
    X509 *cert;

    p->chain = sk_X509_new_null();
    if (!p->chain)
        return tls_fail(error, "%s %s: no memory", f->what, f->path);
    while ((cert = PEM_read_bio_X509(bio, NULL, passphrase_asked, &asked))) {
        if (count++ == 0) {
            p->leaf = cert;
        } else if (sk_X509_push(p->chain, cert) <= 0) {
            X509_free(cert);
            return tls_fail(error, "%s %s: no memory", f->what, f->path);
        }
    }
    if (!pem_is_over())
        return tls_fail(error, "%s %s: certificate number %u in it is bad: %s", f->what, f->path,
                        count + 1, tls_reason());
    ERR_clear_error();
    return count > 0 ||
           tls_fail(error, "%s %s: there is no certificate in PEM form in it", f->what, f->path);
}

static bool certs_read(struct tls_pair *p, const char *path, char error[static TLS_ERROR_MAX])
{
    struct file f = {.what = "certificate", .path = path};
    if (!file_read(&f, false, error))
        return false;
    BIO *bio = BIO_new_mem_buf(f.bytes, (int)f.len);
    bool good =
        bio ? certs_parse(p, &f, bio, error) : tls_fail(error, "%s %s: no memory", f.what, f.path);
    BIO_free(bio);
    file_free(&f);
    return good;
}

static bool key_parse(struct tls_pair *p, const struct file *f, BIO *bio,
                      char error[static TLS_ERROR_MAX])
{
    bool asked = false;
    p->key = PEM_read_bio_PrivateKey(bio, NULL, passphrase_asked, &asked);
    if (p->key)
        return true;
    if (asked)
        return tls_fail(error,
                        "%s %s: protected by a passphrase, which nobody is here to type: store it "
                        "without (openssl pkey -in OLD -out NEW)",
                        f->what, f->path);
    return tls_fail(error, "%s %s: there is no private key in PEM form in it: %s", f->what, f->path,
                    tls_reason());
}

static bool key_read(struct tls_pair *p, const char *path, char error[static TLS_ERROR_MAX])
{
    struct file f = {.what = "key", .path = path};
    if (!file_read(&f, true, error))
        return false;
    BIO *bio = BIO_new_mem_buf(f.bytes, (int)f.len);
    bool good =
        bio ? key_parse(p, &f, bio, error) : tls_fail(error, "%s %s: no memory", f.what, f.path);
    BIO_free(bio);
    file_free(&f);
    return good;
}

static bool pair_check(const struct tls_pair *p, const char *cert_path, const char *key_path,
                       char error[static TLS_ERROR_MAX])
{
    if (X509_check_private_key(p->leaf, p->key) != 1)
        return tls_fail(error, "key %s does not belong to the first certificate in %s: %s",
                        key_path, cert_path, tls_reason());
    int kind = EVP_PKEY_get_base_id(p->key), bits = EVP_PKEY_get_bits(p->key);
    if ((kind == EVP_PKEY_RSA || kind == EVP_PKEY_RSA_PSS) && bits < TLS_RSA_BITS_MIN)
        return tls_fail(error, "key %s: RSA of %d bits; at least %d are needed", key_path, bits,
                        TLS_RSA_BITS_MIN);
    return true;
}

bool tls_pair_read(struct tls_pair *ret, const char *cert_path, const char *key_path,
                   char error[static TLS_ERROR_MAX])
{
    struct tls_pair p = {.leaf = NULL};
    ERR_clear_error();
    bool good = certs_read(&p, cert_path, error) && key_read(&p, key_path, error) &&
                pair_check(&p, cert_path, key_path, error);
    ERR_clear_error();
    if (good)
        *ret = p;
    else
        tls_pair_free(&p);
    return good;
}
