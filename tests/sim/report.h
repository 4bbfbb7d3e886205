/*
 * report.h - a simulation's result as a table line or as JSON.
 */
#ifndef MGPT_TESTS_SIM_REPORT_H
#define MGPT_TESTS_SIM_REPORT_H

#include "tests/sim/sim.h"

void report_head(void);
void report_line(const char *name, const struct sim_options *options,
                 const struct sim_result *result);
void report_json(const struct sim_options *options, const struct sim_result *result);

#endif
