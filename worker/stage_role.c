/*
 * stage_role.c - a stage between its controller and its neighbours.
 */
#include "worker/stage_role.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "model/checkpoint_units.h"
#include "worker/draw.h"
#include "worker/link_nccl.h"
#include "worker/link_zmq.h"
#include "worker/model_vocabulary.h"
#include "worker/plan_queue.h"
#include "worker/reply.h"
#include "worker/stage.h"
#include "worker/stage_room.h"

enum {
    LINK_FRAMES_AT_ONCE =
        16 /* frames that are dropped in one go before the control socket is looked at again */
};

static const int64_t NS_IN_MS = 1000 * 1000;

struct stage_role {
    struct stage_role_options options;
    struct draw *draw;
    struct stage *stage; /* NULL: nothing is loaded */
    struct step_result *result;
    struct plan_queue queue;
    uint32_t stage_index, n_stages;
    int64_t activation_ns;  /* limit of waiting for an accepted plan's frame */
    struct link *in;        /* NULL for stage 0 */
    struct link *out;       /* NULL for the last stage, and before Connect */
    size_t link_rows_bytes; /* of a payload, for hops by NCCL; 0: this stage was loaded without */
    bool is_connecting;     /* the greeting of `out` is not answered yet */
    int64_t connect_end_ns;
    bool has_frame;
    struct link_frame frame; /* the next of `in`, when it is there before its plan */
};

enum status stage_role_create(struct stage_role **out, const struct stage_role_options *options,
                              struct error *err)
{
    *out = NULL;
    struct stage_role *role = calloc(1, sizeof(*role));
    if (!role)
        return error_set(err, STATUS_NOMEM, "cannot allocate the stage role");
    role->options = *options;
    enum status st = draw_create(&role->draw, options->model_dir, options->stream, err);
    if (st != STATUS_OK) {
        stage_role_destroy(role);
        return st;
    }
    *out = role;
    return STATUS_OK;
}

static void drop_frame(struct stage_role *role)
{
    if (role->has_frame)
        link_frame_clear(&role->frame);
    role->has_frame = false;
}

static void unload(struct stage_role *role)
{
    plan_queue_reset(&role->queue, 0, 0);
    drop_frame(role);
    link_abandon(role->in);
    link_abandon(role->out);
    link_destroy(role->in);
    link_destroy(role->out);
    role->link_rows_bytes = 0;
    role->in = role->out = NULL;
    role->is_connecting = false;
    stage_destroy(role->stage);
    role->stage = NULL;
    step_result_destroy(role->result);
    role->result = NULL;
    malloc_trim(0);
}

void stage_role_destroy(struct stage_role *role)
{
    if (!role)
        return;
    unload(role);
    draw_destroy(role->draw);
    free(role);
}

/* ---- Load ---- */

static bool is_last(const struct stage_role *role)
{
    return role->stage_index + 1 == role->n_stages;
}

static enum dtype compute_dtype(const Mgpt__Load *load)
{
    return load->compute == MGPT__COMPUTE__COMPUTE_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

static struct link_nccl_options nccl_options(const struct stage_role *role)
{
    return (struct link_nccl_options){.stream = role->options.stream,
                                      .rows_bytes_max = role->link_rows_bytes};
}

/* Device memory of one end of a link by NCCL; the one to the next stage is made by Connect. */
static size_t link_end_bytes(const struct stage_role *role)
{
    struct link_nccl_options options = nccl_options(role);
    return role->link_rows_bytes > 0 ? link_nccl_bytes(&options) : 0;
}

/* Of a payload of rows, without the frame's header. */
static size_t link_rows_bytes(const Mgpt__Load *load, const struct model_config *config)
{
    return activation_bytes(load->rows_max, (uint32_t)config->hidden, compute_dtype(load)) -
           sizeof(struct activation_header);
}

static size_t n_links_out(const Mgpt__Load *load)
{
    return load->stage_index + 1 < load->n_stages ? 1 : 0;
}

/* The link is bound before weights are read, so that the endpoint is good whenever the controller
 * passes it on. */
static enum status listen_for_activations(struct stage_role *role, const Mgpt__Load *load,
                                          const struct model_config *config, struct error *err)
{
    struct link_shape shape = {load->epoch, (uint32_t)config->hidden, compute_dtype(load)};
    size_t frame_bytes = activation_bytes(load->rows_max, shape.hidden, shape.dtype);
    if (frame_bytes > FRAME_PAYLOAD_BYTES_MAX)
        return error_set(err, STATUS_INVALID,
                         "activations of %u rows have %zu bytes, the limit of a frame is %d",
                         load->rows_max, frame_bytes, FRAME_PAYLOAD_BYTES_MAX);
    if (load->link == MGPT__LINK_KIND__LINK_NCCL)
        role->link_rows_bytes = link_rows_bytes(load, config);
    if (load->stage_index == 0)
        return STATUS_OK;
    const char *bind = role->options.link_bind ? role->options.link_bind : load->link_bind;
    enum status st =
        link_zmq_listen(&role->in, role->options.zmq, bind, role->options.use_key, &shape, err);
    if (st != STATUS_OK || role->link_rows_bytes == 0)
        return st;
    struct link_nccl_options options = nccl_options(role);
    return link_nccl_listen(&role->in, role->in, &options, err);
}

static struct stage_options options_of(const Mgpt__Load *load)
{
    uint32_t outputs_max = load->outputs_max ? load->outputs_max : load->rows_max;
    return (struct stage_options){
        .first_unit = (int)load->first_unit,
        .last_unit = (int)load->last_unit,
        .compute = compute_dtype(load),
        .kv_blocks = (int)load->kv_blocks,
        .sequences_max = (int)load->sequences_max,
        .rows_max = (int)load->rows_max,
        .outputs_max = (int)(outputs_max < PLAN_OUTPUTS_MAX ? outputs_max : PLAN_OUTPUTS_MAX)};
}

static enum status load_stage(struct stage_role *role, const Mgpt__Load *load,
                              struct checkpoint *checkpoint, struct error *err)
{
    struct vocabulary *vocabulary = NULL;
    struct stage_options options = options_of(load);
    options.link_bytes = n_links_out(load) * link_end_bytes(role);
    enum status st = STATUS_OK;
    if (load->stage_index + 1 == load->n_stages)
        st = model_vocabulary_load(&vocabulary, role->options.model_dir, err);
    options.vocabulary = vocabulary;
    if (st == STATUS_OK)
        st = stage_create(&role->stage, checkpoint, &options, role->options.stream, err);
    vocabulary_destroy(vocabulary);
    if (st == STATUS_OK)
        st = step_result_create(&role->result, options.outputs_max, err);
    return st;
}

/* Everything a Loaded says that is text, alive until it is sent. */
struct load_facts {
    char units[UNITS_TEXT_BYTES];
    char digest[2 * CHECKPOINT_DIGEST_BYTES + 1];
    char fingerprint[128];
};

static enum status gather_facts(const struct stage_role *role, const Mgpt__Load *load,
                                struct checkpoint *checkpoint, struct load_facts *facts,
                                struct error *err)
{
    unsigned char digest[CHECKPOINT_DIGEST_BYTES];
    enum status st =
        checkpoint_digest(checkpoint, (int)load->first_unit, (int)load->last_unit, digest, err);
    for (size_t i = 0; st == STATUS_OK && i < sizeof(digest); i++)
        snprintf(facts->digest + 2 * i, 3, "%02x", digest[i]);
    units_format(facts->units, (int)load->first_unit, (int)load->last_unit,
                 checkpoint_config(checkpoint)->n_layers);
    snprintf(facts->fingerprint, sizeof(facts->fingerprint),
             "device=%s path=%s numerics=%d compute=%s", stream_device_name(role->options.stream),
             stream_path_name(role->options.stream), KERNELS_NUMERICS_VERSION,
             dtype_name(compute_dtype(load)));
    return st;
}

static enum status say_loaded(struct stage_role *role, const Mgpt__Load *load,
                              struct load_facts *facts, struct error *err)
{
    struct stage_memory memory = stage_memory(role->stage);
    const struct stream *stream = role->options.stream;
    size_t free_bytes = 0, total_bytes = 0;
    /* The link to the next stage is made by Connect; its memory counts as taken. */
    size_t link_bytes = n_links_out(load) * link_end_bytes(role);
    stream_room(stream, &free_bytes, &total_bytes);
    free_bytes = free_bytes > link_bytes ? free_bytes - link_bytes : 0;
    Mgpt__Loaded loaded = MGPT__LOADED__INIT;
    loaded.epoch = load->epoch;
    loaded.units = facts->units;
    loaded.digest = facts->digest;
    loaded.fingerprint = facts->fingerprint;
    loaded.weight_bytes = memory.weight_bytes;
    loaded.kv_bytes = memory.kv_bytes;
    loaded.activation_bytes =
        memory.activation_bytes + link_bytes + (role->in ? link_end_bytes(role) : 0);
    loaded.file_bytes = memory.file_bytes;
    loaded.resident_bytes = reply_resident_bytes();
    loaded.workspace_bytes = stream_workspace_bytes(stream);
    loaded.device_bytes = stream_held_bytes(stream) + link_bytes;
    loaded.device_free_bytes = free_bytes;
    loaded.device_total_bytes = total_bytes;
    loaded.recording_bytes = memory.recording_bytes;
    if (role->in) {
        loaded.link_endpoint = role->in->endpoint;
        loaded.link_key = role->in->key;
    }
    log_info("worker",
             "loaded stage=%u units=%s weight_bytes=%zu kv_bytes=%zu activation_bytes=%zu "
             "workspace_bytes=%zu recording_bytes=%zu device_bytes=%zu device_free_bytes=%zu "
             "device_total_bytes=%zu resident_bytes=%llu",
             load->stage_index, facts->units, memory.weight_bytes, memory.kv_bytes,
             (size_t)loaded.activation_bytes, stream_workspace_bytes(stream),
             memory.recording_bytes, (size_t)loaded.device_bytes, free_bytes, total_bytes,
             (unsigned long long)loaded.resident_bytes);
    return reply_send(role->options.control, MESSAGE_LOADED, &loaded.base, err);
}

/* The model that `load` is of, once its units are seen to be there. */
static enum status open_model(struct checkpoint **out, const struct stage_role *role,
                              const Mgpt__Load *load, struct error *err)
{
    enum status st = checkpoint_open(out, role->options.model_dir, err);
    if (st != STATUS_OK)
        return st;
    st = plan_check_load(load, (uint32_t)units_count(checkpoint_config(*out)->n_layers), err);
    if (st != STATUS_OK)
        checkpoint_close(*out);
    return st;
}

static enum status load_parts(struct stage_role *role, const Mgpt__Load *load,
                              struct load_facts *facts, struct error *err)
{
    struct checkpoint *checkpoint;
    enum status st = open_model(&checkpoint, role, load, err);
    if (st != STATUS_OK)
        return st;
    st = listen_for_activations(role, load, checkpoint_config(checkpoint), err);
    if (st == STATUS_OK)
        st = load_stage(role, load, checkpoint, err);
    if (st == STATUS_OK)
        st = gather_facts(role, load, checkpoint, facts, err);
    checkpoint_close(checkpoint);
    malloc_trim(0);
    return st;
}

static enum status handle_load(struct stage_role *role, const Mgpt__Load *load, struct error *err)
{
    unload(role);
    struct error why;
    struct load_facts facts;
    enum status st = load_parts(role, load, &facts, &why);
    if (st != STATUS_OK) {
        unload(role);
        return reply_failure(role->options.control, MESSAGE_LOAD, 0, 0, &why, err);
    }
    role->stage_index = load->stage_index;
    role->n_stages = load->n_stages;
    role->activation_ns =
        (load->activation_ms ? load->activation_ms : STAGE_ROLE_ACTIVATION_MS) * NS_IN_MS;
    plan_queue_reset(&role->queue, load->epoch, load->first_number);
    return say_loaded(role, load, &facts, err);
}

/* ---- what a Load would take ---- */

static enum status answer_room(struct stage_role *role, const Mgpt__Load *load, Mgpt__Room *room,
                               struct error *err)
{
    struct checkpoint *checkpoint;
    enum status st = open_model(&checkpoint, role, load, err);
    if (st != STATUS_OK)
        return st;
    const struct model_config *config = checkpoint_config(checkpoint);
    struct stage_options options = options_of(load);
    struct link_nccl_options link = {.stream = role->options.stream,
                                     .rows_bytes_max = link_rows_bytes(load, config)};
    struct stage_need need;
    size_t free_bytes = 0, total_bytes = 0;
    if (load->link == MGPT__LINK_KIND__LINK_NCCL)
        options.link_bytes = (n_links_out(load) + (load->stage_index > 0)) * link_nccl_bytes(&link);
    stage_room_need(&need, config, &options, role->options.stream);
    stage_room_free(role->options.stream, &free_bytes, &total_bytes);
    room->free_bytes = free_bytes;
    room->total_bytes = total_bytes;
    room->weight_bytes = need.weight_bytes;
    room->activation_bytes = need.activation_bytes;
    room->recording_bytes = need.recording_bytes;
    room->block_bytes = need.kv_bytes / load->kv_blocks;
    checkpoint_close(checkpoint);
    return STATUS_OK;
}

static enum status handle_ask_room(struct stage_role *role, const Mgpt__AskRoom *ask,
                                   struct error *err)
{
    struct error why;
    Mgpt__Room room = MGPT__ROOM__INIT;
    enum status st = ask->load ? answer_room(role, ask->load, &room, &why)
                               : error_set(&why, STATUS_INVALID, "room is asked for no load");
    if (st != STATUS_OK)
        return reply_failure(role->options.control, MESSAGE_ASK_ROOM, 0, 0, &why, err);
    return reply_send(role->options.control, MESSAGE_ROOM, &room.base, err);
}

/* ---- links and epochs ---- */

static enum status connect_link(struct stage_role *role, const Mgpt__Connect *connect,
                                struct error *err)
{
    if (!role->stage || is_last(role))
        return error_set(err, STATUS_INVALID, "this worker has no next stage to connect to");
    bool is_nccl = connect->link == MGPT__LINK_KIND__LINK_NCCL;
    if (is_nccl && role->link_rows_bytes == 0)
        return error_set(err, STATUS_INVALID, "this stage was loaded without memory for NCCL");
    struct link_shape shape = {role->queue.epoch, (uint32_t)stage_hidden(role->stage),
                               stage_compute(role->stage)};
    enum status st = link_zmq_connect(&role->out, role->options.zmq, connect->endpoint,
                                      connect->key, &shape, err);
    struct link_nccl_options options = nccl_options(role);
    if (st == STATUS_OK && is_nccl)
        st = link_nccl_connect(&role->out, role->out, &options, err);
    int wait_ms = is_nccl ? STAGE_ROLE_NCCL_GREETING_MS : STAGE_ROLE_GREETING_MS;
    role->connect_end_ns = clock_monotonic_ns() + wait_ms * NS_IN_MS;
    return st;
}

static enum status handle_connect(struct stage_role *role, const Mgpt__Connect *connect,
                                  struct error *err)
{
    struct error why;
    link_destroy(role->out);
    role->out = NULL;
    role->is_connecting = false;
    enum status st = connect_link(role, connect, &why);
    if (st == STATUS_OK)
        st = link_greet(role->out, &why);
    role->is_connecting = st == STATUS_OK;
    if (st == STATUS_OK)
        return st;
    link_destroy(role->out);
    role->out = NULL;
    return reply_failure(role->options.control, MESSAGE_CONNECT, 0, 0, &why, err);
}

static enum status handle_reset(struct stage_role *role, const Mgpt__Reset *reset,
                                struct error *err)
{
    if (!role->stage || reset->epoch == 0 || reset->first_number == 0) {
        struct error why;
        error_set(&why, STATUS_INVALID,
                  role->stage ? "epoch and first number begin at 1" : "nothing is loaded");
        return reply_failure(role->options.control, MESSAGE_RESET, reset->epoch, 0, &why, err);
    }
    plan_queue_reset(&role->queue, reset->epoch, reset->first_number);
    drop_frame(role);
    stage_reset(role->stage);
    if (role->in)
        link_set_epoch(role->in, reset->epoch);
    if (role->out)
        link_set_epoch(role->out, reset->epoch);
    Mgpt__Ready ready = MGPT__READY__INIT;
    ready.epoch = reset->epoch;
    return reply_send(role->options.control, MESSAGE_READY, &ready.base, err);
}

static enum status handle_unload(struct stage_role *role, struct error *err)
{
    unload(role);
    Mgpt__Unloaded unloaded = MGPT__UNLOADED__INIT;
    unloaded.resident_bytes = reply_resident_bytes();
    return reply_send(role->options.control, MESSAGE_UNLOADED, &unloaded.base, err);
}

static enum status handle_plan(struct stage_role *role, struct message *message, struct error *err)
{
    struct error why;
    uint64_t epoch = message->step_plan->epoch, number = message->step_plan->number;
    if (plan_queue_accept(&role->queue, message, clock_monotonic_ns(), &why) == STATUS_OK)
        return STATUS_OK;
    return reply_failure(role->options.control, MESSAGE_STEP_PLAN, epoch, number, &why, err);
}

static enum status handle_draw(struct stage_role *role, const Mgpt__Draw *message,
                               struct error *err)
{
    struct error why;
    Mgpt__Drawn drawn = MGPT__DRAWN__INIT;
    enum status st = draw_check(message, &why);
    uint32_t *ids = st == STATUS_OK ? calloc(message->n_seeds, sizeof(*ids)) : NULL;
    if (st == STATUS_OK && !ids)
        st = error_set(&why, STATUS_NOMEM, "cannot allocate %u draws", message->n_seeds);
    if (st == STATUS_OK)
        st = draw_run(role->draw, message, ids, &why);
    drawn.id = message->id;
    drawn.tokens = ids;
    drawn.n_tokens = message->n_seeds;
    if (st == STATUS_OK)
        st = reply_send(role->options.control, MESSAGE_DRAWN, &drawn.base, err);
    else
        st = reply_failure(role->options.control, MESSAGE_DRAW, 0, message->id, &why, err);
    free(ids);
    return st;
}

enum status stage_role_handle(struct stage_role *role, struct message *message, struct error *err)
{
    switch (message->type) {
    case MESSAGE_LOAD:
        return handle_load(role, message->load, err);
    case MESSAGE_ASK_ROOM:
        return handle_ask_room(role, message->ask_room, err);
    case MESSAGE_CONNECT:
        return handle_connect(role, message->connect, err);
    case MESSAGE_RESET:
        return handle_reset(role, message->reset, err);
    case MESSAGE_UNLOAD:
        return handle_unload(role, err);
    case MESSAGE_STEP_PLAN:
        return handle_plan(role, message, err);
    case MESSAGE_DRAW:
        return handle_draw(role, message->draw, err);
    default: {
        struct error why;
        error_set(&why, STATUS_INVALID, "%s is not for a stage worker",
                  message_type_name(message->type));
        return reply_failure(role->options.control, message->type, 0, 0, &why, err);
    }
    }
}

/* ---- work ---- */

/* Connected or Failure, once, when the greeting is answered, refused or late. */
static enum status look_at_greeting(struct stage_role *role, struct error *err)
{
    if (!role->is_connecting)
        return STATUS_OK;
    struct error why;
    enum status st = link_poll_greeted(role->out, &why);
    if (st == STATUS_TIMEOUT && clock_monotonic_ns() < role->connect_end_ns)
        return STATUS_OK;
    role->is_connecting = false;
    if (st == STATUS_OK) {
        Mgpt__Connected connected = MGPT__CONNECTED__INIT;
        return reply_send(role->options.control, MESSAGE_CONNECTED, &connected.base, err);
    }
    if (st == STATUS_TIMEOUT)
        error_set(&why, STATUS_TIMEOUT, "the next stage did not answer a greeting in time");
    link_destroy(role->out);
    role->out = NULL;
    return reply_failure(role->options.control, MESSAGE_CONNECT, 0, 0, &why, err);
}

/* Transfers go on; a link that is lost is told once, by the end that connects it. */
static enum status tend_links(struct stage_role *role, struct error *err)
{
    struct error why;
    enum status in = role->in ? link_tend(role->in, &why) : STATUS_OK;
    if (in != STATUS_OK)
        log_error("worker", "link from the stage before is lost stage=%u reason=\"%s\"",
                  role->stage_index, why.text);
    enum status out = role->out && !role->is_connecting ? link_tend(role->out, &why) : STATUS_OK;
    if (out != STATUS_OK)
        log_error("worker", "link to the next stage is lost stage=%u reason=\"%s\"",
                  role->stage_index, why.text);
    if (in == STATUS_INTERNAL || out == STATUS_INTERNAL)
        return error_set(err, STATUS_INTERNAL, "stage %u: %s", role->stage_index, why.text);
    if (out != STATUS_LOST)
        return STATUS_OK;
    error_wrap(&why, STATUS_LOST, "the link of stages %u and %u", role->stage_index,
               role->stage_index + 1);
    return reply_failure(role->options.control, MESSAGE_CONNECT, role->queue.epoch, 0, &why, err);
}

/* Gets the next frame, unless one waits for its plan already; answers greetings; drops what is
 * stale. */
static void look_at_frames(struct stage_role *role)
{
    for (int i = 0; role->in && !role->has_frame && i < LINK_FRAMES_AT_ONCE; i++) {
        struct error why = {.text = ""};
        enum status st = link_receive(role->in, &role->frame, &why);
        if (st == STATUS_TIMEOUT)
            return;
        if (st != STATUS_OK) {
            log_warn("worker", "dropped a frame stage=%u reason=\"%s\"", role->stage_index,
                     why.text);
            continue;
        }
        role->has_frame = true;
        if (role->frame.header.number < plan_queue_head_number(&role->queue)) {
            log_warn("worker", "dropped a late frame stage=%u plan=%llu", role->stage_index,
                     (unsigned long long)role->frame.header.number);
            drop_frame(role);
        }
    }
}

static bool has_room_to_pass_on(const struct stage_role *role)
{
    return !role->out || role->is_connecting || link_has_room(role->out);
}

/* Is the oldest plan's outcome known: can it start, or has it failed? Then STATUS_OK or why;
 * STATUS_FULL: not yet. */
static enum status judge_head(const struct stage_role *role, const Mgpt__StepPlan *plan,
                              struct error *why)
{
    if (!has_room_to_pass_on(role)) {
        if (clock_monotonic_ns() - role->queue.head_since_ns < role->activation_ns)
            return STATUS_FULL;
        return error_set(why, STATUS_TIMEOUT,
                         "stage %u: the next stage took no activations for %lld ms",
                         role->stage_index, (long long)(role->activation_ns / NS_IN_MS));
    }
    if (!role->in)
        return STATUS_OK;
    const struct activation_header *header = &role->frame.header;
    if (!role->has_frame) {
        if (clock_monotonic_ns() - role->queue.head_since_ns < role->activation_ns)
            return STATUS_FULL;
        return error_set(why, STATUS_TIMEOUT,
                         "stage %u: activations of plan %llu did not come in %lld ms",
                         role->stage_index, (unsigned long long)plan->number,
                         (long long)(role->activation_ns / NS_IN_MS));
    }
    if (header->number > plan->number)
        return error_set(why, STATUS_LOST,
                         "stage %u: activations of plan %llu came before those of plan %llu",
                         role->stage_index, (unsigned long long)header->number,
                         (unsigned long long)plan->number);
    if (header->flags & ACTIVATION_FAILED)
        return error_set(why, (enum status)header->status, "%s", role->frame.text);
    if (header->n_tokens != (uint32_t)plan_n_tokens(plan))
        return error_set(why, STATUS_INVALID,
                         "stage %u: activations of plan %llu have %u rows, expected %d",
                         role->stage_index, (unsigned long long)plan->number, header->n_tokens,
                         plan_n_tokens(plan));
    return STATUS_OK;
}

/* One frame to the next stage, whatever happened. */
static enum status pass_on(struct stage_role *role, const Mgpt__StepPlan *plan, enum status st,
                           struct error *why)
{
    Mgpt__StepResult *message = step_result_message(role->result);
    if (is_last(role))
        return st;
    if (!role->out || role->is_connecting)
        return st != STATUS_OK ? st
                               : error_set(why, STATUS_LOST, "stage %u has no link to the next",
                                           role->stage_index);
    struct error link_error;
    uint32_t n_tokens = (uint32_t)plan_n_tokens(plan);
    enum status sent = STATUS_OK;
    if (st == STATUS_OK)
        sent = link_send(role->out, plan->number, n_tokens, stage_rows_view(role->stage),
                         role->options.stream, &link_error);
    else
        sent = link_send_failed(role->out, plan->number, st, why->text, &link_error);
    if (sent == STATUS_OK) {
        message->n_link_bytes =
            activation_bytes(st == STATUS_OK ? n_tokens : 0, (uint32_t)stage_hidden(role->stage),
                             stage_compute(role->stage));
        return st;
    }
    log_error("worker", "cannot pass on stage=%u plan=%llu reason=\"%s\"", role->stage_index,
              (unsigned long long)plan->number, link_error.text);
    return st != STATUS_OK
               ? st
               : error_set(why, sent, "stage %u: %s", role->stage_index, link_error.text);
}

/* Runs the oldest plan, or fails it; passes on; reports. st: as judge_head() says. */
static enum status finish_head(struct stage_role *role, const Mgpt__StepPlan *plan, enum status st,
                               struct error *why, struct error *err)
{
    int64_t begin_ns = clock_monotonic_ns();
    step_result_begin(role->result, plan->epoch, plan->number, role->stage_index);
    if (st == STATUS_OK) {
        struct stage_input input = {role->frame.rows, role->frame.on_device};
        st = stage_step(role->stage, plan, role->has_frame ? &input : NULL, role->result, why);
        if (st != STATUS_OK)
            error_wrap(why, st, "stage %u", role->stage_index);
    } else {
        stage_skip(role->stage, plan);
    }
    if (role->has_frame && role->frame.header.number == plan->number)
        drop_frame(role);
    st = pass_on(role, plan, st, why);
    if (st != STATUS_OK)
        step_result_fail(role->result, st, why->text);
    Mgpt__StepResult *message = step_result_message(role->result);
    message->wait_ns = (uint64_t)(begin_ns - role->queue.head_since_ns);
    message->kv_blocks_used = (uint32_t)stage_kv_used(role->stage);
    message->n_queued = (uint32_t)role->queue.n - 1;
    st = reply_send(role->options.control, MESSAGE_STEP_RESULT, &message->base, err);
    plan_queue_pop(&role->queue, clock_monotonic_ns());
    return st;
}

enum status stage_role_work(struct stage_role *role, struct error *err)
{
    enum status st = look_at_greeting(role, err);
    if (st != STATUS_OK)
        return st;
    look_at_frames(role);
    st = tend_links(role, err);
    if (st != STATUS_OK)
        return st;
    const Mgpt__StepPlan *plan = plan_queue_head(&role->queue);
    if (!plan)
        return STATUS_OK;
    struct error why = {.text = ""};
    st = judge_head(role, plan, &why);
    return st == STATUS_FULL ? STATUS_OK : finish_head(role, plan, st, &why, err);
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

int stage_role_wait_ms(const struct stage_role *role, int wait_max)
{
    int wait_ms = wait_max;
    int64_t now_ns = clock_monotonic_ns(), end_ns = INT64_MAX;
    if (role->queue.n > 0) {
        if ((!role->in || role->has_frame) && has_room_to_pass_on(role))
            return 0;
        end_ns = role->queue.head_since_ns + role->activation_ns;
    }
    if (role->is_connecting && role->connect_end_ns < end_ns)
        end_ns = role->connect_end_ns;
    if (end_ns - now_ns < wait_max * NS_IN_MS)
        wait_ms = end_ns > now_ns ? (int)((end_ns - now_ns) / NS_IN_MS) + 1 : 0;
    if (role->in && !role->has_frame)
        wait_ms = smaller(wait_ms, link_wait_ms(role->in, wait_max));
    if (role->out)
        wait_ms = smaller(wait_ms, link_wait_ms(role->out, wait_max));
    return wait_ms;
}

int stage_role_poll_items(struct stage_role *role, zmq_pollitem_t items[STAGE_ROLE_POLL_ITEMS])
{
    int n = 0;
    /* A frame that waits for its plan must not wake us again and again. */
    if (role->in && !role->has_frame)
        items[n++] = (zmq_pollitem_t){.socket = link_poll_socket(role->in), .events = ZMQ_POLLIN};
    if (role->out && (role->is_connecting || role->out->hears_notices))
        items[n++] = (zmq_pollitem_t){.socket = link_poll_socket(role->out), .events = ZMQ_POLLIN};
    return n;
}
