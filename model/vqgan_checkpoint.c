/*
 * vqgan_checkpoint.c - zip, pickle and sizes put together: a table of state_dict's names, tensors
 * read on demand.
 */
#include "model/vqgan_checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/pickle.h"
#include "model/zip.h"

#define PICKLE_NAME "data.pkl"

enum {
    ENTRY_NAME_BYTES = ZIP_NAME_BYTES_MAX + 16,
    TENSOR_BYTES_MAX = 1 << 30, /* of one tensor as f32 */
    STATE_ENTRIES_MAX = 1 << 17
};

/* All bytes unpacked over the life of a reader: storages that many tensors share must not cost for
 * ever. */
#define UNPACKED_BYTES_MAX ((size_t)8 << 30)

struct state_entry {
    struct pickle_text name;
    pickle_id value;
    size_t place; /* in the dict; of one name the last counts */
};

struct vqgan_checkpoint {
    struct vqgan_config config;
    struct zip *zip;
    struct zip_bytes pickle_bytes;
    struct pickle *pickle;
    char prefix[ZIP_NAME_BYTES_MAX + 1]; /* the archive's one folder */
    char pickle_name[ENTRY_NAME_BYTES];  /* for error texts */
    size_t n_entries;
    struct state_entry *entries; /* [n_entries] by name, each once */
    size_t unpacked_bytes;
};

static int compare_text(struct pickle_text a, struct pickle_text b)
{
    size_t common = a.n_bytes < b.n_bytes ? a.n_bytes : b.n_bytes;
    int order = memcmp(a.bytes, b.bytes, common);
    return order ? order : (a.n_bytes > b.n_bytes) - (a.n_bytes < b.n_bytes);
}

static int by_name_and_place(const void *a, const void *b)
{
    const struct state_entry *x = a, *y = b;
    int order = compare_text(x->name, y->name);
    return order ? order : (x->place > y->place) - (x->place < y->place);
}

static int by_name(const void *a, const void *b)
{
    const struct state_entry *x = a, *y = b;
    return compare_text(x->name, y->name);
}

/* torch puts everything into one folder of the archive, whose name is free. */
static enum status find_prefix(struct vqgan_checkpoint *checkpoint, struct error *err)
{
    const struct zip *zip = checkpoint->zip;
    int n = 0;
    for (size_t i = 0; i < zip_count(zip); i++) {
        const char *name = zip_entry_at(zip, i)->name, *slash = strchr(name, '/');
        if (!slash || strcmp(slash + 1, PICKLE_NAME) != 0)
            continue;
        n++;
        memcpy(checkpoint->prefix, name, (size_t)(slash - name));
        checkpoint->prefix[slash - name] = 0;
    }
    if (n != 1)
        return error_set(err, STATUS_INVALID,
                         "'%s' has %d entries 'NAME/data.pkl', expected 1: no file of torch.save",
                         zip_path(zip), n);
    return STATUS_OK;
}

static const struct zip_entry *find_entry(const struct vqgan_checkpoint *checkpoint,
                                          const char *folder, struct pickle_text key)
{
    char name[ENTRY_NAME_BYTES];
    if (key.n_bytes >= ZIP_NAME_BYTES_MAX || memchr(key.bytes, 0, key.n_bytes))
        return NULL;
    int wrote = snprintf(name, sizeof(name), "%s/%s%.*s", checkpoint->prefix, folder,
                         (int)key.n_bytes, key.bytes);
    return wrote < (int)sizeof(name) ? zip_lookup(checkpoint->zip, name) : NULL;
}

/* Newer files say how their numbers lie; older ones are little endian. */
static enum status check_byte_order(struct vqgan_checkpoint *checkpoint, struct error *err)
{
    const struct zip_entry *entry =
        find_entry(checkpoint, "", (struct pickle_text){"byteorder", 9});
    if (!entry)
        return STATUS_OK;
    struct zip_bytes order;
    enum status st = zip_read(checkpoint->zip, entry, 64, &order, err);
    if (st != STATUS_OK)
        return st;
    if (order.n_bytes != 6 || memcmp(order.bytes, "little", 6) != 0)
        st = error_set(err, STATUS_UNSUPPORTED,
                       "'%s': entry 'byteorder' is '%.*s', expected 'little'",
                       zip_path(checkpoint->zip), (int)order.n_bytes, (const char *)order.bytes);
    zip_bytes_free(&order);
    return st;
}

static enum status parse_pickle(struct vqgan_checkpoint *checkpoint, struct error *err)
{
    const struct zip_entry *entry =
        find_entry(checkpoint, "", (struct pickle_text){PICKLE_NAME, strlen(PICKLE_NAME)});
    snprintf(checkpoint->pickle_name, sizeof(checkpoint->pickle_name), "%.400s: data.pkl",
             zip_path(checkpoint->zip));
    enum status st =
        zip_read(checkpoint->zip, entry, PICKLE_BYTES_MAX, &checkpoint->pickle_bytes, err);
    if (st != STATUS_OK)
        return st;
    return pickle_parse(&checkpoint->pickle, checkpoint->pickle_bytes.bytes,
                        checkpoint->pickle_bytes.n_bytes, checkpoint->pickle_name, err);
}

static enum status find_state(const struct vqgan_checkpoint *checkpoint, pickle_id *state,
                              struct error *err)
{
    const struct pickle *pickle = checkpoint->pickle;
    pickle_id root = pickle_root(pickle);
    if (pickle_kind(pickle, root) != PICKLE_DICT)
        return error_set(err, STATUS_INVALID, "'%s' holds %s, expected a dict with 'state_dict'",
                         checkpoint->pickle_name, pickle_kind_name(pickle_kind(pickle, root)));
    if (!pickle_dict_find(pickle, root, "state_dict", state))
        return error_set(err, STATUS_INVALID, "'%s' has no 'state_dict'", checkpoint->pickle_name);
    if (pickle_kind(pickle, *state) != PICKLE_DICT)
        return error_set(err, STATUS_INVALID, "'%s': 'state_dict' is %s, expected a dict",
                         checkpoint->pickle_name, pickle_kind_name(pickle_kind(pickle, *state)));
    return STATUS_OK;
}

static enum status make_table(struct vqgan_checkpoint *checkpoint, struct error *err)
{
    const struct pickle *pickle = checkpoint->pickle;
    pickle_id state = 0;
    enum status st = find_state(checkpoint, &state, err);
    if (st != STATUS_OK)
        return st;
    size_t n_items = pickle_count(pickle, state);
    if (n_items / 2 > STATE_ENTRIES_MAX)
        return error_set(err, STATUS_INVALID,
                         "'%s': 'state_dict' has %zu entries, expected at most %d",
                         checkpoint->pickle_name, n_items / 2, STATE_ENTRIES_MAX);
    struct state_entry *table = calloc(n_items / 2 + 1, sizeof(*table));
    if (!table)
        return error_set(err, STATUS_NOMEM, "'%s': cannot allocate the table of tensors",
                         checkpoint->pickle_name);
    checkpoint->entries = table;
    size_t n = 0;
    for (size_t i = 0; i + 1 < n_items; i += 2) {
        struct pickle_text name;
        if (pickle_as_text(pickle, pickle_item(pickle, state, i), &name))
            table[n++] = (struct state_entry){name, pickle_item(pickle, state, i + 1), i};
    }
    qsort(table, n, sizeof(*table), by_name_and_place);
    for (size_t i = 0; i < n; i++)
        if (i + 1 == n || by_name(&table[i], &table[i + 1]) != 0)
            table[checkpoint->n_entries++] = table[i];
    return STATUS_OK;
}

/* Takes the archive over, also on error. */
static enum status open_archive(struct vqgan_checkpoint **out, const struct vqgan_config *config,
                                struct zip *zip, struct error *err)
{
    struct vqgan_checkpoint *checkpoint = calloc(1, sizeof(*checkpoint));
    if (!checkpoint) {
        zip_close(zip);
        return error_set(err, STATUS_NOMEM, "cannot allocate the reader of the picture codec");
    }
    checkpoint->config = *config;
    checkpoint->zip = zip;
    enum status st = find_prefix(checkpoint, err);
    if (st == STATUS_OK)
        st = check_byte_order(checkpoint, err);
    if (st == STATUS_OK)
        st = parse_pickle(checkpoint, err);
    if (st == STATUS_OK)
        st = make_table(checkpoint, err);
    if (st != STATUS_OK) {
        vqgan_checkpoint_close(checkpoint);
        return st;
    }
    *out = checkpoint;
    return STATUS_OK;
}

enum status vqgan_checkpoint_open(struct vqgan_checkpoint **out, const char *folder,
                                  struct error *err)
{
    struct vqgan_config config;
    struct zip *zip = NULL;
    char *yaml_path = NULL, *ckpt_path = NULL;
    *out = NULL;
    enum status st = STATUS_OK;
    if (asprintf(&yaml_path, "%s/vqgan.yaml", folder) < 0 ||
        asprintf(&ckpt_path, "%s/vqgan.ckpt", folder) < 0)
        return error_set(err, STATUS_NOMEM, "cannot allocate the paths of '%s'", folder);
    st = vqgan_config_load(&config, yaml_path, err);
    if (st == STATUS_OK)
        st = zip_open(&zip, ckpt_path, err);
    if (st == STATUS_OK)
        st = open_archive(out, &config, zip, err);
    free(yaml_path);
    free(ckpt_path);
    return st;
}

enum status vqgan_checkpoint_open_memory(struct vqgan_checkpoint **out,
                                         const struct vqgan_config *config, const void *ckpt,
                                         size_t n_bytes, const char *name, struct error *err)
{
    struct zip *zip = NULL;
    *out = NULL;
    enum status st = zip_open_memory(&zip, ckpt, n_bytes, name, err);
    return st == STATUS_OK ? open_archive(out, config, zip, err) : st;
}

void vqgan_checkpoint_close(struct vqgan_checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    pickle_destroy(checkpoint->pickle);
    zip_bytes_free(&checkpoint->pickle_bytes);
    zip_close(checkpoint->zip);
    free(checkpoint->entries);
    free(checkpoint);
}

const struct vqgan_config *vqgan_checkpoint_config(const struct vqgan_checkpoint *checkpoint)
{
    return &checkpoint->config;
}

static const struct state_entry *lookup(const struct vqgan_checkpoint *checkpoint, const char *name)
{
    struct state_entry key = {.name = {name, strlen(name)}};
    return bsearch(&key, checkpoint->entries, checkpoint->n_entries, sizeof(key), by_name);
}

bool vqgan_checkpoint_has(const struct vqgan_checkpoint *checkpoint, const char *name)
{
    return lookup(checkpoint, name) != NULL;
}

static enum status check_shape(const struct pickle_tensor *tensor, int rank, const int64_t *shape,
                               struct error *err)
{
    char found[TENSOR_SHAPE_TEXT_BYTES], expected[TENSOR_SHAPE_TEXT_BYTES];
    bool same = tensor->rank == rank;
    for (int i = 0; same && i < rank; i++)
        same = tensor->shape[i] == shape[i];
    if (same)
        return STATUS_OK;
    return error_set(err, STATUS_INVALID, "it is %s, expected %s",
                     tensor_format_shape(found, tensor->rank, tensor->shape),
                     tensor_format_shape(expected, rank, shape));
}

/* The number of elements, and that the last of them lies in the storage. A stride that is never
 * taken becomes 0. */
static enum status check_extent(size_t *n_elements, struct pickle_tensor *tensor, struct error *err)
{
    size_t n = 1;
    int64_t last = tensor->offset;
    bool fits = true;
    for (int i = 0; i < tensor->rank; i++) {
        int64_t reach;
        if (tensor->shape[i] == 1)
            tensor->stride[i] = 0;
        fits &= !__builtin_mul_overflow(n, (size_t)tensor->shape[i], &n) &&
                n <= TENSOR_BYTES_MAX / sizeof(float);
        if (!fits || n == 0)
            break;
        fits = !__builtin_mul_overflow(tensor->shape[i] - 1, tensor->stride[i], &reach) &&
               !__builtin_add_overflow(last, reach, &last);
    }
    if (!fits || (n > 0 && last >= tensor->storage_elements))
        return error_set(err, STATUS_INVALID, "it reaches past its storage of %lld numbers",
                         (long long)tensor->storage_elements);
    *n_elements = n;
    return STATUS_OK;
}

static enum status read_storage(struct vqgan_checkpoint *checkpoint,
                                const struct pickle_tensor *tensor, struct zip_bytes *bytes,
                                struct error *err)
{
    int key_bytes = tensor->storage_key.n_bytes < 40 ? (int)tensor->storage_key.n_bytes : 40;
    if (!tensor->is_supported)
        return error_set(
            err, STATUS_UNSUPPORTED,
            "its storage is a %.*s, expected FloatStorage, HalfStorage or BFloat16Storage",
            tensor->storage_type.n_bytes < 40 ? (int)tensor->storage_type.n_bytes : 40,
            tensor->storage_type.bytes);
    const struct zip_entry *entry = find_entry(checkpoint, "data/", tensor->storage_key);
    if (!entry)
        return error_set(err, STATUS_NOT_FOUND,
                         "the archive has no entry 'data/%.*s' for its storage", key_bytes,
                         tensor->storage_key.bytes);
    if (entry->bytes % dtype_bytes(tensor->dtype) != 0 ||
        entry->bytes / dtype_bytes(tensor->dtype) != (uint64_t)tensor->storage_elements)
        return error_set(err, STATUS_INVALID,
                         "entry '%s' has %zu bytes, expected %lld numbers of %zu bytes",
                         entry->name, entry->bytes, (long long)tensor->storage_elements,
                         dtype_bytes(tensor->dtype));
    if (entry->is_deflated || !entry->is_verified)
        checkpoint->unpacked_bytes += entry->bytes;
    if (checkpoint->unpacked_bytes > UNPACKED_BYTES_MAX)
        return error_set(err, STATUS_INVALID,
                         "the tensors read so far unpacked to more than %zu bytes",
                         UNPACKED_BYTES_MAX);
    return zip_read(checkpoint->zip, entry, entry->bytes, bytes, err);
}

/* One number at any address. */
static float load(const unsigned char *at, enum dtype dtype)
{
    uint32_t bits;
    uint16_t half;
    float value;
    if (dtype == DTYPE_F32) {
        memcpy(&bits, at, sizeof(bits));
        memcpy(&value, &bits, sizeof(value));
        return value;
    }
    memcpy(&half, at, sizeof(half));
    return dtype == DTYPE_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
}

/* Walks the places of the tensor in row-major order; check_extent() has bounded all of them. */
static void gather(float *dst, size_t n, const struct pickle_tensor *tensor,
                   const unsigned char *storage)
{
    int64_t place[TENSOR_RANK_MAX] = {0};
    int64_t element = tensor->offset;
    for (size_t i = 0; i < n; i++) {
        dst[i] = load(storage + (size_t)element * dtype_bytes(tensor->dtype), tensor->dtype);
        for (int axis = tensor->rank - 1; axis >= 0; axis--) {
            element += tensor->stride[axis];
            if (++place[axis] < tensor->shape[axis])
                break;
            element -= tensor->stride[axis] * tensor->shape[axis];
            place[axis] = 0;
        }
    }
}

static enum status check_finite(const float *values, size_t n, struct error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return error_set(err, STATUS_INVALID, "number %zu of %zu is not finite", i, n);
    return STATUS_OK;
}

static enum status read_tensor(struct vqgan_checkpoint *checkpoint, pickle_id value, int rank,
                               const int64_t *shape, float *dst, struct error *err)
{
    struct pickle_tensor tensor;
    struct zip_bytes bytes = {0};
    size_t n = 0;
    enum status st = pickle_as_tensor(checkpoint->pickle, value, &tensor, err);
    if (st == STATUS_OK)
        st = check_shape(&tensor, rank, shape, err);
    if (st == STATUS_OK)
        st = check_extent(&n, &tensor, err);
    if (st == STATUS_OK)
        st = read_storage(checkpoint, &tensor, &bytes, err);
    if (st != STATUS_OK)
        return st;
    gather(dst, n, &tensor, bytes.bytes);
    zip_bytes_free(&bytes);
    return check_finite(dst, n, err);
}

enum status vqgan_checkpoint_read(struct vqgan_checkpoint *checkpoint, const char *name, int rank,
                                  const int64_t *shape, float *dst, struct error *err)
{
    const struct state_entry *entry = lookup(checkpoint, name);
    if (!entry)
        return error_set(err, STATUS_NOT_FOUND, "'%s': 'state_dict' has no tensor '%s'",
                         zip_path(checkpoint->zip), name);
    enum status st = read_tensor(checkpoint, entry->value, rank, shape, dst, err);
    if (st != STATUS_OK)
        error_wrap(err, st, "'%s': tensor '%s'", zip_path(checkpoint->zip), name);
    return st;
}

size_t vqgan_checkpoint_count(const struct vqgan_checkpoint *checkpoint)
{
    return checkpoint->n_entries;
}
