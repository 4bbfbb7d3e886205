/*
 * pretokenizer.c - reads the pre_tokenizer of a tokenizer.json into a list of steps and runs them
 * over a text.
 *
 * Every step but ByteLevel's respelling is a cut by a regex (split.h): Digits and Punctuation are
 * cuts by a class of characters.
 */
#include "model/pretokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "model/byte_level.h"
#include "model/json_fields.h"
#include "model/split.h"
#include "model/utf8.h"

enum { NESTING_MAX = 16 };

#define PATTERN_DIGIT       "\\p{N}"
#define PATTERN_PUNCTUATION "[!-/:-@\\[-`{-~\\p{P}]" /* ASCII's symbols and Unicode's classes P */

/* Radford et al. 2019 (GPT-2), as HF's ByteLevel has it. */
#define PATTERN_WORDS                                                                              \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

struct step {
    struct regex *regex; /* NULL: no cut */
    enum split_behavior behavior;
    bool invert;
    bool add_prefix_space; /* to each word that has none; before the cut */
    bool byte_level;       /* respell bytes as printable characters; after the cut */
};

struct pretokenizer {
    int n_steps;
    struct step steps[PRETOKENIZER_STEPS_MAX];
};

void pretokenizer_destroy(struct pretokenizer *p)
{
    if (!p)
        return;
    for (int i = 0; i < p->n_steps; i++)
        regex_destroy(p->steps[i].regex);
    free(p);
}

/* A boolean field that may be missing. STATUS_INVALID: it is something else. */
static enum status read_bool(const json_t *spec, const char *type, const char *name, bool missing,
                             bool *value, struct error *err)
{
    const json_t *field = json_object_get(spec, name);
    if (field && !json_is_boolean(field))
        return error_wrap(err, json_fields_refuse(name, field, "true or false", err), "%s", type);
    *value = field ? json_is_true(field) : missing;
    return STATUS_OK;
}

static enum status read_behavior(const json_t *spec, const char *type,
                                 enum split_behavior *behavior, struct error *err)
{
    const json_t *field = json_object_get(spec, "behavior");
    if (!field && strcmp(type, "Punctuation") == 0) {
        *behavior = SPLIT_ISOLATED;
        return STATUS_OK;
    }
    int parsed = json_is_string(field) ? split_parse_behavior(json_string_value(field)) : -1;
    if (parsed < 0)
        return error_set(err, STATUS_INVALID,
                         "%s: behavior '%.40s', expected Removed, Isolated, MergedWithPrevious, "
                         "MergedWithNext or Contiguous",
                         type, json_is_string(field) ? json_string_value(field) : "(no string)");
    *behavior = (enum split_behavior)parsed;
    return STATUS_OK;
}

static enum status create_text_regex(struct step *step, const char *pattern, struct error *err)
{
    return regex_create(&step->regex, pattern, strlen(pattern), REGEX_RUBY, err);
}

static enum status read_split(struct step *step, const json_t *spec, struct error *err)
{
    const json_t *pattern = json_object_get(spec, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex");
    const json_t *literal = json_object_get(pattern, "String");
    const json_t *text = regex ? regex : literal;
    if (!json_is_string(text) || (regex && literal))
        return json_fields_refuse("Split.pattern", pattern,
                                  "{\"Regex\": \"...\"} or {\"String\": \"...\"}", err);
    enum status st = read_behavior(spec, "Split", &step->behavior, err);
    if (st == STATUS_OK)
        st = read_bool(spec, "Split", "invert", false, &step->invert, err);
    if (st != STATUS_OK)
        return st;
    return regex_create(&step->regex, json_string_value(text), json_string_length(text),
                        regex ? REGEX_RUBY : REGEX_LITERAL, err);
}

static enum status read_digits(struct step *step, const json_t *spec, struct error *err)
{
    bool individual = false;
    enum status st = read_bool(spec, "Digits", "individual_digits", false, &individual, err);
    if (st != STATUS_OK)
        return st;
    step->behavior = individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
    return create_text_regex(step, PATTERN_DIGIT, err);
}

static enum status read_punctuation(struct step *step, const json_t *spec, struct error *err)
{
    enum status st = read_behavior(spec, "Punctuation", &step->behavior, err);
    return st == STATUS_OK ? create_text_regex(step, PATTERN_PUNCTUATION, err) : st;
}

static enum status read_byte_level(struct step *step, const json_t *spec, struct error *err)
{
    bool use_regex = true;
    enum status st =
        read_bool(spec, "ByteLevel", "add_prefix_space", true, &step->add_prefix_space, err);
    if (st == STATUS_OK)
        st = read_bool(spec, "ByteLevel", "use_regex", true, &use_regex, err);
    step->byte_level = true;
    step->behavior = SPLIT_ISOLATED;
    return st == STATUS_OK && use_regex ? create_text_regex(step, PATTERN_WORDS, err) : st;
}

static enum status read_spec(struct pretokenizer *p, const json_t *spec, int depth,
                             struct error *err);

static enum status read_sequence(struct pretokenizer *p, const json_t *spec, int depth,
                                 struct error *err)
{
    const json_t *list = json_object_get(spec, "pretokenizers");
    if (!json_is_array(list))
        return json_fields_refuse("Sequence.pretokenizers", list, "an array", err);
    if (depth == NESTING_MAX)
        return error_set(err, STATUS_INVALID, "Sequence: nested more than %d deep", NESTING_MAX);
    for (size_t i = 0; i < json_array_size(list); i++) {
        enum status st = read_spec(p, json_array_get(list, i), depth + 1, err);
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}

static enum status read_spec(struct pretokenizer *p, const json_t *spec, int depth,
                             struct error *err)
{
    static const struct {
        const char *type;
        enum status (*read)(struct step *, const json_t *, struct error *);
    } readers[] = {{"Split", read_split},
                   {"Digits", read_digits},
                   {"Punctuation", read_punctuation},
                   {"ByteLevel", read_byte_level}};

    const char *type = json_string_value(json_object_get(spec, "type"));
    if (!type)
        return json_fields_refuse("type", json_object_get(spec, "type"), "a string", err);
    if (strcmp(type, "Sequence") == 0)
        return read_sequence(p, spec, depth, err);
    for (size_t i = 0; i < sizeof(readers) / sizeof(readers[0]); i++) {
        if (strcmp(type, readers[i].type) != 0)
            continue;
        if (p->n_steps == PRETOKENIZER_STEPS_MAX)
            return error_set(err, STATUS_INVALID, "more than %d steps", PRETOKENIZER_STEPS_MAX);
        return readers[i].read(&p->steps[p->n_steps++], spec, err);
    }
    return error_set(err, STATUS_UNSUPPORTED,
                     "type '%.60s' is not supported, expected Sequence, Split, Digits, Punctuation "
                     "or ByteLevel",
                     type);
}

enum status pretokenizer_create(struct pretokenizer **out, const json_t *spec, struct error *err)
{
    *out = NULL;
    struct pretokenizer *p = calloc(1, sizeof(*p));
    if (!p)
        return error_set(err, STATUS_NOMEM, "cannot allocate a pre-tokenizer");
    enum status st = STATUS_OK;
    if (spec && !json_is_null(spec))
        st = read_spec(p, spec, 0, err);
    if (st != STATUS_OK) {
        pretokenizer_destroy(p);
        return error_wrap(err, st, "pre_tokenizer");
    }
    *out = p;
    return STATUS_OK;
}

static enum status add_prefix_spaces(struct words *words, struct error *err)
{
    struct words spaced = {0};
    enum status st = STATUS_OK;
    for (size_t i = 0; i < words->n && st == STATUS_OK; i++) {
        struct span word = words->spans[i];
        size_t start = spaced.text.n;
        if (words->text.bytes[word.start] != ' ')
            st = text_buffer_append(&spaced.text, " ", 1, err);
        if (st == STATUS_OK)
            st = text_buffer_append(&spaced.text, words->text.bytes + word.start,
                                    word.end - word.start, err);
        if (st == STATUS_OK)
            st = words_push(&spaced, (uint32_t)start, (uint32_t)spaced.text.n, err);
    }
    words_fini(words);
    *words = spaced;
    return st;
}

static enum status cut(struct words *words, const struct step *step, struct regex_search *search,
                       struct error *err)
{
    struct words parts = {0};
    enum status st = STATUS_OK;
    for (size_t i = 0; i < words->n && st == STATUS_OK; i++)
        st = split_word(&parts, words->text.bytes, words->spans[i], step->regex, step->behavior,
                        step->invert, search, err);
    parts.text = words->text;
    words->text = (struct text_buffer){0};
    words_fini(words);
    *words = parts;
    return st;
}

/* Each byte of the words becomes one character of one or two bytes. */
static enum status respell_bytes(struct words *words, struct error *err)
{
    struct text_buffer text = {0};
    enum status st = text_buffer_reserve(&text, words->text.n * 2, err);
    for (size_t i = 0; i < words->n && st == STATUS_OK; i++) {
        struct span *word = &words->spans[i];
        size_t start = text.n;
        for (uint32_t k = word->start; k < word->end; k++)
            text.n += utf8_write(text.bytes + text.n,
                                 byte_level_character((uint8_t)words->text.bytes[k]));
        *word = (struct span){.start = (uint32_t)start, .end = (uint32_t)text.n};
    }
    CHECK(text.n <= words->text.n * 2);
    text_buffer_fini(&words->text);
    words->text = text;
    return st;
}

static enum status run_step(struct words *words, const struct step *step,
                            struct regex_search *search, struct error *err)
{
    enum status st = STATUS_OK;
    if (words->text.n > PRETOKENIZER_BYTES_MAX)
        return error_set(err, STATUS_INVALID, "the text grows over %d bytes while it is cut",
                         PRETOKENIZER_BYTES_MAX);
    if (step->add_prefix_space)
        st = add_prefix_spaces(words, err);
    if (st == STATUS_OK && step->regex)
        st = cut(words, step, search, err);
    if (st == STATUS_OK && step->byte_level)
        st = respell_bytes(words, err);
    return st;
}

enum status pretokenizer_split(const struct pretokenizer *p, const char *text, size_t bytes,
                               struct regex_search *search, struct words *words, struct error *err)
{
    words->n = words->text.n = 0;
    if (bytes == 0)
        return STATUS_OK;
    enum status st = text_buffer_append(&words->text, text, bytes, err);
    if (st == STATUS_OK)
        st = words_push(words, 0, (uint32_t)bytes, err);
    for (int i = 0; i < p->n_steps && st == STATUS_OK; i++)
        st = run_step(words, &p->steps[i], search, err);
    return st;
}
