/*
 * image_request.c - one function a field; the table says which fields there are.
 */
#include "daemon/image_request.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/json_fields.h"

struct parse {
    struct image_request *out;
    const char *model_name;
    struct image_refusal *refusal;
};

static enum status refuse(const struct parse *parse, const char *code, struct error *err,
                          const char *text)
{
    parse->refusal->code = code;
    return error_set(err, STATUS_INVALID, "%s", text);
}

static enum status refuse_value(const struct parse *parse, const char *key, const json_t *value,
                                const char *expected, struct error *err)
{
    char found[JSON_FIELDS_TEXT_BYTES];
    parse->refusal->code = "invalid_value";
    return error_set(err, STATUS_INVALID, "'%s' is %s, expected %s", key,
                     json_fields_describe(found, value), expected);
}

static enum status take_int(const struct parse *parse, const char *key, const json_t *value,
                            int min, int max, int *out, struct error *err)
{
    char expected[64];
    snprintf(expected, sizeof(expected), "a whole number from %d to %d", min, max);
    double number = json_number_value(value);
    if (!json_is_number(value) || number < min || number > max || number != floor(number))
        return refuse_value(parse, key, value, expected, err);
    *out = (int)number;
    return STATUS_OK;
}

static enum status take_real(const struct parse *parse, const char *key, const json_t *value,
                             double min, double max, double *out, struct error *err)
{
    char expected[64];
    snprintf(expected, sizeof(expected), "a number from %g to %g", min, max);
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= min && number <= max))
        return refuse_value(parse, key, value, expected, err);
    *out = number;
    return STATUS_OK;
}

/* A text out of a list; *index is its place. */
static enum status take_choice(const struct parse *parse, const char *key, const json_t *value,
                               const char *const *choices, int *index, struct error *err)
{
    char expected[128] = "one of";
    for (int i = 0; choices[i]; i++) {
        if (json_is_string(value) && strcmp(json_string_value(value), choices[i]) == 0) {
            *index = i;
            return STATUS_OK;
        }
        size_t used = strlen(expected);
        snprintf(expected + used, sizeof(expected) - used, "%s %s", i ? "," : "", choices[i]);
    }
    return refuse_value(parse, key, value, expected, err);
}

/* ---- fields that mean something ---- */

static enum status take_prompt(const struct parse *parse, const char *key, const json_t *value,
                               struct error *err)
{
    if (!json_is_string(value) || json_string_length(value) == 0)
        return refuse_value(parse, key, value, "a text that is not empty", err);
    parse->out->prompt = json_string_value(value);
    parse->out->prompt_bytes = json_string_length(value);
    if (parse->out->prompt_bytes <= IMAGE_REQUEST_PROMPT_BYTES_MAX)
        return STATUS_OK;
    parse->refusal->code = "invalid_value";
    return error_set(err, STATUS_INVALID, "'prompt' has %zu bytes, expected at most %d",
                     parse->out->prompt_bytes, IMAGE_REQUEST_PROMPT_BYTES_MAX);
}

static enum status take_model(const struct parse *parse, const char *key, const json_t *value,
                              struct error *err)
{
    if (!json_is_string(value))
        return refuse_value(parse, key, value, "a text", err);
    if (strcmp(json_string_value(value), parse->model_name) == 0)
        return STATUS_OK;
    parse->refusal->code = "model_not_found";
    return error_set(err, STATUS_NOT_FOUND, "'model' is '%.80s', this server has '%s'",
                     json_string_value(value), parse->model_name);
}

static enum status take_n(const struct parse *parse, const char *key, const json_t *value,
                          struct error *err)
{
    return take_int(parse, key, value, 1, IMAGE_REQUEST_N_MAX, &parse->out->n, err);
}

static enum status take_size(const struct parse *parse, const char *key, const json_t *value,
                             struct error *err)
{
    struct error reason;
    if (json_is_string(value) && strcmp(json_string_value(value), "auto") == 0)
        return STATUS_OK;
    if (!json_is_string(value))
        return refuse_value(parse, key, value, "a text WIDTHxHEIGHT", err);
    if (sizes_parse(&parse->out->size, json_string_value(value), &reason) == STATUS_OK)
        return STATUS_OK;
    parse->refusal->code = "invalid_value";
    return error_set(err, STATUS_INVALID, "'size': %s", reason.text);
}

static enum status take_seed(const struct parse *parse, const char *key, const json_t *value,
                             struct error *err)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return refuse_value(parse, key, value, "a whole number from 0 to 2^63 - 1", err);
    parse->out->seed = (uint64_t)json_integer_value(value);
    parse->out->has_seed = true;
    return STATUS_OK;
}

static enum status take_guidance(const struct parse *parse, const char *key, const json_t *value,
                                 struct error *err)
{
    return take_real(parse, key, value, 0, IMAGE_REQUEST_GUIDANCE_MAX, &parse->out->guidance, err);
}

static enum status take_temperature(const struct parse *parse, const char *key, const json_t *value,
                                    struct error *err)
{
    return take_real(parse, key, value, 0, IMAGE_REQUEST_TEMPERATURE_MAX, &parse->out->temperature,
                     err);
}

static enum status take_top_k(const struct parse *parse, const char *key, const json_t *value,
                              struct error *err)
{
    return take_int(parse, key, value, 0, IMAGE_REQUEST_TOP_K_MAX, &parse->out->image_top_k, err);
}

static enum status take_priority(const struct parse *parse, const char *key, const json_t *value,
                                 struct error *err)
{
    return take_int(parse, key, value, -IMAGE_REQUEST_PRIORITY_MAX, IMAGE_REQUEST_PRIORITY_MAX,
                    &parse->out->priority, err);
}

static enum status take_response_format(const struct parse *parse, const char *key,
                                        const json_t *value, struct error *err)
{
    static const char *const choices[] = {"b64_json", "url", NULL};
    int index = 0;
    enum status st = take_choice(parse, key, value, choices, &index, err);
    parse->out->url = index == 1;
    return st;
}

static const char *const formats[] = {
    [PICTURE_PNG] = "png", [PICTURE_JPEG] = "jpeg", [PICTURE_WEBP] = "webp", NULL};

const char *image_request_format_name(enum picture_format format)
{
    return formats[format];
}

static enum status take_output_format(const struct parse *parse, const char *key,
                                      const json_t *value, struct error *err)
{
    int index = 0;
    enum status st = take_choice(parse, key, value, formats, &index, err);
    parse->out->format = (enum picture_format)index;
    return st;
}

static enum status take_compression(const struct parse *parse, const char *key, const json_t *value,
                                    struct error *err)
{
    int percent = 0;
    enum status st = take_int(parse, key, value, 0, 100, &percent, err);
    parse->out->quality = percent == 0 ? 1 : percent; /* 0 of quality stands for the default */
    return st;
}

static enum status take_bool(const struct parse *parse, const char *key, const json_t *value,
                             bool *out, struct error *err)
{
    if (!json_is_boolean(value))
        return refuse_value(parse, key, value, "true or false", err);
    *out = json_is_true(value);
    return STATUS_OK;
}

static enum status take_stream(const struct parse *parse, const char *key, const json_t *value,
                               struct error *err)
{
    return take_bool(parse, key, value, &parse->out->stream, err);
}

static enum status take_progress(const struct parse *parse, const char *key, const json_t *value,
                                 struct error *err)
{
    return take_bool(parse, key, value, &parse->out->progress, err);
}

/* ---- fields that clients send and that change nothing here: the values that would are refused
 * ---- */

static enum status take_partial_images(const struct parse *parse, const char *key,
                                       const json_t *value, struct error *err)
{
    int n; /* fewer previews than asked for are allowed; this server sends none */
    return take_int(parse, key, value, 0, 3, &n, err);
}

static enum status take_quality(const struct parse *parse, const char *key, const json_t *value,
                                struct error *err)
{
    static const char *const choices[] = {"auto", "low", "medium", "high", "standard", "hd", NULL};
    int index;
    return take_choice(parse, key, value, choices, &index, err);
}

static enum status take_background(const struct parse *parse, const char *key, const json_t *value,
                                   struct error *err)
{
    static const char *const choices[] = {"auto", "opaque", NULL};
    int index;
    return take_choice(parse, key, value, choices, &index, err);
}

static enum status take_moderation(const struct parse *parse, const char *key, const json_t *value,
                                   struct error *err)
{
    static const char *const choices[] = {"auto", "low", NULL};
    int index;
    return take_choice(parse, key, value, choices, &index, err);
}

static enum status take_style(const struct parse *parse, const char *key, const json_t *value,
                              struct error *err)
{
    static const char *const choices[] = {"vivid", "natural", NULL};
    int index;
    return take_choice(parse, key, value, choices, &index, err);
}

static enum status take_user(const struct parse *parse, const char *key, const json_t *value,
                             struct error *err)
{
    return json_is_string(value) ? STATUS_OK : refuse_value(parse, key, value, "a text", err);
}

static enum status take_negative_prompt(const struct parse *parse, const char *key,
                                        const json_t *value, struct error *err)
{
    if (json_is_string(value) && json_string_length(value) == 0)
        return STATUS_OK;
    (void)key;
    return refuse(parse, "unsupported", err,
                  "'negative_prompt' is not something this model was trained for; leave it out");
}

static const struct field {
    const char *key;
    enum status (*take)(const struct parse *parse, const char *key, const json_t *value,
                        struct error *err);
} fields[] = {
    {"prompt", take_prompt},
    {"model", take_model},
    {"n", take_n},
    {"size", take_size},
    {"seed", take_seed},
    {"guidance_scale", take_guidance},
    {"temperature", take_temperature},
    {"image_top_k", take_top_k},
    {"priority", take_priority},
    {"response_format", take_response_format},
    {"output_format", take_output_format},
    {"output_compression", take_compression},
    {"stream", take_stream},
    {"progress", take_progress},
    {"partial_images", take_partial_images},
    {"quality", take_quality},
    {"background", take_background},
    {"moderation", take_moderation},
    {"style", take_style},
    {"user", take_user},
    {"negative_prompt", take_negative_prompt},
};

static enum status take_field(const struct parse *parse, const char *key, const json_t *value,
                              struct error *err)
{
    snprintf(parse->refusal->field, sizeof(parse->refusal->field), "%s", key);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (strcmp(fields[i].key, key) == 0)
            return json_is_null(value) ? STATUS_OK : fields[i].take(parse, key, value, err);
    parse->refusal->code = "unknown_field";
    return error_set(err, STATUS_INVALID, "unknown field '%.60s'", key);
}

enum status image_request_parse(struct image_request *out, const void *body, size_t bytes,
                                const struct mgpt_settings *settings, const char *model_name,
                                struct image_refusal *refusal, struct error *err)
{
    *out = (struct image_request){.n = 1,
                                  .size = {settings->default_width, settings->default_height},
                                  .guidance = settings->guidance_scale,
                                  .temperature = settings->temperature,
                                  .image_top_k = settings->image_top_k,
                                  .format = PICTURE_PNG};
    *refusal = (struct image_refusal){.code = "invalid_json"};
    struct parse parse = {out, model_name, refusal};
    json_error_t reason;
    if (bytes == 0)
        return error_set(err, STATUS_INVALID, "the body is empty, expected a JSON object");
    size_t n_values = json_fields_count_values(body, bytes);
    if (n_values > IMAGE_REQUEST_VALUES_MAX)
        return error_set(err, STATUS_INVALID,
                         "the JSON of the body holds some %zu values, expected at most %d",
                         n_values, IMAGE_REQUEST_VALUES_MAX);
    out->root = json_loadb(body, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &reason);
    if (!out->root)
        return error_set(err, STATUS_INVALID, "the body is no JSON: %s in line %d", reason.text,
                         reason.line);
    if (!json_is_object(out->root))
        return error_set(err, STATUS_INVALID, "the body is no JSON object");
    const char *key;
    json_t *value;
    json_object_foreach(out->root, key, value)
    {
        enum status st = take_field(&parse, key, value, err);
        if (st != STATUS_OK)
            return st;
    }
    if (out->prompt)
        return STATUS_OK;
    snprintf(refusal->field, sizeof(refusal->field), "prompt");
    return refuse(&parse, "missing_field", err, "'prompt' is required");
}

void image_request_fini(struct image_request *request)
{
    json_decref(request->root);
    request->root = NULL;
}
