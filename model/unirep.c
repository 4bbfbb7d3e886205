/*
 * unirep.c - the grammar of pictures, token by token; whole pictures rest on it too.
 */
#include "model/unirep.h"

#include "base/check.h"

void unirep_init(struct unirep *u, const struct vocabulary *vocabulary)
{
    *u = (struct unirep){.vocabulary = vocabulary, .next = UNIREP_TEXT};
}

int64_t unirep_length(struct picture_size size)
{
    int64_t rows = size.height / UNIREP_PATCH_PIXELS;
    int64_t columns = size.width / UNIREP_PATCH_PIXELS;
    return rows * (columns + 1) + UNIREP_FRAME_TOKENS;
}

int64_t unirep_n_codes(struct picture_size size)
{
    return (int64_t)(size.height / UNIREP_PATCH_PIXELS) * (size.width / UNIREP_PATCH_PIXELS);
}

/* The length a picture will have, given the tokens so far and a candidate for the next one. */
static int64_t length_with(const struct unirep *u, int pixels)
{
    struct picture_size size = {.width = VOCABULARY_SIZE_PIXELS, .height = pixels};
    if (u->next == UNIREP_WIDTH)
        size = (struct picture_size){.width = pixels, .height = u->height};
    return unirep_length(size);
}

int unirep_list_sizes(const struct unirep *u, int64_t n_left, int side_max, int32_t *ids)
{
    if (u->next != UNIREP_HEIGHT && u->next != UNIREP_WIDTH)
        return 0;
    int n = 0;
    for (int i = 1; i <= u->vocabulary->n_sizes; i++) {
        int pixels = i * VOCABULARY_SIZE_PIXELS;
        bool fits = length_with(u, pixels) - u->n_picture_tokens <= n_left;
        if (!fits || (side_max > 0 && pixels > side_max))
            break;
        ids[n++] = u->vocabulary->size_to_id[i];
    }
    return n;
}

bool unirep_may_open(const struct unirep *u, int64_t n_left)
{
    return u->next == UNIREP_TEXT && n_left >= UNIREP_TOKENS_MIN;
}

/* Where the next token stands in a picture of known size. */
static enum unirep_next next_inside(const struct unirep *u)
{
    int columns = u->width / UNIREP_PATCH_PIXELS;
    int64_t n = u->n_picture_tokens - (UNIREP_FRAME_TOKENS - 1);
    bool all_rows = n == (int64_t)(columns + 1) * (u->height / UNIREP_PATCH_PIXELS);
    return all_rows || n % (columns + 1) == columns ? UNIREP_FORCED : UNIREP_CODE;
}

int64_t unirep_tokens_left(const struct unirep *u)
{
    if (u->n_picture_tokens == 0)
        return 0;
    if (u->width == 0)
        return -1;
    struct picture_size size = {.width = u->width, .height = u->height};
    return unirep_length(size) - u->n_picture_tokens;
}

int32_t unirep_forced(const struct unirep *u)
{
    if (u->next != UNIREP_FORCED)
        return -1;
    return unirep_tokens_left(u) == 1 ? u->vocabulary->image_end : u->vocabulary->new_line;
}

static enum status push_size(struct unirep *u, int32_t id, struct error *err)
{
    int pixels = vocabulary_size_pixels(u->vocabulary, id);
    bool height = u->next == UNIREP_HEIGHT;
    if (pixels == 0)
        return error_set(err, STATUS_INVALID, "token %d at the %s of a picture is no size token",
                         id, height ? "height" : "width");
    if (height) {
        u->height = pixels;
        u->next = UNIREP_WIDTH;
    } else {
        u->width = pixels;
        u->next = UNIREP_CODE;
    }
    u->n_picture_tokens++;
    return STATUS_OK;
}

static enum status push_forced(struct unirep *u, int32_t id, struct error *err)
{
    int32_t forced = unirep_forced(u);
    if (id != forced)
        return error_set(err, STATUS_INVALID, "token %d in a picture, expected %d (%s)", id, forced,
                         forced == u->vocabulary->image_end ? "its end" : "the end of a row");
    u->n_picture_tokens++;
    if (id != u->vocabulary->image_end) {
        u->next = next_inside(u);
        return STATUS_OK;
    }
    u->next = UNIREP_TEXT;
    u->height = u->width = u->n_picture_tokens = 0;
    u->n_pictures++;
    return STATUS_OK;
}

enum status unirep_push(struct unirep *u, int32_t id, struct error *err)
{
    switch (u->next) {
    case UNIREP_TEXT:
        if (id == u->vocabulary->image_start) {
            u->next = UNIREP_HEIGHT;
            u->n_picture_tokens = 1;
        }
        return STATUS_OK;
    case UNIREP_HEIGHT:
    case UNIREP_WIDTH:
        return push_size(u, id, err);
    case UNIREP_CODE:
        if (vocabulary_code(u->vocabulary, id) < 0)
            return error_set(err, STATUS_INVALID, "token %d in a picture is no picture code", id);
        u->n_picture_tokens++;
        u->next = next_inside(u);
        return STATUS_OK;
    case UNIREP_FORCED:
        return push_forced(u, id, err);
    }
    CHECK(!"a state the machine has");
    return STATUS_INTERNAL;
}

enum status unirep_check_size(const struct vocabulary *v, struct picture_size size,
                              struct error *err)
{
    const struct {
        const char *name;
        int pixels;
    } sides[] = {{"width", size.width}, {"height", size.height}};
    for (int i = 0; i < 2; i++)
        if (vocabulary_size_id(v, sides[i].pixels) < 0)
            return error_set(err, STATUS_INVALID,
                             "a picture of %dx%d: %s must be a multiple of %d from %d to %d",
                             size.width, size.height, sides[i].name, VOCABULARY_SIZE_PIXELS,
                             VOCABULARY_SIZE_PIXELS, v->n_sizes * VOCABULARY_SIZE_PIXELS);
    return STATUS_OK;
}

enum status unirep_build_opening(const struct vocabulary *v, struct picture_size size,
                                 struct ids *out, struct error *err)
{
    enum status st = unirep_check_size(v, size, err);
    if (st != STATUS_OK)
        return st;
    int32_t opening[] = {v->image_start, vocabulary_size_id(v, size.height),
                         vocabulary_size_id(v, size.width)};
    return ids_append(out, opening, sizeof(opening) / sizeof(opening[0]), err);
}

enum status unirep_build(const struct vocabulary *v, struct picture_size size, const int32_t *codes,
                         struct ids *out, struct error *err)
{
    size_t n_before = out->n;
    enum status st = unirep_build_opening(v, size, out, err);
    int columns = size.width / UNIREP_PATCH_PIXELS;
    int64_t n_codes = st == STATUS_OK ? unirep_n_codes(size) : 0;
    for (int64_t i = 0; i < n_codes && st == STATUS_OK; i++) {
        if (codes[i] < 0 || codes[i] >= v->n_codes)
            st = error_set(err, STATUS_INVALID, "picture code %d at place %lld, expected 0 to %d",
                           codes[i], (long long)i, v->n_codes - 1);
        else
            st = ids_push(out, v->code_to_id[codes[i]], err);
        if (st == STATUS_OK && (i + 1) % columns == 0)
            st = ids_push(out, v->new_line, err);
    }
    if (st == STATUS_OK)
        st = ids_push(out, v->image_end, err);
    if (st != STATUS_OK)
        out->n = n_before;
    return st;
}

/* Pushes the tokens of one picture, start at ids[0], and collects its codes. *n_used: index behind
 * the end token. */
static enum status parse_from_start(struct unirep *u, const int32_t *ids, size_t n,
                                    struct picture_size *size, struct ids *codes, size_t *n_used,
                                    struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        bool is_code = u->next == UNIREP_CODE;
        enum status st = unirep_push(u, ids[i], err);
        if (st == STATUS_OK && is_code)
            st = ids_push(codes, vocabulary_code(u->vocabulary, ids[i]), err);
        if (st != STATUS_OK)
            return error_wrap(err, st, "token %zu of the picture", i);
        if (u->width)
            *size = (struct picture_size){.width = u->width, .height = u->height};
        if (u->n_pictures) {
            *n_used = i + 1;
            return STATUS_OK;
        }
    }
    return error_set(err, STATUS_INVALID, "the picture ends after %zu of its tokens", n);
}

enum status unirep_parse(const struct vocabulary *v, const int32_t *ids, size_t n,
                         struct picture_size *size, struct ids *codes, size_t *n_used,
                         struct error *err)
{
    size_t start = 0;
    while (start < n && ids[start] != v->image_start)
        start++;
    if (start == n)
        return error_set(err, STATUS_NOT_FOUND,
                         "no picture in %zu ids: expected the start token %d", n, v->image_start);
    struct unirep u;
    unirep_init(&u, v);
    size_t n_before = codes->n;
    size_t used = 0;
    enum status st = parse_from_start(&u, ids + start, n - start, size, codes, &used, err);
    if (st != STATUS_OK)
        codes->n = n_before;
    else if (n_used)
        *n_used = start + used;
    return st;
}
