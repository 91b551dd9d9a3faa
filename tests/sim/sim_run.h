/* sim_run.h - one run: a store of random shape, lives that end with a power cut, a clean close or a
 * crash, all from one seed. */
#ifndef TESTS_SIM_RUN_H
#define TESTS_SIM_RUN_H

#include "tests/sim/sim_vclient.h"

struct run_totals {
  uint64_t runs, lives, cuts, kills, kills_surviving, requests, calls, events, vectored, steps,
      refused, faults;
  struct checker checker;
};

/* Long histories; of some moments some states. */
void run_random(uint64_t seed, struct run_totals *t);
/* Up to four requests; of every moment all states. */
void run_small(uint64_t seed, struct run_totals *t);
/* Requests of the device fail: reads, writes, flushes, for want of space. */
void run_faults(uint64_t seed, struct run_totals *t);
/* The device says that all is well, and it is not: bits flip, writes go astray or get lost. */
void run_damage(uint64_t seed, struct run_totals *t);
/* Volumes, and a few blobs beside them. */
void run_volumes(uint64_t seed, struct run_totals *t);

#endif
