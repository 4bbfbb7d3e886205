/*
 * control.h - a worker's main loop: the control socket, heartbeats, and the rules of when a worker
 * ends.
 *
 * In:      messages of the controller.
 * Out:     Hello once, then what the role answers.
 * Threads: the compute thread alone: messages are taken between steps, so pings are answered
 *          between steps too.
 *
 * A worker ends well when it is told Stop. Its controller is lost when nothing came from it for
 * silence_ms (counted only while the socket was really looked at, so a long step is no silence),
 * when it takes no answers for REPLY_SEND_MS, or when the parent process ended while the endpoint
 * is ipc:// (a worker that mgptd started). Then the worker ends with STATUS_LOST; or, when it comes
 * back (a controller on another machine), it frees all that it holds and begins anew, as a stranger
 * with a new identity, after pauses that grow from CONTROL_PAUSE_MS to CONTROL_PAUSE_MS_MAX. So
 * does it when the connection breaks; while none stands it waits without a limit. What only a
 * person can mend ends it: a key that the controller does not know, another release, another model.
 */
#ifndef MGPT_WORKER_CONTROL_H
#define MGPT_WORKER_CONTROL_H

#include <stdbool.h>

#include "kernels/stream.h"
#include "proto/curve.h"
#include "proto/mgpt.pb-c.h"

enum {
    CONTROL_SILENCE_MS = 30000,    /* default of silence_ms */
    CONTROL_WAKE_MS = 500,         /* the loop looks at parent and silence this often */
    CONTROL_MESSAGES_AT_ONCE = 64, /* messages taken before work goes on */
    CONTROL_REFUSAL_MS = 2000,     /* a worker that cannot work waits so long for its Stop */
    CONTROL_BAD_FRAMES_MAX = 100, /* malformed frames until the worker gives up on its controller */
    CONTROL_PAUSE_MS = 200,       /* before it begins anew; doubles with each time in a row */
    CONTROL_PAUSE_MS_MAX = 30 * 1000,
    CONTROL_STEADY_MS = 60 * 1000 /* a controller kept so long starts the pauses anew */
};

struct control_options {
    const char *endpoint;          /* of the controller's ROUTER */
    const struct curve_keys *keys; /* NULL: plain, for local endpoints alone */
    Mgpt__Role role;
    const char *model_dir;
    const char *vq_dir;    /* for the codec role */
    const char *link_bind; /* overrides Load.link_bind; NULL: as Load says */
    const char *device;    /* as Hello names it */
    int silence_ms;
    bool comes_back;       /* begins anew when its controller is lost */
    struct stream *stream; /* borrowed */
};

/* Connects, says Hello, and serves until the end. STATUS_OK: told to stop. STATUS_LOST: see above.
 * Others: it cannot work, or was refused by its controller, with why. */
enum status control_run(const struct control_options *options, struct error *err);

/*
 * For a worker that cannot work at all (options->stream is NULL): connects, says Hello and why, as
 * the answer to the Load that will come. Returns the status of `why`, with its text.
 */
enum status control_refuse(const struct control_options *options, const struct error *why,
                           struct error *err);

#endif
