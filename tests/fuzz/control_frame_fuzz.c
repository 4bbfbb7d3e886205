/*
 * control_frame_fuzz.c - any bytes as what comes over a socket: one byte of message type, then its
 * payload, decoded and checked as either side does; and the same bytes as a frame header and as
 * activations.
 */
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "proto/activation.h"
#include "proto/message.h"
#include "proto/plan.h"
#include "worker/draw.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

/* A result against a plan of one row with a draw and whole logits. */
static void check_result(const Mgpt__StepResult *result)
{
    Mgpt__StepPlan plan = MGPT__STEP_PLAN__INIT;
    Mgpt__Row row = MGPT__ROW__INIT, *rows[] = {&row};
    Mgpt__Output draw = MGPT__OUTPUT__INIT, logits = MGPT__OUTPUT__INIT;
    Mgpt__Output *outputs[] = {&draw, &logits};
    struct error err;
    logits.kind = MGPT__OUTPUT_KIND__OUTPUT_LOGITS;
    plan.epoch = plan.number = row.sequence = 1;
    plan.rows = rows;
    plan.n_rows = 1;
    row.outputs = outputs;
    row.n_outputs = 2;
    for (int is_last = 0; is_last < 2; is_last++)
        if (plan_check_result(result, &plan, is_last, 4, &err) == STATUS_OK && result->n_drawn > 0)
            CHECK(is_last && result->n_drawn == 1 && result->drawn[0]->token < 4);
}

static void check_message(const struct message *message)
{
    struct error err;
    if (message->type == MESSAGE_STEP_RESULT)
        check_result(message->step_result);
    else if (message->type == MESSAGE_LOAD && plan_check_load(message->load, 6, &err) == STATUS_OK)
        CHECK(message->load->last_unit < 6);
    else if (message->type == MESSAGE_ASK_ROOM && message->ask_room->load &&
             plan_check_load(message->ask_room->load, 6, &err) == STATUS_OK)
        CHECK(message->ask_room->load->kv_blocks > 0);
    else if (message->type == MESSAGE_DRAW && draw_check(message->draw, &err) == STATUS_OK)
        CHECK(message->draw->n_seeds > 0);
    /* What was decoded can be encoded, within the type's limit or a little above (varints may
     * shrink, never grow much). */
    CHECK(protobuf_c_message_get_packed_size(message->base) <=
          11 * message_bytes_max(message->type));
}

static void check_frames(const uint8_t *bytes, size_t n_bytes)
{
    struct frame_header header;
    struct activation_header activation;
    const void *body;
    size_t body_bytes;
    struct error err;
    if (frame_check_header(bytes, n_bytes < 16 ? n_bytes : 16, 1000, &header, &err) == STATUS_OK)
        CHECK(header.payload_bytes <= 1000);
    if (activation_decode(&activation, &body, &body_bytes, bytes, n_bytes, 4, DTYPE_BF16, &err) ==
        STATUS_OK)
        CHECK(activation.flags || body_bytes == activation.n_tokens * 8u);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    check_frames(bytes, n_bytes);
    if (n_bytes == 0)
        return 0;
    struct message message;
    struct error err;
    if (message_decode(&message, bytes[0], bytes + 1, n_bytes - 1, &err) == STATUS_OK)
        check_message(&message);
    message_clear(&message);
    return 0;
}
