/*
 * linear.cu - dense products by cuBLASLt, one algorithm for each shape of weight, proven row-invariant when it is chosen.
 *
 * cuBLASLt sees columns: Y^T [n_out, n_rows] = W X^T with W^T [n_in, n_out] and X^T [n_in, n_rows], none of it moved.
 * The heuristic is asked once, for PLAN_ROWS rows; each proposal then multiplies noise with different numbers of rows,
 * and the first one is taken that gives every row the same bits each time. None: the device is refused. Reductions
 * among blocks are allowed in f32 through the workspace alone, where their order is fixed.
 */
#include "kernels/cuda/cuda.cuh"

#include <stdlib.h>

enum {
    PLANS_MAX = 64,
    PROPOSALS_MAX = 16,
    PLAN_ROWS = 64, /* what algorithms are proposed for */
    TEST_ROWS = 160,
    NOISE_THREADS = 256
};

struct plan {
    int n_out, n_in;
    enum dtype dtype, y_dtype;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t weight;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes;
};

struct linear_plans {
    struct plan plans[PLANS_MAX];
    int n;
};

enum status linear_plans_create(struct cuda_device *cuda, struct error *err)
{
    cuda->plans = (struct linear_plans *)calloc(1, sizeof(*cuda->plans));
    return cuda->plans ? STATUS_OK : error_set(err, STATUS_NOMEM, "cannot allocate the list of products");
}

static void fini_plan(struct plan *plan)
{
    if (plan->product)
        cublasLtMatmulDescDestroy(plan->product);
    if (plan->weight)
        cublasLtMatrixLayoutDestroy(plan->weight);
}

void linear_plans_destroy(struct cuda_device *cuda)
{
    for (int i = 0; cuda->plans && i < cuda->plans->n; i++)
        fini_plan(&cuda->plans->plans[i]);
    free(cuda->plans);
}

static cudaDataType_t blas_type(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

/* x and y of one call. */
struct layouts {
    cublasLtMatrixLayout_t x, y;
};

static cublasStatus_t init_layouts(struct layouts *layouts, const struct plan *plan, int n_rows)
{
    layouts->x = layouts->y = NULL;
    cublasStatus_t status = cublasLtMatrixLayoutCreate(&layouts->x, blas_type(plan->dtype), (uint64_t)plan->n_in,
                                                       (uint64_t)n_rows, plan->n_in);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&layouts->y, blas_type(plan->y_dtype), (uint64_t)plan->n_out,
                                            (uint64_t)n_rows, plan->n_out);
    return status;
}

static void fini_layouts(struct layouts *layouts)
{
    if (layouts->x)
        cublasLtMatrixLayoutDestroy(layouts->x);
    if (layouts->y)
        cublasLtMatrixLayoutDestroy(layouts->y);
}

/* y = x W^T, or y += x W^T. */
static cublasStatus_t multiply(struct cuda_device *cuda, const struct plan *plan, void *y, const void *x,
                               const void *matrix, int n_rows, bool add)
{
    struct layouts layouts;
    float one = 1, beta = add ? 1.0f : 0.0f;
    cublasStatus_t status = init_layouts(&layouts, plan, n_rows);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmul(cuda->blas, plan->product, &one, matrix, plan->weight, x, layouts.x, &beta, y, layouts.y,
                                y, layouts.y, &plan->algorithm, cuda->blas_workspace, plan->workspace_bytes,
                                cuda->stream);
    fini_layouts(&layouts);
    return status;
}

/* ---- choosing ---- */

static cublasStatus_t init_plan(struct plan *plan)
{
    const int32_t transposed = CUBLAS_OP_T, plain = CUBLAS_OP_N;
    cublasStatus_t status = cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                                sizeof(transposed));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSB, &plain, sizeof(plain));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatrixLayoutCreate(&plan->weight, blas_type(plan->dtype), (uint64_t)plan->n_in,
                                            (uint64_t)plan->n_out, plan->n_in);
    return status;
}

/* Algorithms for PLAN_ROWS rows, best first; none is no error. */
static int propose(struct cuda_device *cuda, const struct plan *plan, cublasLtMatmulHeuristicResult_t *proposals)
{
    cublasLtMatmulPreference_t preference;
    struct layouts layouts;
    const size_t workspace_bytes = CUDA_BLAS_WORKSPACE_BYTES;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    int n = 0;
    if (cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS)
        return 0;
    cublasStatus_t status = init_layouts(&layouts, plan, PLAN_ROWS);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                      &workspace_bytes, sizeof(workspace_bytes));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                      &reductions, sizeof(reductions));
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmulAlgoGetHeuristic(cuda->blas, plan->product, plan->weight, layouts.x, layouts.y, layouts.y,
                                                preference, PROPOSALS_MAX, proposals, &n);
    fini_layouts(&layouts);
    cublasLtMatmulPreferenceDestroy(preference);
    return status == CUBLAS_STATUS_SUCCESS ? n : 0;
}

/* A number in (-1, 1) of its index alone. */
template <class T> static __global__ void __launch_bounds__(NOISE_THREADS) noise_kernel(T *out, size_t n)
{
    size_t i = (size_t)blockIdx.x * NOISE_THREADS + threadIdx.x;
    if (i >= n)
        return;
    uint32_t z = (uint32_t)i * 0x9e3779b9u + 0x7f4a7c15u;
    z = (z ^ z >> 16) * 0x85ebca6bu;
    z = (z ^ z >> 13) * 0xc2b2ae35u;
    from_f32(&out[i], (float)(int32_t)(z ^ z >> 16) * (1.0f / 2147483648.0f));
}

static enum status fill_noise(struct cuda_device *cuda, void *out, enum dtype dtype, size_t n)
{
    dim3 grid(blocks_for(n, NOISE_THREADS));
    if (dtype == DTYPE_F32)
        LAUNCH(noise_kernel<float>, grid, dim3(NOISE_THREADS), 0, cuda->stream, (float *)out, n);
    else
        LAUNCH(noise_kernel<__nv_bfloat16>, grid, dim3(NOISE_THREADS), 0, cuda->stream, (__nv_bfloat16 *)out, n);
    return cuda_launched(cuda, "noise for the test of products");
}

/* Memory of a test: the same products as one piece and in pieces. */
struct invariance {
    void *x, *whole, *pieces; /* device */
    char *host_whole, *host_pieces;
    size_t x_row_bytes, y_row_bytes;
};

static void end_test(struct invariance *test)
{
    cudaFree(test->x);
    cudaFree(test->whole);
    cudaFree(test->pieces);
    free(test->host_whole);
    free(test->host_pieces);
}

static enum status begin_test(struct invariance *test, struct cuda_device *cuda, const struct plan *plan,
                              struct error *err)
{
    memset(test, 0, sizeof(*test));
    test->x_row_bytes = (size_t)plan->n_in * dtype_bytes(plan->dtype);
    test->y_row_bytes = (size_t)plan->n_out * dtype_bytes(plan->y_dtype);
    size_t y_bytes = TEST_ROWS * test->y_row_bytes;
    test->host_whole = (char *)malloc(y_bytes);
    test->host_pieces = (char *)malloc(y_bytes);
    enum status st = test->host_whole && test->host_pieces
                         ? STATUS_OK
                         : error_set(err, STATUS_NOMEM, "cannot allocate %zu bytes", 2 * y_bytes);
    if (st == STATUS_OK)
        st = cuda_reserve(&test->x, TEST_ROWS * test->x_row_bytes, err);
    if (st == STATUS_OK)
        st = cuda_reserve(&test->whole, y_bytes, err);
    if (st == STATUS_OK)
        st = cuda_reserve(&test->pieces, y_bytes, err);
    if (st == STATUS_OK)
        st = fill_noise(cuda, test->x, plan->dtype, (size_t)TEST_ROWS * (size_t)plan->n_in);
    return st;
}

static bool download_both(struct cuda_device *cuda, const struct invariance *test)
{
    size_t bytes = TEST_ROWS * test->y_row_bytes;
    cudaError_t error = cudaMemcpyAsync(test->host_whole, test->whole, bytes, cudaMemcpyDeviceToHost, cuda->stream);
    if (error == cudaSuccess)
        error = cudaMemcpyAsync(test->host_pieces, test->pieces, bytes, cudaMemcpyDeviceToHost, cuda->stream);
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(cuda->stream);
    return cuda_note(cuda, error, "the test of products") == STATUS_OK;
}

/* All rows at once, and in pieces of all sizes that tiles and their remainders have: are the bits the same? */
static bool is_invariant(struct cuda_device *cuda, const struct plan *plan, const struct invariance *test,
                         const void *matrix)
{
    static const int pieces[] = {1, 2, 7, 16, 17, 32, 64, 21}; /* TEST_ROWS together */
    if (multiply(cuda, plan, test->whole, test->x, matrix, TEST_ROWS, false) != CUBLAS_STATUS_SUCCESS)
        return false;
    size_t row = 0;
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        if (multiply(cuda, plan, (char *)test->pieces + row * test->y_row_bytes,
                     (const char *)test->x + row * test->x_row_bytes, matrix, pieces[i],
                     false) != CUBLAS_STATUS_SUCCESS)
            return false;
        row += (size_t)pieces[i];
    }
    CHECK(row == TEST_ROWS);
    return download_both(cuda, test) &&
           memcmp(test->host_whole, test->host_pieces, TEST_ROWS * test->y_row_bytes) == 0;
}

static enum status choose(struct cuda_device *cuda, struct plan *plan, const void *matrix, struct error *err)
{
    cublasLtMatmulHeuristicResult_t proposals[PROPOSALS_MAX];
    struct invariance test;
    int n = propose(cuda, plan, proposals), chosen = -1;
    enum status st = begin_test(&test, cuda, plan, err);
    for (int i = 0; st == STATUS_OK && chosen < 0 && i < n; i++) {
        plan->algorithm = proposals[i].algo;
        plan->workspace_bytes = proposals[i].workspaceSize;
        if (proposals[i].state == CUBLAS_STATUS_SUCCESS && is_invariant(cuda, plan, &test, matrix))
            chosen = i;
    }
    end_test(&test);
    if (st != STATUS_OK || chosen >= 0)
        return st;
    return error_set(err, STATUS_UNSUPPORTED,
                     "cuBLASLt %zu: none of %d algorithms for weights of [%d, %d] gives a row the same bits alone and "
                     "among others; use another version of the library",
                     cublasLtGetVersion(), n, plan->n_out, plan->n_in);
}

static struct plan *find_plan(struct cuda_device *cuda, const struct plan *wanted)
{
    for (int i = 0; i < cuda->plans->n; i++) {
        struct plan *plan = &cuda->plans->plans[i];
        if (plan->n_out == wanted->n_out && plan->n_in == wanted->n_in && plan->dtype == wanted->dtype &&
            plan->y_dtype == wanted->y_dtype)
            return plan;
    }
    return NULL;
}

/* matrix: [n_out, n_in] of any numbers but all zeros. */
static enum status add_plan(struct cuda_device *cuda, const struct plan *wanted, const void *matrix, struct error *err)
{
    if (cuda->plans->n == PLANS_MAX)
        return error_set(err, STATUS_NOMEM, "more than %d shapes of weights", PLANS_MAX);
    struct plan *plan = &cuda->plans->plans[cuda->plans->n];
    *plan = *wanted;
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

static struct plan plan_for(const struct linear_weight *weight, int n_out, enum dtype y_dtype)
{
    struct plan plan = {n_out, weight->options.n_in, weight->options.dtype, y_dtype, NULL, NULL, {{0}}, 0};
    return plan;
}

enum status linear_prepare_cuda(struct device *device, const struct linear_weight *weight, struct error *err)
{
    struct cuda_device *cuda = cuda_of(device);
    struct plan wanted = plan_for(weight, weight->options.n_out, weight->options.dtype);
    if (find_plan(cuda, &wanted))
        return STATUS_OK;
    size_t n = (size_t)weight->options.n_out * (size_t)weight->options.n_in;
    enum status st = fill_noise(cuda, weight->matrix, weight->options.dtype, n);
    if (st == STATUS_OK)
        st = add_plan(cuda, &wanted, weight->matrix, err);
    cuda_note(cuda, cudaMemsetAsync(weight->matrix, 0, n * dtype_bytes(weight->options.dtype), cuda->stream),
              "a memset");
    return st;
}

/* ---- the product ---- */

template <class T>
static __global__ void __launch_bounds__(NOISE_THREADS) bias_kernel(T *y, const float *bias, int n_out)
{
    int i = (int)(blockIdx.y * NOISE_THREADS + threadIdx.x);
    if (i < n_out)
        from_f32(&y[(size_t)blockIdx.x * (size_t)n_out + (size_t)i], bias[i]);
}

/* The product is added to y = bias inside cuBLASLt, in f32; a bias of the compute type keeps all its bits. */
static void fill_bias(struct cuda_device *cuda, const struct linear_launch *l)
{
    dim3 grid((unsigned)l->n_rows, blocks_for((size_t)l->n_out, NOISE_THREADS));
    const float *bias = l->weight->bias + l->first_out;
    if (l->y_dtype == DTYPE_F32)
        LAUNCH(bias_kernel<float>, grid, dim3(NOISE_THREADS), 0, cuda->stream, (float *)l->y, bias, l->n_out);
    else
        LAUNCH(bias_kernel<__nv_bfloat16>, grid, dim3(NOISE_THREADS), 0, cuda->stream, (__nv_bfloat16 *)l->y, bias,
               l->n_out);
}

/* Ranges of outputs have plans of their own, chosen at their first use. */
enum status linear_cuda(struct device *device, const struct linear_launch *l)
{
    struct cuda_device *cuda = cuda_of(device);
    struct plan wanted = plan_for(l->weight, l->n_out, l->y_dtype);
    const struct plan *plan = find_plan(cuda, &wanted);
    size_t row_bytes = (size_t)l->weight->options.n_in * dtype_bytes(l->weight->options.dtype);
    const char *matrix = (const char *)l->weight->matrix + (size_t)l->first_out * row_bytes;
    if (!plan) {
        struct error why;
        enum status st = add_plan(cuda, &wanted, matrix, &why);
        if (st != STATUS_OK)
            return st;
        plan = find_plan(cuda, &wanted);
    }
    if (l->weight->bias)
        fill_bias(cuda, l);
    cublasStatus_t status = multiply(cuda, plan, l->y, l->x, matrix, l->n_rows, l->weight->bias != NULL);
    if (status != CUBLAS_STATUS_SUCCESS)
        return cuda_note(cuda, cudaErrorInvalidValue, cublasLtGetStatusString(status));
    return cuda_launched(cuda, "linear");
}
