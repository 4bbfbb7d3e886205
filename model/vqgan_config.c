/*
 * vqgan_config.c - walks the events of libyaml with a path of keys; no tree is built, so nothing
 * can explode.
 */
#include "model/vqgan_config.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "model/file_bytes.h"

#define PARAMS   "model.params."
#define DDCONFIG PARAMS "ddconfig."

enum {
    GROUPS = 32,     /* of every GroupNorm */
    CODE_LEVELS = 5, /* a code stands for 16 x 16 pixels, which is 2^4 */
    PATH_BYTES = 160,
    QUOTED_BYTES = 64,
    RESOLUTION_MAX = 1 << 16,
    RESOLUTION_DEFAULT = 256 /* of all published files */
};

/* A whole number or a list of them, wanted at a path. */
struct wanted {
    const char *path;
    int min, max;
    int *values;
    int n_max; /* 1 and not is_list: a scalar */
    bool is_list;
    int n;         /* taken */
    bool is_given; /* the key was there, the list may be empty */
};

enum {
    CH,
    CH_MULT,
    RES_BLOCKS,
    IN_CHANNELS,
    OUT_CHANNELS,
    Z_CHANNELS,
    EMBED_DIM,
    N_EMBED,
    RESOLUTION,
    ATTENTION,
    N_WANTED
};

struct walk {
    yaml_parser_t parser;
    const char *name; /* of the file */
    int n_events, depth;
    struct wanted wanted[N_WANTED];
    int in_channels, out_channels, resolution, attention[VQGAN_LEVELS_MAX];
    int double_z; /* -1: not given */
    struct error *err;
};

static enum status next_event(struct walk *walk, yaml_event_t *event)
{
    if (walk->n_events++ == VQGAN_YAML_EVENTS_MAX)
        return error_set(walk->err, STATUS_INVALID, "'%s' has more than %d values", walk->name,
                         VQGAN_YAML_EVENTS_MAX);
    if (yaml_parser_parse(&walk->parser, event)) {
        bool cut = event->type == YAML_SCALAR_EVENT &&
                   strlen((const char *)event->data.scalar.value) != event->data.scalar.length;
        if (!cut)
            return STATUS_OK;
        size_t line = event->start_mark.line + 1;
        yaml_event_delete(event);
        return error_set(walk->err, STATUS_INVALID, "'%s': line %zu: a NUL in a value", walk->name,
                         line);
    }
    if (walk->parser.error == YAML_MEMORY_ERROR)
        return error_set(walk->err, STATUS_NOMEM, "'%s': cannot allocate the YAML parser",
                         walk->name);
    return error_set(walk->err, STATUS_INVALID, "'%s' is no YAML: line %zu: %s", walk->name,
                     walk->parser.problem_mark.line + 1,
                     walk->parser.problem ? walk->parser.problem : "unknown problem");
}

static struct wanted *find_wanted(struct walk *walk, const char *path)
{
    for (int i = 0; i < N_WANTED; i++)
        if (strcmp(walk->wanted[i].path, path) == 0)
            return &walk->wanted[i];
    return NULL;
}

static enum status wrong(struct walk *walk, const char *path, const char *found,
                         const char *expected)
{
    return error_set(walk->err, STATUS_INVALID, "'%s': '%s' is %.60s, expected %s", walk->name,
                     path, found, expected);
}

static enum status take_int(struct walk *walk, struct wanted *wanted, const char *text)
{
    char expected[64], *end;
    snprintf(expected, sizeof(expected), "%s from %d to %d",
             wanted->is_list ? "integers" : "an integer", wanted->min, wanted->max);
    errno = 0;
    long value = strtol(text, &end, 10);
    /* "032" is octal to some readers and decimal to others. */
    bool plain = isdigit((unsigned char)text[0]) && !(text[0] == '0' && text[1]);
    if (!plain || errno != 0 || *end != 0 || value < wanted->min || value > wanted->max)
        return wrong(walk, wanted->path, text, expected);
    if (wanted->n == wanted->n_max)
        return error_set(walk->err, STATUS_INVALID, "'%s': '%s' has more than %d numbers",
                         walk->name, wanted->path, wanted->n_max);
    wanted->values[wanted->n++] = (int)value;
    return STATUS_OK;
}

static enum status take_double_z(struct walk *walk, const char *text)
{
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "on"};
    static const char *const no[] = {"false", "False", "FALSE", "no", "off"};
    if (walk->double_z >= 0)
        return wrong(walk, DDCONFIG "double_z", "given twice", "once");
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        if (strcmp(text, yes[i]) == 0)
            walk->double_z = 1;
        if (strcmp(text, no[i]) == 0)
            walk->double_z = 0;
    }
    return walk->double_z >= 0 ? STATUS_OK
                               : wrong(walk, DDCONFIG "double_z", text, "true or false");
}

/* A key that is wanted has come up: once, and a list where one is expected. */
static enum status open_wanted(struct walk *walk, struct wanted *wanted, bool is_list)
{
    if (wanted->is_given)
        return wrong(walk, wanted->path, "given twice", "once");
    wanted->is_given = true;
    if (wanted->is_list != is_list)
        return wrong(walk, wanted->path, is_list ? "a list" : "one value",
                     wanted->is_list ? "a list of integers" : "one integer");
    return STATUS_OK;
}

/* "32" in quotes is a text: taming would stumble over it, and "false" would be true there. */
static enum status refuse_quoted(struct walk *walk, const char *path, const yaml_event_t *event)
{
    char found[QUOTED_BYTES];
    if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        return STATUS_OK;
    snprintf(found, sizeof(found), "the string \"%.40s\"", (const char *)event->data.scalar.value);
    return wrong(walk, path, found, "it without quotes");
}

static enum status take_scalar(struct walk *walk, const char *path, const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    bool is_double_z = strcmp(path, DDCONFIG "double_z") == 0;
    struct wanted *wanted = find_wanted(walk, path);
    if (!wanted && !is_double_z)
        return STATUS_OK;
    enum status st = refuse_quoted(walk, path, event);
    if (st == STATUS_OK && is_double_z)
        return take_double_z(walk, text);
    if (st == STATUS_OK)
        st = open_wanted(walk, wanted, false);
    return st == STATUS_OK ? take_int(walk, wanted, text) : st;
}

static enum status take_item(struct walk *walk, struct wanted *wanted, const yaml_event_t *event)
{
    enum status st = refuse_quoted(walk, wanted->path, event);
    return st == STATUS_OK ? take_int(walk, wanted, (const char *)event->data.scalar.value) : st;
}

static enum status walk_node(struct walk *walk, const yaml_event_t *event, const char *path);

static enum status walk_sequence(struct walk *walk, const char *path)
{
    struct wanted *wanted = find_wanted(walk, path);
    enum status st = wanted ? open_wanted(walk, wanted, true) : STATUS_OK;
    for (bool more = true; more && st == STATUS_OK;) {
        yaml_event_t event;
        st = next_event(walk, &event);
        if (st != STATUS_OK)
            return st;
        if (event.type == YAML_SEQUENCE_END_EVENT)
            more = false;
        else if (wanted && event.type == YAML_SCALAR_EVENT)
            st = take_item(walk, wanted, &event);
        else if (wanted)
            st = wrong(walk, path, "a list of something else", "a list of integers");
        else
            st = walk_node(walk, &event, "");
        yaml_event_delete(&event);
    }
    return st;
}

/* path + "." + key; a path too long is none that is wanted. */
static void join_path(char joined[PATH_BYTES], const char *path, const char *key, bool is_root)
{
    int wrote = snprintf(joined, PATH_BYTES, "%s%s%s", path, is_root ? "" : ".", key);
    if (wrote >= PATH_BYTES || (!is_root && !*path))
        joined[0] = 0;
}

static enum status walk_pair(struct walk *walk, const yaml_event_t *key, const char *path)
{
    char joined[PATH_BYTES];
    if (key->type != YAML_SCALAR_EVENT)
        return error_set(walk->err, STATUS_INVALID, "'%s': line %zu: a key is not plain text",
                         walk->name, key->start_mark.line + 1);
    join_path(joined, path, (const char *)key->data.scalar.value, walk->depth == 1);
    yaml_event_t value;
    enum status st = next_event(walk, &value);
    if (st != STATUS_OK)
        return st;
    st = walk_node(walk, &value, joined);
    yaml_event_delete(&value);
    return st;
}

static enum status walk_mapping(struct walk *walk, const char *path)
{
    enum status st = STATUS_OK;
    for (bool more = true; more && st == STATUS_OK;) {
        yaml_event_t key;
        st = next_event(walk, &key);
        if (st != STATUS_OK)
            return st;
        more = key.type != YAML_MAPPING_END_EVENT;
        if (more)
            st = walk_pair(walk, &key, path);
        yaml_event_delete(&key);
    }
    return st;
}

static enum status walk_node(struct walk *walk, const yaml_event_t *event, const char *path)
{
    enum status st = STATUS_OK;
    if (event->type == YAML_ALIAS_EVENT)
        return error_set(walk->err, STATUS_INVALID, "'%s': line %zu: aliases (*%.40s) are not read",
                         walk->name, event->start_mark.line + 1,
                         (const char *)event->data.alias.anchor);
    if (event->type == YAML_SCALAR_EVENT)
        return take_scalar(walk, path, event);
    if (walk->depth++ == VQGAN_YAML_DEPTH_MAX)
        return error_set(walk->err, STATUS_INVALID, "'%s': line %zu: nested deeper than %d",
                         walk->name, event->start_mark.line + 1, VQGAN_YAML_DEPTH_MAX);
    if (event->type == YAML_MAPPING_START_EVENT)
        st = walk_mapping(walk, path);
    else
        st = walk_sequence(walk, path);
    walk->depth--;
    return st;
}

/* One document whose root is a mapping. */
static enum status walk_document(struct walk *walk)
{
    yaml_event_type_t expected[] = {YAML_STREAM_START_EVENT, YAML_DOCUMENT_START_EVENT,
                                    YAML_MAPPING_START_EVENT, YAML_DOCUMENT_END_EVENT,
                                    YAML_STREAM_END_EVENT};
    enum status st = STATUS_OK;
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]) && st == STATUS_OK; i++) {
        yaml_event_t event;
        st = next_event(walk, &event);
        if (st != STATUS_OK)
            return st;
        if (event.type != expected[i])
            st = error_set(walk->err, STATUS_INVALID,
                           "'%s': line %zu: expected one document with one mapping", walk->name,
                           event.start_mark.line + 1);
        else if (event.type == YAML_MAPPING_START_EVENT)
            st = walk_node(walk, &event, "");
        yaml_event_delete(&event);
    }
    return st;
}

static enum status unsupported(struct walk *walk, const char *path, int found, const char *expected)
{
    return error_set(walk->err, STATUS_UNSUPPORTED, "'%s': '%s' is %d, expected %s", walk->name,
                     path, found, expected);
}

/* A resolution that no level has asks for nothing, as in taming's code. */
static void mark_attention(const struct walk *walk, struct vqgan_config *config)
{
    const struct wanted *resolution = &walk->wanted[RESOLUTION];
    int highest = resolution->is_given ? walk->resolution : RESOLUTION_DEFAULT;
    for (int i = 0; i < walk->wanted[ATTENTION].n; i++)
        for (int level = 0; level < config->n_levels; level++)
            if (highest >> level == walk->attention[i])
                config->attention[level] = true;
}

static enum status check_widths(struct walk *walk, const struct vqgan_config *config)
{
    for (int level = 0; level < config->n_levels; level++) {
        int width = config->ch * config->ch_mult[level];
        if (config->ch % GROUPS != 0 || width > VQGAN_CHANNELS_MAX)
            return error_set(
                walk->err, STATUS_INVALID,
                "'%s': '" DDCONFIG "ch' %d times %d is not a multiple of %d of at most %d",
                walk->name, config->ch, config->ch_mult[level], GROUPS, VQGAN_CHANNELS_MAX);
    }
    return STATUS_OK;
}

static enum status check_together(struct walk *walk, struct vqgan_config *config)
{
    for (int i = 0; i < N_WANTED; i++)
        if (!walk->wanted[i].is_given && i != RESOLUTION && i != ATTENTION)
            return wrong(walk, walk->wanted[i].path, "missing",
                         walk->wanted[i].is_list ? "a list of integers" : "an integer");
    config->n_levels = walk->wanted[CH_MULT].n;
    if (walk->double_z < 0)
        return wrong(walk, DDCONFIG "double_z", "missing", "false");
    if (walk->double_z)
        return unsupported(walk, DDCONFIG "double_z", 1, "false");
    if (walk->in_channels != 3)
        return unsupported(walk, walk->wanted[IN_CHANNELS].path, walk->in_channels, "3");
    if (walk->out_channels != 3)
        return unsupported(walk, walk->wanted[OUT_CHANNELS].path, walk->out_channels, "3");
    if (config->n_levels != CODE_LEVELS)
        return error_set(walk->err, STATUS_UNSUPPORTED,
                         "'%s': '%s' has %d levels, expected %d: a code is 16 x 16 pixels",
                         walk->name, walk->wanted[CH_MULT].path, config->n_levels, CODE_LEVELS);
    mark_attention(walk, config);
    return check_widths(walk, config);
}

static void set_wanted(struct walk *walk, struct vqgan_config *c)
{
    const int channels = VQGAN_CHANNELS_MAX;
    const struct wanted wanted[N_WANTED] = {
        [CH] = {DDCONFIG "ch", 1, channels, &c->ch, 1, .n = 0},
        [CH_MULT] = {DDCONFIG "ch_mult", 1, 64, c->ch_mult, VQGAN_LEVELS_MAX, .is_list = true},
        [RES_BLOCKS] = {DDCONFIG "num_res_blocks", 1, VQGAN_RES_BLOCKS_MAX, &c->n_res_blocks, 1,
                        .n = 0},
        [IN_CHANNELS] = {DDCONFIG "in_channels", 1, channels, &walk->in_channels, 1, .n = 0},
        [OUT_CHANNELS] = {DDCONFIG "out_ch", 1, channels, &walk->out_channels, 1, .n = 0},
        [Z_CHANNELS] = {DDCONFIG "z_channels", 1, channels, &c->z_channels, 1, .n = 0},
        [EMBED_DIM] = {PARAMS "embed_dim", 1, channels, &c->embed_dim, 1, .n = 0},
        [N_EMBED] = {PARAMS "n_embed", 1, VQGAN_CODES_MAX, &c->n_embed, 1, .n = 0},
        [RESOLUTION] = {DDCONFIG "resolution", 1, RESOLUTION_MAX, &walk->resolution, 1, .n = 0},
        [ATTENTION] = {DDCONFIG "attn_resolutions", 0, RESOLUTION_MAX, walk->attention,
                       VQGAN_LEVELS_MAX, .is_list = true},
    };
    memcpy(walk->wanted, wanted, sizeof(wanted));
}

enum status vqgan_config_parse(struct vqgan_config *out, const void *text, size_t bytes,
                               const char *name, struct error *err)
{
    memset(out, 0, sizeof(*out));
    if (bytes > VQGAN_YAML_BYTES_MAX)
        return error_set(err, STATUS_INVALID, "'%s' has %zu bytes, expected at most %d", name,
                         bytes, VQGAN_YAML_BYTES_MAX);
    struct walk walk = {.name = name, .double_z = -1, .err = err};
    set_wanted(&walk, out);
    if (!yaml_parser_initialize(&walk.parser))
        return error_set(err, STATUS_NOMEM, "'%s': cannot allocate the YAML parser", name);
    yaml_parser_set_input_string(&walk.parser, text, bytes);
    enum status st = walk_document(&walk);
    if (st == STATUS_OK)
        st = check_together(&walk, out);
    yaml_parser_delete(&walk.parser);
    return st;
}

enum status vqgan_config_load(struct vqgan_config *out, const char *path, struct error *err)
{
    unsigned char *text;
    size_t bytes;
    memset(out, 0, sizeof(*out));
    enum status st = file_bytes_read(&text, &bytes, path, VQGAN_YAML_BYTES_MAX, err);
    if (st == STATUS_OK)
        st = vqgan_config_parse(out, text, bytes, path, err);
    free(text);
    return st;
}
