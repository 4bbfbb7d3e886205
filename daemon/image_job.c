/*
 * image_job.c - one prompt, n requests that differ in their picture index.
 */
#include "daemon/image_job.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "daemon/picture_output.h"
#include "model/unirep.h"

enum { OPENING_TOKENS = 3 };

/* Seeds that were not given fit into every JSON reader's numbers. */
static uint64_t draw_seed(void)
{
    uint32_t seed = 0;
    if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
        seed = (uint32_t)clock_monotonic_ns();
    return seed;
}

static void fill_sampling(struct plan_sampling *out, const struct image_job *job, int index)
{
    const struct image_request *request = &job->request;
    *out = (struct plan_sampling){.seed = request->seed,
                                  .picture_index = (uint32_t)index,
                                  .temperature = (float)request->temperature,
                                  .guidance = (float)request->guidance,
                                  .image_top_k = request->image_top_k,
                                  .text_top_k = job->model->settings.text_top_k};
}

static enum status submit(struct image_job *job, const struct ids *prompt, struct error *err)
{
    struct engine_request requests[IMAGE_REQUEST_N_MAX] = {{0}};
    const struct image_request *request = &job->request;
    for (int i = 0; i < request->n; i++) {
        requests[i] = (struct engine_request){.work = ENGINE_PICTURE,
                                              .tag = (uint64_t)i,
                                              .prompt = prompt->ids,
                                              .n_prompt = (int)prompt->n,
                                              .width = request->size.width,
                                              .height = request->size.height,
                                              .priority = request->priority,
                                              .decode = true};
        fill_sampling(&requests[i].sampling, job, i);
    }
    enum status st = engine_submit(job->engine, requests, request->n, job->box, job->ids, err);
    if (st == STATUS_OK)
        job->n_submitted = request->n;
    return st;
}

static enum status build(struct image_job *job, struct ids *prompt, struct image_refusal *refusal,
                         struct error *err)
{
    const struct image_request *request = &job->request;
    snprintf(refusal->field, sizeof(refusal->field), "size");
    refusal->code = "invalid_value";
    enum status st = unirep_check_size(job->model->vocabulary, request->size, err);
    if (st == STATUS_OK) /* of the shortest prompt */
        st = served_model_check_length(job->model, OPENING_TOKENS + 1, request->size, err);
    if (st == STATUS_OK)
        st = engine_check_picture(job->engine, request->size.width, request->size.height, err);
    if (st != STATUS_OK)
        return error_wrap(err, STATUS_INVALID, "'size'");
    snprintf(refusal->field, sizeof(refusal->field), "prompt");
    st = served_model_text_to_image(job->model, request->prompt, request->prompt_bytes,
                                    request->size, prompt, err);
    if (st != STATUS_OK)
        return error_wrap(err, st, "'prompt'");
    refusal->code = "context_length_exceeded";
    return served_model_check_length(job->model, prompt->n, request->size, err);
}

enum status image_job_start(struct image_job *out, struct engine *engine,
                            const struct served_model *model, struct image_request *take_request,
                            struct image_refusal *refusal, struct error *err)
{
    struct ids prompt = {0};
    memset(out, 0, sizeof(*out));
    out->engine = engine;
    out->model = model;
    out->request = *take_request;
    take_request->root = NULL;
    if (!out->request.has_seed)
        out->request.seed = draw_seed();
    enum status st = build(out, &prompt, refusal, err);
    out->n_prompt = (int)prompt.n - OPENING_TOKENS;
    if (st == STATUS_OK)
        st = mailbox_create(&out->box, 0, err);
    if (st == STATUS_OK)
        st = submit(out, &prompt, err);
    ids_fini(&prompt);
    return st;
}

void image_job_fini(struct image_job *job)
{
    for (int i = 0; i < job->n_submitted; i++)
        if (!job->ended[i])
            engine_cancel(job->engine, job->ids[i]);
    if (job->box)
        mailbox_close(job->box);
    mailbox_drop(job->box);
    image_request_fini(&job->request);
    memset(job, 0, sizeof(*job));
}

static enum image_job_outcome take(struct image_job *job, struct engine_event **event)
{
    struct mail *mail = mailbox_take(job->box);
    if (!mail)
        return IMAGE_JOB_NOTHING;
    *event = (struct engine_event *)(void *)mail;
    if ((*event)->kind == ENGINE_EVENT_FINISHED || (*event)->kind == ENGINE_EVENT_FAILED) {
        job->ended[(*event)->tag] = true;
        job->n_ended++;
    }
    return IMAGE_JOB_EVENT;
}

enum image_job_outcome image_job_wait(struct image_job *job, int client_fd, int wait_ms,
                                      struct engine_event **event)
{
    struct pollfd ready[2] = {{.fd = mailbox_fd(job->box), .events = POLLIN},
                              {.fd = client_fd, .events = POLLRDHUP}};
    int n_ready = poll(ready, client_fd < 0 ? 1 : 2, wait_ms);
    if (n_ready <= 0)
        return IMAGE_JOB_NOTHING;
    if (ready[1].revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL))
        return IMAGE_JOB_GONE;
    return take(job, event);
}

enum status image_job_write(const struct image_job *job, const struct engine_event *event,
                            uint8_t **bytes, size_t *n_bytes, struct error *err)
{
    struct picture rgb = {event->width, event->height, 3, event->rgb};
    struct picture_facts facts = {.prompt = job->request.prompt,
                                  .prompt_bytes = job->request.prompt_bytes};
    fill_sampling(&facts.sampling, job, (int)event->tag);
    return picture_output_write(bytes, n_bytes, &rgb, job->request.format, job->request.quality,
                                job->model, &facts, err);
}

int image_job_picture_tokens(const struct image_job *job)
{
    return (int)unirep_length(job->request.size);
}
