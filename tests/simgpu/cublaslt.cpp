/*
 * cublaslt.cpp - dense products on the host, in three "algorithms" that sum in different orders.
 *
 * SIMGPU_CUBLASLT=first-varies makes the first algorithm change its order with the number of columns of D, as some of
 * the real library do; all-vary all of them; all-vary-late all of them from 129 columns on. The program has to notice
 * each by itself.
 */
#include <cstdlib>
#include <vector>

#include "cublasLt.h"
#include "internal.h"

struct simgpu_blas {
    int dummy;
};
struct simgpu_matmul_desc {
    cublasOperation_t a, b;
};
struct simgpu_matrix_layout {
    cudaDataType_t type;
    uint64_t rows, columns;
    int64_t ld;
};
struct simgpu_matmul_preference {
    size_t workspace_bytes;
    uint32_t reductions;
};

using namespace simgpu;

namespace
{

enum { N_ALGORITHMS = 3, SPLIT_WORKSPACE_BYTES = 1024, VARIES_FROM_COLUMNS = 16, VARIES_LATE_COLUMNS = 128 };
enum { LANES = 16, COLUMNS_AT_ONCE = 2 };
const uint64_t MAGIC = 0x53494d4c54ull;

struct matrix {
    const void *data;
    simgpu_matrix_layout layout;
};

void load_column(float *out, const matrix &x, uint64_t column)
{
    size_t at = (size_t)column * (size_t)x.layout.ld;
    const size_t n = x.layout.rows;
    if (x.layout.type == CUDA_R_32F) {
        memcpy(out, (const float *)x.data + at, n * sizeof(float));
        return;
    }
    const uint16_t *numbers = (const uint16_t *)x.data + at;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)numbers[i] << 16;
        memcpy(&out[i], &bits, sizeof(bits));
    }
}

/* A register: longer vectors would go through memory. */
typedef float floats __attribute__((vector_size(16), aligned(sizeof(float)), may_alias));

/*
 * Adds to out[] the products of row x with COLUMNS_AT_ONCE columns from y on, which lie ld numbers
 * apart: sixteen running sums each, added to their neighbours at 8, 4, 2 and 1. x and y are what
 * load_column() copied: there the sanitizers have seen what the product reads.
 */
__attribute__((no_sanitize("address", "undefined"))) void dots(float *out, const float *x, const float *y, size_t ld,
                                                               size_t n)
{
    floats sums[COLUMNS_AT_ONCE][4] = {};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma GCC unroll 4
        for (size_t part = 0; part < 4; part++) {
            const floats *at = (const floats *)(x + i) + part;
#pragma GCC unroll 4
            for (size_t column = 0; column < COLUMNS_AT_ONCE; column++)
                sums[column][part] += *at * ((const floats *)(y + column * ld + i))[part];
        }
#pragma GCC unroll 4
    for (size_t column = 0; column < COLUMNS_AT_ONCE; column++) {
        for (size_t rest = i; rest < n; rest++)
            sums[column][0][0] += x[rest] * y[column * ld + rest];
        floats four = (sums[column][0] + sums[column][2]) + (sums[column][1] + sums[column][3]);
        out[column] += (four[0] + four[2]) + (four[1] + four[3]);
    }
}

bool varies(uint64_t algorithm, uint64_t n_columns)
{
    const char *mode = getenv("SIMGPU_CUBLASLT");
    if (!mode || !*mode)
        return false;
    if (strcmp(mode, "all-vary") == 0)
        return n_columns > VARIES_FROM_COLUMNS;
    if (strcmp(mode, "all-vary-late") == 0)
        return n_columns > VARIES_LATE_COLUMNS;
    if (strcmp(mode, "first-varies") == 0)
        return algorithm == 0 && n_columns > VARIES_FROM_COLUMNS;
    stop("SIMGPU_CUBLASLT=%s: expected first-varies, all-vary or all-vary-late", mode);
}

struct product {
    matrix a, b;
    void *d;
    simgpu_matrix_layout d_layout;
    float alpha, beta;
    uint64_t algorithm;
};

void store(const product &p, uint64_t row, uint64_t column, float value)
{
    size_t at = (size_t)column * (size_t)p.d_layout.ld + row;
    uint32_t bits;
    if (p.d_layout.type == CUDA_R_32F) {
        float *d = (float *)p.d + at;
        *d = p.beta != 0 ? value + p.beta * *d : value;
        return;
    }
    if (p.beta != 0) {
        bits = (uint32_t)((const uint16_t *)p.d)[at] << 16;
        float old;
        memcpy(&old, &bits, sizeof(old));
        value += p.beta * old;
    }
    memcpy(&bits, &value, sizeof(bits));
    bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
    ((uint16_t *)p.d)[at] = is_nan ? 0x7fff : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void multiply(const product &p)
{
    const size_t k = p.a.layout.rows;
    bool split = p.algorithm == 1;
    if (varies(p.algorithm, p.d_layout.columns))
        split = !split;
    const size_t cut = split ? k / 2 : k; /* what lies behind it is summed apart, and first */
    const uint64_t n_columns = p.d_layout.columns;
    std::vector<float> columns(k * (n_columns + COLUMNS_AT_ONCE - 1)), row(k);
    for (uint64_t column = 0; column < n_columns; column++)
        load_column(&columns[column * k], p.b, column);
    for (uint64_t i = 0; i < p.d_layout.rows; i++) {
        load_column(row.data(), p.a, i);
        for (uint64_t first = 0; first < n_columns; first += COLUMNS_AT_ONCE) {
            const float *y = &columns[first * k];
            float sums[COLUMNS_AT_ONCE] = {0};
            if (split)
                dots(sums, row.data() + cut, y + cut, k, k - cut);
            dots(sums, row.data(), y, k, cut);
            for (uint64_t column = first; column < n_columns && column < first + COLUMNS_AT_ONCE; column++)
                store(p, i, column, p.alpha * sums[column - first]);
        }
    }
}

size_t type_bytes(cudaDataType_t type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

size_t last_byte(const simgpu_matrix_layout &x)
{
    return ((size_t)(x.columns - 1) * (size_t)x.ld + x.rows) * type_bytes(x.type);
}

cublasStatus_t check(const simgpu_matmul_desc &desc, const simgpu_matrix_layout &a, const simgpu_matrix_layout &b,
                     const simgpu_matrix_layout &d)
{
    if (desc.a != CUBLAS_OP_T || desc.b != CUBLAS_OP_N)
        stop("cuBLASLt: only A transposed times B is modelled");
    if (a.rows != b.rows || a.columns != d.rows || b.columns != d.columns || a.rows < 1 || d.rows < 1 || d.columns < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (a.type != b.type || (d.type != a.type && d.type != CUDA_R_32F))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (a.ld < (int64_t)a.rows || b.ld < (int64_t)b.rows || d.ld < (int64_t)d.rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out)
{
    *out = new simgpu_blas{0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion()
{
    return 0;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    default: return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute, cudaDataType_t scale)
{
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        stop("cuBLASLt: compute type %d with scale type %d is not modelled", (int)compute, (int)scale);
    *out = new simgpu_matmul_desc{CUBLAS_OP_N, CUBLAS_OP_N};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    int32_t number;
    if (bytes != sizeof(number))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&number, value, sizeof(number));
    (attribute == CUBLASLT_MATMUL_DESC_TRANSA ? desc->a : desc->b) = (cublasOperation_t)number;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t ld)
{
    *out = new simgpu_matrix_layout{type, rows, columns, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    *out = new simgpu_matmul_preference{0, ~0u};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    bool is_size = attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    if (bytes != (is_size ? sizeof(size_t) : sizeof(uint32_t)))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(is_size ? (void *)&preference->workspace_bytes : (void *)&preference->reductions, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int requested, cublasLtMatmulHeuristicResult_t results[], int *returned)
{
    *returned = 0;
    cublasStatus_t status = check(*desc, *a, *b, *d);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    for (uint64_t i = 0; i < N_ALGORITHMS && *returned < requested; i++) {
        size_t workspace = i == 1 ? SPLIT_WORKSPACE_BYTES : 0;
        if (workspace > preference->workspace_bytes ||
            (i == 1 && !(preference->reductions & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)))
            continue;
        cublasLtMatmulHeuristicResult_t result = {};
        result.algo.data[0] = MAGIC;
        result.algo.data[1] = i;
        result.workspaceSize = workspace;
        result.state = CUBLAS_STATUS_SUCCESS;
        results[(*returned)++] = result;
    }
    return *returned > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo, cublasLtMatmulHeuristicResult_t *result)
{
    cublasStatus_t status = check(*desc, *a, *b, *d);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (algo->data[0] != MAGIC || algo->data[1] >= N_ALGORITHMS)
        return CUBLAS_STATUS_INVALID_VALUE;
    *result = {};
    result->algo = *algo;
    result->workspaceSize = algo->data[1] == 1 ? SPLIT_WORKSPACE_BYTES : 0;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    cublasLtMatmulHeuristicResult_t result;
    if (!algo)
        stop("cuBLASLt: a product without a chosen algorithm may change with its shape");
    cublasStatus_t status =
        cublasLtMatmulAlgoCheck(handle, desc, a_layout, b_layout, c_layout, d_layout, algo, &result);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (c != d)
        stop("cuBLASLt: a matrix C apart from D is not modelled");
    if (workspace_bytes < result.workspaceSize || (result.workspaceSize && !workspace))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (((uintptr_t)a | (uintptr_t)b | (uintptr_t)d) % type_bytes(a_layout->type))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    product p = {{a, *a_layout}, {b, *b_layout}, d, *d_layout, *(const float *)alpha, *(const float *)beta, algo->data[1]};
    memory_check(a, last_byte(*a_layout), "matrix A of cuBLASLt");
    memory_check(b, last_byte(*b_layout), "matrix B of cuBLASLt");
    memory_check(d, last_byte(*d_layout), "matrix D of cuBLASLt");
    queue_add(stream, [p] { multiply(p); });
    return CUBLAS_STATUS_SUCCESS;
}
