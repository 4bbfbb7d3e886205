/*
 * linear_plan.cu - choosing an algorithm for a shape of weights, and the test that it has to pass.
 *
 * cuBLASLt sees columns: Y^T [n_out, n_rows] = W X^T with W^T [n_in, n_out] and X^T [n_in, n_rows], none of it moved.
 * The heuristic is asked once, for PLAN_ROWS rows. Each proposal in its order multiplies noise with every number of rows
 * that a product may have and with rows at different places, and the first one is taken that gives a row the same bits
 * each time; so equal devices with equal libraries choose alike, whatever else runs on them. None: the device is
 * refused. Reductions among blocks are allowed in f32 through the workspace alone, where their order is fixed.
 */
#include "kernels/cuda/linear_plan.cuh"

enum {
    PLANS_MAX = 64,
    PROPOSALS_MAX = 32,
    PLAN_ROWS = 64, /* what algorithms are proposed for: as many as 32 guided requests have */
    TEST_THREADS = 256,
    TEST_BLOCKS_MAX = 128, /* of a comparison: its threads go on where there is more */
    LIBRARY_ALIGNMENT = 256 /* of matrices, what the heuristic takes for granted */
};

struct linear_plans {
    struct linear_plan plans[PLANS_MAX];
    int n;
};

enum status linear_plans_create(struct cuda_device *cuda, struct error *err)
{
    cuda->plans = (struct linear_plans *)calloc(1, sizeof(*cuda->plans));
    return cuda->plans ? STATUS_OK : error_set(err, STATUS_NOMEM, "cannot allocate the list of products");
}

static void fini_plan(struct linear_plan *plan)
{
    if (plan->product)
        cublasLtMatmulDescDestroy(plan->product);
    if (plan->weight)
        cublasLtMatrixLayoutDestroy(plan->weight);
    for (int i = 0; i < LINEAR_BUCKETS; i++) {
        if (plan->layouts[i].x)
            cublasLtMatrixLayoutDestroy(plan->layouts[i].x);
        if (plan->layouts[i].y)
            cublasLtMatrixLayoutDestroy(plan->layouts[i].y);
    }
}

void linear_plans_destroy(struct cuda_device *cuda)
{
    for (int i = 0; cuda->plans && i < cuda->plans->n; i++)
        fini_plan(&cuda->plans->plans[i]);
    free(cuda->plans);
}

const struct linear_plan *linear_plan_find(const struct cuda_device *cuda, const struct linear_shape *shape)
{
    for (int i = 0; i < cuda->plans->n; i++) {
        const struct linear_shape *found = &cuda->plans->plans[i].shape;
        if (found->n_out == shape->n_out && found->n_in == shape->n_in && found->dtype == shape->dtype &&
            found->y_dtype == shape->y_dtype)
            return &cuda->plans->plans[i];
    }
    return NULL;
}

static cudaDataType_t blas_type(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

static cublasStatus_t init_plan(struct linear_plan *plan)
{
    const struct linear_shape *s = &plan->shape;
    const int32_t transposed = CUBLAS_OP_T, plain = CUBLAS_OP_N;
    cublasStatus_t status = cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                                sizeof(transposed));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSB, &plain, sizeof(plain));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&plan->weight, blas_type(s->dtype), (uint64_t)s->n_in, (uint64_t)s->n_out,
                                            s->n_in);
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < LINEAR_BUCKETS; i++) {
        const uint64_t n_rows = 2u << i;
        status = cublasLtMatrixLayoutCreate(&plan->layouts[i].x, blas_type(s->dtype), (uint64_t)s->n_in, n_rows, s->n_in);
        if (status == CUBLAS_STATUS_SUCCESS)
            status = cublasLtMatrixLayoutCreate(&plan->layouts[i].y, blas_type(s->y_dtype), (uint64_t)s->n_out, n_rows,
                                                s->n_out);
    }
    return status;
}

cublasStatus_t linear_plan_run(struct cuda_device *cuda, const struct linear_plan *plan, void *y, const void *x,
                               const void *matrix, int bucket, bool add)
{
    const struct linear_layouts *layouts = &plan->layouts[bucket];
    const float one = 1, beta = add ? 1.0f : 0.0f;
    return cublasLtMatmul(cuda->blas, plan->product, &one, matrix, plan->weight, x, layouts->x, &beta, y, layouts->y, y,
                          layouts->y, &plan->algorithm, cuda->blas_workspace, plan->workspace_bytes, cuda->stream);
}

/* Algorithms for PLAN_ROWS rows, best first; none is no error. */
static int propose(struct cuda_device *cuda, const struct linear_plan *plan, cublasLtMatmulHeuristicResult_t *proposals)
{
    cublasLtMatmulPreference_t preference;
    const struct linear_layouts *layouts = plan->layouts;
    const size_t workspace_bytes = CUDA_BLAS_WORKSPACE_BYTES;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    int n = 0;
    while (2 << (layouts - plan->layouts) < PLAN_ROWS)
        layouts++;
    if (cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS)
        return 0;
    cublasStatus_t status = cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes, sizeof(workspace_bytes));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                      &reductions, sizeof(reductions));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulAlgoGetHeuristic(cuda->blas, plan->product, plan->weight, layouts->x, layouts->y,
                                                layouts->y, preference, PROPOSALS_MAX, proposals, &n);
    cublasLtMatmulPreferenceDestroy(preference);
    return status == CUBLAS_STATUS_SUCCESS ? n : 0;
}

/* ---- the test ---- */

template <class T> static __global__ void __launch_bounds__(TEST_THREADS) noise_kernel(T *out, size_t n)
{
    size_t i = (size_t)blockIdx.x * TEST_THREADS + threadIdx.x;
    if (i >= n)
        return;
    uint32_t z = (uint32_t)i * 0x9e3779b9u + 0x7f4a7c15u;
    z = (z ^ z >> 16) * 0x85ebca6bu;
    z = (z ^ z >> 13) * 0xc2b2ae35u;
    from_f32(&out[i], (float)(int32_t)(z ^ z >> 16) * (1.0f / 2147483648.0f));
}

enum status linear_fill_noise(struct cuda_device *cuda, void *out, enum dtype dtype, size_t n)
{
    dim3 grid(blocks_for(n, TEST_THREADS));
    if (dtype == DTYPE_F32)
        LAUNCH(noise_kernel<float>, grid, dim3(TEST_THREADS), 0, cuda->stream, (float *)out, n);
    else
        LAUNCH(noise_kernel<__nv_bfloat16>, grid, dim3(TEST_THREADS), 0, cuda->stream, (__nv_bfloat16 *)out, n);
    return cuda_launched(cuda, "noise for the test of products");
}

/* *differ = 1 where the bits differ; all threads that write, write the same. */
template <class Word>
static __global__ void __launch_bounds__(TEST_THREADS)
    compare_kernel(int32_t *differ, const Word *a, const Word *b, size_t n)
{
    bool is_equal = true;
    for (size_t i = (size_t)blockIdx.x * TEST_THREADS + threadIdx.x; i < n; i += (size_t)gridDim.x * TEST_THREADS)
        is_equal &= a[i] == b[i];
    if (!is_equal)
        *differ = 1;
}

/* Memory of a test, device. */
struct invariance {
    char *x;     /* [LINEAR_ROWS_MAX, n_in] noise */
    char *whole; /* [LINEAR_ROWS_MAX, n_out] the product with all of it */
    char *part;  /* [LINEAR_ROWS_MAX, n_out] the product with some rows of it */
    int32_t *differ;
    size_t x_row_bytes, y_row_bytes;
};

static void end_test(struct cuda_device *cuda, struct invariance *test)
{
    cuda_release(cuda, test->x, LINEAR_ROWS_MAX * test->x_row_bytes);
    cuda_release(cuda, test->whole, LINEAR_ROWS_MAX * test->y_row_bytes);
    cuda_release(cuda, test->part, LINEAR_ROWS_MAX * test->y_row_bytes);
    cuda_release(cuda, test->differ, sizeof(*test->differ));
}

static enum status begin_test(struct invariance *test, struct cuda_device *cuda, const struct linear_shape *shape,
                              struct error *err)
{
    memset(test, 0, sizeof(*test));
    test->x_row_bytes = (size_t)shape->n_in * dtype_bytes(shape->dtype);
    test->y_row_bytes = (size_t)shape->n_out * dtype_bytes(shape->y_dtype);
    enum status st = cuda_reserve(cuda, (void **)&test->x, LINEAR_ROWS_MAX * test->x_row_bytes, err);
    if (st == STATUS_OK)
        st = cuda_reserve(cuda, (void **)&test->whole, LINEAR_ROWS_MAX * test->y_row_bytes, err);
    if (st == STATUS_OK)
        st = cuda_reserve(cuda, (void **)&test->part, LINEAR_ROWS_MAX * test->y_row_bytes, err);
    if (st == STATUS_OK)
        st = cuda_reserve(cuda, (void **)&test->differ, sizeof(*test->differ), err);
    if (st == STATUS_OK)
        st = linear_fill_noise(cuda, test->x, shape->dtype, (size_t)LINEAR_ROWS_MAX * (size_t)shape->n_in);
    return st == STATUS_OK ? st : error_wrap(err, st, "memory for the test of products");
}

/* test->part with n_rows of test->whole from `first` on, word by word. */
template <class Word>
static enum status compare(struct cuda_device *cuda, const struct invariance *test, int first, int n_rows)
{
    const size_t n = (size_t)n_rows * test->y_row_bytes / sizeof(Word);
    const unsigned n_blocks = blocks_for(n, TEST_THREADS);
    LAUNCH(compare_kernel<Word>, dim3(n_blocks < TEST_BLOCKS_MAX ? n_blocks : (unsigned)TEST_BLOCKS_MAX), dim3(TEST_THREADS),
           0, cuda->stream, test->differ, (const Word *)test->part,
           (const Word *)(test->whole + (size_t)first * test->y_row_bytes), n);
    return cuda_launched(cuda, "the test of products");
}

/* Rows [first, first + 2 << bucket) apart: are they as among all? Noted in test->differ. */
static bool compare_part(struct cuda_device *cuda, const struct linear_plan *plan, const struct invariance *test,
                         const void *matrix, int first, int bucket)
{
    if (linear_plan_run(cuda, plan, test->part, test->x + (size_t)first * test->x_row_bytes, matrix, bucket, false) !=
        CUBLAS_STATUS_SUCCESS)
        return false;
    const bool is_wide = test->y_row_bytes % sizeof(uint64_t) == 0;
    return (is_wide ? compare<uint64_t> : compare<uint16_t>)(cuda, test, first, 2 << bucket) == STATUS_OK;
}

/* The last row that n rows may begin at, away from multiples of tiles, where x is aligned as the library wants it. */
static int odd_place(const struct invariance *test, int n)
{
    int step = 1;
    while ((size_t)step * test->x_row_bytes % LIBRARY_ALIGNMENT)
        step *= 2;
    int k = (LINEAR_ROWS_MAX - n) / step;
    return k > 0 ? (k - 1 + k % 2) * step : 0;
}

/* All rows at once, then each bucket from two places (the largest one twice): are the bits the same? */
static bool is_invariant(struct cuda_device *cuda, const struct linear_plan *plan, const struct invariance *test,
                         const void *matrix)
{
    int32_t differ = 0;
    if (cuda_note(cuda, cudaMemsetAsync(test->differ, 0, sizeof(differ), cuda->stream), "a memset") != STATUS_OK ||
        linear_plan_run(cuda, plan, test->whole, test->x, matrix, LINEAR_BUCKETS - 1, false) != CUBLAS_STATUS_SUCCESS)
        return false;
    for (int bucket = 0; bucket < LINEAR_BUCKETS && differ == 0; bucket++) {
        if (!compare_part(cuda, plan, test, matrix, 0, bucket) ||
            !compare_part(cuda, plan, test, matrix, odd_place(test, 2 << bucket), bucket))
            return false;
        cuda_download(cuda, &differ, test->differ, sizeof(differ));
    }
    return cuda->failure == cudaSuccess && differ == 0;
}

static enum status choose(struct cuda_device *cuda, struct linear_plan *plan, const void *matrix, struct error *err)
{
    cublasLtMatmulHeuristicResult_t proposals[PROPOSALS_MAX];
    struct invariance test;
    int n = propose(cuda, plan, proposals), chosen = -1;
    enum status st = begin_test(&test, cuda, &plan->shape, err);
    for (int i = 0; st == STATUS_OK && chosen < 0 && i < n; i++) {
        plan->algorithm = proposals[i].algo;
        plan->workspace_bytes = proposals[i].workspaceSize;
        if (proposals[i].state == CUBLAS_STATUS_SUCCESS && is_invariant(cuda, plan, &test, matrix))
            chosen = i;
    }
    end_test(cuda, &test);
    if (st != STATUS_OK || chosen >= 0)
        return st;
    if (n == 0)
        return error_set(err, STATUS_UNSUPPORTED, "cuBLASLt %zu has no algorithm for weights of [%d, %d]",
                         cublasLtGetVersion(), plan->shape.n_out, plan->shape.n_in);
    return error_set(err, STATUS_UNSUPPORTED,
                     "cuBLASLt %zu: none of %d algorithms for weights of [%d, %d] gives a row the same bits alone and "
                     "among up to %d others; use another version of the library",
                     cublasLtGetVersion(), n, plan->shape.n_out, plan->shape.n_in, LINEAR_ROWS_MAX - 1);
}

enum status linear_plan_make(struct cuda_device *cuda, const struct linear_shape *shape, const void *matrix,
                             struct error *err)
{
    if (linear_plan_find(cuda, shape))
        return STATUS_OK;
    if (cuda->plans->n == PLANS_MAX)
        return error_set(err, STATUS_NOMEM, "more than %d shapes of weights", PLANS_MAX);
    struct linear_plan *plan = &cuda->plans->plans[cuda->plans->n];
    memset(plan, 0, sizeof(*plan));
    plan->shape = *shape;
    cublasStatus_t status = init_plan(plan);
    enum status st = status == CUBLAS_STATUS_SUCCESS
                         ? choose(cuda, plan, matrix, err)
                         : error_set(err, STATUS_INTERNAL, "cuBLASLt: %s", cublasLtGetStatusString(status));
    if (st != STATUS_OK)
        fini_plan(plan);
    else
        cuda->plans->n++;
    return st;
}
