/* window.c - see window.h.
 *
 *   [high] --end_high()--> [low] --end_low()--> [run] --end_epoch(), many times--> [low] ...
 *
 * Each LOW_EVERY_NS, or when a class is new, comes a low phase, and before each HIGH_EVERY-th of
 * them a high one. A sample counts only if its op began after the last change of the window, so
 * that what is measured belongs to what was set. Other phases than run begin only while somebody
 * waits for the window: otherwise nothing can be learned. */
#include "shards/window.h"

#include <string.h>

enum {
  LOW_UNITS = WINDOW_COST_4K,
  LOW_SETTLED_UNITS = 2 * WINDOW_COST_4K, /* newcomers may exceed the window a little */
  LOW_SAMPLES = 32,
  FLOOR_UNITS = WINDOW_COST_4K,
  START_UNITS = 8 * WINDOW_COST_4K,
  HIGH_UNITS = 64 * WINDOW_COST_4K,
  HIGH_EVERY = 4,
  EPOCH_SAMPLES = 64,
  CLASS_SAMPLES_MIN = 8,
};
#define MS           UINT64_C(1000000)
#define LOW_NS       (2 * MS)   /* at least */
#define PHASE_NS_MAX (100 * MS) /* low and high ones, with too few samples */
#define LOW_EVERY_NS (500 * MS)
#define LOW_AGAIN_NS (50 * MS) /* a class is new */
#define HIGH_NS      (3 * MS)
#define EPOCH_NS     MS
/* Below this a difference is that of the core's own steps, not of the device. */
#define SLACK_NS UINT64_C(5000)
/* In 1/256: of the mean under load to the mean alone. It moves so that the slowest stay in bounds.
 */
enum { TARGET_MIN = 270, TARGET_FIRST = 358, TARGET_MAX = 384, TARGET_DOWN = 3, TARGET_UP = 1 };
/* A sample is over if it takes 3/2 of high_ns; so many of them, in 1/65536, are too many: 0.8 %. */
enum { OVER_MANY = 524, OVER_FEW = 330, OVER_SHIFT = 8 };

static void forget_samples(struct window *w, uint32_t at_least, uint64_t now_ns) {
  for (int i = 0; i < WINDOW_CLASSES; i++) {
    struct window_class *c = &w->classes[i];
    if (c->samples < at_least) continue;
    c->samples = 0;
    c->sum_ns = 0;
  }
  w->samples = w->completions = 0;
  w->done_units = 0;
  w->since_ns = now_ns;
}

static void begin(struct window *w, enum window_phase phase, uint64_t now_ns) {
  /* A low phase, once what is in flight has come down. */
  forget_samples(w, 0, phase == WINDOW_LOW ? UINT64_MAX : now_ns);
  w->phase = (uint8_t)phase;
}

void window_init(struct window *w, uint32_t units_max) {
  memset(w, 0, sizeof(*w));
  w->units = START_UNITS;
  w->target = TARGET_FIRST;
  w->units_max = units_max;
}

void window_begin(struct window *w, uint64_t now_ns) {
  w->units = START_UNITS;
  w->starting = true;
  begin(w, WINDOW_RUN, now_ns);
}

uint32_t window_units(const struct window *w) {
  if (w->phase == WINDOW_LOW) return LOW_UNITS;
  return w->phase == WINDOW_HIGH && w->units < HIGH_UNITS ? HIGH_UNITS : w->units;
}

static void end_high(struct window *w, uint64_t now_ns) {
  w->rate_plenty = w->rate;
  begin(w, WINDOW_LOW, now_ns);
}

static void end_low(struct window *w, uint64_t now_ns) {
  for (int i = 0; i < WINDOW_CLASSES; i++) {
    struct window_class *c = &w->classes[i];
    if (c->samples < CLASS_SAMPLES_MIN) continue;
    uint64_t mean = c->sum_ns / c->samples;
    /* Whatever disturbs a low phase makes it longer: what is shorter is worth more. */
    if (!c->base_ns)
      c->base_ns = mean;
    else
      c->base_ns = mean < c->base_ns ? (c->base_ns + mean) / 2 : (3 * c->base_ns + mean) / 4;
  }
  w->probes++;
  w->probed_ns = now_ns;
  begin(w, WINDOW_RUN, now_ns);
}

/* Of the class that suffers most; 0: none is known. *fresh: one has samples but no base. */
static uint64_t worst_ratio(const struct window *w, bool *fresh) {
  uint64_t worst = 0;
  *fresh = false;
  for (int i = 0; i < WINDOW_CLASSES; i++) {
    const struct window_class *c = &w->classes[i];
    if (c->samples < CLASS_SAMPLES_MIN) continue;
    if (!c->base_ns)
      *fresh = true;
    else
      worst = max_u64(worst, c->sum_ns / c->samples * 256 / (c->base_ns + SLACK_NS));
  }
  return worst;
}

static void move_target(struct window *w) {
  uint32_t over = 0;
  for (int i = 0; i < WINDOW_CLASSES; i++)
    if (w->classes[i].over > over) over = w->classes[i].over;
  if (over > OVER_MANY && w->target > TARGET_MIN) w->target -= TARGET_DOWN;
  if (over < OVER_FEW && w->target < TARGET_MAX) w->target += TARGET_UP;
}

static void steer(struct window *w, uint64_t ratio, bool limiting) {
  /* What an op takes grows with what is in flight: so may the window with what is missing. */
  uint64_t factor = (uint64_t)w->target * 256 / ratio, fastest = w->starting ? 512 : 320;
  factor = min_u64(max_u64(factor, 180), fastest);
  if (factor < 288) w->starting = false;
  if (w->rate < w->rate_plenty / 3)
    factor = max_u64(factor, 272);
  else if (!w->starting)
    move_target(w);
  if (factor >= 256 && !limiting) return;
  uint64_t units = (w->units * factor + 128) / 256;
  w->units = (uint32_t)min_u64(max_u64(units, FLOOR_UNITS), w->units_max);
}

static void end_epoch(struct window *w, uint64_t now_ns, bool limiting) {
  bool fresh;
  uint64_t ratio = worst_ratio(w, &fresh), age = now_ns - w->probed_ns;
  if (ratio) steer(w, ratio, limiting);
  for (int i = 0; i < WINDOW_CLASSES; i++) /* those that nobody uses any more */
    if (!w->classes[i].samples) w->classes[i].over -= w->classes[i].over >> OVER_SHIFT;
  forget_samples(w, CLASS_SAMPLES_MIN, now_ns);
  if (!limiting) return;
  if (!w->probes || age >= LOW_EVERY_NS || (fresh && age >= LOW_AGAIN_NS))
    begin(w, w->probes % HIGH_EVERY ? WINDOW_LOW : WINDOW_HIGH, now_ns);
}

/* Quantiles are followed in steps, up and down as rarely as they say. */
static void see_sample(struct window *w, struct window_class *c, uint64_t latency_ns) {
  c->samples++;
  c->sum_ns += latency_ns;
  w->samples++;
  if (w->phase == WINDOW_LOW) {
    if (!c->high_ns)
      c->high_ns = latency_ns;
    else if (latency_ns > c->high_ns)
      c->high_ns += c->high_ns / 16;
    else
      c->high_ns -= c->high_ns / 1600;
  } else if (w->phase == WINDOW_RUN && c->base_ns) {
    bool over = latency_ns > (c->high_ns + SLACK_NS) * 3 / 2;
    c->over += (over ? 65536u >> OVER_SHIFT : 0) - (c->over >> OVER_SHIFT);
  }
}

void window_sample(struct window *w, unsigned class_index, uint32_t cost, uint64_t latency_ns,
                   uint64_t now_ns, uint32_t in_flight, bool limiting) {
  if (w->since_ns == UINT64_MAX) {
    if (in_flight <= LOW_SETTLED_UNITS) w->since_ns = now_ns;
    return;
  }
  w->completions++;
  w->done_units += cost;
  if (latency_ns && latency_ns <= now_ns && now_ns - latency_ns >= w->since_ns)
    see_sample(w, &w->classes[class_index], latency_ns);
  uint64_t age = now_ns - w->since_ns;
  bool late = age >= PHASE_NS_MAX;
  if (w->phase == WINDOW_LOW) {
    uint32_t more = w->probes ? 1 : 4; /* the first one, from nothing */
    if (late || (w->samples >= LOW_SAMPLES * more && age >= LOW_NS * more)) end_low(w, now_ns);
    return;
  }
  if (w->phase == WINDOW_RUN ? w->samples < EPOCH_SAMPLES || age < EPOCH_NS
                             : !late && (w->completions < EPOCH_SAMPLES || age < HIGH_NS))
    return;
  w->rate = (w->done_units << 20) / age;
  if (w->phase == WINDOW_HIGH)
    end_high(w, now_ns);
  else
    end_epoch(w, now_ns, limiting);
}
