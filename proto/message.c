/*
 * message.c - the table of message types, and decoding into a budget of memory.
 */
#include "proto/message.h"

#include <stdlib.h>

#include "base/check.h"

enum {
    SMALL_BYTES = 64 << 10,
    PLAN_BYTES = 8 << 20,
    PICTURE_BYTES = 64 << 20, /* a picture of 4096x4096 has 48 MiB */
};

struct message_kind {
    const char *name;
    const ProtobufCMessageDescriptor *descriptor;
    size_t bytes_max;
};

static const struct message_kind *find_kind(int type)
{
    static const struct message_kind kinds[MESSAGE_TYPES] = {
        [MESSAGE_HELLO] = {"Hello", &mgpt__hello__descriptor, SMALL_BYTES},
        [MESSAGE_PING] = {"Ping", &mgpt__ping__descriptor, SMALL_BYTES},
        [MESSAGE_PONG] = {"Pong", &mgpt__pong__descriptor, SMALL_BYTES},
        [MESSAGE_FAILURE] = {"Failure", &mgpt__failure__descriptor, SMALL_BYTES},
        [MESSAGE_LOAD] = {"Load", &mgpt__load__descriptor, SMALL_BYTES},
        [MESSAGE_LOADED] = {"Loaded", &mgpt__loaded__descriptor, SMALL_BYTES},
        [MESSAGE_CONNECT] = {"Connect", &mgpt__connect__descriptor, SMALL_BYTES},
        [MESSAGE_CONNECTED] = {"Connected", &mgpt__connected__descriptor, SMALL_BYTES},
        [MESSAGE_RESET] = {"Reset", &mgpt__reset__descriptor, SMALL_BYTES},
        [MESSAGE_READY] = {"Ready", &mgpt__ready__descriptor, SMALL_BYTES},
        [MESSAGE_UNLOAD] = {"Unload", &mgpt__unload__descriptor, SMALL_BYTES},
        [MESSAGE_UNLOADED] = {"Unloaded", &mgpt__unloaded__descriptor, SMALL_BYTES},
        [MESSAGE_STOP] = {"Stop", &mgpt__stop__descriptor, SMALL_BYTES},
        [MESSAGE_STEP_PLAN] = {"StepPlan", &mgpt__step_plan__descriptor, PLAN_BYTES},
        [MESSAGE_STEP_RESULT] = {"StepResult", &mgpt__step_result__descriptor,
                                 FRAME_PAYLOAD_BYTES_MAX},
        [MESSAGE_ENCODE] = {"Encode", &mgpt__encode__descriptor, PICTURE_BYTES},
        [MESSAGE_ENCODED] = {"Encoded", &mgpt__encoded__descriptor, PLAN_BYTES},
        [MESSAGE_DECODE] = {"Decode", &mgpt__decode__descriptor, PLAN_BYTES},
        [MESSAGE_DECODED] = {"Decoded", &mgpt__decoded__descriptor, PICTURE_BYTES},
        [MESSAGE_DRAW] = {"Draw", &mgpt__draw__descriptor, PLAN_BYTES},
        [MESSAGE_DRAWN] = {"Drawn", &mgpt__drawn__descriptor, PLAN_BYTES},
        [MESSAGE_ASK_ROOM] = {"AskRoom", &mgpt__ask_room__descriptor, SMALL_BYTES},
        [MESSAGE_ROOM] = {"Room", &mgpt__room__descriptor, SMALL_BYTES},
    };
    return type > MESSAGE_NONE && type < MESSAGE_TYPES ? &kinds[type] : NULL;
}

const char *message_type_name(int type)
{
    const struct message_kind *kind = find_kind(type);
    return kind ? kind->name : "unknown";
}

size_t message_bytes_max(int type)
{
    const struct message_kind *kind = find_kind(type);
    return kind ? kind->bytes_max : 0;
}

/* protobuf-c frees through the same allocator, so nothing needs to be counted down: a message is
 * decoded once. */
static void *allocate_counted(void *data, size_t n_bytes)
{
    size_t *left = data;
    if (n_bytes > *left)
        return NULL;
    *left -= n_bytes;
    return malloc(n_bytes);
}

static void free_counted(void *data, void *memory)
{
    (void)data;
    free(memory);
}

enum status message_decode(struct message *out, int type, const void *bytes, size_t n_bytes,
                           struct error *err)
{
    *out = (struct message){.type = MESSAGE_NONE};
    const struct message_kind *kind = find_kind(type);
    if (!kind)
        return error_set(err, STATUS_INVALID, "message of unknown type %d", type);
    if (n_bytes > kind->bytes_max)
        return error_set(err, STATUS_INVALID, "%s has %zu bytes, limit %zu", kind->name, n_bytes,
                         kind->bytes_max);
    size_t left = n_bytes + MESSAGE_MEMORY_BYTES_MAX;
    ProtobufCAllocator allocator = {allocate_counted, free_counted, &left};
    ProtobufCMessage *base =
        protobuf_c_message_unpack(kind->descriptor, &allocator, n_bytes, bytes);
    if (!base)
        return error_set(err, STATUS_INVALID, "%s of %zu bytes cannot be decoded", kind->name,
                         n_bytes);
    out->type = type;
    out->base = base;
    return STATUS_OK;
}

void message_clear(struct message *message)
{
    if (message->type != MESSAGE_NONE)
        protobuf_c_message_free_unpacked(message->base, NULL);
    *message = (struct message){.type = MESSAGE_NONE};
}

enum status message_send(void *socket, const struct frame_peer *peer, enum message_type type,
                         const ProtobufCMessage *body, int timeout_ms, struct error *err)
{
    const struct message_kind *kind = find_kind(type);
    CHECK(kind);
    CHECK(body->descriptor == kind->descriptor);
    size_t n_bytes = protobuf_c_message_get_packed_size(body);
    if (n_bytes > kind->bytes_max)
        return error_set(err, STATUS_INVALID, "cannot send a %s of %zu bytes, limit %zu",
                         kind->name, n_bytes, kind->bytes_max);
    zmq_msg_t payload;
    if (zmq_msg_init_size(&payload, n_bytes) != 0)
        return error_set(err, STATUS_NOMEM, "cannot allocate a %s of %zu bytes", kind->name,
                         n_bytes);
    protobuf_c_message_pack(body, zmq_msg_data(&payload));
    enum status st = frame_send(socket, peer, type, &payload, timeout_ms, err);
    return st == STATUS_OK ? st : error_wrap(err, st, "%s", kind->name);
}

enum status message_receive(void *socket, struct frame_peer *peer, struct message *out,
                            int timeout_ms, struct error *err)
{
    *out = (struct message){.type = MESSAGE_NONE};
    struct frame frame;
    enum status st = frame_receive(socket, peer, &frame, timeout_ms, err);
    if (st != STATUS_OK)
        return st;
    st = message_decode(out, frame.type, frame.bytes, frame.n_bytes, err);
    frame_clear(&frame);
    return st;
}
