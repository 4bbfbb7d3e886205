/*
 * reply.c - sends, and the one figure that both roles report about the process.
 */
#include "worker/reply.h"

#include <stdio.h>
#include <unistd.h>

#include "base/log.h"

enum status reply_send(void *socket, enum message_type type, const ProtobufCMessage *body,
                       struct error *err)
{
    enum status st = message_send(socket, NULL, type, body, REPLY_SEND_MS, err);
    if (st == STATUS_TIMEOUT)
        return error_wrap(err, STATUS_LOST, "the controller takes no messages");
    return st;
}

enum status reply_failure(void *socket, enum message_type type, uint64_t epoch, uint64_t number,
                          const struct error *why, struct error *err)
{
    /* Whoever asked is told, and says it to whoever looks on. */
    log_info("worker", "refused message=%s number=%llu status=%s reason=\"%s\"",
             message_type_name(type), (unsigned long long)number, status_name(why->code),
             why->text);
    Mgpt__Failure failure = MGPT__FAILURE__INIT;
    failure.status = (uint32_t)why->code;
    failure.text = (char *)why->text;
    failure.type = type;
    failure.epoch = epoch;
    failure.number = number;
    return reply_send(socket, MESSAGE_FAILURE, &failure.base, err);
}

size_t reply_resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long total = 0, resident = 0;
    if (!file)
        return 0;
    int n = fscanf(file, "%lu %lu", &total, &resident);
    fclose(file);
    return n == 2 ? (size_t)resident * (size_t)sysconf(_SC_PAGESIZE) : 0;
}
