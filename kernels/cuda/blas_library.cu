/*
 * blas_library.cu - cuBLASLt, loaded when the first device is opened: it is half a gigabyte, which a worker on the CPU shall
 * not carry. The functions below have the library's own names and hand on to it.
 */
#ifndef MGPT_SIMGPU /* its stand-in is linked */

#include "kernels/cuda/cuda.cuh"

extern "C" {
#include "base/shared_library.h"
}

#define TEXT_OF(x)     #x
#define NUMBER_TEXT(x) TEXT_OF(x)
#define SONAME         "libcublasLt.so." NUMBER_TEXT(CUBLAS_VER_MAJOR)

static void *find(const char *name)
{
    static struct shared_library library = {SONAME, MGPT_CUBLASLT_FOLDER, NULL};
    return shared_library_find(&library, name);
}

#define HAND_ON(name, parameters, arguments)                                                       \
    extern "C" cublasStatus_t CUBLASWINAPI name parameters                                         \
    {                                                                                              \
        static decltype(&name) function;                                                           \
        if (!function)                                                                             \
            function = (decltype(&name))find(#name);                                               \
        return function ? function arguments : CUBLAS_STATUS_NOT_INITIALIZED;                      \
    }

HAND_ON(cublasLtCreate, (cublasLtHandle_t * out), (out))
HAND_ON(cublasLtDestroy, (cublasLtHandle_t handle), (handle))
HAND_ON(cublasLtMatmulDescCreate, (cublasLtMatmulDesc_t * out, cublasComputeType_t compute, cudaDataType_t scale),
        (out, compute, scale))
HAND_ON(cublasLtMatmulDescDestroy, (cublasLtMatmulDesc_t desc), (desc))
HAND_ON(cublasLtMatmulDescSetAttribute,
        (cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const void *value, size_t bytes),
        (desc, attribute, value, bytes))
HAND_ON(cublasLtMatrixLayoutCreate,
        (cublasLtMatrixLayout_t * out, cudaDataType type, uint64_t rows, uint64_t columns, int64_t ld),
        (out, type, rows, columns, ld))
HAND_ON(cublasLtMatrixLayoutDestroy, (cublasLtMatrixLayout_t layout), (layout))
HAND_ON(cublasLtMatmulPreferenceCreate, (cublasLtMatmulPreference_t * out), (out))
HAND_ON(cublasLtMatmulPreferenceDestroy, (cublasLtMatmulPreference_t preference), (preference))
HAND_ON(cublasLtMatmulPreferenceSetAttribute,
        (cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
         size_t bytes),
        (preference, attribute, value, bytes))
HAND_ON(cublasLtMatmulAlgoGetHeuristic,
        (cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
         cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int requested,
         cublasLtMatmulHeuristicResult_t results[], int *returned),
        (handle, desc, a, b, c, d, preference, requested, results, returned))
HAND_ON(cublasLtMatmul,
        (cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
         cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
         cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
         void *workspace, size_t workspace_bytes, cudaStream_t stream),
        (handle, desc, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algo, workspace, workspace_bytes,
         stream))

extern "C" size_t CUBLASWINAPI cublasLtGetVersion(void)
{
    size_t (*function)(void) = (size_t(*)(void))find("cublasLtGetVersion");
    return function ? function() : 0;
}

/* Asked after a failure, which may be that there is no library. */
extern "C" const char *CUBLASWINAPI cublasLtGetStatusString(cublasStatus_t status)
{
    const char *(*function)(cublasStatus_t) = (const char *(*)(cublasStatus_t))find("cublasLtGetStatusString");
    return function ? function(status) : "no " SONAME ": install the CUDA toolkit's cuBLAS, or put it on LD_LIBRARY_PATH";
}

#endif
