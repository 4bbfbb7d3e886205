/*
 * inspect_checkpoint.c - `mgpt inspect checkpoint` and `mgpt make-checkpoint`: what a folder holds,
 * and a folder of random weights.
 */
#include "daemon/cli/commands.h"
#include "daemon/cli/session.h"
#include "daemon/cli/settings.h"
#include "daemon/kv_size.h"
#include "model/checkpoint_units.h"
#include "model/checkpoint_writer.h"

enum { BF16_BYTES = 2, F32_BYTES = 4 };

static json_t *config_json(const struct model_config *config)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b, s:i}", "hidden",
                     config->hidden, "inter", config->inter, "layers", config->n_layers, "heads",
                     config->n_heads, "kv_heads", config->n_kv_heads, "head_dim", config->head_dim,
                     "vocab", config->vocab, "max_positions", config->max_positions, "rope_theta",
                     config->rope_theta, "rope_factor", config->rope_factor, "swin_norm",
                     config->swin_norm, "model_parallel_size", config->model_parallel_size);
}

static enum status file_bytes(struct served_model *model, int first_unit, int last_unit,
                              json_int_t *bytes, struct error *err)
{
    *bytes = 0;
    for (int unit = first_unit; unit <= last_unit; unit++) {
        size_t more;
        enum status st = checkpoint_unit_bytes(model->checkpoint, unit, &more, err);
        if (st != STATUS_OK)
            return st;
        *bytes += (json_int_t)more;
    }
    return STATUS_OK;
}

static enum status stages_json(json_t *list, struct served_model *model,
                               const struct cut_stage *cut, int n_stages, struct error *err)
{
    double time = 0;
    char units[UNITS_TEXT_BYTES];
    json_int_t bytes;
    for (int i = 0; i < n_stages; i++)
        time += cut[i].time;
    for (int i = 0; i < n_stages; i++) {
        enum status st = file_bytes(model, cut[i].first_unit, cut[i].last_unit, &bytes, err);
        if (st != STATUS_OK)
            return st;
        units_format(units, cut[i].first_unit, cut[i].last_unit, model->config.n_layers);
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:f}", "units", units, "bytes",
                                              (json_int_t)cut[i].weight_bytes, "file_bytes", bytes,
                                              "time_share", cut[i].time / time));
    }
    return STATUS_OK;
}

static enum status describe(struct session *session, const struct settings *settings,
                            struct error *err)
{
    struct engine_options options;
    struct cut_stage cut[ENGINE_STAGES_MAX];
    int n_stages = 0;
    json_int_t bytes = 0;
    json_t *stages = json_array();
    int item_bytes = settings->compute == ENGINE_F32 ? F32_BYTES : BF16_BYTES;
    enum status st =
        stages ? STATUS_OK : error_set(err, STATUS_NOMEM, "cannot allocate the list of stages");
    if (st == STATUS_OK)
        st = served_model_open(&session->model, settings->folder, SERVED_ALL, err);
    struct served_model *model = session->model;
    if (st == STATUS_OK) {
        settings_engine(&options, settings, model);
        st = engine_cut_model(cut, &n_stages, &options, err);
    }
    if (st == STATUS_OK)
        st = stages_json(stages, model, cut, n_stages, err);
    if (st == STATUS_OK)
        st = file_bytes(model, 0, units_count(model->config.n_layers) - 1, &bytes, err);
    if (st == STATUS_OK)
        st = session_print_json(
            json_pack("{s:s, s:o*, s:i, s:i, s:i, s:I, s:I, s:O}", "folder", settings->folder,
                      "config", config_json(&model->config), "target_size",
                      model->settings.target_size, "codes", model->vocabulary->n_codes, "token_ids",
                      model->vocabulary->n_ids, "file_bytes", bytes, "kv_block_bytes",
                      (json_int_t)kv_size_block_bytes(&model->config, item_bytes), "stages",
                      stages),
            err);
    json_decref(stages);
    return st;
}

int command_inspect_checkpoint(int argc, char **argv)
{
    static const struct option table[] = {
        {"DIR", NULL, OPTION_TEXT, SETTING(folder), .help = "checkpoint folder"},
        ROWS_STAGES,
        {"size", "WxH", OPTION_SIZE, SETTING(size),
         .help = "the cut is even inside such pictures [the model's default]"},
        ROW_COMPUTE,
        {0}};
    static const struct option_set set = {
        .program = "mgpt inspect checkpoint",
        .about = "Sizes of a checkpoint; bytes and share of time of each stage of a cut.",
        .options = table,
        .example = "mgpt inspect checkpoint ./7b --stages 4"};
    struct settings settings;
    struct session session = {0};
    struct error err;
    int outcome = settings_start(&settings, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    return session_finish(&session, describe(&session, &settings, &err), &err);
}

int command_make_checkpoint(int argc, char **argv)
{
    static const struct option table[] = {
        {"shape", "SHAPE", OPTION_TEXT, SETTING(shape), .required = true,
         .help = "7b, 34b or hidden=..,inter=..,layers=..,heads=..,kv_heads=..,vocab=.."},
        {"layers", "N", OPTION_INT, SETTING(n_layers), .min = 1, .max = CONFIG_LAYERS_MAX,
         .help = "instead of the shape's own number"},
        {"seed", "S", OPTION_U64, SETTING(seed), .required = true, .help = "of the random weights"},
        {"out", "DIR", OPTION_TEXT, SETTING(out), .required = true, .letter = 'o',
         .help = "a new or empty folder"},
        {0}};
    static const struct option_set set = {
        .program = "mgpt make-checkpoint",
        .about = "Writes a checkpoint of random weights, for benchmarks and tests.",
        .options = table,
        .example = "mgpt make-checkpoint --shape 7b --layers 2 --seed 1 --out ./random"};
    struct settings settings;
    struct session session = {0};
    struct error err;
    int outcome = settings_start(&settings, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    struct checkpoint_writer_options options = {.seed = settings.seed};
    enum status st =
        checkpoint_writer_parse_shape(&options.config, settings.shape, settings.n_layers, &err);
    if (st == STATUS_OK)
        st = checkpoint_writer_write(settings.out, &options, &err);
    return session_finish(&session, st, &err);
}
