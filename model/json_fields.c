/*
 * json_fields.c - jansson with limits and exact error texts.
 */
#include "model/json_fields.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

size_t json_fields_count_values(const void *text, size_t bytes)
{
    const char *c = text;
    bool in_string = false;
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (in_string && c[i] == '\\')
            i++;
        else if (c[i] == '"')
            in_string = !in_string;
        else if (!in_string)
            n += c[i] == '{' || c[i] == '[' || c[i] == ',';
    }
    return n;
}

/* What jansson would say less plainly, and what it would take too much memory for. */
static enum status check_text(const void *text, size_t bytes, const char *name, struct error *err)
{
    if (bytes == 0)
        return error_set(err, STATUS_INVALID, "'%s' is no JSON: it is empty", name);
    if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        return error_set(err, STATUS_INVALID,
                         "'%s' is no JSON: it begins with a byte order mark, expected '{'", name);
    size_t n = json_fields_count_values(text, bytes);
    if (n > JSON_FIELDS_VALUES_MAX)
        return error_set(err, STATUS_INVALID, "'%s' holds some %zu values, expected at most %d",
                         name, n, JSON_FIELDS_VALUES_MAX);
    return STATUS_OK;
}

enum status json_fields_load(json_t **root, const void *text, size_t bytes, const char *name,
                             struct error *err)
{
    json_error_t problem;
    *root = NULL;
    enum status st = check_text(text, bytes, name, err);
    if (st != STATUS_OK)
        return st;
    *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &problem);
    if (!*root)
        return error_set(err, STATUS_INVALID, "'%s' is no JSON: line %d, column %d: %s", name,
                         problem.line, problem.column, problem.text);
    return STATUS_OK;
}

enum status json_fields_parse(json_t **root, const void *text, size_t bytes, const char *name,
                              struct error *err)
{
    enum status st = json_fields_load(root, text, bytes, name, err);
    if (st == STATUS_OK && !json_is_object(*root)) {
        char found[JSON_FIELDS_TEXT_BYTES];
        json_fields_describe(found, *root);
        json_decref(*root);
        *root = NULL;
        return error_set(err, STATUS_INVALID, "'%s' holds %s, expected an object", name, found);
    }
    return st;
}

/* 64.0 is no 64 where an integer is expected. */
static void describe_real(char text[JSON_FIELDS_TEXT_BYTES], double real)
{
    int n = snprintf(text, JSON_FIELDS_TEXT_BYTES, "%.9g", real);
    if (!strpbrk(text, ".e"))
        snprintf(text + n, JSON_FIELDS_TEXT_BYTES - (size_t)n, ".0");
}

const char *json_fields_describe(char text[JSON_FIELDS_TEXT_BYTES], const json_t *value)
{
    const char *plain[] = {[JSON_OBJECT] = "an object",
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
        describe_real(text, json_real_value(value));
    else if (json_is_array(value))
        snprintf(text, JSON_FIELDS_TEXT_BYTES, "an array of %zu", json_array_size(value));
    else
        snprintf(text, JSON_FIELDS_TEXT_BYTES, "%s", plain[json_typeof(value)]);
    return text;
}

enum status json_fields_refuse(const char *what, const json_t *value, const char *expected,
                               struct error *err)
{
    char found[JSON_FIELDS_TEXT_BYTES];
    return error_set(err, STATUS_INVALID, "'%s' is %s, expected %s", what,
                     json_fields_describe(found, value), expected);
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
