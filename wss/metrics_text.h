/* metrics_text - the text format of Prometheus (0.0.4): heads and single samples. For metrics.c and
 * metrics_mesh.c. */
#ifndef BEACON_WSS_METRICS_TEXT_H
#define BEACON_WSS_METRICS_TEXT_H

#include <inttypes.h>
#include <stdio.h>

static inline void write_head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static inline void write_gauge(FILE *out, const char *name, const char *help, uint64_t value)
{
    write_head(out, name, "gauge", help);
    fprintf(out, "%s %" PRIu64 "\n", name, value);
}

static inline void write_seconds(FILE *out, const char *name, const char *help, double value)
{
    write_head(out, name, "gauge", help);
    fprintf(out, "%s %.9g\n", name, value);
}

static inline void write_counter(FILE *out, const char *name, const char *help, uint64_t value)
{
    write_head(out, name, "counter", help);
    fprintf(out, "%s %" PRIu64 "\n", name, value);
}

#endif
