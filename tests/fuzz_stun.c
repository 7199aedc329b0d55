/* Every request that is accepted has an answer which is small, well formed, and says the source. */
#include <stdlib.h>

#include "proto/stun.h"

#define CHECK(fact) ((fact) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check_answer(const struct stun_request *q, size_t request_len,
                         const struct endpoint *source)
{
    uint8_t out[STUN_ANSWER_MAX];
    struct writer w = writer_of(out, sizeof out);
    struct stun_request again;
    struct endpoint mapped;
    stun_answer(&w, q, source);
    size_t len = written(&w);
    CHECK(len >= STUN_HEAD_LEN);
    CHECK(stun_read(out, len, &again) == STUN_RESPONSE);
    CHECK(memcmp(out + 4, q->id, 16) == 0);
    if (q->unknown_count == 0)
        CHECK(len <= request_len + 24); /* the address and nothing else */
    if (q->unknown_count == 0 && !q->legacy) {
        CHECK(stun_read_mapped(out, len, q->id + 4, &mapped));
        CHECK(endpoint_equal(&mapped, source));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct stun_request q;
    struct endpoint source = {.ip = {[10] = 0xff, [11] = 0xff, 192, 0, 2, 1}, .port = 32853};
    struct endpoint mapped;
    enum stun_verdict v = stun_read(bytes, len, &q);
    if (len >= STUN_HEAD_LEN && stun_read_mapped(bytes, len, bytes + 8, &mapped))
        CHECK(v == STUN_RESPONSE);
    if (v != STUN_REQUEST && v != STUN_UNKNOWN_REQUIRED)
        return 0;
    CHECK((v == STUN_UNKNOWN_REQUIRED) == (q.unknown_count > 0));
    CHECK(q.unknown_count <= STUN_UNKNOWN_MAX);
    CHECK(q.id == bytes + 4);
    check_answer(&q, len, &source);
    memcpy(source.ip, bytes + 4, sizeof source.ip); /* most likely IPv6 */
    check_answer(&q, len, &source);
    return 0;
}
