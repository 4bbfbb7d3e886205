/*
 * mgpt_json.h - mgpt.json, our own optional file in a checkpoint folder: what no published file
 * tells.
 *
 *     {"target_size": 768, "default_size": "1024x576",
 *      "sampling": {"temperature": 1.0, "guidance_scale": 4.0, "image_top_k": 2000, "text_top_k":
 * 10}}
 *
 * Every key may be missing; an unknown key or a value out of its limits is an error, since nobody
 * else writes this file.
 */
#ifndef MGPT_MODEL_MGPT_JSON_H
#define MGPT_MODEL_MGPT_JSON_H

#include <stddef.h>

#include "base/error.h"

enum { MGPT_JSON_BYTES_MAX = 1 << 16, MGPT_TARGET_SIZE_MAX = 4096 };

struct mgpt_settings {
    int target_size; /* pixels, a multiple of 32; 768 without the file */
    int default_width,
        default_height;    /* pixels, multiples of 32; target_size squared without the file */
    double temperature;    /* 1.0; 0 takes the best token */
    double guidance_scale; /* 4.0 */
    int image_top_k;       /* 2000; 0 keeps all */
    int text_top_k;        /* 10; 0 keeps all */
};

/* What holds without mgpt.json. */
void mgpt_settings_init(struct mgpt_settings *out);

/* Reads FOLDER/mgpt.json; without the file the defaults. STATUS_INVALID names file and key. */
enum status mgpt_settings_load(struct mgpt_settings *out, const char *folder, struct error *err);

/* The same from memory; `name` stands for the file in error texts. */
enum status mgpt_settings_parse(struct mgpt_settings *out, const void *text, size_t bytes,
                                const char *name, struct error *err);

#endif
