/*
 * device_sample_test.c - goal: draws on the CUDA device (or the simulated one) are those of the
 * CPU, id for id, and what cannot be drawn from is told in the same words. Skipped where there is
 * no device.
 */
#include "kernels/device_test_tools.h"

#include "kernels/sample.h"

enum { N_MAX = 9001, DRAWS_MAX = 64 };

/* The same numbers on both sides: [2][N_MAX] logits, a mask. */
struct both {
    struct stream *device, *host;
    float *logits;
    uint8_t *allowed;
    struct array logits_there;
    void *allowed_there;
};

static void both_open(struct both *b)
{
    b->device = open_device();
    b->host = twin_stream();
    b->logits = test_numbers(2 * N_MAX, 5, 40);
    b->allowed = malloc(N_MAX);
    for (int i = 0; i < N_MAX; i++) {
        b->allowed[i] = i % 7 != 2;
        if (i % 11 == 0) /* equals */
            b->logits[i] = 2.5f;
        if (i % 13 == 0) /* both zeros, and what can never be drawn */
            b->logits[i] = i % 2 ? -0.0f : -INFINITY;
    }
}

static void both_upload(struct both *b)
{
    b->logits_there = to_device(b->device, b->logits, 2 * N_MAX, DTYPE_F32);
    assert_int_equal(stream_alloc(b->device, &b->allowed_there, N_MAX, NULL), STATUS_OK);
    stream_upload(b->device, b->allowed_there, b->allowed, N_MAX);
}

static void both_close(struct both *b)
{
    drop(&b->logits_there);
    stream_free(b->device, b->allowed_there, N_MAX);
    free(b->logits), free(b->allowed);
    stream_destroy(b->device);
    stream_destroy(b->host);
}

/* Requests whose pointers are the host's; the device gets them with its own. */
static void assert_same_draws(const struct both *b, const struct sample_request *requests, int n)
{
    struct sample_request there[DRAWS_MAX];
    int32_t want[DRAWS_MAX] = {0}, got[DRAWS_MAX] = {0};
    struct error host_err = {.text = ""}, device_err = {.text = ""};
    for (int i = 0; i < n; i++) {
        const float *base = b->logits_there.memory;
        there[i] = requests[i];
        there[i].logits = base + (requests[i].logits - b->logits);
        if (requests[i].unconditional)
            there[i].unconditional = base + (requests[i].unconditional - b->logits);
        if (requests[i].allowed)
            there[i].allowed = b->allowed_there;
    }
    enum status host = sample(want, requests, n, b->host, &host_err);
    enum status device = sample(got, there, n, b->device, &device_err);
    assert_int_equal(device, host);
    assert_string_equal(device_err.text, host_err.text);
    if (host == STATUS_OK)
        assert_memory_equal(got, want, (size_t)n * sizeof(*got));
}

static struct sample_request request_of(const struct both *b, int n)
{
    return (struct sample_request){
        .logits = b->logits, .first_id = 4, .n = n, .guidance = 3, .temperature = 1, .top_k = 50};
}

/* Each number of logits with guidance, mask, forbidden ids and all kinds of k. */
static void test_draws(void **state)
{
    (void)state;
    static const int sizes[] = {1, 5, 511, 513, 2050, N_MAX};
    static const int32_t forbidden[] = {4, 6, 30, 31, 1000000};
    struct both b;
    both_open(&b);
    both_upload(&b);
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        const int n = sizes[s], ks[] = {0, 1, 2, 7, n / 2, n - 1, n, n + 5};
        struct sample_request requests[DRAWS_MAX];
        for (int i = 0; i < DRAWS_MAX; i++) {
            requests[i] = request_of(&b, n);
            requests[i].logits = b.logits + (n > 5 ? 0 : 1); /* not only what cannot be drawn */
            requests[i].unconditional = i % 2 ? b.logits + N_MAX : NULL;
            requests[i].top_k = ks[i % 8];
            requests[i].allowed = i / 8 % 2 ? b.allowed : NULL;
            requests[i].forbidden = i / 16 % 2 && n > 5 ? forbidden : NULL;
            requests[i].n_forbidden = requests[i].forbidden ? 5 : 0;
            requests[i].temperature = (float[]){1, 0.7f, 0, 40}[i / 3 % 4];
            requests[i].seed = 0x123456789abcdefull * (uint64_t)i;
            requests[i].ordinal = (uint32_t)i * 77u;
            requests[i].picture_index = (uint32_t)i % 3;
        }
        assert_same_draws(&b, requests, DRAWS_MAX);
    }
    both_close(&b);
}

/* Many seeds of one request: lists of one draw go to one place. */
static void test_listed(void **state)
{
    (void)state;
    static const int32_t listed[] = {904, 17, 100, 18, 17, 44};
    struct both b;
    both_open(&b);
    both_upload(&b);
    struct sample_request requests[DRAWS_MAX];
    for (int i = 0; i < DRAWS_MAX; i++) {
        requests[i] = request_of(&b, 2000);
        requests[i].listed = listed;
        requests[i].n_listed = 1 + i % 6;
        requests[i].top_k = i % 5;
        requests[i].seed = (uint64_t)i;
        requests[i].temperature = (float)(i % 3);
        requests[i].allowed = i % 4 ? NULL : b.allowed;
    }
    assert_same_draws(&b, requests, DRAWS_MAX);
    both_close(&b);
}

static void test_refusals(void **state)
{
    (void)state;
    static const int32_t outside[] = {10, 3}, bad[] = {7, 99, 98};
    struct both b;
    both_open(&b);
    b.logits[100] = NAN; /* id 104; place 100 is allowed, 72 is not */
    b.logits[72] = NAN;
    b.logits[94] = NAN;
    both_upload(&b);
    struct sample_request requests[3];
    for (int i = 0; i < 3; i++)
        requests[i] = request_of(&b, i == 2 ? 5000 : 60);
    requests[2].allowed = b.allowed;
    assert_same_draws(&b, requests, 3); /* request 2: the logit of id 98 */
    requests[2].allowed = NULL;
    assert_same_draws(&b, requests, 3);
    requests[2].listed = bad, requests[2].n_listed = 3;
    assert_same_draws(&b, requests, 3);
    requests[1].listed = outside, requests[1].n_listed = 2;
    assert_same_draws(&b, requests, 3);
    requests[0].n = 1; /* minus infinity alone */
    assert_same_draws(&b, requests, 1);
    requests[0].temperature = -1;
    assert_same_draws(&b, requests, 1);
    both_close(&b);
}

int main(void)
{
    setenv("SIMGPU_PROTECT", "1", 0); /* a host that touches device memory ends at once */
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_draws), cmocka_unit_test(test_listed),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
