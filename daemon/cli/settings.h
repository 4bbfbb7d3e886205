/*
 * settings.h - the options that commands of `mgpt` share, and what they become.
 *
 * A command's table is made of the rows below; all of them write into one struct.
 */
#ifndef MGPT_DAEMON_CLI_SETTINGS_H
#define MGPT_DAEMON_CLI_SETTINGS_H

#include "base/options.h"
#include "daemon/engine.h"

struct settings {
    const char *model, *vq, *cut, *device;
    int compute, link, n_stages, threads, kv_blocks, chunk; /* chunk: --chunk, prompt tokens of a step */
    int target_size;                                  /* 0: mgpt.json's */
    struct option_size size;
    uint64_t seed;
    bool has_seed; /* settings_read_seed() */
    const char *seed_text;
    int n;
    const char *url, *local;
    int picture_index;
    double guidance, temperature; /* below 0: mgpt.json's */
    int image_top_k, text_top_k;  /* below 0: mgpt.json's */
    int max_tokens;
    const char *prompt, *conversation, *ids, *positions, *out, *image, *crop, *logits, *seeds,
        *folder, *shape;
    int n_layers;
};

#define SETTING(field) offsetof(struct settings, field)

#define ROW_MODEL                                                                                  \
    {                                                                                              \
        "model", "DIR", OPTION_TEXT, SETTING(model), .required = true, .help = "checkpoint folder" \
    }
#define ROW_VQ                                                                                     \
    {                                                                                              \
        "vq", "DIR", OPTION_TEXT, SETTING(vq),                                                     \
            .help = "folder of vqgan.yaml and vqgan.ckpt [MODEL/tokenizer]"                        \
    }
#define ROW_DEVICE                                                                                 \
    {                                                                                              \
        "device", "NAME", OPTION_TEXT, SETTING(device),                                            \
            .default_value = "cpu", .help = "cpu, cuda (stage k on device k) or cuda:K"            \
    }
#define ROW_THREADS                                                                                \
    {                                                                                              \
        "threads", "N", OPTION_INT, SETTING(threads),                                              \
            .max = 1024, .help = "of each worker [its share of the cores]"                         \
    }
#define ROW_LINK                                                                                   \
    {                                                                                              \
        "link", "KIND", OPTION_CHOICE, SETTING(link),                                              \
            .choices = settings_links, .default_value = "auto",                                    \
            .help = "between stages; auto: NCCL between CUDA devices, else ZeroMQ"                 \
    }
#define ROW_TARGET                                                                                 \
    {                                                                                              \
        "target-size", "T", OPTION_INT, SETTING(target_size),                                      \
            .min = 32, .max = 8192,                                                                \
            .help = "pictures are cut to about T x T pixels [mgpt.json's, else 768]"               \
    }
#define ROW_COMPUTE                                                                                \
    {                                                                                              \
        "compute", "TYPE", OPTION_CHOICE, SETTING(compute),                                        \
            .choices = settings_computes, .default_value = "bf16", .help = "number format"         \
    }
#define ROWS_STAGES                                                                                \
    {"stages",                                                                                     \
     "N",                                                                                          \
     OPTION_INT,                                                                                   \
     SETTING(n_stages),                                                                            \
     .default_value = "1",                                                                         \
     .min = 1,                                                                                     \
     .max = ENGINE_STAGES_MAX,                                                                     \
     .help = "processes the layers are cut into, at most 2 layers + 2"},                           \
    {                                                                                              \
        "cut", "UNITS,UNITS..", OPTION_TEXT, SETTING(cut),                                         \
            .help = "the stages by hand, as in 0-8,9-17 or, with half a layer, 0-8a,8f-17 [even "  \
                    "in time]"                                                                     \
    }
#define ROW_KV_BLOCKS(default_text)                                                                \
    {                                                                                              \
        "kv-blocks", "N", OPTION_INT, SETTING(kv_blocks),                                          \
            .max = 1 << 22, .help = "blocks of 64 positions in each stage [" default_text "]"      \
    }
#define ROW_CHUNK                                                                                  \
    {                                                                                              \
        "chunk", "N", OPTION_INT, SETTING(chunk),                                                  \
            .min = 1, .max = 65536,                                                                \
            .help = "prompt tokens of a prefill step [the scheduler decides]"                      \
    }
#define ROWS_SAMPLING                                                                              \
    {"seed",                                                                                       \
     "N",                                                                                          \
     OPTION_U64,                                                                                   \
     SETTING(seed),                                                                                \
     .default_value = "0",                                                                         \
     .help = "of the random numbers",                                                              \
     .heading = "Sampling"},                                                                       \
        {"picture-index",                                                                          \
         "N",                                                                                      \
         OPTION_INT,                                                                               \
         SETTING(picture_index),                                                                   \
         .default_value = "0",                                                                     \
         .max = 1 << 30,                                                                           \
         .help = "which of the pictures of one seed"},                                             \
        {"guidance",        "G",         OPTION_FLOAT,                                             \
         SETTING(guidance), .max = 1000, .help = "1: none [mgpt.json's, else 4]"},                 \
        {"temperature",        "T",         OPTION_FLOAT,                                          \
         SETTING(temperature), .max = 1000, .help = "0: the best token [mgpt.json's, else 1]"},    \
        {"image-top-k",  "K",                                                                      \
         OPTION_INT,     SETTING(image_top_k),                                                     \
         .max = 1 << 20, .help = "in pictures; 0: all [mgpt.json's, else 2000]"},                  \
    {                                                                                              \
        "text-top-k", "K", OPTION_INT, SETTING(text_top_k),                                        \
            .max = 1 << 20, .help = "in text; 0: all [mgpt.json's, else 10]"                       \
    }

extern const char *const settings_computes[], *const settings_links[];

/* options_start() into *out, fields without a default being what "not given" means. -1: go on, else
 * the exit code. */
int settings_start(struct settings *out, const struct option_set *set, int argc, char **argv);

/* For commands whose seed is drawn when none is given: --seed as text into seed and has_seed. -1,
 * or 2 after a line on stderr. */
int settings_read_seed(struct settings *settings, const char *program);

/* What --seed and its kin become, with the model's defaults for those not given. */
void settings_sampling(struct plan_sampling *out, const struct settings *settings,
                       const struct mgpt_settings *defaults);

int settings_target(const struct settings *settings, const struct mgpt_settings *defaults);

/* Engine options of these settings, workers to be chosen by the caller. */
void settings_engine(struct engine_options *out, const struct settings *settings,
                     const struct served_model *model);

#endif
