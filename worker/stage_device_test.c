/*
 * stage_device_test.c - goal: on a CUDA device (or the simulated one) steps that are replayed from
 * a recording give the bits that unrecorded ones give, while sequences grow, join and leave, over
 * two stages on one stream; and nothing is allocated in a step. Skipped where there is no device.
 */
#include "kernels/device_test_tools.h"
#include "worker/stage_test_tools.h"

enum { STEPS = 7, SEQUENCES = 3 };
static const int cut_in_two[] = {4, 0}; /* inside a layer */

static void skip_without_device(void)
{
    stream_destroy(open_device());
}

/* One step: the next token of each sequence that runs; its logits go to `logits` and on. */
static float *decode(struct pipeline *p, struct test_plan *t, const int *ids,
                     int held[SEQUENCES + 1], float *logits)
{
    struct error err = {.text = ""};
    plan_begin(t);
    for (int s = 1; s <= SEQUENCES; s++)
        if (held[s] > 0) {
            Mgpt__Row *row = plan_add_row(t, (uint64_t)s, held[s], ids + held[s] + s, 1);
            plan_add_output(t, row, 0, MGPT__OUTPUT_KIND__OUTPUT_LOGITS);
            held[s]++;
        }
    if (pipeline_step(p, &t->plan, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    const Mgpt__StepResult *result = step_result_message(p->result);
    assert_int_equal(result->n_errors, 0);
    assert_int_equal(result->n_logits, t->plan.n_rows);
    for (size_t i = 0; i < result->n_logits; i++, logits += VOCAB)
        memcpy(logits, result->logits[i]->logits.data, VOCAB * sizeof(float));
    return logits;
}

/* Two sequences decode, the longer one over the border of a split; a third joins, then one leaves.
 */
static void run_story(const char *mode, enum dtype compute, const int *ids, float *logits,
                      uint64_t *n_replays)
{
    struct pipeline p;
    struct test_plan *t = calloc(1, sizeof(*t));
    int held[SEQUENCES + 1] = {0, 253, 20, 0};
    setenv("MGPT_CUDA_GRAPHS", mode, 1);
    pipeline_open_on(&p, DEVICE_CUDA, "v7b", compute, cut_in_two);
    size_t held_bytes = stream_held_bytes(p.stream), n_allocations = count_allocations();
    for (int s = 1; s <= 2; s++)
        probe(&p, (uint64_t)s, ids, 0, held[s], 100, NULL, 0, NULL);
    for (int i = 0; i < STEPS; i++)
        logits = decode(&p, t, ids, held, logits);
    probe(&p, 3, ids, 0, 9, 9, NULL, 0, NULL);
    held[3] = 9;
    for (int i = 0; i < STEPS; i++)
        logits = decode(&p, t, ids, held, logits);
    release(&p, 1);
    held[1] = 0;
    for (int i = 0; i < STEPS; i++)
        logits = decode(&p, t, ids, held, logits);
    assert_true(stream_held_bytes(p.stream) == held_bytes);
    assert_int_equal(count_allocations(), n_allocations);
    *n_replays = stream_n_replays(p.stream);
    pipeline_close(&p);
    free(t);
}

static void test_recorded_steps_change_no_bit(void **state)
{
    (void)state;
    enum { ROWS = STEPS * (2 + 3 + 2) };
    skip_without_device();
    struct bits b;
    bits_open(&b, "v7b", DTYPE_F32);
    const size_t bytes = (size_t)ROWS * VOCAB * sizeof(float);
    for (int i = 0; i < 2; i++) {
        float *plain = malloc(bytes), *recorded = malloc(bytes);
        uint64_t n_plain, n_recorded;
        enum dtype compute = i ? DTYPE_BF16 : DTYPE_F32;
        run_story("off", compute, b.ids, plain, &n_plain);
        run_story("on", compute, b.ids, recorded, &n_recorded);
        assert_memory_equal(plain, recorded, bytes);
        assert_int_equal(n_plain, 0);
        /* Two stages; each kind of step runs once before it is recorded. */
        assert_true(n_recorded >= 2 * (3 * STEPS - 6));
        free(plain);
        free(recorded);
    }
    bits_close(&b);
}

/* Graphs of 31 MiB: of six the first four are recorded; the other kinds of steps run as they are.
 */
static void test_graphs_stay_within_their_limit(void **state)
{
    (void)state;
    enum { ROWS = STEPS * (2 + 3 + 2) };
    skip_without_device();
#ifdef MGPT_SIMGPU
    struct bits b;
    uint64_t n_replays;
    float *logits = malloc((size_t)ROWS * VOCAB * sizeof(float));
    bits_open(&b, "v7b", DTYPE_F32);
    setenv("SIMGPU_GRAPH_MB", "31", 1);
    run_story("on", DTYPE_F32, b.ids, logits, &n_replays);
    unsetenv("SIMGPU_GRAPH_MB");
    assert_true(n_replays > 0);
    assert_true(n_replays < 2 * (3 * STEPS - 6)); /* what test_recorded_steps_... has */
    bits_close(&b);
    free(logits);
#else
    skip(); /* a real device does not let graphs grow */
#endif
}

static void test_a_wrong_mode_is_refused(void **state)
{
    (void)state;
    skip_without_device();
    struct stream_options options = {.n_threads = 1, .device = DEVICE_CUDA};
    struct stream *stream;
    struct error err;
    setenv("MGPT_CUDA_GRAPHS", "maybe", 1);
    assert_int_equal(stream_create(&stream, &options, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "MGPT_CUDA_GRAPHS=maybe"));
    unsetenv("MGPT_CUDA_GRAPHS");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded_steps_change_no_bit),
        cmocka_unit_test(test_graphs_stay_within_their_limit),
        cmocka_unit_test(test_a_wrong_mode_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
