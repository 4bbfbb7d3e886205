/*
 * config_file.h - a program's options out of a YAML file: `stages: 2` is --stages 2.
 *
 * In:      one mapping of option names to plain values.   Out: the texts, in order; meanings are
 * base/options.h's. Refused: anything else - lists, mappings below, anchors, aliases, tags, keys
 * twice, a second document.
 */
#ifndef MGPT_DAEMON_CONFIG_FILE_H
#define MGPT_DAEMON_CONFIG_FILE_H

#include "base/options.h"

enum { CONFIG_FILE_BYTES_MAX = 1 << 20, CONFIG_FILE_KEYS_MAX = OPTIONS_MAX };

struct config_file {
    int n;
    char *keys[CONFIG_FILE_KEYS_MAX], *values[CONFIG_FILE_KEYS_MAX];
};

/* The texts live until config_file_fini(). Errors name file and line. On error nothing is held. */
enum status config_file_read(struct config_file *out, const char *path, struct error *err);
enum status config_file_parse(struct config_file *out, const void *text, size_t bytes,
                              const char *name, struct error *err);
void config_file_fini(struct config_file *file);

/*
 * Writes the values into target; given: [OPTIONS_MAX], set true for the options named.
 * STATUS_INVALID names the key: unknown, or a value that its option does not take.
 */
enum status config_file_apply(const struct config_file *file, const struct option_set *set,
                              void *target, bool *given, const char *name, struct error *err);

/*
 * Defaults, then the file that --config names, then the command line, which wins; what main does
 * with the outcome.
 *
 * config_path: where the value of the option that names the file lies in target.
 * Returns -1 to go on, 0 after help was printed, 2 after one line on stderr. *out stays needed as
 * long as target is.
 */
int config_file_start(struct config_file *out, const struct option_set *set, void *target,
                      size_t target_bytes, const char *const *config_path, int argc, char **argv);

#endif
