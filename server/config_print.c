#include "server/options.h"

#include <string.h>

/* --- beacon.conf --- */

static bool plain(const char *value)
{
    static const char fine[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                               ".:/[]_-,*";

    return *value != '\0' && value[strspn(value, fine)] == '\0';
}

static void print_value(const char *value, FILE *out)
{
    if (plain(value)) {
        fputs(value, out);
        return;
    }
    fputc('"', out);
    for (; *value != '\0'; value++) {
        if (*value == '"' || *value == '\\')
            fputc('\\', out);
        fputc(*value, out);
    }
    fputc('"', out);
}

static void dump_option(const struct option *o, const struct config *c, FILE *out)
{
    char value[CONFIG_VALUE_MAX], shown[OPTION_SHOWN_MAX];
    const char *origin = c->origin[option_index(o)];

    option_format(o, c, value, sizeof value);
    /* Comments, so that the text can be read again and sets nothing by mistake. */
    if (o->secret && value[0] != '\0')
        snprintf(value, sizeof value, "********");
    if (o->not_in_file || o->secret)
        fputs("# ", out);
    fprintf(out, "%s = ", o->name);
    print_value(value, out);
    fprintf(out, " # %s\n", origin[0] != '\0' ? text_show(origin, shown) : "default");
}

static bool begins_section(unsigned i)
{
    return i == 0 || strcmp(option_table[i].section, option_table[i - 1].section) != 0;
}

void config_dump(const struct config *c, FILE *out)
{
    for (unsigned i = 0; i < option_count; i++) {
        if (begins_section(i))
            fprintf(out, "%s[%s]\n", i > 0 ? "\n" : "", option_table[i].section);
        dump_option(&option_table[i], c, out);
    }
}

/* --- help --- */

enum { HELP_WIDTH = 100, HELP_COLUMN = 31, MAN_WIDTH = 78 };

/* What stands for the value: the choices where they are few. */
static const char *value_name(const struct option *o)
{
    return o->type == OPTION_ENUM ? o->choices : o->metavar;
}

static const char *fallback_name(const struct option *o)
{
    return o->fallback[0] != '\0' ? o->fallback : "none";
}

/* Words in lines of up to `width`, the first beginning at column `indent` and the others put there.
 */
static void print_wrapped(const char *text, int indent, int width, FILE *out)
{
    int column = indent;

    for (;;) {
        int len = (int)strcspn(text, " ");
        fprintf(out, "%.*s", len, text);
        column += len;
        text += len;
        if (*text == '\0')
            break;
        text++;
        if (column + 1 + (int)strcspn(text, " ") > width) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else {
            fputc(' ', out);
            column++;
        }
    }
}

void config_help(FILE *out)
{
    char text[512];

    for (unsigned i = 0; i < option_count; i++) {
        const struct option *o = &option_table[i];
        bool is_bool = o->type == OPTION_BOOL;
        if (begins_section(i))
            fprintf(out, "%s%s:\n", i > 0 ? "\n" : "", o->section);
        int column =
            fprintf(out, "  --%s%s%s", o->name, is_bool ? "" : " ", is_bool ? "" : value_name(o));
        if (column >= HELP_COLUMN) {
            fputc('\n', out);
            column = 0;
        }
        fprintf(out, "%*s", HELP_COLUMN - column, "");
        snprintf(text, sizeof text, "%s (default %s%s)", o->help, fallback_name(o),
                 o->reloadable ? ", reloadable" : "");
        print_wrapped(text, HELP_COLUMN, HELP_WIDTH, out);
        fputc('\n', out);
    }
}

/* --- manual --- */

static void man_range(const struct option *o, FILE *out)
{
    char low[32], high[32];

    switch (o->type) {
    case OPTION_INT:
        fprintf(out, "From %llu to %llu.\n", (unsigned long long)o->min,
                (unsigned long long)o->max);
        break;
    case OPTION_SECONDS:
        fprintf(out, "From %s to %s.\n", seconds_format(o->min, low, sizeof low),
                seconds_format(o->max, high, sizeof high));
        break;
    case OPTION_SIZE:
        fprintf(out, "From %s to %s.\n", size_format(o->min, low, sizeof low),
                size_format(o->max, high, sizeof high));
        break;
    default:
        break;
    }
}

static void man_choices(const char *choices, FILE *out)
{
    fputs("One of", out);
    while (*choices != '\0') {
        int len = (int)strcspn(choices, "|");
        fprintf(out, "\n.Cm %.*s", len, choices);
        choices += len;
        if (*choices == '|') {
            fputs(strchr(++choices, '|') != NULL ? " ," : "\nor", out);
        }
    }
    fputs(" .\n", out);
}

static void man_option(const struct option *o, FILE *out)
{
    fprintf(out, ".It Fl -%s", o->name);
    if (o->type != OPTION_BOOL)
        fprintf(out, " Ar %s", o->metavar);
    fputc('\n', out);
    print_wrapped(o->help, 0, MAN_WIDTH, out);
    fputs(".\n", out);
    if (o->type == OPTION_ENUM)
        man_choices(o->choices, out);
    man_range(o, out);
    if (o->fallback[0] != '\0')
        fprintf(out, "The default is\n.Cm %s .\n", o->fallback);
    if (o->not_in_file)
        fputs("Cannot stand in the file.\n", out);
    if (o->reloadable)
        fputs("Reloadable.\n", out);
}

void config_man(FILE *out)
{
    for (unsigned i = 0; i < option_count; i++) {
        if (begins_section(i))
            fprintf(out, "%s.Ss Section %s\n.Bl -tag -width Ds\n", i > 0 ? ".El\n" : "",
                    option_table[i].section);
        man_option(&option_table[i], out);
    }
    fputs(".El\n", out);
}

/* --- bash completion --- */

static void complete_choices(const struct option *o, FILE *out)
{
    fprintf(out, "    --%s) words=\"", o->name);
    for (const char *at = o->choices; *at != '\0'; at++)
        fputc(*at == '|' ? ' ' : *at, out);
    fputs("\" ;;\n", out);
}

/* "    --config|--keys)": the options whose value is a file. */
static void complete_files(FILE *out)
{
    const char *between = "    ";

    for (unsigned i = 0; i < option_count; i++) {
        const struct option *o = &option_table[i];
        if (o->type != OPTION_TEXT || strncmp(o->metavar, "file", 4) != 0)
            continue;
        fprintf(out, "%s--%s", between, o->name);
        between = "|";
    }
    fputs(")\n", out);
}

void config_completion(FILE *out)
{
    fputs("# bash completion for beacon\n"
          "_beacon()\n"
          "{\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words\n"
          "    # \"=\" is a word of its own.\n"
          "    [[ $word == = ]] && word=\n"
          "    [[ $before == = ]] && before=${COMP_WORDS[COMP_CWORD-2]}\n"
          "    [[ ${COMP_WORDS[COMP_CWORD]} == = ]] && before=${COMP_WORDS[COMP_CWORD-1]}\n"
          "    case $before in\n",
          out);
    complete_files(out);
    fputs("        mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
          "        compopt -o filenames 2>/dev/null\n"
          "        return ;;\n",
          out);
    for (unsigned i = 0; i < option_count; i++)
        if (option_table[i].type == OPTION_ENUM)
            complete_choices(&option_table[i], out);
    fputs("    *) words=\"", out);
    for (unsigned i = 0; i < option_count; i++)
        fprintf(out, "--%s ", option_table[i].name);
    for (unsigned i = 0; command_names[i] != NULL; i++)
        fprintf(out, "--%s%s", command_names[i], command_names[i + 1] != NULL ? " " : "\" ;;\n");
    fputs("    esac\n"
          "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
          "}\n"
          "complete -F _beacon beacon\n",
          out);
}
