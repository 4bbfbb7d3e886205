/*
 * engine.h - the model at work: stage processes, codec process and one scheduler, behind one
 * thread-safe door.
 *
 * In:      requests (token ids in, nothing of HTTP) from any thread, by messages.
 * Out:     events of each request into the mailbox it named: started, progress, then exactly
 * one finished or failed. Owns:    one loop thread, which alone owns the scheduler, the control
 * socket and the worker processes. Threads: every function here may be called from any thread;
 * create, stop and destroy from one.
 *
 * Used by mgptd (with HTTP in front) and by `mgpt inspect`, `mgpt generate --local` (engine in the
 * own process).
 */
#ifndef MGPT_DAEMON_ENGINE_H
#define MGPT_DAEMON_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/histogram.h"
#include "daemon/mailbox.h"
#include "daemon/served_model.h"
#include "scheduler/cut.h"
#include "scheduler/plan.h"

enum engine_compute { ENGINE_F32, ENGINE_BF16 };

/* AUTO: NCCL between CUDA devices where the workers have it, else ZeroMQ. */
enum engine_link { ENGINE_LINK_AUTO, ENGINE_LINK_ZMQ, ENGINE_LINK_NCCL };

enum {
    ENGINE_PIPELINES_MAX = 16,
    ENGINE_STAGES_MAX = 64, /* of one pipeline; never more than units_count() */
    ENGINE_QUEUE_MAX = 256, /* default of queue_max */
    ENGINE_BATCH_MAX = 10,  /* requests in one engine_submit */
};

struct engine_options {
    const struct served_model
        *model; /* borrowed, outlives the engine; with checkpoint unless n_pipelines is 0 */
    const char
        *vq_dir; /* folder of vqgan.yaml and vqgan.ckpt; NULL: tokenizer/ in the model's folder */
    const char *worker_path; /* NULL: mgpt-worker beside the own program */
    const char *device;      /* NULL: "cpu" */
    const char *log_level;   /* of the workers; NULL: "info" */
    enum engine_compute compute;
    enum engine_link link;            /* what carries activations between stages */
    int n_pipelines;                  /* 0: no transformer */
    int n_stages;                     /* with a cut: its number of stages, or 1 */
    const char *cut;                  /* by hand, as scheduler/cut.h reads it; NULL: even in time */
    struct picture_size picture_size; /* the cut is even inside such a one; 0 x 0: the default */
    bool codec;                       /* start a worker for pictures */
    bool draws;                       /* start a worker for ENGINE_DRAW */
    bool no_confine;    /* workers keep the system calls and capabilities they never need */
    int kv_blocks;      /* of 64 positions, a stage; 0: as kv_size.h chooses */
    int picture_pixels; /* of the largest picture the codec takes, whose memory a device reserves at
                           start; 0: what the model's positions allow */
    int prefill_rows;   /* prompt tokens of a step; 0: the scheduler decides */
    int threads;        /* of a worker; 0: its share of the cores */
    int queue_max;      /* open requests; 0: ENGINE_QUEUE_MAX */
    int step_wait_ms;   /* a plan without its last result for so long loses a stage; 0:
                           PIPELINE_STEP_WAIT_MS */
    /* Workers of other machines; NULL or "": none. See the options of mgptd. */
    const char *remote_stages, *worker_listen, *worker_key, *link_host;
    int load_wait_ms; /* a worker that does not load in this time is lost; 0: WORKER_LOAD_WAIT_MS */
};

enum engine_event_kind {
    ENGINE_EVENT_STARTED,  /* admitted: its blocks are reserved */
    ENGINE_EVENT_PROGRESS, /* PICTURE: another row of codes is done; FREE: another token; brings the
                              new tokens */
    ENGINE_EVENT_FINISHED, /* last event */
    ENGINE_EVENT_FAILED    /* last event */
};

enum engine_work {
    ENGINE_PICTURE, /* prompt ends with start and size tokens; the grammar gives the rest up to
                       <eoss> */
    ENGINE_FREE,    /* until end of turn or max_tokens; may hold pictures */
    ENGINE_PROBE,   /* logits at listed positions of the prompt */
    ENGINE_ENCODE,  /* pixels to codes */
    ENGINE_DECODE,  /* codes to pixels */
    ENGINE_DRAW     /* tokens from given logits, one a seed */
};

/* Arrays are borrowed during engine_submit and copied. */
struct engine_request {
    enum engine_work work;
    uint64_t tag; /* the caller's own, repeated in each event */

    const int32_t *prompt; /* PICTURE, FREE, PROBE */
    int n_prompt;
    int width, height; /* PICTURE: pixels; ENCODE, DECODE: pixels, multiples of 16 */
    int max_tokens;    /* FREE */
    struct plan_sampling sampling;
    int priority; /* higher first; 0 is usual */
    bool decode;  /* PICTURE: FINISHED brings the pixels too */

    const int *positions; /* PROBE: ascending */
    int n_positions;

    const uint8_t *rgb;    /* ENCODE: [height, width, 3] */
    const int32_t *codes;  /* DECODE: VQ codes, [height/16, width/16] */
    const float *logits;   /* DRAW: [n_logits] */
    int n_logits, n_seeds; /* DRAW: seeds sampling.seed .. + n_seeds - 1 */
};

/* One event, taken from the mailbox, ended with mail_destroy(&event->mail). Arrays belong to the
 * event. */
struct engine_event {
    struct mail mail; /* first: a mail is an event */
    enum engine_event_kind kind;
    uint64_t request; /* engine's id */
    uint64_t tag;
    int pipeline;
    int tokens_done, tokens_total; /* total is 0 where it is not known (FREE) */
    int rows_done;                 /* PICTURE: finished rows of codes */
    double eta_s;                  /* PROGRESS: to the end; below 0 when not known */

    /* FINISHED */
    int32_t *ids; /* PROGRESS: the new tokens. FINISHED: PICTURE, FREE: tokens after the prompt,
                     <eoss> or end of turn included; ENCODE: VQ codes; DRAW: tokens */
    int n_ids;
    float *logits; /* PROBE: [n_logits_rows, vocab] */
    int n_logits_rows, vocab;
    uint8_t *rgb; /* DECODE, PICTURE with decode: [height, width, 3] */
    int width, height;
    int n_passes;   /* plans this request had rows in */
    int64_t now_ms; /* when the event came about; monotonic, as the next line */
    int64_t submitted_ms, started_ms, first_token_ms; /* 0: not yet */

    struct error error; /* FAILED */
};

struct engine;

/* Starts the loop thread and the workers and returns at once; engine_wait_ready tells when they
 * stand. */
enum status engine_create(struct engine **out, const struct engine_options *options,
                          struct error *err);

/*
 * Waits until every worker is loaded.
 *
 * STATUS_TIMEOUT: not within wait_ms.  Else the reason why a worker refused to load (a wrong
 * checkpoint, no memory): before the first success such a refusal ends the engine; afterwards lost
 * workers are started again with growing pauses.
 */
enum status engine_wait_ready(struct engine *engine, int wait_ms, struct error *err);

/* Whether pictures of this size are taken and made: options.picture_pixels. STATUS_INVALID. */
enum status engine_check_picture(const struct engine *engine, int width, int height,
                                 struct error *err);

/*
 * Hands over n requests, all or none; events go to `replies`, which is held until the last event.
 *
 * ids: NULL or [n], what engine_cancel and the events call them.
 * STATUS_FULL: queue_max would be passed.  STATUS_CANCELED: the engine is stopping.
 * What the scheduler finds wrong later (too long for the positions or the pool) comes as FAILED.
 */
enum status engine_submit(struct engine *engine, const struct engine_request *requests, int n,
                          struct mailbox *replies, uint64_t *ids, struct error *err);

/* Ends a request at the next step; its last event is FAILED with STATUS_CANCELED unless it ended
 * before. Unknown ids are ignored. */
void engine_cancel(struct engine *engine, uint64_t id);

/* No new requests; returns when the open ones ended or wait_ms passed (then they fail with
 * STATUS_CANCELED). */
void engine_stop(struct engine *engine, int wait_ms);

/* Stops without waiting when engine_stop was not called, ends the workers, joins the thread. NULL
 * is fine. */
void engine_destroy(struct engine *engine);

/* ---- what is going on, for health, metrics and `inspect generate` ---- */

enum { ENGINE_FACT_TEXT_BYTES = 256 };

struct engine_stage_stats {
    int pipeline, stage;
    int pid;
    bool ready;
    const char *link;             /* to the next stage: "nccl", "zmq"; "": none now */
    char units[UNITS_TEXT_BYTES]; /* "embed,0-3" */
    char digest[ENGINE_FACT_TEXT_BYTES], fingerprint[ENGINE_FACT_TEXT_BYTES];
    uint64_t weight_bytes, kv_bytes, activation_bytes, resident_bytes, file_bytes;
    uint64_t workspace_bytes, recording_bytes, device_bytes, device_free_bytes,
        device_total_bytes;    /* 0 on the CPU */
    uint64_t busy_ns, wait_ns; /* sums over plans */
    uint64_t link_bytes;       /* sent to the next stage */
    int kv_blocks_used;
    int n_restarts;
};

/* Memory of the codec's worker; of a device, else 0: work_bytes for the largest picture,
 * workspace_bytes of the kernels, device_bytes all it holds. */
struct engine_codec_stats {
    uint64_t weight_bytes, work_bytes, workspace_bytes, device_bytes, resident_bytes;
};

/* Of requests that succeeded: pictures and text. */
enum engine_histogram {
    ENGINE_QUEUE_TIME,     /* s, submitted to started */
    ENGINE_FIRST_TOKEN,    /* s, submitted to the first token */
    ENGINE_FIRST_ROW,      /* s, submitted to the first row of codes */
    ENGINE_PREFILL_TIME,   /* s, started to the first token */
    ENGINE_DECODE_TIME,    /* s, first token to the last */
    ENGINE_INFERENCE_TIME, /* s, started to the last token */
    ENGINE_PER_TOKEN,      /* s, decode time over tokens */
    ENGINE_WHOLE_TIME,     /* s, submitted to finished, pixels included */
    ENGINE_PROMPT_TOKENS,
    ENGINE_GENERATED_TOKENS,
    ENGINE_HISTOGRAMS
};

struct engine_stats {
    bool ready; /* every worker is loaded */
    bool stopping;
    int n_running, n_waiting; /* requests in the stages, in the queue */
    int n_in_flight;          /* plans */
    int n_codec_open;         /* encodes and decodes not yet answered */
    int64_t token_age_ms; /* since the last token, or since work began when later; 0 when idle */
    int kv_blocks, kv_blocks_used; /* of one stage, summed over pipelines */
    double busy_share;             /* U of DESIGN.md, mean over pipelines */
    uint64_t useful_ns, active_ns; /* what it is made of, summed over pipelines: kernel time on rows
                                      that counted, time with work */
    int item_bytes;                /* of a weight: 2 for bf16, 4 for f32 */
    uint64_t prompt_tokens, generation_tokens, image_tokens; /* sums */
    uint64_t n_succeeded, n_failed, n_canceled, n_refused, n_preempted;
    uint64_t prefix_queries, prefix_hits; /* tokens of prompts begun; of these, taken over */
    uint64_t n_plans, n_plan_rows, n_worker_restarts, codec_busy_ns;
    struct engine_codec_stats codec;
    double backlog_s; /* until all that is open now is done, of the pipeline that ends first; below
                         0 when not known */
    struct histogram histograms[ENGINE_HISTOGRAMS];
    /* workers of other machines: places for them, of these empty, those who wait for one; where
     * they come; what last kept one out, or "" */
    int n_remote, n_remote_missing, n_remote_spare;
    char remote_endpoint[ENGINE_FACT_TEXT_BYTES + 32], remote_notice[ERROR_TEXT_BYTES];
    int n_stages; /* entries in stages; a copy holds no more */
    struct engine_stage_stats stages[ENGINE_PIPELINES_MAX * ENGINE_STAGES_MAX];
};

/* The cut that an engine with these options makes of its model. stages: [ENGINE_STAGES_MAX]. */
enum status engine_cut_model(struct cut_stage *stages, int *n_stages,
                             const struct engine_options *options, struct error *err);

/* Of one pipeline. */
int engine_n_stages(const struct engine *engine);

/* A copy of the loop thread's latest figures. The caller frees it with free(). NULL: no memory. */
struct engine_stats *engine_stats(struct engine *engine);

#endif
