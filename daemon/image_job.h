/*
 * image_job.h - the pictures of one HTTP request: submitted together, waited for, turned into
 * files, or canceled.
 *
 * Threads: the one that serves the client. The engine's events come through the job's own mailbox.
 */
#ifndef MGPT_DAEMON_IMAGE_JOB_H
#define MGPT_DAEMON_IMAGE_JOB_H

#include "daemon/engine.h"
#include "daemon/image_request.h"

struct image_job {
    struct engine *engine;
    const struct served_model *model;
    struct image_request request;
    struct mailbox *box;
    uint64_t ids[IMAGE_REQUEST_N_MAX];
    bool ended[IMAGE_REQUEST_N_MAX];
    int n_submitted, n_ended;
    int n_prompt; /* tokens, without the opening of the picture */
};

enum image_job_outcome {
    IMAGE_JOB_EVENT,   /* *event is the caller's */
    IMAGE_JOB_NOTHING, /* the time passed */
    IMAGE_JOB_GONE     /* the client closed its connection */
};

/*
 * Takes the request's fields over (also on error), builds the prompt, submits n pictures, all or
 * none.
 *
 * STATUS_INVALID, STATUS_UNSUPPORTED: the size or the prompt; STATUS_FULL, STATUS_CANCELED: as
 * engine_submit(). refusal: field and code of the first two. The caller ends *out with
 * image_job_fini(), also on error.
 */
enum status image_job_start(struct image_job *out, struct engine *engine,
                            const struct served_model *model, struct image_request *take_request,
                            struct image_refusal *refusal, struct error *err);

/* Cancels what is not finished. A zeroed job is fine. */
void image_job_fini(struct image_job *job);

/* The next event, of any of the pictures; event->tag is the picture's index. client_fd: watched for
 * its end; -1: none. */
enum image_job_outcome image_job_wait(struct image_job *job, int client_fd, int wait_ms,
                                      struct engine_event **event);

/* The file of a finished picture. The caller frees *bytes. */
enum status image_job_write(const struct image_job *job, const struct engine_event *event,
                            uint8_t **bytes, size_t *n_bytes, struct error *err);

/* Tokens of one picture, start and end included. */
int image_job_picture_tokens(const struct image_job *job);

#endif
