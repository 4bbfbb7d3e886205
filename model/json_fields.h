/*
 * json_fields.h - JSON of strangers: parsed with doubled keys refused, fields taken with type and
 * limits checked.
 *
 * Every error names the file and the field, what was found and what was expected.
 */
#ifndef MGPT_MODEL_JSON_FIELDS_H
#define MGPT_MODEL_JSON_FIELDS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/*
 * Parsed JSON takes up to this many times its text: measured with jansson 2.14 on 4 MiB of
 * "{},{},...". Who calls limits the text with it in mind.
 */
enum { JSON_FIELDS_GROWTH = 75 };

/*
 * Values of one text, as json_fields_count_values() counts them: a tokenizer of a million names and
 * a million merges has some four million. Each takes about 100 bytes, so that 64 MiB of "{},{},..."
 * are refused before they become 5 GB.
 */
enum { JSON_FIELDS_VALUES_MAX = 5 << 20 };

/* '{', '[' and ',' outside of strings: at least as many as there are values and keys, but for one.
 * Any bytes are legal. */
size_t json_fields_count_values(const void *text, size_t bytes);

/* Parses an object or array; the caller ends *root with json_decref(). On error *root is NULL. */
enum status json_fields_load(json_t **root, const void *text, size_t bytes, const char *name,
                             struct error *err);

/* The same of an object alone. */
enum status json_fields_parse(json_t **root, const void *text, size_t bytes, const char *name,
                              struct error *err);

/* An object and where it stands, for the texts: `path` is "" or "rope_scaling." and the like. */
struct json_fields {
    const json_t *object;
    const char *name; /* of the file */
    const char *path;
};

/* What a value is, for error texts: "null", "the string 'abc'", "17", "an array of 3", in the
 * caller's storage. */
enum { JSON_FIELDS_TEXT_BYTES = 96 };
const char *json_fields_describe(char text[JSON_FIELDS_TEXT_BYTES], const json_t *value);

/* STATUS_INVALID: "'what' is FOUND, expected EXPECTED". The caller puts the file in front. */
enum status json_fields_refuse(const char *what, const json_t *value, const char *expected,
                               struct error *err);

/* True when the key is there and not null. */
bool json_fields_has(const struct json_fields *fields, const char *key);

/*
 * Takes a field into *out. A missing or null field leaves *out alone when `required` is false.
 * Integers may be written as 4096 or 4096.0. STATUS_INVALID: missing, of another type, or outside
 * min..max.
 */
enum status json_fields_int(const struct json_fields *fields, const char *key, bool required,
                            long long min, long long max, int *out, struct error *err);
enum status json_fields_real(const struct json_fields *fields, const char *key, bool required,
                             double min, double max, double *out, struct error *err);
enum status json_fields_bool(const struct json_fields *fields, const char *key, bool required,
                             bool *out, struct error *err);

/* The text is borrowed from the object. */
enum status json_fields_text(const struct json_fields *fields, const char *key, bool required,
                             const char **out, struct error *err);

/* An object below `key`; *out is NULL when it is missing or null and not required. Borrowed. */
enum status json_fields_object(const struct json_fields *fields, const char *key, bool required,
                               const json_t **out, struct error *err);

#endif
