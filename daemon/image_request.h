/*
 * image_request.h - the JSON body of POST /v1/images/generations, every field checked.
 *
 * In:      bytes of strangers.   Out: struct image_request, or a refusal that names the field.
 * Knows neither HTTP nor the engine. What is taken and what is refused: README.md.
 */
#ifndef MGPT_DAEMON_IMAGE_REQUEST_H
#define MGPT_DAEMON_IMAGE_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "model/mgpt_json.h"
#include "model/picture_file.h"
#include "model/sizes.h"

enum {
    IMAGE_REQUEST_N_MAX = 10,
    IMAGE_REQUEST_PROMPT_BYTES_MAX = 32000, /* as OpenAI's; tokens have their own limit */
    IMAGE_REQUEST_VALUES_MAX = 1000, /* of the JSON; more than there are fields, few in memory */
    IMAGE_REQUEST_GUIDANCE_MAX = 1000,
    IMAGE_REQUEST_TEMPERATURE_MAX = 1000,
    IMAGE_REQUEST_TOP_K_MAX = 1 << 20,
    IMAGE_REQUEST_PRIORITY_MAX = 100, /* and its negative */
};

struct image_request {
    json_t *root;       /* owner of the texts */
    const char *prompt; /* not empty */
    size_t prompt_bytes;
    int n;
    struct picture_size size;
    uint64_t seed; /* of the request; drawn by the caller when has_seed is false */
    bool has_seed;
    double guidance, temperature;
    int image_top_k;
    int priority;
    bool url;      /* response_format */
    bool stream;   /* server-sent events */
    bool progress; /* events of progress too; our own extension */
    enum picture_format format;
    int quality; /* of JPEG and WebP, 0: the default */
};

/* Why a request is refused. */
struct image_refusal {
    char field[64];   /* "" when it is the body as a whole */
    const char *code; /* "unknown_field", "invalid_value", "missing_field", "invalid_json",
                         "unsupported", "model_not_found" */
};

/*
 * settings: defaults for what is not given.  model_name: what `model` may be.
 * The caller ends *out with image_request_fini(), also on error.
 */
enum status image_request_parse(struct image_request *out, const void *body, size_t bytes,
                                const struct mgpt_settings *settings, const char *model_name,
                                struct image_refusal *refusal, struct error *err);
void image_request_fini(struct image_request *request);

/* "png", "jpeg", "webp". */
const char *image_request_format_name(enum picture_format format);

#endif
