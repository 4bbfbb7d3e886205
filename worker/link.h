/*
 * link.h - activations from one stage to the next, whatever carries them.
 *
 * In:      hidden states in device memory.
 * Out:     frames in order, one for every plan that the previous stage accepted.
 * Owns:    a received frame, until link_frame_clear().
 * Threads: the compute thread alone.
 *
 * Nothing here waits but where a limit is named: sends are queued (the carrier copies what it needs
 * before it returns), receives look once. The bounded waits are control.c's, which polls
 * link_poll_socket() beside the control socket, no longer than link_wait_ms().
 *
 * A hop's life: the downstream end listens and tells endpoint and key to the controller; the
 * upstream end connects and calls link_greet(), then link_poll_greeted() until the answer is there:
 * a round trip, so the hop works. The downstream end answers greetings inside link_receive(), and
 * from then on takes frames of that peer alone. A carrier that breaks says so once in link_tend();
 * from then on every plan's frame is a failed one, until the upstream end connects anew.
 */
#ifndef MGPT_WORKER_LINK_H
#define MGPT_WORKER_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/stream.h"
#include "proto/activation.h"
#include "proto/frame.h"

enum {
    LINK_POLL_MS = 1,     /* between two looks at what no socket tells */
    LINK_FRAMES_MAX = 160 /* waiting in a hop; above PLAN_QUEUE_MAX, so a sound hop is never full */
};

/* What both ends must agree on. */
struct link_shape {
    uint64_t epoch;
    uint32_t hidden;
    enum dtype dtype;
};

struct link_frame {
    struct activation_header header;
    const void
        *rows; /* [n_tokens, hidden], host memory unless on_device; NULL when the plan failed */
    bool on_device;
    char text[ERROR_TEXT_BYTES]; /* why the plan failed */
    struct frame frame;          /* owner of rows, for carriers that receive into host memory */
    struct link *holder; /* owner of rows on the device, and which of its places they have */
    int slot;
};

struct link;

/* What a carrier implements; callers use the functions below. The last ones may be NULL. */
struct link_operations {
    void (*destroy)(struct link *link);
    enum status (*greet)(struct link *link, struct error *err);
    enum status (*poll_greeted)(struct link *link, struct error *err);
    enum status (*send)(struct link *link, const struct activation_header *header, const void *rows,
                        const char *text, struct stream *stream, struct error *err);
    enum status (*receive)(struct link *link, struct link_frame *out, struct error *err);
    void *(*poll_socket)(struct link *link);
    bool (*has_room)(struct link *link);
    enum status (*tend)(struct link *link, struct error *err);
    int (*wait_ms)(struct link *link, int wait_max);
    void (*release)(struct link *link, int slot);
    void (*abandon)(struct link *link);
};

struct link {
    const struct link_operations *operations;
    struct link_shape shape;
    char endpoint[288]; /* where the previous stage shall connect; empty on the upstream end */
    char key[41];       /* public key of that endpoint; empty: plain */
    bool hears_notices; /* upstream end: its socket is to be polled as long as it lives */
};

/* Before several links of one device are destroyed: lets go of what they have under way. */
void link_abandon(struct link *link); /* NULL is fine */
void link_destroy(struct link *link); /* NULL is fine */

/* A new epoch on a hop that stays; both ends must be told before frames of that epoch are sent. */
void link_set_epoch(struct link *link, uint64_t epoch);

/* Upstream end: sends the greeting; and whether it was answered. STATUS_TIMEOUT: not yet.
 * STATUS_INVALID: refused, with why. */
enum status link_greet(struct link *link, struct error *err);
enum status link_poll_greeted(struct link *link, struct error *err);

/*
 * Upstream end: one frame. rows: device memory, free for reuse when the stream has done what it was
 * given so far; or NULL with a status and text in a failed frame. STATUS_FULL: no room, nothing was
 * sent. STATUS_LOST: the peer is gone, or gets a failed frame instead because the rows cannot go.
 */
enum status link_send(struct link *link, uint64_t number, uint32_t n_tokens, const void *rows,
                      struct stream *stream, struct error *err);
enum status link_send_failed(struct link *link, uint64_t number, enum status status,
                             const char *text, struct error *err);

/*
 * Downstream end: the next frame. STATUS_TIMEOUT: none is there. STATUS_INVALID: one came that is
 * malformed, of another peer or epoch; it is gone, the text is for the log, and the caller asks
 * again. *out is empty unless STATUS_OK.
 */
enum status link_receive(struct link *link, struct link_frame *out, struct error *err);
void link_frame_clear(struct link_frame *frame); /* before the link ends; an empty one is fine */

/* Upstream end: whether link_send() of rows would find room now. */
bool link_has_room(struct link *link);

/*
 * Either end, before a step and after each wake: starts transfers that can start, looks how those
 * under way do. STATUS_LOST, once: the hop broke; only a new connection mends it.  STATUS_INTERNAL:
 * this process cannot go on.
 */
enum status link_tend(struct link *link, struct error *err);

/* The ZeroMQ socket to poll for reading. */
void *link_poll_socket(struct link *link);

/* Milliseconds until link_tend() or link_receive() shall look again if no socket wakes us; wait_max
 * at most. */
int link_wait_ms(struct link *link, int wait_max);

#endif
