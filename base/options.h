/*
 * options.h - one table of options a program: its command line, its configuration file and its help
 * come from it.
 *
 *     struct settings { const char *model; int n_stages; };
 *     static const struct option table[] = {
 *         {"model", "DIR", OPTION_TEXT, offsetof(struct settings, model), .required = true, .help =
 * "checkpoint folder"},
 *         {"stages", "N", OPTION_INT, offsetof(struct settings, n_stages), .default_value = "1",
 * .min = 1, .max = 64, .help = "stage processes"}, {0}};
 *
 * Help goes to stdout and exits 0; a wrong option is one line on stderr and exit 2 (options_start
 * does both). Texts are borrowed: from argv, from the table's defaults, or from whoever calls
 * options_assign.
 */
#ifndef MGPT_BASE_OPTIONS_H
#define MGPT_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/error.h"
#include "base/status.h"

enum option_kind {
    OPTION_FLAG,   /* bool; takes no argument */
    OPTION_TEXT,   /* const char * */
    OPTION_CHOICE, /* int: the index in `choices` */
    OPTION_INT,    /* int, between min and max */
    OPTION_U64,    /* uint64_t, all values */
    OPTION_FLOAT,  /* double, finite, between min and max */
    OPTION_SIZE,   /* struct option_size, "WxH" */
    OPTION_LIST    /* struct option_list; may be given several times */
};

struct option_size {
    int width, height; /* 0 x 0 when not given */
};

enum { OPTION_LIST_MAX = 16 };

struct option_list {
    const char *items[OPTION_LIST_MAX];
    int n;
};

struct option {
    const char *name; /* "model" is --model on the command line and model: in YAML; in upper case:
                         positional, in order */
    const char *argument; /* as help shows it, "DIR"; NULL for flags and positional ones */
    enum option_kind kind;
    size_t offset;             /* of the field in the target struct */
    const char *default_value; /* read like a given value before all others; NULL leaves the field
                                  as it is */
    const char *help;
    const char *const *choices; /* OPTION_CHOICE: names, NULL at the end */
    double min, max;            /* OPTION_INT and OPTION_FLOAT */
    const char *heading;        /* starts a group in the help */
    char letter;                /* 'o' is -o; 0 for none */
    bool required;
    bool optional; /* positional only: may be left out */
};

struct option_set {
    const char *program;          /* "mgpt inspect tokenize" */
    const char *about;            /* one sentence under the usage line */
    const struct option *options; /* ends with {0} */
    const char *example;          /* last line of the help; NULL for none */
};

/* Writes every default into target, which the caller has zeroed. A default that does not parse is a
 * CHECK. */
void options_defaults(const struct option_set *set, void *target);

/* The place of an option in the table by its name, without dashes; -1: none. Positional ones have
 * none. */
int options_find(const struct option_set *set, const char *name);

/* One value by name ("model", without dashes), as from a configuration file. STATUS_NOT_FOUND: no
 * such option. */
enum status options_assign(const struct option_set *set, void *target, const char *name,
                           const char *text, struct error *err);

/*
 * The arguments after the program's name: --name VALUE, --name=VALUE, -x VALUE, positional ones, --
 * ends options.
 *
 * given: NULL, or one bool for each option of the table, set true where the command line names it.
 * *help is true when --help or -h stands anywhere; nothing else was read then. STATUS_INVALID: a
 * line for the user.
 */
enum status options_parse(const struct option_set *set, void *target, int argc, char **argv,
                          bool *given, bool *help, struct error *err);

/* STATUS_INVALID names the first required option that was not given. */
enum status options_check_required(const struct option_set *set, const bool *given,
                                   struct error *err);

void options_print_help(const struct option_set *set, FILE *out);

/*
 * Defaults, parse, required ones; what main does with the outcome.
 *
 * argc, argv: without the name of the program or command, as for options_parse().
 * Returns -1 to go on, 0 after help was printed, 2 after one line on stderr.
 */
int options_start(const struct option_set *set, void *target, int argc, char **argv);

enum { OPTIONS_MAX = 64 }; /* options in one table */

#endif
