/*
 * status.c - the names of the outcomes.
 */
#include "base/status.h"

const char *status_name(enum status status)
{
    switch (status) {
    case STATUS_OK:
        return "ok";
    case STATUS_INVALID:
        return "invalid";
    case STATUS_UNSUPPORTED:
        return "unsupported";
    case STATUS_NOT_FOUND:
        return "not_found";
    case STATUS_NOMEM:
        return "no_memory";
    case STATUS_FULL:
        return "full";
    case STATUS_IO:
        return "io";
    case STATUS_TIMEOUT:
        return "timeout";
    case STATUS_LOST:
        return "lost";
    case STATUS_CANCELED:
        return "canceled";
    case STATUS_INTERNAL:
        return "internal";
    }
    return "unknown";
}
