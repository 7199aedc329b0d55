#include <assert.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>

#include "gossip/seal.h"
#include "proto/wire.h"
#include "proto/words.h"

enum { KEY_TEXT_LEN = 44, PATH_SHOWN_MAX = 160 };

static_assert(SEAL_KEY_LEN == crypto_kdf_KEYBYTES, "a ring's key derives");
static_assert(SEAL_KEY_LEN == crypto_aead_xchacha20poly1305_ietf_KEYBYTES, "a derived key seals");
static_assert(GOSSIP_NONCE_LEN == crypto_aead_xchacha20poly1305_ietf_NPUBBYTES, "its nonce");
static_assert(GOSSIP_TAG_LEN == crypto_aead_xchacha20poly1305_ietf_ABYTES, "its tag");
static_assert(SEAL_SEED_LEN == crypto_stream_chacha20_KEYBYTES, "a seed is a cipher's key");
static_assert(sizeof(uint64_t) == crypto_stream_chacha20_NONCEBYTES, "the counter is its nonce");
static_assert(GOSSIP_CHALLENGE_LEN >= crypto_generichash_BYTES_MIN, "a challenge is a hash");
static_assert(crypto_generichash_KEYBYTES_MIN <= 16, "a secret of 16 bytes is a key");
static_assert(KEY_TEXT_LEN + 1 ==
                  sodium_base64_ENCODED_LEN(SEAL_KEY_LEN, sodium_base64_VARIANT_ORIGINAL),
              "base64 of a key, with the NUL");
static_assert(SEAL_TEXT_MAX == SEAL_KEYS_MAX * (sizeof "255 accept \n" - 1 + KEY_TEXT_LEN) + 1,
              "the longest line of each key");

/* --- the keys file --- */

/* One file while it is read. */
struct reading {
    const char *path;
    unsigned line;
    struct seal_ring ring;
    unsigned key_line[SEAL_KEYS_MAX];
    bool has_use;
    char *error;
};

/* No text of the file is quoted: any of it may be a key in the wrong place. A path so long that it
 * would push the reason out is cut. */
__attribute__((format(printf, 2, 3))) static bool fail(const struct reading *r, const char *format,
                                                       ...)
{
    int at = snprintf(r->error, SEAL_ERROR_MAX, "%.*s:%u: ", PATH_SHOWN_MAX, r->path, r->line);
    if (at < 0 || at >= SEAL_ERROR_MAX)
        return false;
    va_list args;
    va_start(args, format);
    vsnprintf(r->error + at, SEAL_ERROR_MAX - (size_t)at, format, args);
    va_end(args);
    return false;
}

static bool is_word(struct token t, const char *word)
{
    return t.len == strlen(word) && memcmp(t.at, word, t.len) == 0;
}

static bool read_key_id(struct token t, uint8_t *ret)
{
    unsigned id = 0;
    if (t.len > 3 || (t.len > 1 && t.at[0] == '0'))
        return false;
    for (size_t i = 0; i < t.len; i++) {
        if (t.at[i] < '0' || t.at[i] > '9')
            return false;
        id = id * 10 + (unsigned)(t.at[i] - '0');
    }
    if (id > UINT8_MAX)
        return false;
    *ret = (uint8_t)id;
    return true;
}

static bool read_key(struct reading *r, struct token t, uint8_t ret[static SEAL_KEY_LEN])
{
    size_t len;
    if (sodium_base642bin(ret, SEAL_KEY_LEN, t.at, t.len, NULL, &len, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0 ||
        len != SEAL_KEY_LEN)
        return fail(r, "not the base64 of 32 bytes");
    if (sodium_is_zero(ret, SEAL_KEY_LEN))
        return fail(r, "the key is all zero");
    return true;
}

/* Puts the key, of which all but its place is known, into the ring. */
static bool add_key(struct reading *r, uint8_t id, bool use, const uint8_t key[static SEAL_KEY_LEN])
{
    struct seal_ring *ring = &r->ring;
    for (unsigned i = 0; i < ring->count; i++) {
        if (ring->of[i].id == id)
            return fail(r, "key id %u is already on line %u", id, r->key_line[i]);
        if (sodium_memcmp(ring->of[i].key, key, SEAL_KEY_LEN) == 0)
            return fail(r, "the same key as on line %u", r->key_line[i]);
    }
    if (ring->count == SEAL_KEYS_MAX)
        return fail(r, "more than %d keys", SEAL_KEYS_MAX);
    if (use && r->has_use)
        return fail(r, "the key of line %u is already in use", r->key_line[ring->in_use]);
    if (use)
        ring->in_use = ring->count;
    r->has_use |= use;
    r->key_line[ring->count] = r->line;
    ring->of[ring->count].id = id;
    memcpy(ring->of[ring->count].key, key, SEAL_KEY_LEN);
    ring->count++;
    return true;
}

static bool read_line(struct reading *r, struct token line)
{
    uint8_t id, key[SEAL_KEY_LEN];
    if (line.len > 0 && line.at[line.len - 1] == '\r')
        line.len--;
    struct token word = next_token(&line);
    if (is_end(word))
        return true;
    if (!read_key_id(word, &id))
        return fail(r, "not a key id (0 to 255)");
    word = next_token(&line);
    bool use = is_word(word, "use");
    if (!use && !is_word(word, "accept"))
        return fail(r, "neither \"use\" nor \"accept\" behind the key id");
    word = next_token(&line);
    if (is_end(word))
        return fail(r, "the key is missing");
    bool good = read_key(r, word, key);
    if (good && !is_end(next_token(&line)))
        good = fail(r, "text behind the key");
    good = good && add_key(r, id, use, key);
    sodium_memzero(key, sizeof key);
    return good;
}

static bool read_lines(struct reading *r, const char *text, size_t len)
{
    while (len > 0) {
        const char *newline = memchr(text, '\n', len);
        size_t line_len = newline ? (size_t)(newline - text) : len;
        r->line++;
        if (!read_line(r, (struct token){.at = text, .len = line_len}))
            return false;
        line_len += newline != NULL;
        text += line_len;
        len -= line_len;
    }
    r->line += r->line == 0; /* of an empty file the first line lacks something */
    if (r->ring.count == 0)
        return fail(r, "no key up to here");
    if (!r->has_use)
        return fail(r, "no key up to here is in use");
    return true;
}

bool seal_ring_read(struct seal_ring *ret, const char *path, const char *text, size_t len,
                    char error[static SEAL_ERROR_MAX])
{
    struct reading r = {.path = path, .error = error};
    bool good = read_lines(&r, text, len);
    if (good)
        *ret = r.ring;
    sodium_memzero(&r.ring, sizeof r.ring);
    return good;
}

size_t seal_ring_write(const struct seal_ring *ring, char *text, size_t room)
{
    assert(ring->count <= SEAL_KEYS_MAX);
    size_t len = 0;
    for (unsigned i = 0; i < ring->count; i++) {
        char key[KEY_TEXT_LEN + 1];
        sodium_bin2base64(key, sizeof key, ring->of[i].key, SEAL_KEY_LEN,
                          sodium_base64_VARIANT_ORIGINAL);
        int n = snprintf(text + len, room - len, "%u %s %s\n", ring->of[i].id,
                         i == ring->in_use ? "use" : "accept", key);
        sodium_memzero(key, sizeof key);
        if (n < 0 || (size_t)n >= room - len)
            return 0;
        len += (size_t)n;
    }
    return len;
}

/* --- randomness --- */

void seal_random(struct seal_random *r, void *bytes, size_t len)
{
    assert(!sodium_is_zero(r->seed, sizeof r->seed));
    assert(r->counter < UINT64_MAX);
    uint8_t nonce[crypto_stream_chacha20_NONCEBYTES];
    struct writer w = writer_of(nonce, sizeof nonce);
    write_u64(&w, r->counter++);
    crypto_stream_chacha20(bytes, len, nonce, r->seed);
}

/* --- frames --- */

static void derive(uint8_t ret[static SEAL_KEY_LEN], const uint8_t key[static SEAL_KEY_LEN],
                   uint32_t sender)
{
    static const char purpose[crypto_kdf_CONTEXTBYTES] = {'B', 'c', 'n', 'M', 'e', 's', 'h', '1'};
    crypto_kdf_derive_from_key(ret, SEAL_KEY_LEN, sender, purpose, key);
}

size_t seal_frame(const struct seal_ring *ring, struct seal_random *random,
                  struct gossip_head *head, const uint8_t *body, size_t len,
                  uint8_t frame[static GOSSIP_FRAME_MAX])
{
    assert(len <= GOSSIP_BODY_MAX);
    assert(ring->count <= SEAL_KEYS_MAX);
    assert(ring->in_use < ring->count);
    uint8_t key[SEAL_KEY_LEN], *nonce = frame + GOSSIP_HEAD_LEN;
    head->key_id = ring->of[ring->in_use].id;
    write_gossip_head(frame, head);
    seal_random(random, nonce, GOSSIP_NONCE_LEN);
    derive(key, ring->of[ring->in_use].key, head->sender);
    crypto_aead_xchacha20poly1305_ietf_encrypt(nonce + GOSSIP_NONCE_LEN, NULL, body, len, frame,
                                               GOSSIP_HEAD_LEN, NULL, nonce, key);
    sodium_memzero(key, sizeof key);
    return GOSSIP_SEAL_LEN + len;
}

/* The key of that id; ids are in no order, as there are four at most. */
static const uint8_t *find_key(const struct seal_ring *ring, uint8_t id)
{
    for (unsigned i = 0; i < ring->count; i++)
        if (ring->of[i].id == id)
            return ring->of[i].key;
    return NULL;
}

enum seal_opened seal_open(const struct seal_ring *ring, const uint8_t *frame, size_t len,
                           struct gossip_head *ret_head, uint8_t ret_body[static GOSSIP_BODY_MAX],
                           size_t *ret_len)
{
    struct gossip_head head;
    if (!read_gossip_head(frame, len, &head))
        return SEAL_MALFORMED;
    const uint8_t *ring_key = find_key(ring, head.key_id);
    if (!ring_key)
        return SEAL_UNKNOWN_KEY;
    uint8_t key[SEAL_KEY_LEN];
    const uint8_t *nonce = frame + GOSSIP_HEAD_LEN, *sealed = nonce + GOSSIP_NONCE_LEN;
    derive(key, ring_key, head.sender);
    int bad = crypto_aead_xchacha20poly1305_ietf_decrypt(ret_body, NULL, NULL, sealed,
                                                         len - GOSSIP_HEAD_LEN - GOSSIP_NONCE_LEN,
                                                         frame, GOSSIP_HEAD_LEN, nonce, key);
    sodium_memzero(key, sizeof key);
    if (bad)
        return SEAL_FORGED;
    *ret_head = head;
    *ret_len = len - GOSSIP_SEAL_LEN;
    return SEAL_OK;
}

/* --- replays --- */

bool seal_window_take(struct seal_window *w, uint64_t sequence)
{
    if (sequence < w->newest && w->newest - sequence >= SEAL_WINDOW)
        return false;
    uint64_t word = sequence / 64, newest_word = w->newest / 64;
    if (sequence > w->newest) {
        uint64_t ahead = word - newest_word;
        for (uint64_t i = 1; i <= ahead && i <= SEAL_WINDOW_WORDS; i++)
            w->bits[(newest_word + i) % SEAL_WINDOW_WORDS] = 0;
        w->newest = sequence;
    }
    uint64_t bit = UINT64_C(1) << sequence % 64, *bits = &w->bits[word % SEAL_WINDOW_WORDS];
    if (*bits & bit)
        return false;
    *bits |= bit;
    return true;
}

/* --- challenges --- */

static void challenge_of(const uint8_t secret[static 16], uint32_t sender, uint64_t boot,
                         uint64_t period, uint8_t ret[static GOSSIP_CHALLENGE_LEN])
{
    uint8_t asked[2 + 4 + 8 + 8];
    struct writer w = writer_of(asked, sizeof asked);
    write_bytes(&w, "ch", 2); /* the secret may serve for more */
    write_u32(&w, sender);
    write_u64(&w, boot);
    write_u64(&w, period);
    assert(written(&w) == sizeof asked);
    crypto_generichash(ret, GOSSIP_CHALLENGE_LEN, asked, sizeof asked, secret, 16);
}

static uint64_t period_of(uint64_t now_ns)
{
    return now_ns / (SEAL_CHALLENGE_S * UINT64_C(1000000000));
}

void seal_challenge(const uint8_t secret[static 16], uint32_t sender, uint64_t boot,
                    uint64_t now_ns, uint8_t ret[static GOSSIP_CHALLENGE_LEN])
{
    challenge_of(secret, sender, boot, period_of(now_ns), ret);
}

bool seal_challenge_holds(const uint8_t secret[static 16], uint32_t sender, uint64_t boot,
                          uint64_t now_ns, const uint8_t echo[static GOSSIP_CHALLENGE_LEN])
{
    uint64_t period = period_of(now_ns);
    for (uint64_t age = 0; age < 2 && age <= period; age++) {
        uint8_t want[GOSSIP_CHALLENGE_LEN];
        challenge_of(secret, sender, boot, period - age, want);
        if (sodium_memcmp(echo, want, sizeof want) == 0)
            return true;
    }
    return false;
}
