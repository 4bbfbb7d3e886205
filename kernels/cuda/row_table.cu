/*
 * row_table.cu - see row_table.cuh. Built in host memory in three parts (rows, tiles, block lists), sent as one.
 */
#include "kernels/cuda/row_table.cuh"

struct row_table {
    char *host, *sent, *device; /* [CUDA_TABLE_BYTES] the one being made, the one on the device, the device's memory */
    size_t sent_bytes;
    struct row_chunk chunks[ROW_CHUNKS_MAX];
    int n_chunks;
};

enum status row_table_create(struct cuda_device *cuda, struct error *err)
{
    struct row_table *table = (struct row_table *)calloc(1, sizeof(*table));
    cuda->rows = table;
    if (table) {
        table->host = (char *)calloc(1, CUDA_TABLE_BYTES);
        table->sent = (char *)calloc(1, CUDA_TABLE_BYTES);
    }
    if (!table || !table->host || !table->sent)
        return error_set(err, STATUS_NOMEM, "cannot allocate the table of rows");
    return cuda_reserve(cuda, (void **)&table->device, CUDA_TABLE_BYTES, err);
}

void row_table_destroy(struct cuda_device *cuda)
{
    struct row_table *table = cuda->rows;
    if (!table)
        return;
    cuda_release(cuda, table->device, CUDA_TABLE_BYTES);
    free(table->host);
    free(table->sent);
    free(table);
}

/* What is worth a recording: decoding and windows of guesses. Prefills come in too many sizes. */
enum { LIKE_ROWS_MAX = 128, LIKE_TILE_ROWS_MAX = 16, LIKE_SPLITS_MAX = 1 << 12 };

/* n_entries and n_tiles: padded. */
struct sizes {
    size_t n_entries, n_tiles, n_blocks;
    int rows_a_tile;
};

static int blocks_of(const struct kv_segment *segment)
{
    return (segment->start + segment->n_rows + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
}

static struct sizes measure(const struct attention_shape *shape, const struct kv_segment *segments, int n_segments)
{
    int group = shape->n_heads / shape->n_kv_heads;
    struct sizes sizes = {0, 0, 0, group < TILE_QUERIES ? TILE_QUERIES / group : 1};
    for (int i = 0; i < n_segments; i++) {
        sizes.n_entries += (size_t)segments[i].n_rows;
        sizes.n_tiles += blocks_for((size_t)segments[i].n_rows, (size_t)sizes.rows_a_tile);
        sizes.n_blocks += (size_t)blocks_of(&segments[i]);
    }
    sizes.n_entries = (size_t)linear_padded_rows_cuda((int)sizes.n_entries);
    sizes.n_tiles = (size_t)linear_padded_rows_cuda((int)sizes.n_tiles);
    return sizes;
}

struct builder {
    struct row_table *table;
    struct row_entry *entries;
    struct row_tile *tiles;
    int32_t *blocks;
    int n_entries, n_tiles, n_blocks;
    int64_t partials, partials_max; /* of the chunk that is being filled */
    int n_heads;
    bool is_full; /* more chunks than there is room for */
};

/* Begins a new chunk when the tile does not fit the one that is there. */
static struct row_chunk *chunk_for(struct builder *b, int64_t partials, int n_splits)
{
    struct row_table *table = b->table;
    if (table->n_chunks == 0 || b->partials + partials > b->partials_max) {
        b->is_full |= table->n_chunks == ROW_CHUNKS_MAX || partials > b->partials_max;
        table->n_chunks += b->is_full ? 0 : 1;
        if (b->is_full)
            return NULL;
        b->partials = 0;
        struct row_chunk fresh = {b->n_tiles, 0, b->n_entries, 0, 0};
        table->chunks[table->n_chunks - 1] = fresh;
    }
    struct row_chunk *chunk = &table->chunks[table->n_chunks - 1];
    chunk->n_splits = n_splits > chunk->n_splits ? n_splits : chunk->n_splits;
    return chunk;
}

/* Rows [first, first + n) of a segment. */
static void add_tile(struct builder *b, const struct kv_segment *segment, int blocks, int first, int n)
{
    int n_splits = (segment->start + first + n - 1) / KV_SPLIT_TOKENS + 1;
    int64_t partials = (int64_t)n * b->n_heads * n_splits;
    struct row_chunk *chunk = chunk_for(b, partials, n_splits);
    if (!chunk)
        return;
    struct row_tile tile = {b->n_entries, n, segment->start + first, blocks};
    b->tiles[b->n_tiles++] = tile;
    for (int i = 0; i < n; i++) {
        struct row_entry entry = {segment->first_row + first + i, segment->start + first + i, blocks, n_splits,
                                  b->partials + (int64_t)i * b->n_heads * n_splits};
        b->entries[b->n_entries++] = entry;
    }
    b->partials += partials;
    chunk->n_tiles++;
    chunk->n_entries += n;
}

/* Splits up to 4, then fours, then eights from 16 on: blocks of threads that find nothing to do cost little. */
static int padded_splits(int n)
{
    int step = n <= 4 ? 1 : n <= 16 ? 4 : 8;
    return (n + step - 1) / step * step;
}

/* Entries and tiles up to the padded numbers, which do nothing; the last chunk has them. */
static void pad(struct builder *b, const struct sizes *sizes)
{
    struct row_table *table = b->table;
    struct row_chunk *last = &table->chunks[table->n_chunks - 1];
    for (; b->n_tiles < (int)sizes->n_tiles; last->n_tiles++)
        b->tiles[b->n_tiles++] = row_tile{0, 0, 0, 0};
    for (; b->n_entries < (int)sizes->n_entries; last->n_entries++)
        b->entries[b->n_entries++] = row_entry{-1, 0, 0, 0, 0};
    for (int i = 0; i < table->n_chunks; i++)
        table->chunks[i].n_splits = padded_splits(table->chunks[i].n_splits);
}

static uint64_t likeness_of(const struct row_table *table, const struct sizes *sizes)
{
    const int n_splits = table->chunks[0].n_splits;
    if (table->n_chunks != 1 || sizes->n_entries > LIKE_ROWS_MAX ||
        sizes->n_entries > LIKE_TILE_ROWS_MAX * sizes->n_tiles || n_splits >= LIKE_SPLITS_MAX)
        return 0;
    return (uint64_t)sizes->n_entries << 24 | (uint64_t)sizes->n_tiles << 12 | (uint64_t)n_splits;
}

/* Sends the first `bytes` of table->host unless they are there. */
static void send(struct cuda_device *cuda, size_t bytes)
{
    struct row_table *table = cuda->rows;
    if (bytes == table->sent_bytes && memcmp(table->host, table->sent, bytes) == 0)
        return;
    memcpy(table->sent, table->host, bytes);
    table->sent_bytes = bytes;
    cuda_upload(cuda, table->device, table->sent, bytes);
}

enum status row_table_get(struct row_table_view *out, struct cuda_device *cuda, const struct attention_shape *shape,
                          const struct kv_segment *segments, int n_segments)
{
    struct row_table *table = cuda->rows;
    struct sizes sizes = measure(shape, segments, n_segments);
    size_t tiles_at = sizes.n_entries * sizeof(struct row_entry);
    size_t blocks_at = tiles_at + sizes.n_tiles * sizeof(struct row_tile);
    size_t bytes = blocks_at + sizes.n_blocks * sizeof(int32_t);
    memset(out, 0, sizeof(*out));
    if (bytes > CUDA_TABLE_BYTES)
        return STATUS_NOMEM;
    if (n_segments == 0)
        return STATUS_OK;
    struct builder b = {table, (struct row_entry *)table->host, (struct row_tile *)(table->host + tiles_at),
                        (int32_t *)(table->host + blocks_at), 0, 0, 0, 0,
                        (int64_t)(CUDA_PARTIALS_BYTES / sizeof(float) / partial_floats(shape->head_dim)),
                        shape->n_heads, false};
    table->n_chunks = 0;
    for (int i = 0; i < n_segments; i++) {
        const struct kv_segment *s = &segments[i];
        int blocks = b.n_blocks, n = blocks_of(s);
        memcpy(b.blocks + blocks, s->blocks, (size_t)n * sizeof(*s->blocks));
        b.n_blocks += n;
        for (int first = 0; first < s->n_rows; first += sizes.rows_a_tile)
            add_tile(&b, s, blocks, first,
                     s->n_rows - first < sizes.rows_a_tile ? s->n_rows - first : sizes.rows_a_tile);
    }
    if (b.is_full)
        return STATUS_NOMEM;
    pad(&b, &sizes);
    send(cuda, bytes);
    struct row_table_view view = {(const struct row_entry *)table->device,
                                  (const struct row_tile *)(table->device + tiles_at),
                                  (const int32_t *)(table->device + blocks_at), b.n_entries, table->n_chunks,
                                  table->chunks, likeness_of(table, &sizes)};
    *out = view;
    return STATUS_OK;
}

enum status prepare_rows_cuda(struct device *device, uint64_t *likeness, const struct attention_shape *shape,
                              const struct kv_segment *segments, int n_segments)
{
    struct row_table_view view;
    enum status st = row_table_get(&view, cuda_of(device), shape, segments, n_segments);
    *likeness = view.likeness;
    return st;
}
