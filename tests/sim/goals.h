/*
 * goals.h - the cases whose figures the project promises, each with its bound.
 */
#ifndef MGPT_TESTS_SIM_GOALS_H
#define MGPT_TESTS_SIM_GOALS_H

/* Runs all, prints a line each. Returns the number of broken promises. */
int goals_run(void);

#endif
