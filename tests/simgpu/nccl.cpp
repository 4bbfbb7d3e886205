/*
 * nccl.cpp - communicators between processes: a unix socket that the unique id names, in whatever order the ranks come.
 *
 * As with the real library nothing is done when a call returns: a communicator is there, and a transfer is queued, when
 * ncclCommGetAsyncError() says so; transfers then go on with their queue, in order, and wait for their peer. A peer that
 * ends is an error of the communicator; with SIMGPU_NCCL=silent it is none, as between devices that share memory, and
 * its transfers never end; SIMGPU_NCCL_LOSE=N makes the Nth transfer of the process fail. Two ranks on one device of one host (NCCL_HOSTID, or the name of the machine), and ranks of
 * different versions (SIMGPU_NCCL_VERSION), are refused. Wrong use ends the program.
 */
#include "nccl.h"

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

#include "internal.h"

using namespace simgpu;

namespace
{

/* Little is sent before the peer receives, as between devices that share memory. */
enum { RANKS = 2, ID_RANDOM_BYTES = 16, SENT_AHEAD_BYTES = 4096 };

/* What the ranks tell each other first. */
struct greeting {
    int version, device, rank;
    char host[HOST_NAME_MAX + 1];
};

/* A transfer in bytes: its length, then the rows. */
struct transfer {
    size_t n_bytes;
    void *memory;
    size_t done; /* of sizeof(n_bytes) + n_bytes */
    size_t announced;
};

int version_of_device()
{
    return atoi(setting_of_device("SIMGPU_NCCL_VERSION", "22803", current_device()).c_str());
}

bool losses_are_silent()
{
    const char *text = getenv("SIMGPU_NCCL");
    return text && strcmp(text, "silent") == 0;
}

} // namespace

struct simgpu_communicator {
    int rank, listener, socket;
    sockaddr_un address;
    socklen_t address_bytes;
    greeting mine, theirs;
    size_t sent, received; /* bytes of the greetings */
    bool stands, is_pending, aborted;
    std::function<void()> pending; /* queues the transfer that was called for last */
    ncclResult_t error;
    std::string text;
};

namespace
{

ncclResult_t fail(simgpu_communicator *comm, ncclResult_t error, const std::string &text)
{
    if (comm->error == ncclSuccess) {
        comm->error = error;
        comm->text = text;
    }
    return comm->error;
}

void lose(simgpu_communicator *comm)
{
    if (comm->stands && losses_are_silent())
        return;
    fail(comm, ncclRemoteError, "the peer has gone");
}

/* One piece of n bytes, in or out, as far as it goes now; true when it is whole. */
bool move_bytes(simgpu_communicator *comm, bool out, char *bytes, size_t n, size_t *done)
{
    while (*done < n && comm->error == ncclSuccess) {
        ssize_t moved = out ? send(comm->socket, bytes + *done, n - *done, MSG_NOSIGNAL | MSG_DONTWAIT)
                            : recv(comm->socket, bytes + *done, n - *done, MSG_DONTWAIT);
        if (moved > 0) {
            *done += (size_t)moved;
        } else if (moved < 0 && (errno == EAGAIN || errno == EINTR)) {
            return false;
        } else {
            lose(comm);
            return false;
        }
    }
    return *done == n;
}

void name_address(simgpu_communicator *comm, const ncclUniqueId &id)
{
    comm->address.sun_family = AF_UNIX;
    int n = snprintf(comm->address.sun_path + 1, sizeof(comm->address.sun_path) - 1, "%s", id.internal);
    comm->address_bytes = (socklen_t)(offsetof(sockaddr_un, sun_path) + 1 + (size_t)n);
}

/* Rank 0 waits for the other; rank 1 tries until rank 0 is there. */
void find_peer(simgpu_communicator *comm)
{
    if (comm->rank == 0) {
        comm->socket = accept4(comm->listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        return;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connect(fd, (const sockaddr *)&comm->address, comm->address_bytes) == 0)
        comm->socket = fd;
    else
        close(fd);
}

void judge_peer(simgpu_communicator *comm)
{
    const greeting *mine = &comm->mine, *theirs = &comm->theirs;
    if (mine->rank == theirs->rank)
        stop("two ranks %d of one communicator", mine->rank);
    if (mine->version != theirs->version)
        fail(comm, ncclInvalidUsage, "mismatched NCCL versions");
    else if (mine->device == theirs->device && strcmp(mine->host, theirs->host) == 0)
        fail(comm, ncclInvalidUsage, "duplicate GPU detected: both ranks on one device");
    else
        comm->stands = true;
}

void form(simgpu_communicator *comm)
{
    if (comm->socket < 0)
        find_peer(comm);
    if (comm->socket < 0)
        return;
    int ahead = SENT_AHEAD_BYTES;
    setsockopt(comm->socket, SOL_SOCKET, SO_SNDBUF, &ahead, sizeof(ahead));
    bool sent = move_bytes(comm, true, (char *)&comm->mine, sizeof(comm->mine), &comm->sent);
    bool received = move_bytes(comm, false, (char *)&comm->theirs, sizeof(comm->theirs), &comm->received);
    if (sent && received)
        judge_peer(comm);
}

/* True when it has ended, also by an abort. */
bool go_on(simgpu_communicator *comm, bool out, transfer *transfer)
{
    const size_t head = sizeof(transfer->n_bytes);
    if (comm->aborted)
        return true;
    if (transfer->done < head) {
        char *length = (char *)(out ? &transfer->n_bytes : &transfer->announced);
        if (!move_bytes(comm, out, length, head, &transfer->done))
            return false;
        if (!out && transfer->announced != transfer->n_bytes)
            stop("a rank receives %zu bytes, the other sends %zu", transfer->n_bytes, transfer->announced);
    }
    size_t done = transfer->done - head;
    bool whole = move_bytes(comm, out, (char *)transfer->memory, transfer->n_bytes, &done);
    transfer->done = head + done;
    return whole;
}

/* Kept to the end of the process: work that was queued may look at them after an abort. */
std::vector<std::unique_ptr<simgpu_communicator>> communicators;

ncclResult_t call_for(ncclComm_t comm, bool out, void *memory, size_t count, ncclDataType_t type, int peer,
                      cudaStream_t stream)
{
    if (!comm->stands || comm->is_pending || comm->aborted)
        stop("a transfer on a communicator that is not ready for it");
    if (type != ncclUint8 || peer != 1 - comm->rank || count == 0 || out != (comm->rank == 0))
        stop("transfers but of bytes, from rank 0 to rank 1, are not modelled");
    if (comm->error != ncclSuccess)
        return comm->error;
    memory_check(memory, count, "a transfer");
    static long n_transfers;
    if (++n_transfers == atol(setting_of_device("SIMGPU_NCCL_LOSE", "0", current_device()).c_str()))
        return fail(comm, ncclRemoteError, "as SIMGPU_NCCL_LOSE wants it");
    auto state = std::make_shared<transfer>(transfer{count, memory, 0, 0});
    comm->is_pending = true;
    comm->pending = [=] { queue_add_waiting(stream, [=] { return go_on(comm, out, state.get()); }); };
    return ncclInProgress;
}

} // namespace

ncclResult_t ncclGetVersion(int *version)
{
    *version = version_of_device();
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    unsigned char random[ID_RANDOM_BYTES];
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return ncclSystemError;
    memset(id, 0, sizeof(*id));
    int n = snprintf(id->internal, sizeof(id->internal), "mgpt-simgpu-");
    for (unsigned char byte : random)
        n += snprintf(id->internal + n, sizeof(id->internal) - (size_t)n, "%02x", byte);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int n_ranks, ncclUniqueId id, int rank, ncclConfig_t *config)
{
    if (n_ranks != RANKS || rank < 0 || rank >= RANKS || config->blocking)
        stop("communicators but of two ranks that do not block are not modelled");
    communicators.emplace_back(new simgpu_communicator{});
    ncclComm_t comm = communicators.back().get();
    comm->rank = rank;
    comm->socket = comm->listener = -1;
    comm->mine = greeting{version_of_device(), current_device(), rank, ""};
    const char *host = getenv("NCCL_HOSTID");
    if (host && *host)
        snprintf(comm->mine.host, sizeof(comm->mine.host), "%s", host);
    else
        gethostname(comm->mine.host, sizeof(comm->mine.host) - 1);
    name_address(comm, id);
    *out = comm;
    if (rank != 0)
        return ncclInProgress;
    comm->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(comm->listener, (const sockaddr *)&comm->address, comm->address_bytes) != 0 || listen(comm->listener, 1) != 0)
        return fail(comm, ncclSystemError, strerror(errno));
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state)
{
    if (comm->aborted)
        stop("a communicator was asked for its state after its end");
    if (!comm->stands && comm->error == ncclSuccess)
        form(comm);
    char byte;
    if (comm->stands && recv(comm->socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
        lose(comm);
    if (comm->is_pending) {
        comm->pending();
        comm->is_pending = false;
    }
    *state = comm->error != ncclSuccess ? comm->error : comm->stands ? ncclSuccess : ncclInProgress;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    comm->aborted = true;
    if (comm->socket >= 0)
        close(comm->socket);
    if (comm->listener >= 0)
        close(comm->listener);
    comm->socket = comm->listener = -1;
    return ncclSuccess;
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return call_for(comm, true, const_cast<void *>(from), count, type, peer, stream);
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream)
{
    return call_for(comm, false, to, count, type, peer, stream);
}

const char *ncclGetErrorString(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess: return "no error";
    case ncclSystemError: return "unhandled system error";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
    default: return "internal error";
    }
}

const char *ncclGetLastError(ncclComm_t comm)
{
    return comm ? comm->text.c_str() : "";
}
