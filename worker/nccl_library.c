/*
 * nccl_library.c - NCCL, loaded when it is first asked for. The functions below have the library's
 * own names and hand on to it.
 */
#include <nccl.h>
#include <stddef.h>

#include "base/shared_library.h"

#define SONAME "libnccl.so.2"

static void *find(const char *name)
{
    static struct shared_library library = {.soname = SONAME, .folder = MGPT_NCCL_FOLDER};
    return shared_library_find(&library, name);
}

#define HAND_ON(name, parameters, arguments)                                                       \
    ncclResult_t name parameters                                                                   \
    {                                                                                              \
        static __typeof__(&name) function;                                                         \
        if (!function)                                                                             \
            function = (__typeof__(&name))find(#name);                                             \
        return function ? function arguments : ncclSystemError;                                    \
    }

HAND_ON(ncclGetVersion, (int *version), (version))
HAND_ON(ncclGetUniqueId, (ncclUniqueId * id), (id))
HAND_ON(ncclCommInitRankConfig,
        (ncclComm_t * out, int n_ranks, ncclUniqueId id, int rank, ncclConfig_t *config),
        (out, n_ranks, id, rank, config))
HAND_ON(ncclCommGetAsyncError, (ncclComm_t comm, ncclResult_t *state), (comm, state))
HAND_ON(ncclCommAbort, (ncclComm_t comm), (comm))
HAND_ON(ncclSend,
        (const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
         cudaStream_t stream),
        (from, count, type, peer, comm, stream))
HAND_ON(ncclRecv,
        (void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
         cudaStream_t stream),
        (to, count, type, peer, comm, stream))

const char *ncclGetErrorString(ncclResult_t result)
{
    const char *(*function)(ncclResult_t) =
        (const char *(*)(ncclResult_t))find("ncclGetErrorString");
    return function ? function(result) : "no " SONAME;
}

const char *ncclGetLastError(ncclComm_t comm)
{
    const char *(*function)(ncclComm_t) = (const char *(*)(ncclComm_t))find("ncclGetLastError");
    return function ? function(comm) : "";
}
