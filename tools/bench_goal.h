/* bench_goal.h - runs that look for something, as fio has them: the greatest depth at which latency
 * keeps below a bound (latency_target), and the moment at which a rate does not change any more
 * (steadystate). What is asked for, and the arithmetic; bench_search.c runs it. One owner. */
#ifndef TOOLS_BENCH_GOAL_H
#define TOOLS_BENCH_GOAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "500us", "2ms", "1s"; a bare number counts microseconds, as in fio. -EINVAL. */
int goal_time(const char *text, uint64_t *ns);

/* ---- A depth */

/* Doubles while it is good enough, then halves the distance between what was and what was not. */
struct depth_search {
  uint32_t depth;     /* to be tried next */
  uint32_t good, bad; /* the greatest that was good, the least that was not; 0 and max + 1: none */
  bool failed;        /* one was not good enough */
  bool done;          /* good is the answer; 0: not even 1 */
};
void depth_begin(struct depth_search *s, uint32_t max);
void depth_note(struct depth_search *s, bool good_enough);

/* ---- A steady state */

#define STEADY_SAMPLES_MAX 600u
#define STEADY_PARTS       10u /* samples of a window of less than so many seconds */

struct steady_spec {
  bool bandwidth;    /* of bytes; else of requests */
  bool slope;        /* the line through the samples; else the one that is farthest from the mean */
  bool percent;      /* of the mean; else of requests or bytes a second */
  double limit;      /* 0: none is asked for */
  double duration_s; /* of the window */
  double ramp_s;     /* before the first sample */
};
/* "iops_slope:0.3%", "iops:5", "bw_slope:1%", "bw:2%". -EINVAL. */
int steady_parse(const char *text, struct steady_spec *spec);
uint64_t steady_interval_ns(const struct steady_spec *spec);

struct steady {
  struct steady_spec spec;
  uint32_t window, count, next; /* samples; a ring from `next` on when there are `window` */
  double iops[STEADY_SAMPLES_MAX], bytes[STEADY_SAMPLES_MAX];
  bool attained;
  double slope, deviation, criterion; /* slope: change a second, per second */
};
void steady_begin(struct steady *s, const struct steady_spec *spec);
/* The rates of an interval. True: it is steady now. */
bool steady_note(struct steady *s, double iops, double bytes_per_s);
/* The i-th oldest sample. */
uint32_t steady_at(const struct steady *s, uint32_t i);
double steady_mean(const struct steady *s, bool bandwidth);

#endif
