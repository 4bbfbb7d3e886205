/*
 * options.c - reads values by kind; knows no program.
 */
#include "base/options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum { SIZE_SIDE_MAX = 1 << 20, HELP_COLUMN = 28 };

static bool is_positional(const struct option *option)
{
    return isupper((unsigned char)option->name[0]);
}

static int count_options(const struct option_set *set)
{
    int n = 0;
    while (set->options[n].name)
        n++;
    CHECK(n <= OPTIONS_MAX);
    return n;
}

/* "--model" or "PROMPT", for messages. */
static const char *shown_name(const struct option *option, char text[64])
{
    snprintf(text, 64, "%s%s", is_positional(option) ? "" : "--", option->name);
    return text;
}

static enum status read_int(const struct option *option, int *value, const char *text,
                            struct error *err)
{
    char name[64];
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (end == text || *end || errno || text[strspn(text, "+-0123456789")])
        return error_set(err, STATUS_INVALID, "%s wants a whole number, got '%s'",
                         shown_name(option, name), text);
    if ((double)number < option->min || (double)number > option->max)
        return error_set(err, STATUS_INVALID, "%s is %s, expected %.0f to %.0f",
                         shown_name(option, name), text, option->min, option->max);
    *value = (int)number;
    return STATUS_OK;
}

static enum status read_u64(const struct option *option, uint64_t *value, const char *text,
                            struct error *err)
{
    char name[64];
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno)
        return error_set(err, STATUS_INVALID,
                         "%s wants a whole number from 0 to 2^64 - 1, got '%s'",
                         shown_name(option, name), text);
    *value = number;
    return STATUS_OK;
}

static enum status read_float(const struct option *option, double *value, const char *text,
                              struct error *err)
{
    char name[64];
    char *end;
    double number = strtod(text, &end);
    if (end == text || text[strspn(text, "+-.0123456789eE")] || *end || !isfinite(number))
        return error_set(err, STATUS_INVALID, "%s wants a number, got '%s'",
                         shown_name(option, name), text);
    if (number < option->min || number > option->max)
        return error_set(err, STATUS_INVALID, "%s is %s, expected %g to %g",
                         shown_name(option, name), text, option->min, option->max);
    *value = number;
    return STATUS_OK;
}

static enum status read_size(const struct option *option, struct option_size *size,
                             const char *text, struct error *err)
{
    char name[64];
    char *end;
    long width = strtol(text, &end, 10);
    if (isdigit((unsigned char)text[0]) && *end == 'x' && isdigit((unsigned char)end[1])) {
        long height = strtol(end + 1, &end, 10);
        if (!*end && width > 0 && height > 0 && width <= SIZE_SIDE_MAX && height <= SIZE_SIDE_MAX) {
            size->width = (int)width;
            size->height = (int)height;
            return STATUS_OK;
        }
    }
    return error_set(err, STATUS_INVALID, "%s wants WxH in pixels, got '%s'",
                     shown_name(option, name), text);
}

static enum status read_choice(const struct option *option, int *value, const char *text,
                               struct error *err)
{
    char name[64];
    char names[128] = "";
    for (int i = 0; option->choices[i]; i++) {
        if (strcmp(option->choices[i], text) == 0) {
            *value = i;
            return STATUS_OK;
        }
        size_t used = strlen(names);
        snprintf(names + used, sizeof(names) - used, "%s%s", i ? ", " : "", option->choices[i]);
    }
    return error_set(err, STATUS_INVALID, "%s is '%s', expected one of %s",
                     shown_name(option, name), text, names);
}

static enum status read_flag(const struct option *option, bool *value, const char *text,
                             struct error *err)
{
    char name[64];
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
        return error_set(err, STATUS_INVALID, "%s is '%s', expected true or false",
                         shown_name(option, name), text);
    *value = strcmp(text, "true") == 0;
    return STATUS_OK;
}

static enum status read_value(const struct option *option, void *target, const char *text,
                              struct error *err)
{
    void *field = (char *)target + option->offset;
    struct option_list *list = field;
    char name[64];
    switch (option->kind) {
    case OPTION_FLAG:
        return read_flag(option, field, text, err);
    case OPTION_TEXT:
        *(const char **)field = text;
        return STATUS_OK;
    case OPTION_CHOICE:
        return read_choice(option, field, text, err);
    case OPTION_INT:
        return read_int(option, field, text, err);
    case OPTION_U64:
        return read_u64(option, field, text, err);
    case OPTION_FLOAT:
        return read_float(option, field, text, err);
    case OPTION_SIZE:
        return read_size(option, field, text, err);
    case OPTION_LIST:
        if (list->n >= OPTION_LIST_MAX)
            return error_set(err, STATUS_INVALID, "%s is given more than %d times",
                             shown_name(option, name), OPTION_LIST_MAX);
        list->items[list->n++] = text;
        return STATUS_OK;
    }
    CHECK(!"every kind is read above");
    return STATUS_INTERNAL;
}

void options_defaults(const struct option_set *set, void *target)
{
    for (int i = 0; i < count_options(set); i++)
        if (set->options[i].default_value)
            CHECK(read_value(&set->options[i], target, set->options[i].default_value, NULL) ==
                  STATUS_OK);
}

static int find_name(const struct option_set *set, const char *name, size_t length)
{
    for (int i = 0; set->options[i].name; i++)
        if (!is_positional(&set->options[i]) && strlen(set->options[i].name) == length &&
            strncmp(set->options[i].name, name, length) == 0)
            return i;
    return -1;
}

static int find_letter(const struct option_set *set, char letter)
{
    for (int i = 0; set->options[i].name; i++)
        if (set->options[i].letter == letter && letter)
            return i;
    return -1;
}

static int find_positional(const struct option_set *set, int ordinal)
{
    for (int i = 0; set->options[i].name; i++)
        if (is_positional(&set->options[i]) && ordinal-- == 0)
            return i;
    return -1;
}

int options_find(const struct option_set *set, const char *name)
{
    return find_name(set, name, strlen(name));
}

enum status options_assign(const struct option_set *set, void *target, const char *name,
                           const char *text, struct error *err)
{
    int i = options_find(set, name);
    if (i < 0)
        return error_set(err, STATUS_NOT_FOUND, "unknown option '%s'", name);
    return read_value(&set->options[i], target, text, err);
}

/* One argument that starts with a dash; *at moves over the value when it stands apart. */
static enum status parse_named(const struct option_set *set, void *target, int argc, char **argv,
                               int *at, bool *given, struct error *err)
{
    const char *argument = argv[*at];
    bool is_long = argument[1] == '-';
    const char *equals = is_long ? strchr(argument, '=') : NULL;
    size_t length = is_long ? (equals ? (size_t)(equals - argument) : strlen(argument)) - 2 : 1;
    int i = is_long       ? find_name(set, argument + 2, length)
            : argument[2] ? -1
                          : find_letter(set, argument[1]);
    if (i < 0)
        return error_set(err, STATUS_INVALID, "unknown option '%s' (--help lists them)", argument);
    const struct option *option = &set->options[i];
    if (given)
        given[i] = true;
    if (option->kind == OPTION_FLAG)
        return equals ? read_value(option, target, equals + 1, err)
                      : read_value(option, target, "true", err);
    const char *value = equals ? equals + 1 : *at + 1 < argc ? argv[++*at] : NULL;
    if (!value)
        return error_set(err, STATUS_INVALID, "%s wants a value: %s", argument, option->argument);
    return read_value(option, target, value, err);
}

enum status options_parse(const struct option_set *set, void *target, int argc, char **argv,
                          bool *given, bool *help, struct error *err)
{
    *help = false;
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            *help = true;
    if (*help)
        return STATUS_OK;
    bool only_positional = false;
    int n_positional = 0;
    for (int i = 0; i < argc; i++) {
        enum status st = STATUS_OK;
        if (!only_positional && strcmp(argv[i], "--") == 0) {
            only_positional = true;
        } else if (!only_positional && argv[i][0] == '-' && argv[i][1]) {
            st = parse_named(set, target, argc, argv, &i, given, err);
        } else {
            int k = find_positional(set, n_positional++);
            if (k < 0)
                return error_set(err, STATUS_INVALID,
                                 "unexpected argument '%s' (--help shows the usage)", argv[i]);
            if (given)
                given[k] = true;
            st = read_value(&set->options[k], target, argv[i], err);
        }
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}

enum status options_check_required(const struct option_set *set, const bool *given,
                                   struct error *err)
{
    char name[64];
    for (int i = 0; set->options[i].name; i++) {
        const struct option *option = &set->options[i];
        bool wanted = option->required || (is_positional(option) && !option->optional);
        if (wanted && !given[i])
            return error_set(err, STATUS_INVALID, "%s%s%s is required", shown_name(option, name),
                             option->argument ? " " : "", option->argument ? option->argument : "");
    }
    return STATUS_OK;
}

static void print_usage(const struct option_set *set, FILE *out)
{
    fprintf(out, "usage: %s", set->program);
    bool more = false;
    for (int i = 0; set->options[i].name; i++) {
        const struct option *option = &set->options[i];
        if (is_positional(option))
            fprintf(out, option->optional ? " [%s]" : " %s", option->name);
        else if (option->required)
            fprintf(out, " --%s %s", option->name, option->argument);
        else
            more = true;
    }
    fprintf(out, "%s\n", more ? " [options]" : "");
}

void options_print_help(const struct option_set *set, FILE *out)
{
    print_usage(set, out);
    if (set->about)
        fprintf(out, "%s\n", set->about);
    for (int i = 0; set->options[i].name; i++) {
        const struct option *option = &set->options[i];
        char left[128];
        if (option->heading)
            fprintf(out, "%s\n", option->heading);
        int used = 0;
        if (option->letter)
            used = snprintf(left, sizeof(left), "-%c, ", option->letter);
        snprintf(left + used, sizeof(left) - (size_t)used, "%s%s%s%s",
                 is_positional(option) ? "" : "--", option->name, option->argument ? " " : "",
                 option->argument ? option->argument : "");
        fprintf(out, "  %-*s %s", HELP_COLUMN, left, option->help ? option->help : "");
        if (option->choices) {
            for (int k = 0; option->choices[k]; k++)
                fprintf(out, "%s%s", k ? "|" : ": ", option->choices[k]);
        }
        if (option->required)
            fprintf(out, " (required)");
        if (option->default_value)
            fprintf(out, " [%s]", option->default_value);
        fprintf(out, "\n");
    }
    fprintf(out, "  %-*s %s\n", HELP_COLUMN, "-h, --help", "this text");
    if (set->example)
        fprintf(out, "example: %s\n", set->example);
}

int options_start(const struct option_set *set, void *target, int argc, char **argv)
{
    bool given[OPTIONS_MAX] = {false};
    bool help;
    struct error err;
    count_options(set);
    options_defaults(set, target);
    enum status st = options_parse(set, target, argc, argv, given, &help, &err);
    if (st == STATUS_OK && help) {
        options_print_help(set, stdout);
        return 0;
    }
    if (st == STATUS_OK)
        st = options_check_required(set, given, &err);
    if (st == STATUS_OK)
        return -1;
    fprintf(stderr, "%s: %s\n", set->program, err.text);
    return 2;
}
