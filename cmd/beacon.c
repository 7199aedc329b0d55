/* beacon - the server: commands that only print, and the start of the service. */
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>
#include "cmd/front.h"
#include "cmd/load.h"
#include "cmd/log.h"
#include "cmd/mesh.h"
#include "cmd/service.h"
#include "cmd/version.h"
#include "server/config.h"

/* --- commands --- */

static int print_help(void)
{
    printf(
        "usage: beacon [options]\n\n"
        "A public server for nodes behind NATs: tells them their address (STUN, Discover),\n"
        "coordinates hole punching, relays for pairs that cannot punch; over UDP and, for nodes\n"
        "whose UDP is blocked, WebSocket. beaconctl(1) asks and steers a running one.\n\n"
        "  --help              this text\n"
        "  --version           name, version, revision\n"
        "  --check-config      read everything, say what is wrong, do not start\n"
        "  --dump-config       the effective configuration, and where each value came from\n"
        "  --print-man         the options as mdoc(7)\n"
        "  --print-completion  completion for bash\n\n");
    config_help(stdout);
    return EXIT_SUCCESS;
}

static int print_version(void)
{
    printf("beacon %s %s\n", beacon_version, beacon_revision);
    return EXIT_SUCCESS;
}

static int print_man(void)
{
    config_man(stdout);
    return EXIT_SUCCESS;
}

static int print_completion(void)
{
    config_completion(stdout);
    return EXIT_SUCCESS;
}

/* True when `argv` has this command, with one dash or two; it is taken out. */
static bool command_take(int *argc, char **argv, const char *name)
{
    for (int i = 1; i < *argc; i++) {
        const char *word = argv[i];
        if (word[0] != '-' || strcmp(word + (word[1] == '-' ? 2 : 1), name) != 0)
            continue;
        memmove(&argv[i], &argv[i + 1], (size_t)(*argc - i) * sizeof *argv);
        (*argc)--;
        return true;
    }
    return false;
}

/* Descriptors 0 to 2 are there, so that no socket of ours ever is stderr. */
static bool streams_open(void)
{
    int fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO)
        fd = open("/dev/null", O_RDWR);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(void);
    } commands[] = {
        {"help", print_help},
        {"h", print_help},
        {"version", print_version},
        {"print-man", print_man},
        {"print-completion", print_completion},
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (command_take(&argc, argv, commands[i].name))
            return commands[i].run();
    bool check = command_take(&argc, argv, "check-config");
    bool dump = command_take(&argc, argv, "dump-config");
    struct config *config = malloc(sizeof *config);
    struct config_error error;
    if (!config || sodium_init() < 0 || !streams_open())
        return EXIT_FAILURE;
    log_open(LOG_INFO, LOG_TEXT); /* until the configuration says otherwise */
    int code = config_load(config, argc, argv, &error);
    if (code != 0) {
        fprintf(stderr, "beacon: %s\n", error.text);
        free(config);
        return code;
    }
    if (check && (!front_check(config, error.text, sizeof error.text) ||
                  !mesh_check(config, error.text, sizeof error.text))) {
        fprintf(stderr, "beacon: %s\n", error.text);
        free(config);
        return EX_CONFIG;
    }
    if (check || dump) {
        if (dump)
            config_dump(config, stdout);
        else
            puts("configuration ok");
        free(config);
        return EXIT_SUCCESS;
    }
    log_open(config->log_level, config->log_format);
    return service_run(config, argc, argv);
}
