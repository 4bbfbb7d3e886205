/*
 * message.h - the messages of mgpt.proto on a socket: each type has a number, a descriptor and a
 * limit of bytes.
 *
 * In/out:  protobuf-c structs (proto/mgpt.pb-c.h in the build folder).
 * Owns:    a received message, until message_clear().
 * Threads: those of the socket.
 *
 * Decoding checks the wire format and spends at most the message's length and
 * MESSAGE_MEMORY_BYTES_MAX; the meaning of the fields is checked by whoever uses them, plans and
 * their results by plan.h.
 *
 *     struct message m;
 *     enum status st = message_receive(router, &peer, &m, 0, &err);
 *     if (st == STATUS_OK && m.type == MESSAGE_STEP_RESULT)
 *         on_result(m.step_result);
 *     message_clear(&m);
 */
#ifndef MGPT_PROTO_MESSAGE_H
#define MGPT_PROTO_MESSAGE_H

#include "proto/frame.h"
#include "proto/mgpt.pb-c.h"

enum message_type {
    MESSAGE_NONE = 0,
    MESSAGE_HELLO = 1,
    MESSAGE_PING = 2,
    MESSAGE_PONG = 3,
    MESSAGE_FAILURE = 4,
    MESSAGE_LOAD = 5,
    MESSAGE_LOADED = 6,
    MESSAGE_CONNECT = 7,
    MESSAGE_CONNECTED = 8,
    MESSAGE_RESET = 9,
    MESSAGE_READY = 10,
    MESSAGE_UNLOAD = 11,
    MESSAGE_UNLOADED = 12,
    MESSAGE_STOP = 13,
    MESSAGE_STEP_PLAN = 14,
    MESSAGE_STEP_RESULT = 15,
    MESSAGE_ENCODE = 16,
    MESSAGE_ENCODED = 17,
    MESSAGE_DECODE = 18,
    MESSAGE_DECODED = 19,
    MESSAGE_DRAW = 20,
    MESSAGE_DRAWN = 21,
    MESSAGE_ASK_ROOM = 22,
    MESSAGE_ROOM = 23,
    MESSAGE_TYPES
};

/* Heap of one decoded message beyond its own length: lists of empty parts grow. */
enum { MESSAGE_MEMORY_BYTES_MAX = 64 << 20 };

struct message {
    enum message_type type;
    union {
        ProtobufCMessage *base;
        Mgpt__Hello *hello;
        Mgpt__Ping *ping;
        Mgpt__Pong *pong;
        Mgpt__Failure *failure;
        Mgpt__Load *load;
        Mgpt__Loaded *loaded;
        Mgpt__Connect *connect;
        Mgpt__Connected *connected;
        Mgpt__Reset *reset;
        Mgpt__Ready *ready;
        Mgpt__Unload *unload;
        Mgpt__Unloaded *unloaded;
        Mgpt__Stop *stop;
        Mgpt__StepPlan *step_plan;
        Mgpt__StepResult *step_result;
        Mgpt__Encode *encode;
        Mgpt__Encoded *encoded;
        Mgpt__Decode *decode;
        Mgpt__Decoded *decoded;
        Mgpt__Draw *draw;
        Mgpt__Drawn *drawn;
        Mgpt__AskRoom *ask_room;
        Mgpt__Room *room;
    };
};

/* "StepPlan"; "unknown" outside the enum. */
const char *message_type_name(int type);

/* Largest payload of the type; 0 for unknown types. */
size_t message_bytes_max(int type);

/* Decodes a payload. STATUS_INVALID: unknown type, too long, not protobuf. On error *out is empty.
 */
enum status message_decode(struct message *out, int type, const void *bytes, size_t n_bytes,
                           struct error *err);
void message_clear(struct message *message); /* an empty one is fine */

/*
 * Sends `body`, whose descriptor must be that of `type` (CHECK). peer, timeout and statuses as
 * frame_send(); STATUS_INVALID also when the message is above message_bytes_max(type): nothing is
 * sent then.
 */
enum status message_send(void *socket, const struct frame_peer *peer, enum message_type type,
                         const ProtobufCMessage *body, int timeout_ms, struct error *err);

/* Receives and decodes one message; statuses as frame_receive(). `out` is empty unless STATUS_OK.
 */
enum status message_receive(void *socket, struct frame_peer *peer, struct message *out,
                            int timeout_ms, struct error *err);

#endif
