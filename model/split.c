/*
 * split.c - the five behaviours of HF's Split, over one word at a time.
 */
#include "model/split.h"

#include <stdlib.h>
#include <string.h>

int split_parse_behavior(const char *name)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i]) == 0)
            return (int)i;
    return -1;
}

void words_fini(struct words *words)
{
    text_buffer_fini(&words->text);
    free(words->spans);
    *words = (struct words){0};
}

enum status words_push(struct words *words, uint32_t start, uint32_t end, struct error *err)
{
    if (words->n == words->capacity) {
        size_t capacity = words->capacity ? words->capacity * 2 : 64;
        struct span *spans = reallocarray(words->spans, capacity, sizeof(*spans));
        if (!spans)
            return error_set(err, STATUS_NOMEM, "cannot allocate a list of %zu words", capacity);
        words->spans = spans;
        words->capacity = capacity;
    }
    words->spans[words->n++] = (struct span){.start = start, .end = end};
    return STATUS_OK;
}

/* The parts of one word as they come, matches and gaps in turn, and what the behaviour makes of
 * them. */
struct cut {
    struct words *out;
    enum split_behavior behavior;
    bool invert;
    size_t first;      /* index in out of this word's first part */
    bool last_matched; /* the newest part was a match */
    bool open;         /* MERGED_WITH_NEXT: a match waits for the part behind it */
    uint32_t open_start;
};

static enum status widen_last(struct cut *cut, uint32_t start, uint32_t end, struct error *err)
{
    if (cut->out->n == cut->first)
        return words_push(cut->out, start, end, err);
    cut->out->spans[cut->out->n - 1].end = end;
    return STATUS_OK;
}

/* A match goes to the part behind it, unless that is a match too. */
static enum status merge_with_next(struct cut *cut, uint32_t start, uint32_t end, bool matched,
                                   struct error *err)
{
    enum status st = STATUS_OK;
    if (!matched) {
        st = words_push(cut->out, cut->open ? cut->open_start : start, end, err);
        cut->open = false;
        return st;
    }
    if (cut->open)
        st = words_push(cut->out, cut->open_start, start, err);
    cut->open = true;
    cut->open_start = start;
    return st;
}

static enum status take_part(struct cut *cut, uint32_t start, uint32_t end, bool matched,
                             struct error *err)
{
    matched = matched != cut->invert;
    bool last_matched = cut->last_matched;
    cut->last_matched = matched;
    switch (cut->behavior) {
    case SPLIT_REMOVED:
        return matched ? STATUS_OK : words_push(cut->out, start, end, err);
    case SPLIT_ISOLATED:
        return words_push(cut->out, start, end, err);
    case SPLIT_MERGED_WITH_PREVIOUS:
        return matched && !last_matched ? widen_last(cut, start, end, err)
                                        : words_push(cut->out, start, end, err);
    case SPLIT_MERGED_WITH_NEXT:
        return merge_with_next(cut, start, end, matched, err);
    case SPLIT_CONTIGUOUS:
        return matched == last_matched ? widen_last(cut, start, end, err)
                                       : words_push(cut->out, start, end, err);
    }
    return STATUS_INTERNAL;
}

/* Empty parts (from empty matches) steer the behaviours and are dropped at the end, as HF does it.
 */
static void drop_empty(struct words *words, size_t first)
{
    size_t n = first;
    for (size_t i = first; i < words->n; i++)
        if (words->spans[i].start < words->spans[i].end)
            words->spans[n++] = words->spans[i];
    words->n = n;
}

enum status split_word(struct words *out, const char *text, struct span piece,
                       const struct regex *regex, enum split_behavior behavior, bool invert,
                       struct regex_search *search, struct error *err)
{
    struct cut cut = {.out = out, .behavior = behavior, .invert = invert, .first = out->n};
    struct regex_walk walk = {.regex = regex,
                              .search = search,
                              .text = text + piece.start,
                              .bytes = piece.end - piece.start};
    uint32_t done = piece.start;
    for (;;) {
        bool found;
        size_t start, end;
        enum status st = regex_walk_next(&walk, &found, &start, &end, err);
        if (st == STATUS_OK && found && piece.start + start > done)
            st = take_part(&cut, done, (uint32_t)(piece.start + start), false, err);
        if (st != STATUS_OK)
            return st;
        if (!found)
            break;
        done = (uint32_t)(piece.start + end);
        st = take_part(&cut, (uint32_t)(piece.start + start), done, true, err);
        if (st != STATUS_OK)
            return st;
    }
    enum status st = STATUS_OK;
    if (done < piece.end)
        st = take_part(&cut, done, piece.end, false, err);
    if (st == STATUS_OK && cut.open)
        st = words_push(out, cut.open_start, piece.end, err);
    if (st == STATUS_OK)
        drop_empty(out, cut.first);
    return st;
}
