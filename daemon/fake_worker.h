/*
 * fake_worker.h - for tests: workers whose process only sleeps, while the test speaks for them on
 * sockets of its own.
 *
 * Included by *_test.c files alone. What a fake says is up to the test, so that wrong and late
 * answers can be tried.
 */
#ifndef MGPT_DAEMON_FAKE_WORKER_H
#define MGPT_DAEMON_FAKE_WORKER_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/crew.h"
#include "daemon/stages.h"
#include "model/checkpoint_units.h"

enum { FAKE_WAIT_MS = 20000 }; /* only a failure waits so long */

#define FAKE_MODEL MGPT_SOURCE_DIR "/tests/golden/v7b/model"

struct fake_crew {
    struct crew crew;
    char script[64];
    struct checkpoint *checkpoint;
};

/* A program that takes any arguments and sleeps. */
static inline void fake_crew_open(struct fake_crew *out)
{
    static const char text[] = "#!/bin/sh\nexec sleep 1000\n";
    memset(out, 0, sizeof(*out));
    strcpy(out->script, "/tmp/mgpt-fake-XXXXXX");
    int fd = mkstemp(out->script);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    assert_int_equal(fchmod(fd, 0700), 0);
    close(fd);
    struct error err = {0};
    if (crew_open(&out->crew, out->script, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    out->crew.model_dir = FAKE_MODEL;
    out->crew.device = "cpu";
    out->crew.log_level = "error";
    assert_int_equal(checkpoint_open(&out->checkpoint, FAKE_MODEL, &err), STATUS_OK);
}

static inline void fake_crew_close(struct fake_crew *crew)
{
    crew_close(&crew->crew);
    checkpoint_close(crew->checkpoint);
    unlink(crew->script);
}

/* The test's end of one worker's socket. */
struct fake_worker {
    void *socket;
    struct fake_crew *crew;
};

static inline void fake_worker_open(struct fake_worker *out, struct fake_crew *crew)
{
    out->crew = crew;
    out->socket = zmq_socket(crew->crew.context, ZMQ_DEALER);
    assert_non_null(out->socket);
    assert_int_equal(frame_configure_socket(out->socket, NULL), STATUS_OK);
    assert_int_equal(zmq_connect(out->socket, crew->crew.endpoint), 0);
}

static inline void fake_worker_close(struct fake_worker *worker)
{
    int no_linger = 0;
    zmq_setsockopt(worker->socket, ZMQ_LINGER, &no_linger, sizeof(no_linger));
    zmq_close(worker->socket);
}

static inline void fake_worker_say(struct fake_worker *worker, enum message_type type,
                                   const ProtobufCMessage *body)
{
    assert_int_equal(message_send(worker->socket, NULL, type, body, FAKE_WAIT_MS, NULL), STATUS_OK);
}

/* The next message to this worker, which must be of the type; pings are passed over. The caller
 * clears it. */
static inline struct message fake_worker_hear(struct fake_worker *worker, enum message_type type)
{
    struct message message;
    for (;;) {
        assert_int_equal(message_receive(worker->socket, NULL, &message, FAKE_WAIT_MS, NULL),
                         STATUS_OK);
        if (message.type != MESSAGE_PING)
            break;
        message_clear(&message);
    }
    if (message.type != type)
        fail_msg("the worker got %s, expected %s", message_type_name(message.type),
                 message_type_name(type));
    return message;
}

static inline void fake_worker_expect(struct fake_worker *worker, enum message_type type)
{
    struct message message = fake_worker_hear(worker, type);
    message_clear(&message);
}

/* Nothing but pings came. */
static inline void fake_worker_expect_silence(struct fake_worker *worker)
{
    struct message message;
    while (message_receive(worker->socket, NULL, &message, 20, NULL) == STATUS_OK) {
        assert_int_equal(message.type, MESSAGE_PING);
        message_clear(&message);
    }
}

/* nccl_version: 0: it has none. */
static inline void fake_worker_hello_with(struct fake_worker *worker, const struct worker *of,
                                          uint32_t nccl_version, const char *host)
{
    Mgpt__Hello hello = MGPT__HELLO__INIT;
    hello.role = of->role;
    hello.pid = (uint64_t)worker_pid(of);
    hello.device = hello.code_path = hello.version = "";
    hello.host = (char *)(uintptr_t)host;
    hello.nccl_version = nccl_version;
    fake_worker_say(worker, MESSAGE_HELLO, &hello.base);
}

static inline void fake_worker_hello(struct fake_worker *worker, const struct worker *of)
{
    fake_worker_hello_with(worker, of, 0, "");
}

/* Loaded with the digest that the units of `stage` have; endpoint: of its link, "" for stage 0. */
static inline void fake_worker_loaded_with(struct fake_worker *worker, const struct stage *stage,
                                           uint64_t epoch, const char *endpoint,
                                           const char *fingerprint)
{
    unsigned char digest[CHECKPOINT_DIGEST_BYTES];
    char text[2 * CHECKPOINT_DIGEST_BYTES + 1];
    Mgpt__Loaded loaded = MGPT__LOADED__INIT;
    assert_int_equal(checkpoint_digest(worker->crew->checkpoint, stage->first_unit,
                                       stage->last_unit, digest, NULL),
                     STATUS_OK);
    for (int i = 0; i < CHECKPOINT_DIGEST_BYTES; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    loaded.epoch = epoch;
    loaded.digest = text;
    loaded.units = "fake";
    loaded.link_key = "";
    loaded.fingerprint = (char *)(uintptr_t)fingerprint;
    loaded.link_endpoint = (char *)(uintptr_t)endpoint;
    fake_worker_say(worker, MESSAGE_LOADED, &loaded.base);
}

static inline void fake_worker_loaded(struct fake_worker *worker, const struct stage *stage,
                                      uint64_t epoch, const char *endpoint)
{
    fake_worker_loaded_with(worker, stage, epoch, endpoint, "");
}

static inline void fake_worker_ready(struct fake_worker *worker, uint64_t epoch)
{
    Mgpt__Ready ready = MGPT__READY__INIT;
    ready.epoch = epoch;
    fake_worker_say(worker, MESSAGE_READY, &ready.base);
}

static inline void fake_worker_connected(struct fake_worker *worker)
{
    Mgpt__Connected connected = MGPT__CONNECTED__INIT;
    fake_worker_say(worker, MESSAGE_CONNECTED, &connected.base);
}

static inline void fake_worker_fail(struct fake_worker *worker, enum message_type type,
                                    enum status status, uint64_t epoch, uint64_t number)
{
    Mgpt__Failure failure = MGPT__FAILURE__INIT;
    failure.type = type;
    failure.status = status;
    failure.epoch = epoch;
    failure.number = number;
    failure.text = "as the test wants it";
    fake_worker_say(worker, MESSAGE_FAILURE, &failure.base);
}

#endif
