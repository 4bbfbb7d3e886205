/*
 * regex.c - compiles with PCRE2 and matches under limits.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/regex.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "model/regex_syntax.h"

enum { MESSAGE_BYTES = 128, PATTERN_SHOWN_BYTES = 100, STARTS_PER_CLOCK_READ = 16 };

struct regex {
    pcre2_code *code;
    char pattern[PATTERN_SHOWN_BYTES + 1]; /* its beginning, for error texts */
};

void regex_destroy(struct regex *regex)
{
    if (!regex)
        return;
    pcre2_code_free(regex->code);
    free(regex);
}

static enum status compile(struct regex *regex, const char *pattern, size_t bytes,
                           enum regex_syntax syntax, struct error *err)
{
    /* In Ruby ^ and $ are ends of lines always. */
    uint32_t options = syntax == REGEX_LITERAL
                           ? PCRE2_UTF | PCRE2_LITERAL
                           : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        return error_set(err, STATUS_NOMEM, "cannot allocate a regex");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int code = 0;
    PCRE2_SIZE place = 0;
    regex->code = pcre2_compile((PCRE2_SPTR)pattern, bytes, options, &code, &place, context);
    pcre2_compile_context_free(context);
    if (regex->code)
        return STATUS_OK;
    char message[MESSAGE_BYTES];
    pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof(message));
    return error_set(err, STATUS_INVALID, "%s", message);
}

enum status regex_create(struct regex **out, const char *pattern, size_t bytes,
                         enum regex_syntax syntax, struct error *err)
{
    *out = NULL;
    if (bytes > REGEX_PATTERN_BYTES_MAX)
        return error_set(err, STATUS_INVALID, "a regex of %zu bytes, expected at most %d", bytes,
                         REGEX_PATTERN_BYTES_MAX);
    struct regex *regex = calloc(1, sizeof(*regex));
    if (!regex)
        return error_set(err, STATUS_NOMEM, "cannot allocate a regex");
    snprintf(regex->pattern, sizeof(regex->pattern), "%.*s",
             (int)(bytes < PATTERN_SHOWN_BYTES ? bytes : PATTERN_SHOWN_BYTES), pattern);
    struct text_buffer translated = {0};
    enum status st;
    if (syntax == REGEX_LITERAL) {
        st = compile(regex, pattern, bytes, syntax, err);
    } else {
        /* The callout in front counts the places where a match is tried: regex_search watches the
         * clock there. */
        st = text_buffer_append(&translated, "(?C1)", 5, err);
        if (st == STATUS_OK)
            st = regex_translate(&translated, pattern, bytes, err);
        if (st == STATUS_OK)
            st = compile(regex, translated.bytes, translated.n, syntax, err);
    }
    if (st != STATUS_OK)
        error_wrap(err, st, "regex '%s'", regex->pattern);
    text_buffer_fini(&translated);
    if (st != STATUS_OK) {
        regex_destroy(regex);
        return st;
    }
    *out = regex;
    return STATUS_OK;
}

/* Of this thread: a machine that is busy with other things must not make texts invalid. */
static int64_t cpu_time_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int on_start(pcre2_callout_block *block, void *data)
{
    (void)block;
    struct regex_search *search = data;
    if (++search->n_starts % STARTS_PER_CLOCK_READ != 0)
        return 0;
    return cpu_time_ms() > search->deadline_ms ? PCRE2_ERROR_CALLOUT : 0;
}

enum status regex_search_init(struct regex_search *search, struct error *err)
{
    *search = (struct regex_search){.deadline_ms = cpu_time_ms() + REGEX_TIME_MS_MAX};
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    search->context = context;
    search->match_data = pcre2_match_data_create(1, NULL);
    if (!context || !search->match_data) {
        regex_search_fini(search);
        return error_set(err, STATUS_NOMEM, "cannot allocate a regex search");
    }
    pcre2_set_match_limit(context, REGEX_STEPS_MAX);
    pcre2_set_depth_limit(context, REGEX_STEPS_MAX);
    pcre2_set_heap_limit(context, REGEX_MEMORY_KIB_MAX);
    pcre2_set_callout(context, on_start, search);
    return STATUS_OK;
}

void regex_search_fini(struct regex_search *search)
{
    pcre2_match_data_free(search->match_data);
    pcre2_match_context_free(search->context);
    *search = (struct regex_search){0};
}

static enum status match_error(const struct regex_walk *walk, int code, struct error *err)
{
    const char *pattern = walk->regex->pattern;
    char message[MESSAGE_BYTES];
    switch (code) {
    case PCRE2_ERROR_MATCHLIMIT:
    case PCRE2_ERROR_DEPTHLIMIT:
        return error_set(err, STATUS_INVALID,
                         "regex '%s' needs more than %d steps on this text of %zu bytes", pattern,
                         REGEX_STEPS_MAX, walk->bytes);
    case PCRE2_ERROR_HEAPLIMIT:
        return error_set(err, STATUS_INVALID,
                         "regex '%s' needs more than %d KiB on this text of %zu bytes", pattern,
                         REGEX_MEMORY_KIB_MAX, walk->bytes);
    case PCRE2_ERROR_CALLOUT:
        return error_set(err, STATUS_INVALID,
                         "regex '%s' needs more than %d ms on this text of %zu bytes", pattern,
                         REGEX_TIME_MS_MAX, walk->bytes);
    case PCRE2_ERROR_NOMEMORY:
        return error_set(err, STATUS_NOMEM, "regex '%s' ran out of memory", pattern);
    default:
        pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof(message));
        return error_set(err, STATUS_INVALID, "regex '%s' failed on this text of %zu bytes: %s",
                         pattern, walk->bytes, message);
    }
}

static size_t character_bytes(const char *text)
{
    uint8_t lead = (uint8_t)*text;
    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

enum status regex_walk_next(struct regex_walk *walk, bool *found, size_t *start, size_t *end,
                            struct error *err)
{
    *found = false;
    while (walk->at <= walk->bytes) {
        int n = pcre2_match(walk->regex->code, (PCRE2_SPTR)walk->text, walk->bytes, walk->at,
                            PCRE2_NO_UTF_CHECK, walk->search->match_data, walk->search->context);
        if (n == PCRE2_ERROR_NOMATCH)
            return STATUS_OK;
        if (n < 0)
            return match_error(walk, n, err);
        const PCRE2_SIZE *place = pcre2_get_ovector_pointer(walk->search->match_data);
        if (place[0] > place[1] || (walk->has_last && place[0] < walk->last_end))
            return error_set(err, STATUS_INVALID, "regex '%s' moves the start of its match (\\K)",
                             walk->regex->pattern);
        if (place[0] == place[1] && walk->has_last && walk->last_end == place[1]) {
            walk->at += walk->at < walk->bytes ? character_bytes(walk->text + walk->at) : 1;
            continue;
        }
        *found = true;
        *start = place[0];
        *end = walk->at = walk->last_end = place[1];
        walk->has_last = true;
        return STATUS_OK;
    }
    return STATUS_OK;
}
