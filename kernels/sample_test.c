/*
 * sample_test.c - goal: the draw is the function that sample.h writes down, bit for bit on every
 * code path; its law is that of softmax after guidance, allowed set, top-k (ties stay) and
 * temperature; and what cannot be drawn is refused with its place.
 */
#include "kernels/test_tools.h"

#include "base/philox.h"
#include "kernels/cpu/gumbel.h"
#include "kernels/sample.h"

static int32_t draw(const struct sample_request *request, enum code_path path)
{
    struct stream *stream = test_stream(path, 1);
    struct error err;
    int32_t id = -1;
    if (sample(&id, request, 1, stream, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    stream_destroy(stream);
    return id;
}

/* As the header says it, with libm's logarithm, in the plainest way. */
static int32_t plain_draw(const struct sample_request *r)
{
    double best = -INFINITY;
    int32_t id_best = -1;
    for (int i = 0; i < r->n; i++) {
        uint32_t id = (uint32_t)(r->first_id + i), out[4];
        uint32_t counter[4] = {id / 4, r->ordinal, r->picture_index, SAMPLE_DOMAIN_TOKEN};
        uint32_t key[2] = {(uint32_t)r->seed, (uint32_t)(r->seed >> 32)};
        philox4x32(out, counter, key);
        double u = ((double)(out[id % 4] >> 8) + 0.5) * 0x1p-24;
        double value = (double)r->logits[i] / (double)r->temperature - log(-log(u));
        if (value > best) {
            best = value;
            id_best = (int32_t)id;
        }
    }
    return id_best;
}

static void check_definition(enum code_path path)
{
    float *logits = test_numbers(1000, 3, 31);
    uint64_t seed = 77;
    for (int i = 0; i < 300; i++) {
        struct sample_request r = {.logits = logits,
                                   .first_id = i * 7,
                                   .n = 1 + (int)(test_random(&seed) % 1000),
                                   .temperature = 0.3f + 0.01f * (float)i,
                                   .seed = test_random(&seed),
                                   .ordinal = (uint32_t)test_random(&seed) % 5000,
                                   .picture_index = (uint32_t)i % 4};
        assert_int_equal(draw(&r, path), plain_draw(&r));
    }
    free(logits);
}

/* Numbers at the ends of what floats hold, where a bound that is rounded down would lose the
 * winner. */
static void check_extremes(enum code_path path)
{
    static const float scales[] = {1e-30f, 1, 1e4f, 1e38f},
                       temperatures[] = {1e-40f, 1e-20f, 1, 1e30f};
    float *logits = test_numbers(200, 3, 33);
    float scaled[200];
    uint64_t seed = 78;
    for (int i = 0; i < 160; i++) {
        for (int j = 0; j < 200; j++)
            scaled[j] = j % 5 == i % 5 ? -INFINITY : logits[j] * scales[i % 4];
        struct sample_request r = {.logits = scaled,
                                   .n = 200,
                                   .temperature = temperatures[i / 4 % 4],
                                   .seed = test_random(&seed)};
        assert_int_equal(draw(&r, path), plain_draw(&r));
    }
    free(logits);
}

static void check_bounds(enum code_path path)
{
    enum { N = 20000 };
    float *logits = test_numbers(N, 3, 34), *bounds = malloc(N * sizeof(*bounds));
    int32_t *ids = malloc((N + GUMBEL_LANES) * sizeof(*ids));
    const struct gumbel_place place = {{5, 6}, 7, 8, SAMPLE_DOMAIN_TOKEN};
    for (int i = 0; i < N + GUMBEL_LANES; i++)
        ids[i] = 3 * i;
    bound_of(path)(bounds, logits, ids, N - 3, 1 / 0.7f, &place);
    for (int i = 0; i < N - 3; i += GUMBEL_LANES) {
        double noise[GUMBEL_LANES];
        gumbel_of(path)(noise, ids + i, &place);
        for (int j = 0; j < GUMBEL_LANES && i + j < N - 3; j++) {
            double excess = (double)bounds[i + j] - (double)logits[i + j] / (double)0.7f - noise[j];
            assert_true(excess >= 0);
            assert_true(excess < (noise[j] > 2 ? 0.15 : 3));
        }
    }
    free(logits);
    free(bounds);
    free(ids);
}

static void test_draw_is_the_written_function(void **state)
{
    (void)state;
    test_each_path(check_definition);
    test_each_path(check_extremes);
    test_each_path(check_bounds);
}

/* Recorded once from this code; a change of any of them changes every seed's picture. */
static void test_known_answers(void **state)
{
    (void)state;
    float *logits = test_numbers(8192, 4, 32);
    static const struct {
        uint64_t seed;
        uint32_t ordinal, picture_index;
        float temperature;
        int top_k;
        int32_t id;
    } cases[] = {
        {0, 0, 0, 1.0f, 0, 6173},
        {1, 0, 0, 1.0f, 2000, 2641},
        {1, 1, 0, 1.0f, 2000, 174},
        {1, 1, 1, 1.0f, 2000, 3505},
        {0xfedcba9876543210, 4163, 9, 0.8f, 10, 150},
        {0xfedcba9876543210, 4163, 9, 0.8f, 2000, 7316},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sample_request r = {.logits = logits,
                                   .first_id = 4,
                                   .n = 8192,
                                   .temperature = cases[i].temperature,
                                   .top_k = cases[i].top_k,
                                   .seed = cases[i].seed,
                                   .ordinal = cases[i].ordinal,
                                   .picture_index = cases[i].picture_index};
        for (int path = 0; path < CODE_PATH_COUNT; path++)
            if (code_path_available((enum code_path)path))
                assert_int_equal(draw(&r, (enum code_path)path), cases[i].id);
    }
    free(logits);
}

enum { DRAWS = 20000 };

/* Half the summed differences between the frequencies of DRAWS draws and `law` [n]. */
static double total_variation(const struct sample_request *request, const double *law)
{
    struct stream *stream = test_stream(CODE_PATH_PORTABLE, 2);
    struct sample_request *requests = malloc(DRAWS * sizeof(*requests));
    int32_t *ids = malloc(DRAWS * sizeof(*ids));
    double *counts = calloc((size_t)request->n, sizeof(*counts)), variation = 0;
    for (int i = 0; i < DRAWS; i++) {
        requests[i] = *request;
        requests[i].seed = (uint64_t)i;
    }
    assert_int_equal(sample(ids, requests, DRAWS, stream, NULL), STATUS_OK);
    for (int i = 0; i < DRAWS; i++) {
        assert_in_range(ids[i], request->first_id, request->first_id + request->n - 1);
        counts[ids[i] - request->first_id] += 1.0 / DRAWS;
    }
    for (int i = 0; i < request->n; i++)
        variation += 0.5 * fabs(counts[i] - law[i]);
    free(requests);
    free(ids);
    free(counts);
    stream_destroy(stream);
    return variation;
}

/* The law, in double, from the sorted allowed logits. */
static void softmax_law(double *law, const struct sample_request *r, int ties)
{
    for (int i = 0; i < r->n; i++) {
        double l = (double)r->logits[i];
        if (r->unconditional)
            l = (double)r->unconditional[i] +
                (double)r->guidance * (l - (double)r->unconditional[i]);
        law[i] = !r->allowed || r->allowed[i] ? l : -INFINITY;
    }
    double kept[64], sum = 0;
    for (int i = 0; i < r->n; i++) {
        int larger = 0;
        for (int j = 0; j < r->n; j++)
            larger += law[j] > law[i] || (!ties && law[j] == law[i] && j < i);
        kept[i] = larger < r->top_k || r->top_k < 1 ? exp(law[i] / (double)r->temperature) : 0;
        sum += kept[i];
    }
    for (int i = 0; i < r->n; i++)
        law[i] = kept[i] / sum;
}

/* The smallest k of at least 5 whose k-th largest allowed logit is not the last of its value. */
static int tied_rank(const struct sample_request *r)
{
    for (int k = 5; k < r->n; k++)
        for (int i = 0; i < r->n; i++) {
            int larger = 0, equal = 0;
            for (int j = 0; j < r->n; j++) {
                larger += r->allowed[j] && r->logits[j] > r->logits[i];
                equal += r->allowed[j] && r->logits[j] == r->logits[i];
            }
            if (r->allowed[i] && larger < k && larger + equal > k)
                return k;
        }
    fail_msg("no ties");
    return 0;
}

/*
 * With 20000 draws over m likely tokens the total variation of the right law is about sqrt(m / (2
 * pi 20000)): 0.02 for 50. A wrong temperature, guidance or cut is seen, as the second half shows.
 */
static void test_law(void **state)
{
    (void)state;
    const double limit = 0.03;
    float *c = test_numbers(50, 3, 33), *u = test_numbers(50, 3, 34);
    uint8_t allowed[50];
    double law[50];
    for (int i = 0; i < 50; i++) {
        c[i] = rintf(c[i] * 4) / 4; /* many ties */
        allowed[i] = i % 5 != 0;
    }
    struct sample_request r = {
        .logits = c, .first_id = 100, .n = 50, .temperature = 1, .ordinal = 3};
    softmax_law(law, &r, 1);
    assert_true(total_variation(&r, law) < limit);
    r.temperature = 0.7f;
    assert_true(total_variation(&r, law) > limit);
    r.allowed = allowed;
    r.top_k = tied_rank(&r);
    softmax_law(law, &r, 1);
    assert_true(total_variation(&r, law) < limit);
    softmax_law(law, &r, 0);
    assert_true(total_variation(&r, law) > limit); /* ties with the k-th stay */
    r.unconditional = u;
    r.guidance = 2;
    softmax_law(law, &r, 1);
    assert_true(total_variation(&r, law) < limit);
    r.guidance = 3;
    assert_true(total_variation(&r, law) > limit);
    free(c);
    free(u);
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* With temperature far up every kept token is equally likely: the set drawn from shows the cut. */
static void test_top_k_is_exact(void **state)
{
    (void)state;
    static const int ks[] = {1, 2, 3, 17, 100, 255, 299, 300, 301, 0};
    float *logits = test_numbers(300, 1e-3f, 35), sorted[300];
    logits[7] = -0.0f;
    logits[8] = 0.0f;
    memcpy(sorted, logits, sizeof(sorted));
    qsort(sorted, 300, sizeof(float), by_size);
    struct stream *stream = test_stream(CODE_PATH_PORTABLE, 1);
    for (size_t i = 0; i < sizeof(ks) / sizeof(ks[0]); i++) {
        int n_kept = 0, n_seen = 0;
        uint8_t seen[300] = {0};
        float least = ks[i] && ks[i] < 300 ? sorted[ks[i] - 1] : sorted[299];
        for (int j = 0; j < 300; j++)
            n_kept += logits[j] >= least;
        for (int s = 0; s < 8000; s++) {
            struct sample_request r = {.logits = logits,
                                       .n = 300,
                                       .temperature = 1e6f,
                                       .top_k = ks[i],
                                       .seed = (uint64_t)s};
            int32_t id;
            assert_int_equal(sample(&id, &r, 1, stream, NULL), STATUS_OK);
            assert_true(logits[id] >= least);
            n_seen += !seen[id];
            seen[id] = 1;
        }
        assert_int_equal(n_seen, n_kept);
    }
    stream_destroy(stream);
    free(logits);
}

static void test_sets_and_greedy(void **state)
{
    (void)state;
    const float logits[] = {1, 5, 5, -2, 7}, lower[] = {0, 0, 4, 0, 7};
    const uint8_t allowed[] = {1, 1, 1, 1, 0};
    const int32_t listed[] = {13, 12, 11}, one[] = {13};
    struct sample_request r = {.logits = logits, .first_id = 10, .n = 5, .temperature = 0};
    assert_int_equal(draw(&r, CODE_PATH_PORTABLE), 14);
    r.allowed = allowed;
    assert_int_equal(draw(&r, CODE_PATH_PORTABLE), 11); /* a tie: the smallest id */
    r.unconditional = lower;
    r.guidance = 2;
    assert_int_equal(draw(&r, CODE_PATH_PORTABLE), 11); /* 10 against 6 */
    r.guidance = 0;
    assert_int_equal(draw(&r, CODE_PATH_PORTABLE), 12);
    r.unconditional = NULL;
    r.listed = listed;
    r.n_listed = 3;
    assert_int_equal(draw(&r, CODE_PATH_PORTABLE), 11); /* the smallest, though listed last */
    r.listed = one;
    r.n_listed = 1;
    r.temperature = 1;
    assert_int_equal(draw(&r, CODE_PATH_PORTABLE), 13);
}

static void refuse(struct sample_request r, const char *text)
{
    struct sample_request requests[3] = {r, r, r};
    const float fine[] = {1, 2, 3};
    requests[0] = (struct sample_request){.logits = fine, .n = 3, .temperature = 1};
    struct stream *stream = test_stream(CODE_PATH_PORTABLE, 2);
    struct error err;
    int32_t ids[3];
    assert_int_equal(sample(ids, requests, 3, stream, &err), STATUS_INVALID);
    if (!strstr(err.text, text) || !strstr(err.text, "request 1"))
        fail_msg("'%s' lacks '%s'", err.text, text);
    stream_destroy(stream);
}

static void test_refusals(void **state)
{
    (void)state;
    const float logits[] = {1, NAN, 3}, infinite[] = {-INFINITY, -INFINITY, -INFINITY},
                both[] = {INFINITY, 0, 0};
    const uint8_t none[] = {0, 0, 0}, not_nan[] = {1, 0, 1};
    const int32_t outside[] = {5, 99};
    struct sample_request r = {.logits = logits, .first_id = 5, .n = 3, .temperature = 1};
    refuse(r, "id 6 is not a number");
    r.temperature = 0;
    refuse(r, "id 6 is not a number");
    r.allowed = none;
    refuse(r, "no allowed id");
    r.allowed = not_nan;
    assert_int_equal(draw(&r, CODE_PATH_PORTABLE), 7);
    r.listed = outside;
    r.n_listed = 2;
    refuse(r, "id 99 is not in 5..7");
    r.listed = NULL;
    r.temperature = NAN;
    refuse(r, "temperature");
    r.temperature = -1;
    refuse(r, "temperature");
    r = (struct sample_request){.logits = infinite, .n = 3, .temperature = 1};
    refuse(r, "no allowed id");
    r = (struct sample_request){
        .logits = both, .unconditional = both, .n = 3, .temperature = 1, .guidance = 2};
    refuse(r, "id 0 is not a number");
    r.guidance = INFINITY;
    refuse(r, "guidance");
}

static void test_logarithm(void **state)
{
    (void)state;
    uint64_t seed = 3;
    double worst = 0;
    for (int i = 0; i < 200000; i++) {
        double x = ldexp(0.5 + 0.5 * (double)(test_random(&seed) >> 11) * 0x1p-53,
                         (int)(test_random(&seed) % 80) - 60);
        double want = log(x), got = sample_log(x);
        double error = want == 0 ? fabs(got) : fabs(got - want) / ldexp(1, ilogb(want) - 52);
        worst = error > worst ? error : worst;
    }
    printf("logarithm: largest difference %.2f units in the last place\n", worst);
    assert_true(worst <= 2);
    assert_true(sample_log(1) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draw_is_the_written_function),
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_law),
        cmocka_unit_test(test_top_k_is_exact),
        cmocka_unit_test(test_sets_and_greedy),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_logarithm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
