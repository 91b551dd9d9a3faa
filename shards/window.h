/* window.h - how much may be in flight at a device that several share.
 *
 * A device that has more work than it can do at once keeps the rest in its own queue, in which a
 * newcomer waits behind all of it. The window finds the amount that keeps the device busy and not
 * more. Now and then it looks for a few ms at what operations take when hardly anything else is in
 * flight, and at how much gets done when plenty is. In between it steers so that operations take on
 * average a certain multiple of that, and 99 in 100 less than twice of what they would alone; but
 * not so low that less than a third of what is possible gets done. Latencies are compared
 * within a class (reads or writes, of similar size); the class that suffers most counts.
 *
 * Plain data of one thread, no clock, no I/O. Amounts in flight are in cost units: see
 * window_cost(). */
#ifndef SHARDS_WINDOW_H
#define SHARDS_WINDOW_H

#include "shards/base/base.h"

enum { WINDOW_CLASSES = 8 };

struct window_class {
  uint32_t samples;
  uint64_t sum_ns;  /* of the samples */
  uint64_t base_ns; /* what one takes by itself; 0: not known yet */
  uint64_t high_ns; /* what 99 of 100 take at most, by themselves */
  uint32_t over;    /* parts in 65536 that lately took WINDOW_OVER times that and more */
};
enum window_phase { WINDOW_RUN, WINDOW_LOW, WINDOW_HIGH };
struct window {
  uint32_t units; /* the window while it runs */
  uint32_t units_max;
  uint32_t target; /* in 1/256: what an op may take under load, as a ratio to base_ns */
  uint8_t phase;
  bool starting;
  uint32_t samples, completions;
  uint64_t done_units;        /* of the completions, since */
  uint64_t since_ns;          /* ops that began from then on are samples */
  uint64_t rate, rate_plenty; /* units in 2^20 ns: of the last epoch, of the last high phase */
  uint64_t probed_ns;         /* when the last low phase ended */
  uint64_t probes;            /* low phases */
  struct window_class classes[WINDOW_CLASSES];
};

/* What an operation costs the device, in units of about the transfer of 4 KiB. */
static inline uint32_t window_cost(uint64_t bytes) {
  return 4 + (uint32_t)min_u64((bytes + 4095) >> 12, UINT32_C(1) << 20);
}
#define WINDOW_COST_4K 5u

void window_init(struct window *w, uint32_t units_max);
/* Several begin to share the device after one had it alone. */
void window_begin(struct window *w, uint64_t now_ns);
/* What may be in flight now. */
uint32_t window_units(const struct window *w);
/* An operation has completed. latency_ns: since it was started, 0: not known; in_flight: units,
 * without it; limiting: others wait for the window. */
void window_sample(struct window *w, unsigned class_index, uint32_t cost, uint64_t latency_ns,
                   uint64_t now_ns, uint32_t in_flight, bool limiting);

#endif
