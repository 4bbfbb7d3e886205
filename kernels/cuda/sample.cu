/*
 * sample.cu - draws: a block a request, the functions of kernels/sample.c with the same bits.
 *
 * Logits after guidance are made anew in every pass (they are read from the cache), so nothing as long as a vocabulary
 * is stored. The k-th largest is found by counting digits of 11 bits; the noise is computed for what is kept.
 * Built without fused products, as everything that shall give the CPU's bits.
 */
#include "kernels/cuda/cuda.cuh"

#include <math.h>
#include <stdlib.h>

#define GUMBEL_F64 double
#define GUMBEL_U64 uint64_t
#define GUMBEL_INLINE static __device__ __forceinline__
#include "kernels/gumbel_formula.h"

enum {
    SAMPLE_THREADS = 512,
    SAMPLE_WARPS = SAMPLE_THREADS / LANES,
    DIGIT_BITS = 11,
    N_DIGITS = 1 << DIGIT_BITS,
    DIGITS_A_THREAD = N_DIGITS / SAMPLE_THREADS,
    DRAWS_MAX = 1024, /* requests of a launch */
    TABLE_BYTES = 2 << 20
};

/* A request as the kernel reads it; all pointers are device memory. */
struct draw {
    const float *logits, *unconditional;
    const uint8_t *allowed;
    const int32_t *listed, *forbidden;
    int32_t first_id, n_candidates, n_forbidden, top_k;
    float guidance, temperature;
    struct gumbel_place place;
};

/* Requests of one launch, and behind them their lists, as they are sent in one piece. */
struct sample_table {
    char *host, *device;           /* [TABLE_BYTES] */
    struct sample_result *results; /* device [DRAWS_MAX] */
};

/* ---- the kernel ---- */

struct best {
    double value;
    int32_t id;
};

struct shared_state {
    union {
        uint32_t counts[N_DIGITS];
        struct best bests[SAMPLE_THREADS];
    };
    int32_t warp_sums[SAMPLE_WARPS];
    int32_t n_allowed, first_nan; /* the place of the first NaN, or n_candidates */
    uint32_t digit;
    int32_t rank; /* of the wanted one within the digit, from 1 */
};

static __device__ bool is_forbidden(const struct draw &d, int32_t id)
{
    int low = 0, high = d.n_forbidden;
    while (low < high) {
        int middle = (low + high) / 2;
        if (d.forbidden[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < d.n_forbidden && d.forbidden[low] == id;
}

/* Candidate j: false when it is not allowed. Adding zero turns the negative zero into the other. */
static __device__ __forceinline__ bool candidate(const struct draw &d, int j, float *logit, int32_t *id)
{
    *id = d.listed ? d.listed[j] : d.first_id + j;
    int i = *id - d.first_id;
    if (d.allowed && !d.allowed[i])
        return false;
    if (d.n_forbidden && is_forbidden(d, *id))
        return false;
    float l = d.logits[i];
    if (d.unconditional) {
        float u = d.unconditional[i];
        l = u + d.guidance * (l - u);
    }
    *logit = l + 0.0f;
    return true;
}

/* take(j, logit, id) for this thread's share of the allowed candidates, in rising order. */
template <class Take> static __device__ __forceinline__ void each_candidate(const struct draw &d, Take take)
{
    for (int j = (int)threadIdx.x; j < d.n_candidates; j += SAMPLE_THREADS) {
        float logit;
        int32_t id;
        if (candidate(d, j, &logit, &id))
            take(j, logit, id);
    }
}

/* Whole numbers in the order of the floats. */
static __device__ __forceinline__ uint32_t order_key(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

/* Counts the allowed ones and finds the first NaN. */
static __device__ void survey(const struct draw &d, struct shared_state *s)
{
    int n = 0, first_nan = d.n_candidates;
    if (threadIdx.x == 0) {
        s->n_allowed = 0;
        s->first_nan = d.n_candidates;
    }
    __syncthreads();
    each_candidate(d, [&](int j, float logit, int32_t) {
        n++;
        if (isnan(logit) && j < first_nan)
            first_nan = j;
    });
    if (n)
        atomicAdd(&s->n_allowed, n);
    if (first_nan < d.n_candidates)
        atomicMin(&s->first_nan, first_nan);
    __syncthreads();
}

/* The sum of x over the threads before this one. */
static __device__ int sum_before(int x, struct shared_state *s)
{
    const int lane = (int)threadIdx.x % LANES, warp = (int)threadIdx.x / LANES;
    int sum = x;
    for (int distance = 1; distance < LANES; distance *= 2) {
        int other = __shfl_sync(0xffffffffu, sum, lane >= distance ? lane - distance : lane);
        sum += lane >= distance ? other : 0;
    }
    if (lane == LANES - 1)
        s->warp_sums[warp] = sum;
    __syncthreads();
    for (int i = 0; i < warp; i++)
        sum += s->warp_sums[i];
    return sum - x;
}

/* Counts the digit at `shift` of the keys that agree with `prefix` from bit `known` on; then s->digit holds the
 * one of rank k from above, and s->rank its rank among them. */
static __device__ void find_digit(const struct draw &d, struct shared_state *s, uint32_t prefix, int known, int shift,
                                  int k)
{
    for (int i = (int)threadIdx.x; i < N_DIGITS; i += SAMPLE_THREADS)
        s->counts[i] = 0;
    __syncthreads();
    each_candidate(d, [&](int, float logit, int32_t) {
        uint32_t key = order_key(logit);
        if ((uint64_t)(key ^ prefix) >> known == 0)
            atomicAdd(&s->counts[key >> shift & (N_DIGITS - 1)], 1u);
    });
    __syncthreads();
    const int highest = N_DIGITS - 1 - (int)threadIdx.x * DIGITS_A_THREAD;
    int mine = 0;
    for (int i = 0; i < DIGITS_A_THREAD; i++)
        mine += (int)s->counts[highest - i];
    int before = sum_before(mine, s);
    for (int i = 0; i < DIGITS_A_THREAD; i++) {
        int here = (int)s->counts[highest - i];
        if (before < k && k <= before + here) {
            s->digit = (uint32_t)(highest - i);
            s->rank = k - before;
        }
        before += here;
    }
    __syncthreads();
}

/* The key of the k-th largest. */
static __device__ uint32_t kth_key(const struct draw &d, struct shared_state *s, int k)
{
    uint32_t prefix = 0;
    for (int known = 32; known > 0;) {
        int shift = known > DIGIT_BITS ? known - DIGIT_BITS : 0;
        find_digit(d, s, prefix, known, shift, k);
        prefix |= s->digit << shift;
        k = s->rank;
        known = shift;
        __syncthreads(); /* before the next digit is written */
    }
    return prefix;
}

static __device__ __forceinline__ void offer(struct best *best, double value, int32_t id)
{
    if (value > best->value || (value == best->value && id < best->id)) {
        best->value = value;
        best->id = id;
    }
}

/* Of the candidates from key `least` on the one with the largest logit, or logit / temperature + noise. */
static __device__ struct best find_best(const struct draw &d, struct shared_state *s, uint32_t least)
{
    struct best mine = {-INFINITY, INT32_MAX};
    each_candidate(d, [&](int, float logit, int32_t id) {
        if (order_key(logit) < least)
            return;
        double value = (double)logit;
        if (d.temperature != 0)
            value = value / (double)d.temperature + gumbel_noise((uint64_t)(uint32_t)id, &d.place);
        offer(&mine, value, id);
    });
    s->bests[threadIdx.x] = mine;
    for (int half = SAMPLE_THREADS / 2; half; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half)
            offer(&s->bests[threadIdx.x], s->bests[threadIdx.x + half].value, s->bests[threadIdx.x + half].id);
    }
    return s->bests[0]; /* for thread 0 */
}

static __global__ void __launch_bounds__(SAMPLE_THREADS)
    sample_kernel(struct sample_result *results, const struct draw *draws)
{
    DYNAMIC_SHARED(shared);
    struct shared_state *s = (struct shared_state *)shared;
    const struct draw d = draws[blockIdx.x];
    struct sample_result result = {SAMPLE_OK, 0};
    survey(d, s);
    if (s->first_nan < d.n_candidates) {
        result.outcome = SAMPLE_NAN;
        result.id = d.listed ? d.listed[s->first_nan] : d.first_id + s->first_nan;
    } else {
        bool is_cut = d.temperature != 0 && d.top_k >= 1 && d.top_k < s->n_allowed;
        uint32_t least = is_cut ? kth_key(d, s, d.top_k) : 0;
        struct best best = find_best(d, s, least);
        result.outcome = best.value == -INFINITY ? SAMPLE_NONE : SAMPLE_OK;
        result.id = best.id;
    }
    if (threadIdx.x == 0)
        results[blockIdx.x] = result;
}

/* ---- the table ---- */

enum status sample_table_create(struct cuda_device *cuda, struct error *err)
{
    struct sample_table *table = (struct sample_table *)calloc(1, sizeof(*table));
    cuda->draws = table;
    if (table)
        table->host = (char *)calloc(1, TABLE_BYTES);
    if (!table || !table->host)
        return error_set(err, STATUS_NOMEM, "cannot allocate the table of draws");
    enum status st = cuda_reserve(cuda, (void **)&table->device, TABLE_BYTES, err);
    if (st == STATUS_OK)
        st = cuda_reserve(cuda, (void **)&table->results, DRAWS_MAX * sizeof(*table->results), err);
    return st;
}

void sample_table_destroy(struct cuda_device *cuda)
{
    if (!cuda->draws)
        return;
    cuda_release(cuda, cuda->draws->device, TABLE_BYTES);
    cuda_release(cuda, cuda->draws->results, DRAWS_MAX * sizeof(*cuda->draws->results));
    free(cuda->draws->host);
    free(cuda->draws);
}

/* A list's place in the table; ids: host memory. */
static const int32_t *put_list(struct sample_table *table, size_t *at, const int32_t *ids, int n)
{
    size_t place = *at, bytes = (size_t)n * sizeof(*ids);
    if (n == 0)
        return NULL;
    memcpy(table->host + place, ids, bytes);
    *at += bytes;
    return (const int32_t *)(table->device + place);
}

/* A request into the table, its lists from *at on; false where they do not fit. */
static bool put_draw(struct sample_table *table, int index, size_t *at, const struct sample_request *r)
{
    int n_listed = r->listed ? r->n_listed : 0;
    if (*at + ((size_t)n_listed + (size_t)r->n_forbidden) * sizeof(int32_t) > TABLE_BYTES)
        return false;
    struct draw draw = {r->logits,
                        r->unconditional,
                        r->allowed,
                        put_list(table, at, r->listed, n_listed),
                        put_list(table, at, r->forbidden, r->n_forbidden),
                        r->first_id,
                        r->listed ? n_listed : r->n,
                        r->n_forbidden,
                        r->top_k,
                        r->guidance,
                        r->temperature,
                        {{(uint32_t)r->seed, (uint32_t)(r->seed >> 32)},
                         r->ordinal,
                         r->picture_index,
                         SAMPLE_DOMAIN_TOKEN}};
    ((struct draw *)table->host)[index] = draw;
    return true;
}

/* The draws that are in the table: sent, made, fetched. */
static enum status run_table(struct cuda_device *cuda, struct sample_result *results, int n, size_t bytes)
{
    struct sample_table *table = cuda->draws;
    cuda_upload(cuda, table->device, table->host, bytes);
    LAUNCH(sample_kernel, dim3((unsigned)n), dim3(SAMPLE_THREADS), sizeof(struct shared_state), cuda->stream,
           table->results, (const struct draw *)table->device);
    cuda_launched(cuda, "sample");
    cuda_download(cuda, results, table->results, (size_t)n * sizeof(*results));
    return cuda->failure == cudaSuccess ? STATUS_OK : STATUS_INTERNAL;
}

enum status sample_cuda(struct device *device, struct sample_result *results, const struct sample_request *requests,
                        int n_requests)
{
    struct cuda_device *cuda = cuda_of(device);
    for (int first = 0; first < n_requests;) {
        int n = 0, n_max = n_requests - first < DRAWS_MAX ? n_requests - first : DRAWS_MAX;
        size_t at = (size_t)n_max * sizeof(struct draw);
        while (n < n_max && put_draw(cuda->draws, n, &at, &requests[first + n]))
            n++;
        if (n == 0)
            return STATUS_NOMEM;
        enum status st = run_table(cuda, results + first, n, at);
        if (st != STATUS_OK)
            return st;
        first += n;
    }
    return STATUS_OK;
}
