/*
 * inspect_logits.c - `mgpt inspect logits | sample`: the numbers before a token is drawn, and the
 * drawing alone.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cli/commands.h"
#include "daemon/cli/session.h"
#include "daemon/cli/settings.h"
#include "daemon/kv_size.h"
#include "model/safetensors.h"
#include "model/safetensors_write.h"

enum { POSITIONS_MAX = 1 << 16, SEEDS_MAX = 1 << 22 };

/* ---- logits ---- */

/* "0,13,20" to numbers below n_ids, in the order given. */
static enum status parse_positions(struct ids *out, const char *text, size_t n_ids,
                                   struct error *err)
{
    const char *at = text;
    do {
        char *end;
        errno = 0;
        long position = strtol(at, &end, 10);
        if (end == at || (*end != ',' && *end) || errno || position < 0)
            return error_set(err, STATUS_INVALID,
                             "--positions wants numbers with commas between, got '%s'", text);
        if ((size_t)position >= n_ids)
            return error_set(err, STATUS_INVALID, "position %ld is not among the %zu ids", position,
                             n_ids);
        if (out->n >= POSITIONS_MAX)
            return error_set(err, STATUS_INVALID, "more than %d positions", POSITIONS_MAX);
        enum status st = ids_push(out, (int32_t)position, err);
        if (st != STATUS_OK)
            return st;
        at = *end ? end + 1 : end;
    } while (*at);
    return STATUS_OK;
}

static int compare_ids(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* sorted: the positions ascending, each once; for the request. */
static enum status sort_positions(struct ids *sorted, const struct ids *positions,
                                  struct error *err)
{
    enum status st = ids_append(sorted, positions->ids, positions->n, err);
    if (st != STATUS_OK)
        return st;
    qsort(sorted->ids, sorted->n, sizeof(*sorted->ids), compare_ids);
    size_t n = 0;
    for (size_t i = 0; i < sorted->n; i++)
        if (n == 0 || sorted->ids[n - 1] != sorted->ids[i])
            sorted->ids[n++] = sorted->ids[i];
    sorted->n = n;
    return STATUS_OK;
}

/* Rows back in the order and number asked for. */
static enum status write_logits(const char *path, const struct engine_event *event,
                                const struct ids *sorted, const struct ids *positions,
                                struct error *err)
{
    size_t row_bytes = (size_t)event->vocab * sizeof(float);
    float *rows = malloc(positions->n * row_bytes);
    if (!rows)
        return error_set(err, STATUS_NOMEM, "cannot allocate %zu rows of logits", positions->n);
    for (size_t i = 0; i < positions->n; i++) {
        const int32_t *found =
            bsearch(&positions->ids[i], sorted->ids, sorted->n, sizeof(*sorted->ids), compare_ids);
        memcpy((char *)rows + i * row_bytes,
               (const char *)event->logits + (size_t)(found - sorted->ids) * row_bytes, row_bytes);
    }
    struct safetensors_output tensor = {.name = "logits",
                                        .dtype = DTYPE_F32,
                                        .rank = 2,
                                        .shape = {(int64_t)positions->n, event->vocab},
                                        .data = rows};
    enum status st = safetensors_write(path, &tensor, 1, err);
    free(rows);
    return st;
}

static enum status probe(struct session *session, const struct settings *settings,
                         const struct ids *ids, const struct ids *positions, struct error *err)
{
    struct engine_options options;
    struct engine_event *event = NULL;
    struct ids sorted = {0};
    settings_engine(&options, settings, session->model);
    options.n_pipelines = 1;
    if (options.kv_blocks == 0)
        options.kv_blocks = kv_size_blocks((int)ids->n, 0) + 1;
    enum status st = sort_positions(&sorted, positions, err);
    if (st == STATUS_OK)
        st = session_start(session, &options, err);
    if (st == STATUS_OK) {
        struct engine_request request = {.work = ENGINE_PROBE,
                                         .prompt = ids->ids,
                                         .n_prompt = (int)ids->n,
                                         .positions = sorted.ids,
                                         .n_positions = (int)sorted.n,
                                         .sampling.guidance = 1};
        st = engine_client_run(&session->client, &request, &event, err);
    }
    if (st == STATUS_OK)
        st = write_logits(settings->out, event, &sorted, positions, err);
    mail_destroy(event ? &event->mail : NULL);
    ids_fini(&sorted);
    return st;
}

int command_inspect_logits(int argc, char **argv)
{
    static const struct option table[] = {
        ROW_MODEL,
        {"ids", "FILE", OPTION_TEXT, SETTING(ids), .required = true,
         .help = "JSON list of token ids"},
        {"positions", "A,B,C", OPTION_TEXT, SETTING(positions), .required = true,
         .help = "places in the list, from 0"},
        {"out", "FILE", OPTION_TEXT, SETTING(out), .required = true, .letter = 'o',
         .help = "safetensors with \"logits\", f32 [positions, vocab]"},
        ROW_COMPUTE,
        ROWS_STAGES,
        ROW_CHUNK,
        ROW_KV_BLOCKS("what the request needs"),
        ROW_DEVICE,
        ROW_LINK,
        ROW_THREADS,
        {0}};
    static const struct option_set set = {
        .program = "mgpt inspect logits",
        .about = "What the transformer says behind given positions of a list of ids.",
        .options = table,
        .example = "mgpt inspect logits --model ./7b --ids ids.json --positions 0,7 --out "
                   "logits.safetensors"};
    struct settings settings;
    struct session session = {0};
    struct error err;
    struct ids ids = {0}, positions = {0};
    int outcome = settings_start(&settings, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    enum status st = session_read_ids(&ids, settings.ids, &err);
    if (st == STATUS_OK)
        st = parse_positions(&positions, settings.positions, ids.n, &err);
    if (st == STATUS_OK)
        st = served_model_open(&session.model, settings.model, SERVED_ALL, &err);
    if (st == STATUS_OK)
        st = probe(&session, &settings, &ids, &positions, &err);
    ids_fini(&ids);
    ids_fini(&positions);
    return session_finish(&session, st, &err);
}

/* ---- sample ---- */

/* "A-B" or "A". */
static enum status parse_seeds(uint64_t *first, int *n, const char *text, struct error *err)
{
    char *end;
    errno = 0;
    unsigned long long from = strtoull(text, &end, 10);
    unsigned long long to = from;
    bool good = end != text && text[0] != '-';
    if (good && *end == '-') {
        const char *second = end + 1;
        to = strtoull(second, &end, 10);
        good = end != second && *second != '-';
    }
    if (!good || *end || errno || to < from || to - from >= SEEDS_MAX)
        return error_set(err, STATUS_INVALID, "--seeds wants A-B with at most %d seeds, got '%s'",
                         SEEDS_MAX, text);
    *first = from;
    *n = (int)(to - from) + 1;
    return STATUS_OK;
}

/* One row of `vocab` logits; what the tensor has beyond the codes does not matter, so it is cut or
 * filled up. */
static enum status read_logits(float **out, const char *path, const struct served_model *model,
                               struct error *err)
{
    struct safetensors *file;
    struct tensor_view view;
    enum status st = safetensors_open(&file, path, err);
    if (st != STATUS_OK)
        return st;
    const struct safetensors_entry *entry = safetensors_lookup(file, "logits");
    if (!entry)
        st = error_set(err, STATUS_NOT_FOUND, "'%s': no tensor 'logits'", path);
    else
        st = safetensors_view(file, entry, &view, err);
    size_t n = st == STATUS_OK ? tensor_elements(&view) : 0;
    size_t vocab = (size_t)model->config.vocab;
    size_t n_needed = (size_t)model->vocabulary->code_id_max + 1;
    char shape[TENSOR_SHAPE_TEXT_BYTES];
    if (st == STATUS_OK &&
        (view.dtype != DTYPE_F32 || view.rank != 2 || view.shape[0] != 1 || n < n_needed))
        st = error_set(err, STATUS_INVALID,
                       "'%s': tensor 'logits' is %s %s, expected f32 [1, vocab] with all codes",
                       path, dtype_name(view.dtype),
                       tensor_format_shape(shape, view.rank, view.shape));
    *out = st == STATUS_OK ? calloc(vocab, sizeof(float)) : NULL;
    if (st == STATUS_OK && !*out)
        st = error_set(err, STATUS_NOMEM, "cannot allocate %zu logits", vocab);
    if (st == STATUS_OK)
        memcpy(*out, view.data, (n < vocab ? n : vocab) * sizeof(float));
    safetensors_close(file);
    return st;
}

static enum status draw(struct session *session, const struct settings *settings,
                        uint64_t first_seed, int n_seeds, struct error *err)
{
    struct engine_options options;
    struct engine_event *event = NULL;
    float *logits = NULL;
    enum status st = read_logits(&logits, settings->logits, session->model, err);
    settings_engine(&options, settings, session->model);
    options.draws = true;
    if (st == STATUS_OK)
        st = session_start(session, &options, err);
    if (st == STATUS_OK) {
        struct engine_request request = {.work = ENGINE_DRAW,
                                         .logits = logits,
                                         .n_logits = session->model->config.vocab,
                                         .n_seeds = n_seeds};
        settings_sampling(&request.sampling, settings, &session->model->settings);
        request.sampling.seed = first_seed;
        st = engine_client_run(&session->client, &request, &event, err);
    }
    if (st == STATUS_OK)
        st = session_print_json(session_ids_json(event->ids, (size_t)event->n_ids), err);
    mail_destroy(event ? &event->mail : NULL);
    free(logits);
    return st;
}

int command_inspect_sample(int argc, char **argv)
{
    static const struct option table[] = {
        ROW_MODEL,
        {"logits", "FILE", OPTION_TEXT, SETTING(logits), .required = true,
         .help = "safetensors with \"logits\", f32 [1, vocab]"},
        {"seeds", "A-B", OPTION_TEXT, SETTING(seeds), .required = true,
         .help = "one draw for each"},
        {"image-top-k", "K", OPTION_INT, SETTING(image_top_k), .max = 1 << 20,
         .help = "0: all [mgpt.json's, else 2000]"},
        {"temperature", "T", OPTION_FLOAT, SETTING(temperature), .max = 1000,
         .help = "0: the best token [mgpt.json's, else 1]"},
        ROW_DEVICE,
        {0}};
    static const struct option_set set = {
        .program = "mgpt inspect sample",
        .about = "Draws the first code of a picture from given logits, once for each seed.",
        .options = table,
        .example = "mgpt inspect sample --model ./7b --logits logits.safetensors --image-top-k "
                   "2000 --seeds 0-99"};
    struct settings settings;
    struct session session = {0};
    struct error err;
    uint64_t first_seed = 0;
    int n_seeds = 0;
    int outcome = settings_start(&settings, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    enum status st = parse_seeds(&first_seed, &n_seeds, settings.seeds, &err);
    if (st == STATUS_OK)
        st = served_model_open(&session.model, settings.model, SERVED_ALL, &err);
    if (st == STATUS_OK)
        st = draw(&session, &settings, first_seed, n_seeds, &err);
    return session_finish(&session, st, &err);
}
