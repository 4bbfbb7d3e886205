/*
 * link_zmq.c - one socket an end; the greeting is a frame that comes back.
 */
#include "worker/link_zmq.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "proto/curve.h"

struct link_zmq {
    struct link link; /* first: operations get a pointer to it */
    void *socket;
    struct frame_peer peer;   /* listening end: who greeted last; n_bytes 0: nobody yet */
    struct frame_peer asking; /* listening end: whose offer is not answered yet */
    struct link_rider rider;  /* all zero: rows come in the frames alone */
};

static struct link_zmq *self(struct link *link)
{
    return (struct link_zmq *)link;
}

static void destroy(struct link *link)
{
    struct link_zmq *hop = self(link);
    if (hop->socket)
        zmq_close(hop->socket);
    free(hop);
}

/* Header, then rows of the device (a stream is given) or bytes of the host. */
static enum status send_frame(struct link_zmq *hop, const struct frame_peer *peer, uint16_t type,
                              const struct activation_header *header, const void *body,
                              size_t body_bytes, struct stream *stream, struct error *err)
{
    zmq_msg_t payload;
    if (zmq_msg_init_size(&payload, sizeof(*header) + body_bytes) != 0)
        return error_set(err, STATUS_NOMEM, "cannot allocate an activation frame of %zu bytes",
                         sizeof(*header) + body_bytes);
    char *bytes = zmq_msg_data(&payload);
    memcpy(bytes, header, sizeof(*header));
    if (stream)
        stream_download(stream, bytes + sizeof(*header), body, body_bytes);
    else if (body_bytes > 0)
        memcpy(bytes + sizeof(*header), body, body_bytes);
    return frame_send(hop->socket, peer, type, &payload, 0, err);
}

static size_t text_bytes(const char *text)
{
    return strnlen(text, ERROR_TEXT_BYTES - 1);
}

static enum status send_activations(struct link *link, const struct activation_header *header,
                                    const void *rows, const char *text, struct stream *stream,
                                    struct error *err)
{
    size_t rows_bytes =
        activation_bytes(header->n_tokens, header->hidden, header->dtype) - sizeof(*header);
    if (rows)
        return send_frame(self(link), NULL, FRAME_TYPE_ACTIVATION, header, rows, rows_bytes, stream,
                          err);
    return send_frame(self(link), NULL, FRAME_TYPE_ACTIVATION, header, text, text_bytes(text), NULL,
                      err);
}

static struct activation_header greeting_of(const struct link *link)
{
    return (struct activation_header){.epoch = link->shape.epoch,
                                      .hidden = link->shape.hidden,
                                      .dtype = (uint16_t)link->shape.dtype};
}

static enum status greet(struct link *link, struct error *err)
{
    struct activation_header greeting = greeting_of(link);
    return send_frame(self(link), NULL, FRAME_TYPE_LINK_HELLO, &greeting, NULL, 0, NULL, err);
}

static enum status poll_greeted(struct link *link, struct error *err)
{
    struct frame frame;
    enum status st = frame_receive(self(link)->socket, NULL, &frame, 0, err);
    if (st != STATUS_OK)
        return st;
    struct activation_header header;
    const void *body;
    size_t body_bytes;
    if (frame.type != FRAME_TYPE_LINK_READY)
        st = error_set(err, STATUS_INVALID, "the next stage answered a greeting with frame type %u",
                       frame.type);
    else
        st = activation_decode(&header, &body, &body_bytes, frame.bytes, frame.n_bytes,
                               link->shape.hidden, link->shape.dtype, err);
    if (st == STATUS_OK && header.flags & ACTIVATION_FAILED)
        st = error_set(err, STATUS_INVALID, "the next stage refused the link: %.*s",
                       (int)body_bytes, (const char *)body);
    else if (st == STATUS_OK && header.epoch != link->shape.epoch)
        st = error_set(err, STATUS_INVALID, "the next stage is in epoch %llu, this one in %llu",
                       (unsigned long long)header.epoch, (unsigned long long)link->shape.epoch);
    frame_clear(&frame);
    return st;
}

/* The same header back, or a failed one that says what does not fit. */
static enum status answer(struct link_zmq *hop, const struct frame_peer *peer, enum status status,
                          const char *text, struct error *err)
{
    struct activation_header header = greeting_of(&hop->link);
    if (status == STATUS_OK) {
        hop->peer = *peer;
    } else {
        header.flags = ACTIVATION_FAILED;
        header.status = (uint32_t)status;
    }
    enum status sent = send_frame(hop, peer, FRAME_TYPE_LINK_READY, &header, text,
                                  status == STATUS_OK ? 0 : text_bytes(text), NULL, err);
    if (status != STATUS_OK)
        return error_set(err, STATUS_INVALID, "refused a greeting: %s", text);
    return sent == STATUS_OK ? STATUS_OK
                             : error_wrap(err, STATUS_INVALID, "cannot answer a greeting");
}

static enum status take_offer(struct link_zmq *hop, const struct activation_header *header,
                              const void *offer, size_t offer_bytes, struct error *err)
{
    bool is_beside = header->flags & ACTIVATION_BESIDE;
    if (hop->rider.take_offer)
        return hop->rider.take_offer(hop->rider.context, offer, is_beside ? offer_bytes : 0, err);
    if (is_beside)
        return error_set(err, STATUS_UNSUPPORTED,
                         "NCCL was offered, this stage takes frames alone");
    return STATUS_OK;
}

static enum status take_greeting(struct link_zmq *hop, const struct frame *frame,
                                 const struct frame_peer *peer, struct error *err)
{
    struct activation_header header;
    const void *body;
    size_t body_bytes;
    struct error why = {.text = ""};
    enum status st = activation_decode(&header, &body, &body_bytes, frame->bytes, frame->n_bytes,
                                       hop->link.shape.hidden, hop->link.shape.dtype, &why);
    if (st == STATUS_OK && header.epoch != hop->link.shape.epoch)
        st = error_set(&why, STATUS_INVALID, "epoch %llu, expected %llu",
                       (unsigned long long)header.epoch, (unsigned long long)hop->link.shape.epoch);
    if (st == STATUS_OK)
        st = take_offer(hop, &header, body, body_bytes, &why);
    if (st == STATUS_OK && header.flags & ACTIVATION_BESIDE) {
        hop->asking = *peer;
        return STATUS_TIMEOUT;
    }
    st = answer(hop, peer, st, why.text, err);
    return st == STATUS_OK ? STATUS_TIMEOUT : st;
}

/* Takes the frame in any case. */
static enum status open_activations(struct link_zmq *hop, struct frame *frame,
                                    struct link_frame *out, struct error *err)
{
    const void *body;
    size_t body_bytes;
    enum status st =
        activation_decode(&out->header, &body, &body_bytes, frame->bytes, frame->n_bytes,
                          hop->link.shape.hidden, hop->link.shape.dtype, err);
    bool is_beside = st == STATUS_OK && out->header.flags & ACTIVATION_BESIDE;
    if (is_beside && !hop->rider.take_offer)
        st = error_set(err, STATUS_INVALID, "activations that go beside, this stage takes frames");
    /* Rows beside must be taken, whatever they are of: whoever takes them looks at the epoch. */
    if (st == STATUS_OK && !is_beside && out->header.epoch != hop->link.shape.epoch)
        st = error_set(
            err, STATUS_INVALID, "activations of plan %llu are of epoch %llu, expected %llu",
            (unsigned long long)out->header.number, (unsigned long long)out->header.epoch,
            (unsigned long long)hop->link.shape.epoch);
    if (st != STATUS_OK) {
        frame_clear(frame);
        memset(out, 0, sizeof(*out));
        return st;
    }
    out->frame = *frame;
    if (out->header.flags & ACTIVATION_FAILED)
        memcpy(out->text, body, body_bytes); /* shorter than the text, which is all zero */
    else
        out->rows = body;
    return STATUS_OK;
}

/* STATUS_TIMEOUT: taken, look again. */
static enum status take_loss(struct link_zmq *hop, const struct frame *frame, struct error *err)
{
    struct activation_header header;
    const void *body;
    size_t body_bytes;
    char why[ERROR_TEXT_BYTES] = "";
    enum status st = activation_decode(&header, &body, &body_bytes, frame->bytes, frame->n_bytes,
                                       hop->link.shape.hidden, hop->link.shape.dtype, err);
    if (st == STATUS_OK && !(header.flags & ACTIVATION_FAILED))
        st = error_set(err, STATUS_INVALID, "a loss that did not fail");
    if (st != STATUS_OK)
        return st;
    memcpy(why, body, body_bytes); /* shorter than the text, which is all zero */
    if (hop->rider.take_loss)
        hop->rider.take_loss(hop->rider.context, why);
    return STATUS_TIMEOUT;
}

static enum status receive(struct link *link, struct link_frame *out, struct error *err)
{
    struct link_zmq *hop = self(link);
    struct frame_peer peer;
    struct frame frame;
    enum status st = frame_receive(hop->socket, &peer, &frame, 0, err);
    if (st != STATUS_OK)
        return st;
    if (frame.type == FRAME_TYPE_ACTIVATION && frame_peer_equals(&peer, &hop->peer))
        return open_activations(hop, &frame, out, err);
    if (frame.type == FRAME_TYPE_LINK_HELLO)
        st = take_greeting(hop, &frame, &peer, err);
    else if (frame.type == FRAME_TYPE_LINK_LOST && frame_peer_equals(&peer, &hop->peer))
        st = take_loss(hop, &frame, err);
    else if (frame.type == FRAME_TYPE_ACTIVATION)
        st = error_set(err, STATUS_INVALID, "activations of a peer that did not greet");
    else
        st = error_set(err, STATUS_INVALID, "frame type %u on a link", frame.type);
    frame_clear(&frame);
    return st;
}

static void *poll_socket(struct link *link)
{
    return self(link)->socket;
}

static const struct link_operations *operations(void)
{
    static const struct link_operations table = {
        .destroy = destroy,
        .greet = greet,
        .poll_greeted = poll_greeted,
        .send = send_activations,
        .receive = receive,
        .poll_socket = poll_socket,
    };
    return &table;
}

static enum status create(struct link_zmq **out, void *zmq, int type,
                          const struct link_shape *shape, struct error *err)
{
    *out = NULL;
    struct link_zmq *hop = calloc(1, sizeof(*hop));
    if (!hop)
        return error_set(err, STATUS_NOMEM, "cannot allocate a link");
    hop->link.operations = operations();
    hop->link.shape = *shape;
    hop->socket = zmq_socket(zmq, type);
    enum status st = STATUS_OK;
    int frames_max = LINK_FRAMES_MAX;
    if (!hop->socket)
        st = error_set(err, STATUS_IO, "cannot open a socket: %s", zmq_strerror(errno));
    if (st == STATUS_OK)
        st = frame_configure_socket(hop->socket, err);
    if (st == STATUS_OK &&
        (zmq_setsockopt(hop->socket, ZMQ_SNDHWM, &frames_max, sizeof(frames_max)) != 0 ||
         zmq_setsockopt(hop->socket, ZMQ_RCVHWM, &frames_max, sizeof(frames_max)) != 0))
        st = error_set(err, STATUS_IO, "cannot set the limit of a link's queue: %s",
                       zmq_strerror(errno));
    if (st != STATUS_OK) {
        destroy(&hop->link);
        return st;
    }
    *out = hop;
    return STATUS_OK;
}

static enum status listen_with_key(struct link_zmq *hop, struct error *err)
{
    struct curve_keys keys;
    enum status st = curve_generate(&keys, err);
    if (st == STATUS_OK)
        st = curve_set_server(hop->socket, &keys, err);
    if (st == STATUS_OK)
        memcpy(hop->link.key, keys.public_key, sizeof(hop->link.key));
    return st;
}

enum status link_zmq_listen(struct link **out, void *zmq, const char *bind, bool use_key,
                            const struct link_shape *shape, struct error *err)
{
    *out = NULL;
    struct link_zmq *hop;
    enum status st = create(&hop, zmq, ZMQ_ROUTER, shape, err);
    if (st != STATUS_OK)
        return st;
    if (use_key || !curve_endpoint_is_local(bind))
        st = listen_with_key(hop, err);
    if (st == STATUS_OK && zmq_bind(hop->socket, bind) != 0)
        st = error_set(err, STATUS_IO, "cannot bind link endpoint '%s': %s", bind,
                       zmq_strerror(errno));
    size_t endpoint_bytes = sizeof(hop->link.endpoint);
    if (st == STATUS_OK &&
        zmq_getsockopt(hop->socket, ZMQ_LAST_ENDPOINT, hop->link.endpoint, &endpoint_bytes) != 0)
        st = error_set(err, STATUS_IO, "cannot ask link endpoint '%s' for its address: %s", bind,
                       zmq_strerror(errno));
    if (st != STATUS_OK) {
        destroy(&hop->link);
        return st;
    }
    *out = &hop->link;
    return STATUS_OK;
}

static enum status connect_with_key(struct link_zmq *hop, const char *key, struct error *err)
{
    struct curve_keys keys;
    enum status st = curve_generate(&keys, err);
    return st == STATUS_OK ? curve_set_client(hop->socket, &keys, key, err) : st;
}

enum status link_zmq_connect(struct link **out, void *zmq, const char *endpoint, const char *key,
                             const struct link_shape *shape, struct error *err)
{
    *out = NULL;
    if (!*key && !curve_endpoint_is_local(endpoint))
        return error_set(err, STATUS_INVALID,
                         "link endpoint '%s' is not on this machine and has no key", endpoint);
    struct link_zmq *hop;
    enum status st = create(&hop, zmq, ZMQ_DEALER, shape, err);
    if (st != STATUS_OK)
        return st;
    if (*key)
        st = connect_with_key(hop, key, err);
    if (st == STATUS_OK && zmq_connect(hop->socket, endpoint) != 0)
        st = error_set(err, STATUS_IO, "cannot connect to link endpoint '%s': %s", endpoint,
                       zmq_strerror(errno));
    if (st != STATUS_OK) {
        destroy(&hop->link);
        return st;
    }
    *out = &hop->link;
    return STATUS_OK;
}

/* ---- for a carrier whose rows go another way ---- */

void link_zmq_set_rider(struct link *link, const struct link_rider *rider)
{
    self(link)->rider = *rider;
}

enum status link_zmq_greet_with(struct link *link, const void *offer, size_t offer_bytes,
                                struct error *err)
{
    CHECK(offer_bytes <= ACTIVATION_BESIDE_BYTES_MAX);
    struct activation_header greeting = greeting_of(link);
    greeting.flags = ACTIVATION_BESIDE;
    return send_frame(self(link), NULL, FRAME_TYPE_LINK_HELLO, &greeting, offer, offer_bytes, NULL,
                      err);
}

enum status link_zmq_answer(struct link *link, enum status status, const char *text,
                            struct error *err)
{
    return answer(self(link), &self(link)->asking, status, text, err);
}

enum status link_zmq_announce(struct link *link, uint64_t number, uint32_t n_tokens,
                              uint64_t ordinal, struct error *err)
{
    struct activation_header header = greeting_of(link);
    header.number = number;
    header.n_tokens = n_tokens;
    header.flags = ACTIVATION_BESIDE;
    return send_frame(self(link), NULL, FRAME_TYPE_ACTIVATION, &header, &ordinal, sizeof(ordinal),
                      NULL, err);
}

enum status link_zmq_tell_loss(struct link *link, const char *why, struct error *err)
{
    struct link_zmq *hop = self(link);
    struct activation_header header = greeting_of(link);
    header.flags = ACTIVATION_FAILED;
    header.status = STATUS_LOST;
    return send_frame(hop, hop->peer.n_bytes > 0 ? &hop->peer : NULL, FRAME_TYPE_LINK_LOST, &header,
                      why, text_bytes(why), NULL, err);
}

void link_zmq_take_notices(struct link *link)
{
    struct frame frame;
    for (int i = 0; i < LINK_FRAMES_MAX; i++) {
        enum status st = frame_receive(self(link)->socket, NULL, &frame, 0, NULL);
        if (st == STATUS_OK && frame.type == FRAME_TYPE_LINK_LOST)
            take_loss(self(link), &frame, NULL);
        if (st == STATUS_OK)
            frame_clear(&frame);
        else if (st != STATUS_INVALID)
            return;
    }
}
