/*
 * codec_role.c - Load, Encode, Decode, Unload.
 */
#include "worker/codec_role.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "worker/codec.h"
#include "worker/reply.h"

struct codec_role {
    struct codec_role_options options;
    struct codec *codec; /* NULL: nothing is loaded */
};

enum status codec_role_create(struct codec_role **out, const struct codec_role_options *options,
                              struct error *err)
{
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return error_set(err, STATUS_NOMEM, "cannot allocate the codec role");
    (*out)->options = *options;
    return STATUS_OK;
}

void codec_role_destroy(struct codec_role *role)
{
    if (!role)
        return;
    codec_destroy(role->codec);
    free(role);
}

static void unload(struct codec_role *role)
{
    codec_destroy(role->codec);
    role->codec = NULL;
    malloc_trim(0);
}

static enum status say_loaded(struct codec_role *role, const Mgpt__Load *load, struct error *err)
{
    const struct stream *stream = role->options.stream;
    size_t free_bytes = 0, total_bytes = 0;
    char fingerprint[128];
    stream_room(stream, &free_bytes, &total_bytes);
    snprintf(fingerprint, sizeof(fingerprint), "device=%s path=%s numerics=%d compute=f32",
             stream_device_name(stream), stream_path_name(stream), KERNELS_NUMERICS_VERSION);
    Mgpt__Loaded loaded = MGPT__LOADED__INIT;
    loaded.epoch = load->epoch;
    loaded.units = "codec";
    loaded.fingerprint = fingerprint;
    loaded.weight_bytes = codec_weight_bytes(role->codec);
    loaded.activation_bytes = codec_reserved_bytes(role->codec);
    loaded.resident_bytes = reply_resident_bytes();
    loaded.workspace_bytes = stream_workspace_bytes(stream);
    loaded.device_bytes = stream_held_bytes(stream);
    loaded.device_free_bytes = free_bytes;
    loaded.device_total_bytes = total_bytes;
    log_info("worker",
             "loaded units=codec weight_bytes=%zu activation_bytes=%zu workspace_bytes=%zu "
             "device_bytes=%zu device_free_bytes=%zu device_total_bytes=%zu resident_bytes=%llu",
             codec_weight_bytes(role->codec), codec_reserved_bytes(role->codec),
             stream_workspace_bytes(stream), stream_held_bytes(stream), free_bytes, total_bytes,
             (unsigned long long)loaded.resident_bytes);
    return reply_send(role->options.control, MESSAGE_LOADED, &loaded.base, err);
}

static enum status handle_load(struct codec_role *role, const Mgpt__Load *load, struct error *err)
{
    unload(role);
    struct error why;
    struct codec_options options = {.vq_dir = role->options.vq_dir,
                                    .stream = role->options.stream,
                                    .pixels_max = (int)load->pixels_max};
    enum status st = STATUS_OK;
    if (load->pixels_max > CODEC_PIXELS_MAX)
        st = error_set(&why, STATUS_INVALID, "load: pixels_max is %u, expected at most %d",
                       load->pixels_max, CODEC_PIXELS_MAX);
    if (st == STATUS_OK)
        st = codec_create(&role->codec, &options, &why);
    if (st != STATUS_OK)
        return reply_failure(role->options.control, MESSAGE_LOAD, 0, 0, &why, err);
    malloc_trim(0);
    return say_loaded(role, load, err);
}
static enum status handle_unload(struct codec_role *role, struct error *err)
{
    unload(role);
    Mgpt__Unloaded unloaded = MGPT__UNLOADED__INIT;
    unloaded.resident_bytes = reply_resident_bytes();
    return reply_send(role->options.control, MESSAGE_UNLOADED, &unloaded.base, err);
}

/* Size, and the amount of data that belongs to it. */
static enum status check_job(const struct codec_role *role, uint32_t width, uint32_t height,
                             const char *what, size_t n_given, size_t n_each_patch,
                             struct error *why)
{
    if (!role->codec)
        return error_set(why, STATUS_INVALID, "the codec is not loaded");
    if (width > CODEC_SIDE_MAX || height > CODEC_SIDE_MAX)
        return error_set(why, STATUS_INVALID, "a picture of %ux%u, the limit of a side is %d",
                         width, height, CODEC_SIDE_MAX);
    enum status st = codec_check_size(role->codec, (int)width, (int)height, why);
    size_t n_expected = (size_t)(width / CODEC_PATCH) * (height / CODEC_PATCH) * n_each_patch;
    if (st == STATUS_OK && n_given != n_expected)
        st = error_set(why, STATUS_INVALID, "%zu %s for a picture of %ux%u, expected %zu", n_given,
                       what, width, height, n_expected);
    return st;
}

static enum status handle_encode(struct codec_role *role, const Mgpt__Encode *job,
                                 struct error *err)
{
    struct error why;
    int64_t begin_ns = clock_monotonic_ns();
    size_t patch_bytes = CODEC_PATCH * CODEC_PATCH * 3;
    enum status st = check_job(role, job->width, job->height, "bytes of pixels", job->rgb.len,
                               patch_bytes, &why);
    size_t n_codes = job->rgb.len / patch_bytes;
    int32_t *codes = st == STATUS_OK ? calloc(n_codes, sizeof(*codes)) : NULL;
    if (st == STATUS_OK && !codes)
        st = error_set(&why, STATUS_NOMEM, "cannot allocate %zu codes", n_codes);
    if (st == STATUS_OK)
        st = codec_encode(role->codec, job->rgb.data, (int)job->width, (int)job->height, codes,
                          &why);
    Mgpt__Encoded encoded = MGPT__ENCODED__INIT;
    encoded.id = job->id;
    encoded.codes = (uint32_t *)codes; /* none is negative */
    encoded.n_codes = n_codes;
    encoded.busy_ns = (uint64_t)(clock_monotonic_ns() - begin_ns);
    if (st == STATUS_OK)
        st = reply_send(role->options.control, MESSAGE_ENCODED, &encoded.base, err);
    else
        st = reply_failure(role->options.control, MESSAGE_ENCODE, 0, job->id, &why, err);
    free(codes);
    return st;
}

static enum status check_codes(const struct codec_role *role, const Mgpt__Decode *job,
                               struct error *why)
{
    for (size_t i = 0; i < job->n_codes; i++)
        if (job->codes[i] >= (uint32_t)codec_n_codes(role->codec))
            return error_set(why, STATUS_INVALID, "code %zu is %u, the codebook has %d", i,
                             job->codes[i], codec_n_codes(role->codec));
    return STATUS_OK;
}

static enum status handle_decode(struct codec_role *role, const Mgpt__Decode *job,
                                 struct error *err)
{
    struct error why;
    int64_t begin_ns = clock_monotonic_ns();
    enum status st = check_job(role, job->width, job->height, "codes", job->n_codes, 1, &why);
    if (st == STATUS_OK)
        st = check_codes(role, job, &why);
    size_t n_bytes = (size_t)job->width * job->height * 3;
    uint8_t *rgb = st == STATUS_OK ? malloc(n_bytes) : NULL;
    if (st == STATUS_OK && !rgb)
        st = error_set(&why, STATUS_NOMEM, "cannot allocate a picture of %zu bytes", n_bytes);
    if (st == STATUS_OK)
        st = codec_decode(role->codec, (const int32_t *)job->codes, (int)job->width,
                          (int)job->height, rgb, &why);
    Mgpt__Decoded decoded = MGPT__DECODED__INIT;
    decoded.id = job->id;
    decoded.width = job->width;
    decoded.height = job->height;
    decoded.rgb = (ProtobufCBinaryData){n_bytes, rgb};
    decoded.busy_ns = (uint64_t)(clock_monotonic_ns() - begin_ns);
    if (st == STATUS_OK)
        st = reply_send(role->options.control, MESSAGE_DECODED, &decoded.base, err);
    else
        st = reply_failure(role->options.control, MESSAGE_DECODE, 0, job->id, &why, err);
    free(rgb);
    return st;
}

enum status codec_role_handle(struct codec_role *role, const struct message *message,
                              struct error *err)
{
    switch (message->type) {
    case MESSAGE_LOAD:
        return handle_load(role, message->load, err);
    case MESSAGE_UNLOAD:
        return handle_unload(role, err);
    case MESSAGE_ENCODE:
        return handle_encode(role, message->encode, err);
    case MESSAGE_DECODE:
        return handle_decode(role, message->decode, err);
    default: {
        struct error why;
        error_set(&why, STATUS_INVALID, "%s is not for a codec worker",
                  message_type_name(message->type));
        return reply_failure(role->options.control, message->type, 0, 0, &why, err);
    }
    }
}
