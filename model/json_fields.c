/*
 * json_fields.c - jansson with limits and exact error texts.
 */
#include "model/json_fields.h"

#include <math.h>
#include <stdio.h>

enum status json_fields_parse(json_t **root, const void *text, size_t bytes, const char *name,
                              struct error *err)
{
    json_error_t problem;
    *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &problem);
    if (!*root)
        return error_set(err, STATUS_INVALID, "'%s' is no JSON: line %d, column %d: %s", name,
                         problem.line, problem.column, problem.text);
    if (!json_is_object(*root)) {
        char found[JSON_FIELDS_TEXT_BYTES];
        json_fields_describe(found, *root);
        json_decref(*root);
        *root = NULL;
        return error_set(err, STATUS_INVALID, "'%s' holds %s, expected an object", name, found);
    }
    return STATUS_OK;
}

const char *json_fields_describe(char text[JSON_FIELDS_TEXT_BYTES], const json_t *value)
{
    const char *plain[] = {[JSON_OBJECT] = "an object",
                           [JSON_ARRAY] = "an array",
                           [JSON_TRUE] = "true",
                           [JSON_FALSE] = "false",
                           [JSON_NULL] = "null"};
    if (!value)
        snprintf(text, JSON_FIELDS_TEXT_BYTES, "nothing");
    else if (json_is_string(value))
        snprintf(text, JSON_FIELDS_TEXT_BYTES, "the string '%.60s'", json_string_value(value));
    else if (json_is_integer(value))
        snprintf(text, JSON_FIELDS_TEXT_BYTES, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(text, JSON_FIELDS_TEXT_BYTES, "%.9g", json_real_value(value));
    else
        snprintf(text, JSON_FIELDS_TEXT_BYTES, "%s", plain[json_typeof(value)]);
    return text;
}

bool json_fields_has(const struct json_fields *fields, const char *key)
{
    const json_t *value = json_object_get(fields->object, key);
    return value && !json_is_null(value);
}

static enum status wrong(const struct json_fields *fields, const char *key, const char *expected,
                         struct error *err)
{
    const json_t *value = json_object_get(fields->object, key);
    char found[JSON_FIELDS_TEXT_BYTES];
    if (!value)
        return error_set(err, STATUS_INVALID, "'%s': '%s%s' is missing, expected %s", fields->name,
                         fields->path, key, expected);
    return error_set(err, STATUS_INVALID, "'%s': '%s%s' is %s, expected %s", fields->name,
                     fields->path, key, json_fields_describe(found, value), expected);
}

/* True when there is nothing to take; *st says whether that is an error. */
static bool absent(const struct json_fields *fields, const char *key, bool required,
                   const char *expected, enum status *st, struct error *err)
{
    *st = STATUS_OK;
    if (json_fields_has(fields, key))
        return false;
    if (required)
        *st = wrong(fields, key, expected, err);
    return true;
}

enum status json_fields_int(const struct json_fields *fields, const char *key, bool required,
                            long long min, long long max, int *out, struct error *err)
{
    char expected[JSON_FIELDS_TEXT_BYTES];
    snprintf(expected, sizeof(expected), "an integer from %lld to %lld", min, max);
    enum status st;
    if (absent(fields, key, required, expected, &st, err))
        return st;
    const json_t *value = json_object_get(fields->object, key);
    double real = json_is_number(value) ? json_number_value(value) : NAN;
    if (!(real >= (double)min && real <= (double)max) || real != floor(real))
        return wrong(fields, key, expected, err);
    *out = (int)real;
    return STATUS_OK;
}

enum status json_fields_real(const struct json_fields *fields, const char *key, bool required,
                             double min, double max, double *out, struct error *err)
{
    char expected[JSON_FIELDS_TEXT_BYTES];
    snprintf(expected, sizeof(expected), "a number from %g to %g", min, max);
    enum status st;
    if (absent(fields, key, required, expected, &st, err))
        return st;
    const json_t *value = json_object_get(fields->object, key);
    double real = json_is_number(value) ? json_number_value(value) : NAN;
    if (!(real >= min && real <= max))
        return wrong(fields, key, expected, err);
    *out = real;
    return STATUS_OK;
}

enum status json_fields_bool(const struct json_fields *fields, const char *key, bool required,
                             bool *out, struct error *err)
{
    enum status st;
    if (absent(fields, key, required, "true or false", &st, err))
        return st;
    const json_t *value = json_object_get(fields->object, key);
    if (!json_is_boolean(value))
        return wrong(fields, key, "true or false", err);
    *out = json_is_true(value);
    return STATUS_OK;
}

enum status json_fields_text(const struct json_fields *fields, const char *key, bool required,
                             const char **out, struct error *err)
{
    enum status st;
    if (absent(fields, key, required, "a string", &st, err))
        return st;
    const json_t *value = json_object_get(fields->object, key);
    if (!json_is_string(value))
        return wrong(fields, key, "a string", err);
    *out = json_string_value(value);
    return STATUS_OK;
}

enum status json_fields_object(const struct json_fields *fields, const char *key, bool required,
                               const json_t **out, struct error *err)
{
    enum status st;
    *out = NULL;
    if (absent(fields, key, required, "an object", &st, err))
        return st;
    const json_t *value = json_object_get(fields->object, key);
    if (!json_is_object(value))
        return wrong(fields, key, "an object", err);
    *out = value;
    return STATUS_OK;
}
