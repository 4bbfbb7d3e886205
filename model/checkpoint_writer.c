/*
 * checkpoint_writer.c - shapes, the folder, config.json; the other files have a .c of their own.
 */
#include "model/checkpoint_writer.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/checkpoint_writer_parts.h"

enum { CONFIG_TEXT_BYTES = 2048, SHAPE_TEXT_BYTES = 512 };

enum key {
    HIDDEN,
    INTER,
    LAYERS,
    HEADS,
    KV_HEADS,
    VOCAB,
    N_REQUIRED,
    SWIN = N_REQUIRED,
    MP,
    POSITIONS,
    N_KEYS
};

static const char *const key_names[N_KEYS] = {"hidden", "inter", "layers", "heads",    "kv_heads",
                                              "vocab",  "swin",  "mp",     "positions"};

static void format_config(char text[CONFIG_TEXT_BYTES], const struct model_config *c)
{
    snprintf(text, CONFIG_TEXT_BYTES,
             "{\n"
             "  \"architectures\": [\"ChameleonForConditionalGeneration\"],\n"
             "  \"model_type\": \"chameleon\",\n"
             "  \"hidden_act\": \"silu\",\n"
             "  \"hidden_size\": %d,\n"
             "  \"intermediate_size\": %d,\n"
             "  \"num_hidden_layers\": %d,\n"
             "  \"num_attention_heads\": %d,\n"
             "  \"num_key_value_heads\": %d,\n"
             "  \"vocab_size\": %d,\n"
             "  \"max_position_embeddings\": %d,\n"
             "  \"rms_norm_eps\": %.9g,\n"
             "  \"rope_theta\": %.9g,\n"
             "  \"rope_scaling\": null,\n"
             "  \"swin_norm\": %s,\n"
             "  \"model_parallel_size\": %d,\n"
             "  \"attention_bias\": %s,\n"
             "  \"mlp_bias\": %s,\n"
             "  \"tie_word_embeddings\": false,\n"
             "  \"torch_dtype\": \"bfloat16\"\n"
             "}\n",
             c->hidden, c->inter, c->n_layers, c->n_heads, c->n_kv_heads, c->vocab,
             c->max_positions, (double)c->rms_eps, (double)c->rope_theta,
             c->swin_norm ? "true" : "false", c->model_parallel_size,
             c->attention_bias ? "true" : "false", c->mlp_bias ? "true" : "false");
}

/* One "key=number" of a shape. */
static enum status take_pair(long values[N_KEYS], char *pair, struct error *err)
{
    char *equals = strchr(pair, '='), *end = NULL;
    int key = 0;
    if (equals)
        *equals = 0;
    while (key < N_KEYS && strcmp(key_names[key], pair) != 0)
        key++;
    if (!equals || key == N_KEYS)
        return error_set(err, STATUS_INVALID,
                         "shape: '%.40s' is no KEY=NUMBER, expected hidden, inter, layers, heads, "
                         "kv_heads, vocab, swin, mp or positions",
                         pair);
    if (values[key] >= 0)
        return error_set(err, STATUS_INVALID, "shape: '%s' is given twice", key_names[key]);
    errno = 0;
    values[key] = strtol(equals + 1, &end, 10);
    if (errno != 0 || end == equals + 1 || *end || values[key] < 0 || values[key] > INT32_MAX)
        return error_set(err, STATUS_INVALID,
                         "shape: '%s' is '%.40s', expected a number of at least 0", key_names[key],
                         equals + 1);
    return STATUS_OK;
}

static enum status parse_pairs(struct model_config *out, const char *shape, struct error *err)
{
    char text[SHAPE_TEXT_BYTES], *rest = NULL;
    long values[N_KEYS];
    for (int i = 0; i < N_KEYS; i++)
        values[i] = -1;
    if (snprintf(text, sizeof(text), "%s", shape) >= (int)sizeof(text) || !strchr(text, '='))
        return error_set(err, STATUS_INVALID,
                         "shape: '%.40s' is unknown, expected 7b, 34b or hidden=..,inter=..,...",
                         shape);
    for (char *pair = strtok_r(text, ",", &rest); pair; pair = strtok_r(NULL, ",", &rest)) {
        enum status st = take_pair(values, pair, err);
        if (st != STATUS_OK)
            return st;
    }
    for (int i = 0; i < N_REQUIRED; i++)
        if (values[i] < 0)
            return error_set(err, STATUS_INVALID, "shape: '%s' is missing", key_names[i]);
    out->hidden = (int)values[HIDDEN];
    out->inter = (int)values[INTER];
    out->n_layers = (int)values[LAYERS];
    out->n_heads = (int)values[HEADS];
    out->n_kv_heads = (int)values[KV_HEADS];
    out->vocab = (int)values[VOCAB];
    out->swin_norm = values[SWIN] > 0;
    out->model_parallel_size = values[MP] < 0 ? 1 : (int)values[MP];
    out->max_positions = values[POSITIONS] < 0 ? 4096 : (int)values[POSITIONS];
    return STATUS_OK;
}

enum status checkpoint_writer_parse_shape(struct model_config *out, const char *shape, int n_layers,
                                          struct error *err)
{
    struct model_config config = {.rms_eps = 1e-5f, .rope_theta = 10000, .rope_factor = 1};
    const char *known = shape;
    memset(out, 0, sizeof(*out));
    if (strcmp(shape, "7b") == 0)
        known = "hidden=4096,inter=11008,layers=32,heads=32,kv_heads=32,vocab=65536";
    else if (strcmp(shape, "34b") == 0)
        known = "hidden=8192,inter=22016,layers=48,heads=64,kv_heads=8,vocab=65536,swin=1,mp=4";
    enum status st = parse_pairs(&config, known, err);
    if (st != STATUS_OK)
        return st;
    if (n_layers > 0)
        config.n_layers = n_layers;
    if (config.vocab < CHECKPOINT_WRITER_VOCAB_MIN)
        return error_set(err, STATUS_INVALID, "shape: 'vocab' is %d, expected at least %d",
                         config.vocab, CHECKPOINT_WRITER_VOCAB_MIN);
    char text[CONFIG_TEXT_BYTES];
    format_config(text, &config);
    return model_config_parse(out, text, strlen(text), "shape", err);
}

enum status checkpoint_writer_text(const char *folder, const char *name, const char *text,
                                   struct error *err)
{
    char *path;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return error_set(err, STATUS_NOMEM, "cannot allocate the path of '%s'", name);
    enum status st = STATUS_OK;
    FILE *file = fopen(path, "we");
    if (!file)
        st = error_set_errno(err, STATUS_IO, errno, "cannot create '%s'", path);
    else if (fputs(text, file) < 0 || fclose(file) != 0)
        st = error_set_errno(err, STATUS_IO, errno, "cannot write '%s'", path);
    free(path);
    return st;
}

static enum status make_folder(const char *folder, struct error *err)
{
    if (mkdir(folder, 0777) == 0)
        return STATUS_OK;
    if (errno != EEXIST)
        return error_set_errno(err, STATUS_IO, errno, "cannot make the folder '%s'", folder);
    DIR *entries = opendir(folder);
    if (!entries)
        return error_set_errno(err, STATUS_IO, errno, "cannot list '%s'", folder);
    int n = 0;
    while (readdir(entries))
        n++;
    closedir(entries);
    if (n > 2) /* "." and ".." */
        return error_set(err, STATUS_INVALID, "the folder '%s' is not empty", folder);
    return STATUS_OK;
}

enum status checkpoint_writer_write(const char *folder,
                                    const struct checkpoint_writer_options *options,
                                    struct error *err)
{
    char *codec_folder;
    enum status st = make_folder(folder, err);
    if (st != STATUS_OK)
        return st;
    if (asprintf(&codec_folder, "%s/tokenizer", folder) < 0)
        return error_set(err, STATUS_NOMEM, "cannot allocate the path of '%s/tokenizer'", folder);
    st = make_folder(codec_folder, err);
    if (st == STATUS_OK)
        st = checkpoint_writer_codec(codec_folder, options->seed, err);
    free(codec_folder);
    if (st == STATUS_OK)
        st = checkpoint_writer_tokenizer(folder, options->config.vocab, options->seed, err);
    if (st == STATUS_OK)
        st = checkpoint_writer_weights(folder, options, err);
    char text[CONFIG_TEXT_BYTES];
    format_config(text, &options->config);
    if (st == STATUS_OK)
        st = checkpoint_writer_text(folder, "config.json", text, err);
    return st;
}
