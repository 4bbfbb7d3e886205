/*
 * plan.c - the checks, in the order of the fields; every text says which row, what was found and
 * expected.
 */
#include "proto/plan.h"

#include <math.h>
#include <string.h>

static enum status check_count(const char *what, size_t n, size_t limit, struct error *err)
{
    if (n > limit)
        return error_set(err, STATUS_INVALID, "%zu %s, limit %zu", n, what, limit);
    return STATUS_OK;
}

static enum status check_counts(const Mgpt__StepPlan *plan, struct error *err)
{
    const struct {
        const char *what;
        size_t n, limit;
    } counts[] = {
        {"rows", plan->n_rows, PLAN_ROWS_MAX},
        {"forks", plan->n_forks, PLAN_FORKS_MAX},
        {"releases", plan->n_release, PLAN_RELEASES_MAX},
        {"sampling parameters", plan->n_sampling, PLAN_SAMPLINGS_MAX},
    };
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        enum status st = check_count(counts[i].what, counts[i].n, counts[i].limit, err);
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}

static enum status check_fork(const Mgpt__StepPlan *plan, size_t index,
                              const struct plan_limits *limits, struct error *err)
{
    const Mgpt__Fork *fork = plan->forks[index];
    if (fork->from == 0 || fork->to == 0 || fork->from == fork->to)
        return error_set(err, STATUS_INVALID,
                         "fork %zu from sequence %llu to %llu, expected two different ids above 0",
                         index, (unsigned long long)fork->from, (unsigned long long)fork->to);
    if (fork->n_positions == 0 || fork->n_positions > limits->max_positions)
        return error_set(err, STATUS_INVALID, "fork %zu of %u positions, expected 1 to %u", index,
                         fork->n_positions, limits->max_positions);
    for (size_t i = 0; i < index; i++)
        if (plan->forks[i]->to == fork->to)
            return error_set(err, STATUS_INVALID, "forks %zu and %zu both make sequence %llu", i,
                             index, (unsigned long long)fork->to);
    return STATUS_OK;
}

static enum status check_sampling(const Mgpt__Sampling *sampling, size_t index, struct error *err)
{
    if (!isfinite(sampling->temperature) || sampling->temperature < 0)
        return error_set(err, STATUS_INVALID,
                         "sampling %zu has temperature %g, expected a finite number from 0", index,
                         (double)sampling->temperature);
    if (!isfinite(sampling->guidance))
        return error_set(err, STATUS_INVALID,
                         "sampling %zu has guidance %g, expected a finite number", index,
                         (double)sampling->guidance);
    return STATUS_OK;
}

static enum status check_id_list(const char *what, const uint32_t *ids, size_t n, uint32_t vocab,
                                 struct error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= vocab)
            return error_set(err, STATUS_INVALID, "%s id %u, expected below %u", what, ids[i],
                             vocab);
        if (i > 0 && ids[i] <= ids[i - 1])
            return error_set(err, STATUS_INVALID, "%s ids %u, %u do not ascend", what, ids[i - 1],
                             ids[i]);
    }
    return STATUS_OK;
}

static enum status check_output_set(const Mgpt__Output *output, const struct plan_limits *limits,
                                    struct error *err)
{
    if (output->set != MGPT__TOKEN_SET__SET_TEXT && output->set != MGPT__TOKEN_SET__SET_CODES &&
        output->set != MGPT__TOKEN_SET__SET_LISTED)
        return error_set(err, STATUS_INVALID, "unknown set %d", (int)output->set);
    if ((output->n_allowed > 0) != (output->set == MGPT__TOKEN_SET__SET_LISTED))
        return error_set(err, STATUS_INVALID,
                         "%zu allowed ids with set %d; SET_LISTED has some, others none",
                         output->n_allowed, (int)output->set);
    if (output->n_forbidden > 0 && output->set != MGPT__TOKEN_SET__SET_TEXT)
        return error_set(err, STATUS_INVALID,
                         "%zu forbidden ids with set %d, only SET_TEXT has some",
                         output->n_forbidden, (int)output->set);
    if (output->n_forbidden >= limits->vocab)
        return error_set(err, STATUS_INVALID, "all %u ids are forbidden", limits->vocab);
    enum status st =
        check_id_list("allowed", output->allowed, output->n_allowed, limits->vocab, err);
    if (st == STATUS_OK)
        st = check_id_list("forbidden", output->forbidden, output->n_forbidden, limits->vocab, err);
    return st;
}

static enum status check_output(const Mgpt__Row *row, size_t index,
                                const struct plan_limits *limits, struct error *err)
{
    const Mgpt__Output *output = row->outputs[index];
    if (output->offset >= row->n_tokens)
        return error_set(err, STATUS_INVALID, "offset %u in a row of %zu tokens", output->offset,
                         row->n_tokens);
    if (index > 0 && output->offset < row->outputs[index - 1]->offset)
        return error_set(err, STATUS_INVALID, "offset %u after %u, expected ascending ones",
                         output->offset, row->outputs[index - 1]->offset);
    if (row->role == MGPT__ROW_ROLE__ROW_UNCONDITIONAL)
        return STATUS_OK;
    if (output->kind == MGPT__OUTPUT_KIND__OUTPUT_DRAW)
        return check_output_set(output, limits, err);
    if (output->kind != MGPT__OUTPUT_KIND__OUTPUT_LOGITS)
        return error_set(err, STATUS_INVALID, "unknown kind %d", (int)output->kind);
    if (row->role != MGPT__ROW_ROLE__ROW_PLAIN)
        return error_set(err, STATUS_INVALID, "logits are given for plain rows only");
    return STATUS_OK;
}

static enum status check_row_role(const Mgpt__StepPlan *plan, size_t index, struct error *err)
{
    const Mgpt__Row *row = plan->rows[index];
    const Mgpt__Row *before = index > 0 ? plan->rows[index - 1] : NULL;
    bool twin_expected = before && before->role == MGPT__ROW_ROLE__ROW_CONDITIONAL;
    switch (row->role) {
    case MGPT__ROW_ROLE__ROW_CONDITIONAL:
        if (index + 1 == plan->n_rows)
            return error_set(err, STATUS_INVALID,
                             "conditional without an unconditional row behind it");
        /* fall through */
    case MGPT__ROW_ROLE__ROW_PLAIN:
        if (twin_expected)
            return error_set(err, STATUS_INVALID,
                             "expected the unconditional twin of the row before");
        return STATUS_OK;
    case MGPT__ROW_ROLE__ROW_UNCONDITIONAL:
        if (!twin_expected)
            return error_set(err, STATUS_INVALID,
                             "unconditional without a conditional row before it");
        if (row->n_outputs != before->n_outputs)
            return error_set(err, STATUS_INVALID, "%zu outputs, its conditional twin has %zu",
                             row->n_outputs, before->n_outputs);
        return STATUS_OK;
    default:
        return error_set(err, STATUS_INVALID, "unknown role %d", (int)row->role);
    }
}

static enum status check_row_tokens(const Mgpt__Row *row, const struct plan_limits *limits,
                                    struct error *err)
{
    if (row->sequence == 0)
        return error_set(err, STATUS_INVALID, "sequence 0, expected an id above 0");
    if (row->n_tokens == 0 || row->n_tokens > limits->rows_max)
        return error_set(err, STATUS_INVALID, "%zu tokens, expected 1 to %u", row->n_tokens,
                         limits->rows_max);
    if ((uint64_t)row->start + row->n_tokens > limits->max_positions)
        return error_set(err, STATUS_INVALID, "positions %u to %llu, the model has %u", row->start,
                         (unsigned long long)(row->start + row->n_tokens - 1),
                         limits->max_positions);
    for (size_t i = 0; i < row->n_tokens; i++)
        if (row->tokens[i] >= limits->vocab)
            return error_set(err, STATUS_INVALID, "token %zu is id %u, expected below %u", i,
                             row->tokens[i], limits->vocab);
    return STATUS_OK;
}

static enum status check_row(const Mgpt__StepPlan *plan, size_t index,
                             const struct plan_limits *limits, struct error *err)
{
    const Mgpt__Row *row = plan->rows[index];
    enum status st = check_row_tokens(row, limits, err);
    if (st == STATUS_OK)
        st = check_row_role(plan, index, err);
    if (st == STATUS_OK && row->n_outputs > 0 && row->role != MGPT__ROW_ROLE__ROW_UNCONDITIONAL &&
        row->sampling >= plan->n_sampling)
        st = error_set(err, STATUS_INVALID, "sampling %u, the plan has %zu", row->sampling,
                       plan->n_sampling);
    if (st == STATUS_OK)
        st = check_count("outputs", row->n_outputs, PLAN_OUTPUTS_MAX, err);
    for (size_t i = 0; st == STATUS_OK && i < row->n_outputs; i++) {
        st = check_output(row, i, limits, err);
        if (st != STATUS_OK)
            error_wrap(err, st, "output %zu", i);
    }
    for (size_t i = 0; st == STATUS_OK && i < index; i++)
        if (plan->rows[i]->sequence == row->sequence)
            st = error_set(err, STATUS_INVALID, "sequence %llu occurs in row %zu too",
                           (unsigned long long)row->sequence, i);
    return st == STATUS_OK ? st : error_wrap(err, st, "row %zu", index);
}

/* Sums over all rows: tokens, outputs, whole logits, listed ids. Each addend was checked to be
 * small. */
static enum status check_sums(const Mgpt__StepPlan *plan, const struct plan_limits *limits,
                              struct error *err)
{
    size_t n_tokens = 0, n_outputs = 0, n_logits = 0, n_listed = 0;
    for (size_t r = 0; r < plan->n_rows; r++) {
        const Mgpt__Row *row = plan->rows[r];
        n_tokens += row->n_tokens;
        n_outputs += row->n_outputs;
        for (size_t i = 0; i < row->n_outputs; i++) {
            n_logits += row->outputs[i]->kind == MGPT__OUTPUT_KIND__OUTPUT_LOGITS;
            n_listed += row->outputs[i]->n_allowed + row->outputs[i]->n_forbidden;
        }
    }
    size_t logits_max = PLAN_LOGITS_BYTES_MAX / sizeof(float) / limits->vocab;
    enum status st = check_count("tokens", n_tokens, limits->rows_max, err);
    if (st == STATUS_OK)
        st = check_count("outputs", n_outputs, limits->outputs_max, err);
    if (st == STATUS_OK)
        st = check_count("rows of logits", n_logits,
                         logits_max < PLAN_LOGITS_MAX ? logits_max : PLAN_LOGITS_MAX, err);
    if (st == STATUS_OK)
        st = check_count("listed ids", n_listed, PLAN_LISTED_MAX, err);
    return st;
}

enum status plan_check(const Mgpt__StepPlan *plan, const struct plan_limits *limits,
                       struct error *err)
{
    enum status st = check_counts(plan, err);
    if (st == STATUS_OK && (plan->epoch == 0 || plan->number == 0))
        st = error_set(err, STATUS_INVALID, "epoch %llu and number %llu, both begin at 1",
                       (unsigned long long)plan->epoch, (unsigned long long)plan->number);
    for (size_t i = 0; st == STATUS_OK && i < plan->n_release; i++)
        if (plan->release[i] == 0)
            st = error_set(err, STATUS_INVALID, "release %zu of sequence 0", i);
    for (size_t i = 0; st == STATUS_OK && i < plan->n_forks; i++)
        st = check_fork(plan, i, limits, err);
    for (size_t i = 0; st == STATUS_OK && i < plan->n_sampling; i++)
        st = check_sampling(plan->sampling[i], i, err);
    for (size_t i = 0; st == STATUS_OK && i < plan->n_rows; i++)
        st = check_row(plan, i, limits, err);
    if (st == STATUS_OK)
        st = check_sums(plan, limits, err);
    return st == STATUS_OK ? st
                           : error_wrap(err, st, "plan %llu", (unsigned long long)plan->number);
}

int plan_n_tokens(const Mgpt__StepPlan *plan)
{
    size_t n = 0;
    for (size_t i = 0; i < plan->n_rows; i++)
        n += plan->rows[i]->n_tokens;
    return (int)n;
}

int plan_n_outputs(const Mgpt__StepPlan *plan)
{
    size_t n = 0;
    for (size_t i = 0; i < plan->n_rows; i++)
        if (plan->rows[i]->role != MGPT__ROW_ROLE__ROW_UNCONDITIONAL)
            n += plan->rows[i]->n_outputs;
    return (int)n;
}

/* Has the output an error of its own, or its row one? */
static bool has_error(const Mgpt__StepResult *result, uint32_t row, uint32_t output)
{
    for (size_t i = 0; i < result->n_errors; i++)
        if (result->errors[i]->row == row &&
            (result->errors[i]->output == output || result->errors[i]->output == PLAN_WHOLE_ROW))
            return true;
    return false;
}

static enum status check_row_error(const Mgpt__RowError *error, const Mgpt__StepPlan *plan,
                                   struct error *err)
{
    if (error->row >= plan->n_rows)
        return error_set(err, STATUS_INVALID, "an error of row %u, the plan has %zu rows",
                         error->row, plan->n_rows);
    const Mgpt__Row *row = plan->rows[error->row];
    if (error->output != PLAN_WHOLE_ROW && error->output >= row->n_outputs)
        return error_set(err, STATUS_INVALID, "an error of output %u of row %u, which has %zu",
                         error->output, error->row, row->n_outputs);
    if (error->sequence != row->sequence)
        return error_set(
            err, STATUS_INVALID, "an error of sequence %llu in row %u, which is of %llu",
            (unsigned long long)error->sequence, error->row, (unsigned long long)row->sequence);
    if (error->status == STATUS_OK || error->status > STATUS_INTERNAL)
        return error_set(err, STATUS_INVALID, "an error with status %u", error->status);
    return STATUS_OK;
}

/* How far a walk over the plan's outputs has come in the lists of a result. */
struct result_cursor {
    size_t drawn, logits;
};

/* The answer to output `output` of row `row` must be the next of its list, or an error. */
static enum status check_answer(const Mgpt__StepResult *result, const Mgpt__Row *plan_row,
                                uint32_t row, uint32_t output, uint32_t vocab,
                                struct result_cursor *at, struct error *err)
{
    const Mgpt__DrawnToken *drawn = at->drawn < result->n_drawn ? result->drawn[at->drawn] : NULL;
    const Mgpt__LogitsRow *logits =
        at->logits < result->n_logits ? result->logits[at->logits] : NULL;
    if (plan_row->outputs[output]->kind == MGPT__OUTPUT_KIND__OUTPUT_DRAW) {
        if (drawn && drawn->row == row && drawn->output == output) {
            at->drawn++;
            if (drawn->token >= vocab)
                return error_set(err, STATUS_INVALID, "row %u drew id %u, expected below %u", row,
                                 drawn->token, vocab);
            return STATUS_OK;
        }
    } else if (logits && logits->row == row && logits->output == output) {
        at->logits++;
        if (logits->logits.len != vocab * sizeof(float))
            return error_set(err, STATUS_INVALID, "row %u has logits of %zu bytes, expected %zu",
                             row, logits->logits.len, vocab * sizeof(float));
        return STATUS_OK;
    }
    if (!has_error(result, row, output))
        return error_set(err, STATUS_INVALID, "no answer to output %u of row %u", output, row);
    return STATUS_OK;
}

static enum status check_answers(const Mgpt__StepResult *result, const Mgpt__StepPlan *plan,
                                 uint32_t vocab, struct error *err)
{
    struct result_cursor at = {0, 0};
    enum status st = STATUS_OK;
    for (size_t r = 0; r < plan->n_rows; r++) {
        const Mgpt__Row *row = plan->rows[r];
        if (row->role == MGPT__ROW_ROLE__ROW_UNCONDITIONAL)
            continue;
        for (size_t i = 0; st == STATUS_OK && i < row->n_outputs; i++)
            st = check_answer(result, row, (uint32_t)r, (uint32_t)i, vocab, &at, err);
    }
    if (st == STATUS_OK && (at.drawn != result->n_drawn || at.logits != result->n_logits))
        st = error_set(err, STATUS_INVALID,
                       "%zu tokens and %zu logits, %zu and %zu were asked for in this order",
                       result->n_drawn, result->n_logits, at.drawn, at.logits);
    return st;
}

enum status plan_check_result(const Mgpt__StepResult *result, const Mgpt__StepPlan *plan,
                              bool is_last, uint32_t vocab, struct error *err)
{
    enum status st = STATUS_OK;
    if (result->epoch != plan->epoch || result->number != plan->number)
        st = error_set(err, STATUS_INVALID, "answers plan %llu of epoch %llu",
                       (unsigned long long)result->number, (unsigned long long)result->epoch);
    else if (result->status > STATUS_INTERNAL)
        st = error_set(err, STATUS_INVALID, "unknown status %u", result->status);
    else if (result->n_errors > PLAN_ROW_ERRORS_MAX)
        st = check_count("errors", result->n_errors, PLAN_ROW_ERRORS_MAX, err);
    for (size_t i = 0; st == STATUS_OK && i < result->n_errors; i++)
        st = check_row_error(result->errors[i], plan, err);
    bool answers_expected = is_last && result->status == STATUS_OK;
    if (st == STATUS_OK && answers_expected)
        st = check_answers(result, plan, vocab, err);
    else if (st == STATUS_OK && result->n_drawn + result->n_logits > 0)
        st = error_set(err, STATUS_INVALID, "%zu tokens and %zu logits, expected none",
                       result->n_drawn, result->n_logits);
    return st == STATUS_OK ? st
                           : error_wrap(err, st, "result of plan %llu from stage %u",
                                        (unsigned long long)plan->number, result->stage_index);
}

static enum status check_load_units(const Mgpt__Load *load, uint32_t n_units, struct error *err)
{
    if (load->n_stages == 0 || load->n_stages > n_units || load->stage_index >= load->n_stages)
        return error_set(err, STATUS_INVALID, "stage %u of %u, expected at most %u stages",
                         load->stage_index, load->n_stages, n_units);
    if (load->first_unit > load->last_unit || load->last_unit >= n_units)
        return error_set(err, STATUS_INVALID, "units %u to %u, the model has 0 to %u",
                         load->first_unit, load->last_unit, n_units - 1);
    if ((load->stage_index == 0) != (load->first_unit == 0))
        return error_set(err, STATUS_INVALID,
                         "stage %u begins at unit %u; the embedding belongs to stage 0",
                         load->stage_index, load->first_unit);
    if ((load->stage_index + 1 == load->n_stages) != (load->last_unit + 1 == n_units))
        return error_set(err, STATUS_INVALID,
                         "stage %u of %u ends at unit %u; the head is unit %u of the last stage",
                         load->stage_index, load->n_stages, load->last_unit, n_units - 1);
    return STATUS_OK;
}

static enum status check_range(const char *field, uint64_t value, uint64_t least, uint64_t most,
                               struct error *err)
{
    if (value < least || value > most)
        return error_set(err, STATUS_INVALID, "%s is %llu, expected %llu to %llu", field,
                         (unsigned long long)value, (unsigned long long)least,
                         (unsigned long long)most);
    return STATUS_OK;
}

enum status plan_check_load(const Mgpt__Load *load, uint32_t n_units, struct error *err)
{
    const struct {
        const char *field;
        uint64_t value, least, most;
    } ranges[] = {
        {"epoch", load->epoch, 1, UINT64_MAX},
        {"first_number", load->first_number, 1, UINT64_MAX},
        {"compute", (uint64_t)load->compute, MGPT__COMPUTE__COMPUTE_F32,
         MGPT__COMPUTE__COMPUTE_BF16},
        {"kv_blocks", load->kv_blocks, 1, PLAN_KV_BLOCKS_MAX},
        {"rows_max", load->rows_max, 1, PLAN_TOKENS_MAX},
        {"sequences_max", load->sequences_max, 1, PLAN_SEQUENCES_MAX},
        {"outputs_max", load->outputs_max, 0, PLAN_OUTPUTS_MAX},
        {"activation_ms", load->activation_ms, 0, PLAN_ACTIVATION_MS_MAX},
        {"link", (uint64_t)load->link, MGPT__LINK_KIND__LINK_ZMQ, MGPT__LINK_KIND__LINK_NCCL},
        {"length of link_bind", strlen(load->link_bind), load->stage_index > 0,
         PLAN_ENDPOINT_BYTES_MAX},
    };
    enum status st = check_load_units(load, n_units, err);
    for (size_t i = 0; st == STATUS_OK && i < sizeof(ranges) / sizeof(ranges[0]); i++)
        st = check_range(ranges[i].field, ranges[i].value, ranges[i].least, ranges[i].most, err);
    return st == STATUS_OK ? st : error_wrap(err, st, "load");
}
