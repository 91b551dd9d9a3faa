/* tune_model.c - see tune_model.h. */
#include "tools/tune_model.h"

#include <math.h>

#define POLL_NS_MAX   500000.0 /* what takes longer is not waited for with a busy processor */
#define POLL_US_MIN   10u
#define DEPTH_MIN     32u
#define DEPTH_MAX     1024u
#define FLUSH_CLEARLY 0.9 /* of the other method's time: else the usual one */

/* Weights 1 / y^2: at each size the same relative error counts the same. One request at a time:
 * its time is 1 / rate. */
struct tune_line tune_fit(const struct tune_point *points, uint32_t count) {
  double w = 0, wx = 0, wy = 0, wxx = 0, wxy = 0;
  struct tune_line line = {0};
  for (uint32_t i = 0; i < count; i++) {
    double x = points[i].bytes, y = 1e9 / points[i].rate, weight = 1 / (y * y);
    w += weight;
    wx += weight * x;
    wy += weight * y;
    wxx += weight * x * x;
    wxy += weight * x * y;
  }
  double determinant = w * wxx - wx * wx;
  line.per_byte_ns = determinant > 0 ? (w * wxy - wx * wy) / determinant : 0;
  if (line.per_byte_ns < 0) line.per_byte_ns = 0; /* noise: larger ones were not slower */
  line.fixed_ns = (wy - line.per_byte_ns * wx) / w;
  for (uint32_t i = 0; i < count; i++) {
    double y = 1e9 / points[i].rate;
    double error = fabs(line.fixed_ns + line.per_byte_ns * points[i].bytes - y) / y;
    if (error > line.worst) line.worst = error;
  }
  return line;
}

static uint32_t clamp(double v, uint32_t low, uint32_t high) {
  return v < low ? low : v > high ? high : (uint32_t)v;
}

/* A read that ends within the time is caught awake; where none does, sleeping and being woken
 * costs as much as polling for so long, so that at most twice the least is spent. */
static uint32_t choose_poll(const struct tune_data *d) {
  double ns = d->read_p90_ns <= POLL_NS_MAX ? 1.25 * d->read_p90_ns : 2 * d->wake_ns;
  return clamp(ceil(ns / 1000), POLL_US_MIN, (uint32_t)(2 * POLL_NS_MAX / 1000));
}

void tune_model_of(struct tune_model *m, const struct tune_data *d) {
  *m = (struct tune_model){.read = tune_fit(d->reads, TUNE_SIZES),
                           .write = tune_fit(d->writes, TUNE_SIZES)};
  for (int i = 0; i < TUNE_DEPTHS; i++)
    if (d->depths[i].rate > m->rate_max) m->rate_max = d->depths[i].rate;
  for (int i = TUNE_DEPTHS - 1; i >= 0; i--)
    if (d->depths[i].rate >= 0.95 * m->rate_max) m->rate_depth = d->depths[i].depth;
  /* N requests in flight, each taking at least as long as one alone, are at most N / time a second
   * (Little), and never more than the most: where the two meet is the knee. */
  m->knee = m->rate_max / d->depths[0].rate;
  m->flush_ns = d->write_flush_ns > d->write_ns ? d->write_flush_ns - d->write_ns : 0;
  m->read_kept = d->read_alone > 0 ? d->read_beside / d->read_alone : 0;
  m->write_kept = d->write_alone > 0 ? d->write_beside / d->write_alone : 0;
  m->poll_us = choose_poll(d);
  m->queue_depth = clamp(2.0 * m->rate_depth, DEPTH_MIN, DEPTH_MAX);
  m->flush =
      d->write_flush_ns < FLUSH_CLEARLY * d->write_dsync_ns ? TUNE_FLUSH_AFTER : TUNE_FLUSH_FUA;
}
