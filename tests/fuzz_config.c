/* What config_read takes, config_dump writes so that config_read takes it again as the same. The
 * first byte chooses between text and JSON. */
#include <stdlib.h>
#include <string.h>
#include "server/config.h"

#define CHECK(fact) ((fact) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* Where a value came from differs, and secrets are not written. */
static void forget(struct config *c)
{
    memset(c->origin, 0, sizeof c->origin);
    memset(c->registry_admin_token, 0, sizeof c->registry_admin_token);
    memset(c->admin_token, 0, sizeof c->admin_token);
}

static void check_dump(struct config *c)
{
    static struct config again;
    struct config_error error;
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    CHECK(out);
    config_dump(c, out);
    fclose(out);
    config_init(&again);
    CHECK(config_read(&again, "dump.conf", text, len, &error));
    memcpy(again.admin_token, c->admin_token, sizeof again.admin_token); /* admin may need one */
    CHECK(config_finish(&again, &error));
    free(text);
    forget(c);
    forget(&again);
    CHECK(memcmp(c, &again, sizeof again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static struct config c;
    struct config_error error = {.text = ""};
    /* Memory of exactly the text's size, so that one byte too far is seen. */
    char *text = malloc(len > 1 ? len - 1 : 1);

    if (len == 0 || !text) {
        free(text);
        return 0;
    }
    memcpy(text, bytes + 1, len - 1);
    config_init(&c);
    if (config_read(&c, bytes[0] & 1 ? "fuzz.json" : "fuzz.conf", text, len - 1, &error) &&
        config_finish(&c, &error))
        check_dump(&c);
    else
        CHECK(strncmp(error.text, "fuzz.", 5) == 0 || strstr(error.text, "node-ttl"));
    free(text);
    return 0;
}
