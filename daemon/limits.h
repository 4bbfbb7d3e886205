/*
 * limits.h - every wait, queue and retry of daemon/ by name; README.md explains them in one table.
 *
 * What crosses the wire has its limits in proto/ (frame.h, message.h, plan.h), what the scheduler
 * holds in scheduler.h.
 */
#ifndef MGPT_DAEMON_LIMITS_H
#define MGPT_DAEMON_LIMITS_H

enum {
    /* Workers */
    WORKER_HELLO_WAIT_MS = 15 * 1000, /* from the start of a process to its Hello */
    WORKER_LOAD_WAIT_MS =
        600 * 1000, /* from Load to Loaded; default of engine_options.load_wait_ms */
    WORKER_CONNECT_WAIT_MS = 45 * 1000, /* from Connect to Connected; NCCL takes its time to form */
    WORKER_CONNECT_PAUSE_MS = 2 * 1000, /* before a link between machines is tried again */
    WORKER_STOP_WAIT_MS = 2 * 1000,     /* from Stop to the end of the process; then it is killed */
    WORKER_PING_MS = 2 * 1000,          /* between two pings */
    WORKER_RESTART_PAUSE_MS = 200,      /* before the second start in a row; doubles each time */
    WORKER_RESTART_PAUSE_MAX_MS = 30 * 1000,
    WORKER_STEADY_MS = 60 * 1000, /* a worker that stood so long starts the pauses anew */

    /* Steps */
    PIPELINE_STEP_WAIT_MS =
        120 *
        1000, /* from sending a plan to its last result; default of engine_options.step_wait_ms */
    PIPELINE_IN_FLIGHT_MAX = 132, /* plans sent and not answered; below PLAN_QUEUE_MAX of a stage */
    REQUEST_LOSSES_MAX = 3, /* times a request goes on after its pipeline was lost; then it fails */

    /* Pictures */
    SIDE_WAIT_MS = 120 * 1000, /* from sending a picture or a draw to its answer */
    SIDE_TRIES_MAX = 2,        /* times one is sent when the worker is lost over it */

    /* The loop */
    ENGINE_TICK_MS =
        100, /* longest time between two looks at deadlines while anything is under way */
    ENGINE_IDLE_TICK_MS = 1000, /* and while nothing is */
    ENGINE_MESSAGES_MAX = 64,   /* control messages taken before the mailbox is looked at again */
};

#endif
