/*
 * config_file.c - libyaml's events, of which few are allowed.
 */
#include "daemon/config_file.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "model/file_bytes.h"

struct reading {
    struct config_file *out;
    const char *name;
    yaml_parser_t parser;
    int depth; /* 1 inside the mapping */
    bool seen_mapping;
    char *key; /* waits for its value */
};

static enum status refuse(const struct reading *reading, const yaml_event_t *event,
                          const char *what, struct error *err)
{
    return error_set(err, STATUS_INVALID, "'%s' line %zu: %s", reading->name,
                     event->start_mark.line + 1, what);
}

static enum status take_scalar(struct reading *reading, const yaml_event_t *event,
                               struct error *err)
{
    struct config_file *out = reading->out;
    const char *text = (const char *)event->data.scalar.value;
    if (reading->depth != 1)
        return refuse(reading, event, "expected options as 'name: value'", err);
    if (event->data.scalar.anchor || event->data.scalar.tag)
        return refuse(reading, event, "anchors and tags are not taken", err);
    if (strlen(text) != event->data.scalar.length)
        return refuse(reading, event, "a NUL in a value", err);
    char *copy = strdup(text);
    if (!copy)
        return error_set(err, STATUS_NOMEM, "cannot allocate a text of '%s'", reading->name);
    if (!reading->key) {
        reading->key = copy;
        for (int i = 0; i < out->n; i++)
            if (strcmp(out->keys[i], copy) == 0)
                return error_set(err, STATUS_INVALID, "'%s' line %zu: '%s' stands there twice",
                                 reading->name, event->start_mark.line + 1, copy);
        return STATUS_OK;
    }
    if (out->n == CONFIG_FILE_KEYS_MAX) {
        free(copy);
        return refuse(reading, event, "too many options", err);
    }
    out->keys[out->n] = reading->key;
    out->values[out->n++] = copy;
    reading->key = NULL;
    return STATUS_OK;
}

static enum status take_event(struct reading *reading, const yaml_event_t *event, struct error *err)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return take_scalar(reading, event, err);
    case YAML_MAPPING_START_EVENT:
        if (reading->seen_mapping || event->data.mapping_start.anchor ||
            event->data.mapping_start.tag)
            return refuse(reading, event, "expected one mapping of options, nothing below", err);
        reading->seen_mapping = true;
        reading->depth = 1;
        return STATUS_OK;
    case YAML_MAPPING_END_EVENT:
        reading->depth = 0;
        return STATUS_OK;
    case YAML_SEQUENCE_START_EVENT:
    case YAML_ALIAS_EVENT:
        return refuse(reading, event, "lists and aliases are not taken", err);
    default:
        return STATUS_OK;
    }
}

static enum status read_events(struct reading *reading, struct error *err)
{
    bool more = true;
    enum status st = STATUS_OK;
    while (more && st == STATUS_OK) {
        yaml_event_t event;
        if (!yaml_parser_parse(&reading->parser, &event))
            return error_set(err, STATUS_INVALID, "'%s' line %zu: %s", reading->name,
                             reading->parser.problem_mark.line + 1,
                             reading->parser.problem ? reading->parser.problem : "no YAML");
        more = event.type != YAML_STREAM_END_EVENT;
        st = take_event(reading, &event, err);
        yaml_event_delete(&event);
    }
    return st;
}

enum status config_file_parse(struct config_file *out, const void *text, size_t bytes,
                              const char *name, struct error *err)
{
    struct reading reading = {.out = out, .name = name};
    memset(out, 0, sizeof(*out));
    if (!yaml_parser_initialize(&reading.parser))
        return error_set(err, STATUS_NOMEM, "cannot allocate a YAML reader");
    yaml_parser_set_input_string(&reading.parser, text, bytes);
    enum status st = read_events(&reading, err);
    yaml_parser_delete(&reading.parser);
    free(reading.key);
    if (st != STATUS_OK)
        config_file_fini(out);
    return st;
}

enum status config_file_read(struct config_file *out, const char *path, struct error *err)
{
    unsigned char *text;
    size_t bytes;
    memset(out, 0, sizeof(*out));
    enum status st = file_bytes_read(&text, &bytes, path, CONFIG_FILE_BYTES_MAX, err);
    if (st != STATUS_OK)
        return st;
    st = config_file_parse(out, text, bytes, path, err);
    free(text);
    return st;
}

void config_file_fini(struct config_file *file)
{
    for (int i = 0; i < file->n; i++) {
        free(file->keys[i]);
        free(file->values[i]);
    }
    memset(file, 0, sizeof(*file));
}

enum status config_file_apply(const struct config_file *file, const struct option_set *set,
                              void *target, bool *given, const char *name, struct error *err)
{
    for (int i = 0; i < file->n; i++) {
        enum status st = options_assign(set, target, file->keys[i], file->values[i], err);
        if (st != STATUS_OK)
            return error_wrap(err, STATUS_INVALID, "'%s'", name);
        given[options_find(set, file->keys[i])] = true;
    }
    return STATUS_OK;
}

/* Everything but the first look at the command line. */
static enum status read_all(struct config_file *file, const struct option_set *set, void *target,
                            const char *const *config_path, int argc, char **argv,
                            struct error *err)
{
    bool given[OPTIONS_MAX] = {false};
    bool help;
    const char *path = *config_path;
    enum status st = STATUS_OK;
    if (path) {
        st = config_file_read(file, path, err);
        if (st == STATUS_OK)
            st = config_file_apply(file, set, target, given, path, err);
        if (st == STATUS_OK)
            st = options_parse(set, target, argc, argv, given, &help, err); /* again: it wins */
    } else {
        st = options_parse(set, target, argc, argv, given, &help, err);
    }
    return st == STATUS_OK ? options_check_required(set, given, err) : st;
}

int config_file_start(struct config_file *out, const struct option_set *set, void *target,
                      size_t target_bytes, const char *const *config_path, int argc, char **argv)
{
    struct error err;
    bool help;
    memset(out, 0, sizeof(*out));
    memset(target, 0, target_bytes);
    options_defaults(set, target);
    enum status st = options_parse(set, target, argc, argv, NULL, &help, &err);
    if (st == STATUS_OK && help) {
        options_print_help(set, stdout);
        return 0;
    }
    if (st == STATUS_OK)
        st = read_all(out, set, target, config_path, argc, argv, &err);
    if (st == STATUS_OK)
        return -1;
    fprintf(stderr, "%s: %s\n", set->program, err.text);
    config_file_fini(out);
    return 2;
}
