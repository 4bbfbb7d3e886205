/*
 * confine.h - takes from this process what it will never need, so that bytes that break a parser
 * gain little.
 *
 * Out:     no new privileges by exec, no core files, no capabilities but reading what root may
 *          read, and a seccomp filter: system calls of administrators, debuggers and kernel modules
 *          fail with EPERM, and so do new namespaces and rings of system calls; sockets are those
 * of this machine and of IP. Threads: call before others are started; they and all children inherit
 * it, and nothing takes it back.
 */
#ifndef MGPT_BASE_CONFINE_H
#define MGPT_BASE_CONFINE_H

#include "base/error.h"

enum confine_kind {
    CONFINE_PARENT, /* may start other programs */
    CONFINE_LEAF    /* may not: exec, fork and vfork fail, too; threads are fine */
};

/*
 * STATUS_UNSUPPORTED: the system has no seccomp, or another processor than the filter knows (then
 * the rest is done), or this is a build with a sanitizer. STATUS_IO: the system refuses.
 */
enum status confine_process(enum confine_kind kind, struct error *err);

#endif
