/* shard_sim.c - the simulator's command: runs from seeds until a number of runs or of distinct
 * crash states is reached, or something is wrong. */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/sim_plants.h"
#include "tests/sim/sim_run.h"

static const char usage_text[] =
    "usage: shard-sim [--seed=N] [--runs=N] [--states=N] [--scenario=NAME] [--plant=NAME]\n"
    "  --seed=N         the first seed; each further run takes the next one (default 1)\n"
    "  --runs=N         so many runs (default 1 if a seed is given, else 100)\n"
    "  --states=N       instead: until so many distinct crash states were looked at\n"
    "  --flush-after    roots by a write and a flush, not with FUA\n"
    "  --plant=NAME     with a fault in the store (shard-sim-planted only); \"list\" lists them\n"
    "  --scenario=NAME  random, small, faults, damage, volumes (default: the seed chooses)\n"
    "Exit status: 0 nothing found, 1 a violation (its seed is printed), 2 usage\n";

struct scenario {
  const char *name;
  void (*run)(uint64_t seed, struct run_totals *t);
};
static const struct scenario scenarios[] = {{"random", run_random},
                                            {"small", run_small},
                                            {"volumes", run_volumes},
                                            {"faults", run_faults},
                                            {"damage", run_damage}};
#define VOLUMES 2u

/* Runs with faults are short: most of the time goes to the first three all the same. */
static const struct scenario *by_seed(uint64_t seed) {
  uint64_t turn = seed % 24;
  if (plant_is_of_volumes()) return &scenarios[VOLUMES];
  if (plant_is_of_kills()) return &scenarios[seed % 2 ? 0 : VOLUMES];
  return &scenarios[turn < 3 ? turn : 3 + turn % 2];
}

struct options {
  uint64_t seed, runs, states;
  const struct scenario *scenario; /* NULL: by seed */
  const char *plant;               /* NULL: none */
};

static bool number(const char *text, uint64_t *n) {
  char *end;
  errno = 0;
  *n = strtoull(text, &end, 10);
  return !errno && end != text && !*end && *text != '-';
}

static bool parse(int argc, char **argv, struct options *o) {
  bool seeded = false, counted = false;
  *o = (struct options){.seed = 1, .runs = 100};
  for (int i = 1; i < argc; i++) {
    const char *a = argv[i];
    bool good = false;
    if (strncmp(a, "--seed=", 7) == 0) good = seeded = number(a + 7, &o->seed);
    if (strncmp(a, "--runs=", 7) == 0) good = counted = number(a + 7, &o->runs);
    if (strncmp(a, "--states=", 9) == 0) good = counted = number(a + 9, &o->states);
    for (uint32_t k = 0; k < array_size(scenarios); k++)
      if (strncmp(a, "--scenario=", 11) == 0 && strcmp(a + 11, scenarios[k].name) == 0) {
        o->scenario = &scenarios[k];
        good = true;
      }
    if (strcmp(a, "--flush-after") == 0) good = sim_flush_after = true;
    if (strncmp(a, "--plant=", 8) == 0) good = plant_choose(o->plant = a + 8);
    if (!good) {
      fprintf(stderr, "shard-sim: %s: not understood\n%s", a, usage_text);
      return false;
    }
  }
  if (seeded && !counted) o->runs = 1;
  return true;
}

/* A check that failed is a finding like any other: its seed must be seen. */
static void died(int number) {
  static const char text[] = "VIOLATION: a check of the code itself failed\n  reproduce: ";
  ssize_t n = write(STDOUT_FILENO, text, sizeof text - 1);
  n += write(STDOUT_FILENO, sim_reproduce, strlen(sim_reproduce));
  n += write(STDOUT_FILENO, "\n", 1);
  (void)n;
  signal(number, SIG_DFL);
  raise(number);
}

static void report(const struct run_totals *t, double seconds) {
  const struct checker *c = &t->checker;
  printf("runs %llu, lives %llu, power cuts %llu, kills %llu (%llu with survivors), requests %llu "
         "(%llu refused for want of space), "
         "calls %llu\n"
         "distinct crash states %llu, looks at them %llu, of kills %llu, cuts during recovery "
         "%llu, scrubs %llu\n"
         "moments with all subsets of sectors %llu, of blocks %llu, with some %llu; at most %llu "
         "blocks\n"
         "events %llu (%llu of many pieces), core steps %llu, faults %llu, in %.1f s: %.0f events "
         "and %.0f states a "
         "second\n",
         (unsigned long long)t->runs, (unsigned long long)t->lives, (unsigned long long)t->cuts,
         (unsigned long long)t->kills, (unsigned long long)t->kills_surviving,
         (unsigned long long)t->requests, (unsigned long long)t->refused,
         (unsigned long long)t->calls, (unsigned long long)c->states.count,
         (unsigned long long)c->looks.count, (unsigned long long)c->kills,
         (unsigned long long)c->recovery_cuts, (unsigned long long)c->scrubs,
         (unsigned long long)c->complete, (unsigned long long)c->complete_blocks,
         (unsigned long long)c->sampled, (unsigned long long)c->atoms_max,
         (unsigned long long)t->events, (unsigned long long)t->vectored,
         (unsigned long long)t->steps, (unsigned long long)t->faults, seconds,
         (double)(t->events + t->steps) / seconds, (double)c->states.count / seconds);
}

static double now_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
  static struct run_totals totals;
  struct options o;
  if (argc == 2 && strcmp(argv[1], "--plant=list") == 0) {
    plant_list();
    return 0;
  }
  if (!parse(argc, argv, &o)) return 2;
  /* Stores are opened by the thousand: memory that they give back is kept for the next one. */
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  signal(SIGABRT, died);
  signal(SIGSEGV, died);
  double start = now_seconds();
  for (uint64_t n = 0; o.states ? totals.checker.states.count < o.states : n < o.runs; n++) {
    uint64_t seed = o.seed + n;
    const struct scenario *s = o.scenario ? o.scenario : by_seed(seed);
    snprintf(sim_reproduce, sizeof sim_reproduce, "%s --seed=%llu --scenario=%s%s%s%s", argv[0],
             (unsigned long long)seed, s->name, sim_flush_after ? " --flush-after" : "",
             o.plant ? " --plant=" : "", o.plant ? o.plant : "");
    s->run(seed, &totals);
  }
  report(&totals, now_seconds() - start);
  free(totals.checker.states.slots);
  free(totals.checker.looks.slots);
  return 0;
}
