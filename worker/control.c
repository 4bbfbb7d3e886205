/*
 * control.c - one loop: take messages, do what is due, sleep until a socket or a deadline wakes.
 */
#include "worker/control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "worker/codec_role.h"
#include "worker/communicator.h"
#include "worker/reply.h"
#include "worker/stage_role.h"
#include "worker/watch.h"

/* What was said of a controller that is not there, so that it is said once. */
struct complaints {
    bool is_away, has_failed, waits;
};

struct control {
    const struct control_options *options;
    struct complaints *complaints;
    struct watch watch; /* of a worker that comes back */
    void *zmq;
    void *socket;
    struct stage_role *stage; /* one of the two */
    struct codec_role *codec;
    pid_t parent; /* 0: not watched */
    int64_t heard_ms;
    int n_bad_frames;
    bool is_stopped;
};

/* A name of its own, so that a link that broke and came back is the same worker to the controller.
 */
static enum status set_identity(void *socket, struct error *err)
{
    unsigned char random[8];
    char identity[64];
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return error_set_errno(err, STATUS_IO, errno, "cannot get random bytes");
    int n = snprintf(identity, sizeof(identity), "worker-%d-", (int)getpid());
    for (size_t i = 0; i < sizeof(random); i++)
        n += snprintf(identity + n, sizeof(identity) - (size_t)n, "%02x", random[i]);
    if (zmq_setsockopt(socket, ZMQ_ROUTING_ID, identity, (size_t)n) != 0)
        return error_set(err, STATUS_IO, "cannot name the control socket: %s", zmq_strerror(errno));
    return STATUS_OK;
}

static enum status open_socket(struct control *control, struct error *err)
{
    const struct control_options *options = control->options;
    if (!options->keys && !curve_endpoint_is_local(options->endpoint))
        return error_set(err, STATUS_INVALID,
                         "endpoint '%s' is not on this machine: --key is needed",
                         options->endpoint);
    control->zmq = zmq_ctx_new();
    control->socket = control->zmq ? zmq_socket(control->zmq, ZMQ_DEALER) : NULL;
    if (!control->socket)
        return error_set(err, STATUS_IO, "cannot open the control socket: %s", zmq_strerror(errno));
    enum status st = frame_configure_socket(control->socket, err);
    if (st == STATUS_OK)
        st = set_identity(control->socket, err);
    if (st == STATUS_OK && options->keys)
        st = curve_set_client(control->socket, options->keys, options->keys->server_key, err);
    if (st == STATUS_OK && options->comes_back)
        st = frame_configure_far_socket(control->socket, FRAME_PAYLOAD_BYTES_MAX, err);
    if (st == STATUS_OK && options->comes_back)
        st = watch_open(&control->watch, control->zmq, control->socket, err);
    if (st == STATUS_OK && zmq_connect(control->socket, options->endpoint) != 0)
        st = error_set(err, STATUS_IO, "cannot connect to '%s': %s", options->endpoint,
                       zmq_strerror(errno));
    return st;
}

static enum status create_role(struct control *control, struct error *err)
{
    const struct control_options *options = control->options;
    if (options->role == MGPT__ROLE__ROLE_CODEC) {
        struct codec_role_options codec = {control->socket, options->vq_dir, options->stream};
        return codec_role_create(&control->codec, &codec, err);
    }
    struct stage_role_options stage = {.zmq = control->zmq,
                                       .control = control->socket,
                                       .model_dir = options->model_dir,
                                       .link_bind = options->link_bind,
                                       .use_key = options->keys != NULL,
                                       .stream = options->stream};
    return stage_role_create(&control->stage, &stage, err);
}

static enum status say_hello(struct control *control, struct error *err)
{
    const struct control_options *options = control->options;
    char host[HOST_NAME_MAX + 1] = "";
    gethostname(host, sizeof(host) - 1);
    Mgpt__Hello hello = MGPT__HELLO__INIT;
    hello.role = options->role;
    hello.pid = (uint64_t)getpid();
    hello.host = host;
    hello.device = (char *)options->device;
    hello.version = MGPT_VERSION;
    hello.code_path = "";
    if (options->stream) {
        hello.code_path = (char *)stream_path_name(options->stream);
        hello.n_threads = (uint32_t)stream_n_threads(options->stream);
    }
    if (options->stream && options->role == MGPT__ROLE__ROLE_STAGE &&
        stream_device(options->stream))
        hello.nccl_version = communicator_version(NULL);
    return reply_send(control->socket, MESSAGE_HELLO, &hello.base, err);
}

/* Of a controller on another machine: it does not want this worker, or not now. */
static enum status handle_refusal(struct control *control, const Mgpt__Failure *failure,
                                  struct error *err)
{
    if (failure->type != MESSAGE_HELLO || failure->status == STATUS_OK)
        return STATUS_OK; /* never asked for; an answer to it could go to and fro for ever */
    if (failure->status == STATUS_FULL) {
        if (!control->complaints->waits)
            log_info("worker", "waits reason=\"%s\"", failure->text);
        control->complaints->waits = true;
        return STATUS_OK;
    }
    enum status st =
        failure->status <= STATUS_INTERNAL ? (enum status)failure->status : STATUS_INTERNAL;
    return error_set(err, st, "mgptd at '%s' says: %s", control->options->endpoint, failure->text);
}

static enum status handle(struct control *control, struct message *message, struct error *err)
{
    switch (message->type) {
    case MESSAGE_STOP:
        control->is_stopped = true;
        return STATUS_OK;
    case MESSAGE_PING: {
        Mgpt__Pong pong = MGPT__PONG__INIT;
        pong.value = message->ping->value;
        return reply_send(control->socket, MESSAGE_PONG, &pong.base, err);
    }
    case MESSAGE_PONG:
        return STATUS_OK;
    case MESSAGE_FAILURE:
        return handle_refusal(control, message->failure, err);
    default:
        return control->stage ? stage_role_handle(control->stage, message, err)
                              : codec_role_handle(control->codec, message, err);
    }
}

static enum status handle_bad_frame(struct control *control, const struct error *why,
                                    struct error *err)
{
    if (control->options->comes_back)
        return error_set(err, STATUS_INVALID, "mgptd at '%s': %s", control->options->endpoint,
                         why->text);
    if (++control->n_bad_frames > CONTROL_BAD_FRAMES_MAX)
        return error_set(err, STATUS_INVALID,
                         "%d malformed frames from the controller, the last: %s",
                         control->n_bad_frames, why->text);
    return reply_failure(control->socket, MESSAGE_NONE, 0, 0, why, err);
}

/* Takes messages until there are none or work has waited long enough. Whatever comes is a sign of
 * life. */
static enum status take_messages(struct control *control, struct error *err)
{
    for (int i = 0; i < CONTROL_MESSAGES_AT_ONCE && !control->is_stopped; i++) {
        struct message message;
        struct error why;
        enum status st = message_receive(control->socket, NULL, &message, 0, &why);
        if (st == STATUS_TIMEOUT)
            return STATUS_OK;
        control->heard_ms = clock_monotonic_ms();
        if (st == STATUS_INVALID)
            st = handle_bad_frame(control, &why, err);
        else if (st == STATUS_OK)
            st = handle(control, &message, err);
        else
            st = error_wrap(&why, st, "the control link"), *err = why;
        message_clear(&message);
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}

static void complain(bool *is_said, const char *endpoint, const char *what)
{
    if (!*is_said)
        log_warn("worker", "no controller endpoint=%s reason=\"%s\"; tries again", endpoint, what);
    *is_said = true;
}

/* Follows the connection to a controller on another machine. */
static enum status take_news(struct control *control, struct error *err)
{
    const char *endpoint = control->options->endpoint;
    enum watch_news news;
    while (control->watch.monitor && (news = watch_take(&control->watch)) != WATCH_NOTHING)
        switch (news) {
        case WATCH_CONNECTED:
            *control->complaints = (struct complaints){.waits = false};
            control->heard_ms = clock_monotonic_ms();
            log_info("worker", "connected endpoint=%s", endpoint);
            break;
        case WATCH_LOST:
            return error_set(err, STATUS_LOST, "the connection to mgptd at '%s' ended", endpoint);
        case WATCH_REFUSED:
            return error_set(err, STATUS_INVALID,
                             "mgptd at '%s' does not know the key of --key: add the line 'worker "
                             "%s' to the file of its --worker-key and start it again",
                             endpoint, control->options->keys->public_key);
        case WATCH_AWAY:
            complain(&control->complaints->is_away, endpoint, "nobody answers there");
            break;
        case WATCH_FAILED:
            complain(
                &control->complaints->has_failed, endpoint,
                "no handshake: is the line 'server' of --key the public key of the mgptd there?");
            break;
        case WATCH_NOTHING:
            break;
        }
    return STATUS_OK;
}

static enum status check_orphan(const struct control *control, struct error *err)
{
    if (control->options->comes_back && !control->watch.is_connected)
        return STATUS_OK; /* nobody to be silent */
    if (control->parent != 0 && getppid() != control->parent)
        return error_set(err, STATUS_LOST, "the parent process %d ended", (int)control->parent);
    int64_t silent_ms = clock_monotonic_ms() - control->heard_ms;
    if (silent_ms > control->options->silence_ms)
        return error_set(
            err, STATUS_LOST, "nothing from the controller at '%s' for %lld ms, limit %d",
            control->options->endpoint, (long long)silent_ms, control->options->silence_ms);
    return STATUS_OK;
}

static enum status sleep_until_due(struct control *control, struct error *err)
{
    zmq_pollitem_t items[2 + STAGE_ROLE_POLL_ITEMS] = {
        {.socket = control->socket, .events = ZMQ_POLLIN}};
    int n = 1, wait_ms = CONTROL_WAKE_MS;
    if (control->watch.monitor)
        items[n++] = (zmq_pollitem_t){.socket = control->watch.monitor, .events = ZMQ_POLLIN};
    if (control->stage) {
        n += stage_role_poll_items(control->stage, items + n);
        wait_ms = stage_role_wait_ms(control->stage, CONTROL_WAKE_MS);
    }
    if (zmq_poll(items, n, wait_ms) < 0 && errno != EINTR)
        return error_set(err, STATUS_IO, "cannot poll the control socket: %s", zmq_strerror(errno));
    return STATUS_OK;
}

static enum status serve(struct control *control, struct error *err)
{
    enum status st = STATUS_OK;
    control->heard_ms = clock_monotonic_ms();
    while (st == STATUS_OK && !control->is_stopped) {
        st = take_messages(control, err);
        if (st == STATUS_OK && !control->is_stopped)
            st = take_news(control, err);
        if (st == STATUS_OK && !control->is_stopped)
            st = check_orphan(control, err);
        if (st == STATUS_OK && !control->is_stopped && control->stage)
            st = stage_role_work(control->stage, err);
        if (st == STATUS_OK && !control->is_stopped)
            st = sleep_until_due(control, err);
    }
    return st;
}

static void close_all(struct control *control)
{
    stage_role_destroy(control->stage);
    codec_role_destroy(control->codec);
    watch_close(&control->watch);
    if (control->socket)
        zmq_close(control->socket);
    if (control->zmq)
        zmq_ctx_term(control->zmq);
}

/* The controller ends us when it has read why; it is not waited for longer than that takes. */
static enum status refuse(struct control *control, const struct error *why, struct error *err)
{
    int64_t end_ms = clock_monotonic_ms() + CONTROL_REFUSAL_MS;
    enum status st = say_hello(control, err);
    if (st == STATUS_OK)
        st = reply_failure(control->socket, MESSAGE_LOAD, 0, 0, why, err);
    while (st == STATUS_OK && clock_monotonic_ms() < end_ms) {
        struct message message;
        zmq_pollitem_t item = {.socket = control->socket, .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, CONTROL_REFUSAL_MS / 10);
        st = message_receive(control->socket, NULL, &message, 0, err);
        bool is_stop = st == STATUS_OK && message.type == MESSAGE_STOP;
        if (st == STATUS_OK)
            message_clear(&message);
        st = is_stop ? STATUS_CANCELED : STATUS_OK;
    }
    *err = *why;
    return why->code;
}

enum status control_refuse(const struct control_options *options, const struct error *why,
                           struct error *err)
{
    struct complaints complaints = {.waits = false};
    struct control control = {.options = options, .complaints = &complaints};
    enum status st = open_socket(&control, err);
    if (st == STATUS_OK)
        st = refuse(&control, why, err);
    close_all(&control);
    return st;
}

static enum status run_once(const struct control_options *options, struct complaints *complaints,
                            struct error *err)
{
    struct control control = {.options = options, .complaints = complaints};
    if (strncmp(options->endpoint, "ipc://", strlen("ipc://")) == 0)
        control.parent = getppid();
    enum status st = open_socket(&control, err);
    if (st == STATUS_OK)
        st = create_role(&control, err);
    if (st == STATUS_OK)
        st = say_hello(&control, err);
    if (st == STATUS_OK)
        st = serve(&control, err);
    close_all(&control);
    return st;
}

enum status control_run(const struct control_options *options, struct error *err)
{
    struct complaints complaints = {.waits = false};
    int pause_ms = 0;
    for (;;) {
        int64_t begin_ms = clock_monotonic_ms();
        enum status st = run_once(options, &complaints, err);
        if (st != STATUS_LOST || !options->comes_back)
            return st;
        if (clock_monotonic_ms() - begin_ms > CONTROL_STEADY_MS)
            pause_ms = 0;
        pause_ms = pause_ms == 0 ? CONTROL_PAUSE_MS : 2 * pause_ms;
        if (pause_ms > CONTROL_PAUSE_MS_MAX)
            pause_ms = CONTROL_PAUSE_MS_MAX;
        log_warn("worker", "begins anew pause_ms=%d reason=\"%s\"", pause_ms, err->text);
        zmq_poll(NULL, 0, pause_ms);
    }
}
