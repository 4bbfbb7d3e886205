/*
 * Goal: every plan goes to all stages, tokens count once and from the last stage alone, wrong and
 * late answers harm nobody else, and after a loss requests go on with the tokens they had. The
 * stages are fakes; time is the test's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "daemon/fake_worker.h"
#include "daemon/limits.h"
#include "daemon/pipeline.h"
#include "daemon/served_model.h"

enum { N = 2, STEP_WAIT_MS = 5000, REQUEST = 41, PICTURE_TOKENS = 2 * 3 + 1 };

static const struct picture_size size = {32, 32};

struct bench {
    struct fake_crew crew;
    struct served_model *model;
    struct pipeline *pipeline;
    struct fake_worker workers[N];
    int64_t now_ns;
    int n_passes, n_lost;
    int n_finished, n_failed, n_tokens;
    char failure[ERROR_TEXT_BYTES];
};

static void on_pass(void *context, uint64_t request)
{
    struct bench *bench = context;
    assert_int_equal(request, REQUEST);
    bench->n_passes++;
}

static void on_logits(void *context, uint64_t request, int ordinal, const float *logits, int vocab)
{
    (void)context, (void)request, (void)ordinal, (void)logits, (void)vocab;
    fail();
}

static void on_lost(void *context, int pipeline, const struct error *reason)
{
    struct bench *bench = context;
    assert_int_equal(pipeline, 0);
    assert_true(reason->text[0] != 0);
    bench->n_lost++;
}

static void create_pipeline(struct bench *bench)
{
    static const struct cut_stage cut[N] = {{.first_unit = 0, .last_unit = 4},
                                            {.first_unit = 5, .last_unit = 9}};
    struct pipeline_options options = {.hooks = {bench, on_pass, on_logits, on_lost},
                                       .vocab = bench->model->config.vocab,
                                       .max_positions = bench->model->config.max_positions};
    scheduler_options_init(&options.scheduler);
    options.scheduler.vocabulary = bench->model->vocabulary;
    options.scheduler.n_stages = N;
    options.scheduler.kv_blocks = 32;
    options.scheduler.max_positions = options.max_positions;
    options.stages = (struct stages_options){.crew = &bench->crew.crew,
                                             .checkpoint = bench->crew.checkpoint,
                                             .n_local = N,
                                             .n_stages = N,
                                             .cut = cut,
                                             .compute = MGPT__COMPUTE__COMPUTE_F32,
                                             .kv_blocks = 32,
                                             .rows_max = options.scheduler.rows_max,
                                             .sequences_max = 64,
                                             .outputs_max = 64,
                                             .step_wait_ms = STEP_WAIT_MS,
                                             .load_wait_ms = STEP_WAIT_MS};
    assert_int_equal(pipeline_create(&bench->pipeline, &options, NULL), STATUS_OK);
}

static void take_events(struct bench *bench)
{
    struct scheduler_event event;
    while (scheduler_next_event(pipeline_scheduler(bench->pipeline), &event)) {
        assert_int_equal(event.request, REQUEST);
        bench->n_tokens += event.kind == SCHEDULER_TOKENS ? event.n_tokens : 0;
        bench->n_finished += event.kind == SCHEDULER_FINISHED;
        bench->n_failed += event.kind == SCHEDULER_FAILED;
        if (event.kind == SCHEDULER_FAILED)
            snprintf(bench->failure, sizeof(bench->failure), "%s", event.text);
    }
}

static void run(struct bench *bench)
{
    pipeline_run(bench->pipeline, bench->now_ns);
    take_events(bench);
}

/* One message off the control socket, then what the loop does. */
static void take(struct bench *bench)
{
    struct message message;
    struct frame_peer peer;
    assert_int_equal(message_receive(bench->crew.crew.router, &peer, &message, FAKE_WAIT_MS, NULL),
                     STATUS_OK);
    assert_true(pipeline_on_message(bench->pipeline, &peer, &message, bench->now_ns));
    message_clear(&message);
    take_events(bench);
    run(bench);
}

static void greet_and_load(struct bench *bench, int k)
{
    struct stages *stages = pipeline_stages(bench->pipeline);
    fake_worker_hello(&bench->workers[k], &stages->list[k].worker);
    take(bench);
    fake_worker_expect(&bench->workers[k], MESSAGE_LOAD);
    fake_worker_loaded(&bench->workers[k], &stages->list[k], stages->epoch,
                       k > 0 ? "ipc:///tmp/x" : "");
    take(bench);
}

static void connect_link(struct bench *bench)
{
    fake_worker_expect(&bench->workers[0], MESSAGE_CONNECT);
    fake_worker_connected(&bench->workers[0]);
    take(bench);
    assert_true(pipeline_stages(bench->pipeline)->ready);
}

static void set_up(struct bench *bench)
{
    memset(bench, 0, sizeof(*bench));
    bench->now_ns = 1000000000;
    fake_crew_open(&bench->crew);
    assert_int_equal(served_model_open(&bench->model, FAKE_MODEL, SERVED_ALL, NULL), STATUS_OK);
    create_pipeline(bench);
    for (int k = 0; k < N; k++)
        fake_worker_open(&bench->workers[k], &bench->crew);
    run(bench);
    for (int k = 0; k < N; k++)
        greet_and_load(bench, k);
    connect_link(bench);
}

static void tear_down(struct bench *bench)
{
    pipeline_destroy(bench->pipeline);
    for (int k = 0; k < N; k++)
        fake_worker_close(&bench->workers[k]);
    served_model_close(bench->model);
    fake_crew_close(&bench->crew);
}

static void submit(struct bench *bench)
{
    struct ids prompt = {0};
    assert_int_equal(served_model_text_to_image(bench->model, "x", 1, size, &prompt, NULL),
                     STATUS_OK);
    struct scheduler_request request = {.id = REQUEST,
                                        .mode = SCHEDULER_PICTURE,
                                        .prompt = prompt.ids,
                                        .n_prompt = (int)prompt.n,
                                        .sampling = {.temperature = 1, .guidance = 4}};
    assert_int_equal(
        scheduler_submit(pipeline_scheduler(bench->pipeline), bench->now_ns, &request, NULL),
        STATUS_OK);
    ids_fini(&prompt);
    run(bench);
}

/* Stage k's answer to a plan; the last stage draws the smallest code everywhere, but for
 * `n_missing` draws. */
static void answer(struct bench *bench, int k, const Mgpt__StepPlan *plan, enum status status,
                   int n_missing)
{
    Mgpt__DrawnToken drawn[16];
    Mgpt__DrawnToken *list[16];
    Mgpt__StepResult result = MGPT__STEP_RESULT__INIT;
    result.epoch = plan->epoch;
    result.number = plan->number;
    result.stage_index = (uint32_t)k;
    result.status = status;
    result.text = status == STATUS_OK ? "" : "as the test wants it";
    result.busy_ns = 1000;
    result.drawn = list;
    for (size_t r = 0; r < plan->n_rows && k == N - 1 && status == STATUS_OK; r++)
        for (size_t o = 0; o < plan->rows[r]->n_outputs; o++) {
            if (plan->rows[r]->role == MGPT__ROW_ROLE__ROW_UNCONDITIONAL || n_missing-- > 0)
                continue;
            Mgpt__DrawnToken *token = list[result.n_drawn] = &drawn[result.n_drawn];
            mgpt__drawn_token__init(token);
            token->row = (uint32_t)r;
            token->output = (uint32_t)o;
            token->token = (uint32_t)bench->model->vocabulary->code_id_min;
            result.n_drawn++;
        }
    fake_worker_say(&bench->workers[k], MESSAGE_STEP_RESULT, &result.base);
    take(bench);
}

/* One plan through both stages. */
static void step(struct bench *bench, enum status status, int n_missing)
{
    struct message plans[N];
    for (int k = 0; k < N; k++)
        plans[k] = fake_worker_hear(&bench->workers[k], MESSAGE_STEP_PLAN);
    assert_int_equal(plans[0].step_plan->number, plans[1].step_plan->number);
    assert_int_equal(plans[0].step_plan->n_rows, plans[1].step_plan->n_rows);
    for (int k = 0; k < N; k++) {
        answer(bench, k, plans[k].step_plan, status, n_missing);
        message_clear(&plans[k]);
    }
}

static void expect_idle(struct bench *bench)
{
    while (pipeline_n_in_flight(bench->pipeline) > 0)
        step(bench, STATUS_OK, 0); /* the release of the sequences */
    struct scheduler_figures figures;
    scheduler_figures(pipeline_scheduler(bench->pipeline), bench->now_ns, &figures);
    assert_int_equal(figures.n_running, 0);
    assert_int_equal(figures.kv_blocks_used, 0);
    assert_true(pipeline_stages(bench->pipeline)->ready);
}

static void test_a_picture_goes_through(void **state)
{
    struct bench bench;
    (void)state;
    set_up(&bench);
    submit(&bench);
    while (!bench.n_finished)
        step(&bench, STATUS_OK, 0);
    assert_int_equal(bench.n_tokens, PICTURE_TOKENS);
    assert_true(bench.n_passes >= 4); /* four codes to draw */
    expect_idle(&bench);
    assert_int_equal(bench.n_lost, 0);
    tear_down(&bench);
}

static void test_a_failed_step_fails_its_request_alone(void **state)
{
    struct bench bench;
    (void)state;
    set_up(&bench);
    submit(&bench);
    step(&bench, STATUS_NOMEM, 0);
    while (!bench.n_failed)
        step(&bench, STATUS_OK, 0);
    assert_non_null(strstr(bench.failure, "as the test wants it"));
    expect_idle(&bench);
    assert_int_equal(bench.n_lost, 0);
    tear_down(&bench);
}

static void test_a_missing_token_is_a_failed_step(void **state)
{
    struct bench bench;
    (void)state;
    set_up(&bench);
    submit(&bench);
    for (int i = 0; i < 20 && !bench.n_failed; i++)
        step(&bench, STATUS_OK, 1);
    assert_int_equal(bench.n_failed, 1);
    expect_idle(&bench);
    tear_down(&bench);
}

static void reform(struct bench *bench, int lost)
{
    struct stages *stages = pipeline_stages(bench->pipeline);
    fake_worker_close(&bench->workers[lost]);
    fake_worker_open(&bench->workers[lost], &bench->crew);
    run(bench);
    for (int k = 0; k < N; k++) {
        struct message message;
        if (k == lost)
            continue;
        do { /* plans of the old epoch may lie before the Reset */
            assert_int_equal(
                message_receive(bench->workers[k].socket, NULL, &message, FAKE_WAIT_MS, NULL),
                STATUS_OK);
            bool reset = message.type == MESSAGE_RESET;
            message_clear(&message);
            if (reset)
                break;
        } while (true);
        fake_worker_ready(&bench->workers[k], stages->epoch);
        take(bench);
    }
    greet_and_load(bench, lost);
    connect_link(bench);
}

static void test_a_request_goes_on_after_a_loss(void **state)
{
    struct bench bench;
    (void)state;
    set_up(&bench);
    submit(&bench);
    while (bench.n_tokens < 3)
        step(&bench, STATUS_OK, 0);
    int n_before = bench.n_tokens;
    stages_lose(pipeline_stages(bench.pipeline), 1, bench.now_ns / 1000000, "the test");
    run(&bench);
    assert_int_equal(bench.n_lost, 1);
    assert_int_equal(pipeline_n_in_flight(bench.pipeline), 0);
    reform(&bench, 1);
    assert_int_equal(bench.n_tokens, n_before);
    struct message plan = fake_worker_hear(&bench.workers[0], MESSAGE_STEP_PLAN);
    assert_int_equal(plan.step_plan->epoch, 2);
    assert_int_equal(plan.step_plan->number, 1);
    struct message twin = fake_worker_hear(&bench.workers[1], MESSAGE_STEP_PLAN);
    /* A result of the epoch before changes nothing. */
    Mgpt__StepPlan old = *plan.step_plan;
    old.epoch = 1;
    answer(&bench, 1, &old, STATUS_NOMEM, 0);
    assert_int_equal(bench.n_failed, 0);
    for (int k = 0; k < N; k++)
        answer(&bench, k, k == 0 ? plan.step_plan : twin.step_plan, STATUS_OK, 0);
    message_clear(&plan);
    message_clear(&twin);
    while (!bench.n_finished)
        step(&bench, STATUS_OK, 0);
    assert_int_equal(bench.n_tokens, PICTURE_TOKENS);
    expect_idle(&bench);
    tear_down(&bench);
}

static void test_the_silent_stage_of_a_late_step_is_lost(void **state)
{
    struct bench bench;
    (void)state;
    set_up(&bench);
    submit(&bench);
    struct message plan = fake_worker_hear(&bench.workers[0], MESSAGE_STEP_PLAN);
    bench.now_ns += (int64_t)STEP_WAIT_MS * 1000000;
    answer(&bench, 0, plan.step_plan, STATUS_OK,
           0); /* the first stage did its part, just in time */
    message_clear(&plan);
    assert_int_equal(bench.n_lost, 0);
    int life = pipeline_stages(bench.pipeline)->list[1].worker.life;
    bench.now_ns += 1000000;
    run(&bench);
    assert_int_equal(bench.n_lost, 1);
    assert_true(pipeline_stages(bench.pipeline)->list[0].loaded);
    assert_false(pipeline_stages(bench.pipeline)->list[1].loaded);
    assert_int_equal(pipeline_stages(bench.pipeline)->list[1].worker.life, life + 1);
    tear_down(&bench);
}

static void test_a_result_nobody_asked_for_begins_an_epoch(void **state)
{
    struct bench bench;
    (void)state;
    set_up(&bench);
    Mgpt__StepPlan plan = MGPT__STEP_PLAN__INIT;
    plan.epoch = 1;
    plan.number = 99;
    answer(&bench, 1, &plan, STATUS_OK, 0);
    assert_int_equal(bench.n_lost, 1);
    assert_int_equal(pipeline_stages(bench.pipeline)->epoch, 2);
    tear_down(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_picture_goes_through),
        cmocka_unit_test(test_a_failed_step_fails_its_request_alone),
        cmocka_unit_test(test_a_missing_token_is_a_failed_step),
        cmocka_unit_test(test_a_request_goes_on_after_a_loss),
        cmocka_unit_test(test_the_silent_stage_of_a_late_step_is_lost),
        cmocka_unit_test(test_a_result_nobody_asked_for_begins_an_epoch),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
