/*
 * stages_test_tools.h - two stages of one pipeline with fake workers, for the tests of stages*.c.
 * Time is the test's.
 */
#ifndef MGPT_DAEMON_STAGES_TEST_TOOLS_H
#define MGPT_DAEMON_STAGES_TEST_TOOLS_H

#include "daemon/fake_worker.h"

enum { N = 2, STEP_WAIT_MS = 5000, LOAD_WAIT_MS = 9000, KV_BLOCKS = 8, ROWS = 64 };

struct bench {
    struct fake_crew crew;
    struct stages stages;
    struct fake_worker workers[N];
    int64_t now_ms;
};

/* is_remote: [N] which of them workers of other machines fill; NULL: none. */
static inline void bench_open(struct bench *bench, const bool *is_remote)
{
    static const struct cut_stage cut[N] = {{.first_unit = 0, .last_unit = 4},
                                            {.first_unit = 5, .last_unit = 9}};
    memset(bench, 0, sizeof(*bench));
    bench->now_ms = 1000;
    fake_crew_open(&bench->crew);
    struct stages_options options = {.crew = &bench->crew.crew,
                                     .checkpoint = bench->crew.checkpoint,
                                     .n_stages = N,
                                     .is_remote = is_remote,
                                     .link_host = "10.0.0.1",
                                     .cut = cut,
                                     .compute = MGPT__COMPUTE__COMPUTE_F32,
                                     .kv_blocks = KV_BLOCKS,
                                     .rows_max = ROWS,
                                     .sequences_max = 4,
                                     .outputs_max = 8,
                                     .step_wait_ms = STEP_WAIT_MS,
                                     .load_wait_ms = LOAD_WAIT_MS};
    for (int k = 0; k < N; k++)
        options.n_local += !is_remote || !is_remote[k];
    assert_int_equal(stages_init(&bench->stages, &options, NULL), STATUS_OK);
    for (int k = 0; k < N; k++)
        fake_worker_open(&bench->workers[k], &bench->crew);
}

static inline void tear_down(struct bench *bench)
{
    stages_fini(&bench->stages);
    for (int k = 0; k < N; k++)
        fake_worker_close(&bench->workers[k]);
    fake_crew_close(&bench->crew);
}

static inline void advance(struct bench *bench)
{
    stages_advance(&bench->stages, bench->now_ms);
}

#endif
