/* test_gate.c - limits and fairness between volumes, on a simulated device in virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/shards/gate_rig.h"

/* IOPS of 4 KiB: 100 k, 500 k. */
static const struct rig_device ssd_100k = {.servers = 10, .op_ns = 92000, .kib_ns = 2000};
static const struct rig_device ssd_500k = {.servers = 40, .op_ns = 76000, .kib_ns = 1000};

static struct rig_device device_with(struct rig_device d, int variance) {
  d.variance = variance;
  return d;
}

/* ---- Fairness ------------------------------------------------------------------------------- */

struct outcome {
  double heavy_ops; /* a second */
  uint64_t light_p50, light_p99;
};

/* What a volume of depth 256 and one of depth 1 do to each other; without the first: depth 0. */
static struct outcome heavy_and_light(struct rig_device d, uint32_t heavy_depth,
                                      uint32_t heavy_bytes, bool light, uint64_t think_ns) {
  struct rig *r = rig_create(1, d);
  struct rig_volume *h = heavy_depth ? rig_volume(r, 0, heavy_depth, heavy_bytes, NULL) : NULL;
  struct rig_volume *l = light ? rig_volume(r, 0, 1, 4096, NULL) : NULL;
  if (l) l->think_ns = think_ns;
  uint64_t begin = 300 * MS, ns = think_ns > MS ? 5 * SECOND : think_ns ? SECOND : 500 * MS;
  rig_run(r, begin, begin + ns);
  struct outcome o = {0};
  if (h) o.heavy_ops = (double)h->ops * (double)SECOND / (double)ns;
  if (l) {
    o.light_p50 = rig_percentile(l, 0.5);
    o.light_p99 = rig_percentile(l, 0.99);
  }
  rig_destroy(r);
  return o;
}

static void compare_with_alone(const char *name, struct rig_device d, uint32_t heavy_bytes,
                               uint64_t think_ns) {
  struct outcome heavy = heavy_and_light(d, 256, heavy_bytes, false, 0);
  struct outcome light = heavy_and_light(d, 0, 0, true, think_ns);
  struct outcome both = heavy_and_light(d, 256, heavy_bytes, true, think_ns);
  double slower = (double)both.light_p99 / (double)light.light_p99;
  double kept = both.heavy_ops / heavy.heavy_ops;
  printf("%s: light p50 %llu -> %llu us, p99 %llu -> %llu us (x%.2f); heavy %.0f -> %.0f/s "
         "(%.0f %%)\n",
         name, (unsigned long long)light.light_p50 / 1000,
         (unsigned long long)both.light_p50 / 1000, (unsigned long long)light.light_p99 / 1000,
         (unsigned long long)both.light_p99 / 1000, slower, heavy.heavy_ops, both.heavy_ops,
         kept * 100);
  assert_true(slower <= 2.0);
  assert_true(kept >= 0.8);
}

static void heavy_spares_light(void **state) {
  (void)state;
  compare_with_alone("100k fixed", device_with(ssd_100k, RIG_FIXED), 4096, 0);
  compare_with_alone("100k varied", device_with(ssd_100k, RIG_VARIED), 4096, 0);
  compare_with_alone("100k exponential", device_with(ssd_100k, RIG_EXPONENTIAL), 4096, 0);
  compare_with_alone("500k varied", device_with(ssd_500k, RIG_VARIED), 4096, 0);
  compare_with_alone("500k exponential", device_with(ssd_500k, RIG_EXPONENTIAL), 4096, 0);
}

static void large_ops_spare_light(void **state) {
  (void)state;
  compare_with_alone("100k, heavy 64 KiB", device_with(ssd_100k, RIG_VARIED), 65536, 0);
  compare_with_alone("500k, heavy 128 KiB", device_with(ssd_500k, RIG_VARIED), 131072, 0);
}

/* One op in 10 ms or so: it still finds the window in place. */
static void seldom_ones_are_spared(void **state) {
  (void)state;
  compare_with_alone("100k, light 100/s", device_with(ssd_100k, RIG_VARIED), 4096, 10 * MS);
  compare_with_alone("500k, light 1000/s", device_with(ssd_500k, RIG_VARIED), 4096, MS);
}

/* Where ops wait for each other by chance, no window helps much: throughput has a floor. */
static void throughput_has_a_floor(void **state) {
  (void)state;
  const struct rig_device d = {
      .servers = 32, .dies = true, .op_ns = 60000, .kib_ns = 2000, .variance = RIG_VARIED};
  struct outcome heavy = heavy_and_light(d, 256, 4096, false, 0);
  struct outcome light = heavy_and_light(d, 0, 0, true, 0);
  struct outcome both = heavy_and_light(d, 256, 4096, true, 0);
  printf("32 dies: light p99 %llu -> %llu us, heavy %.0f -> %.0f/s\n",
         (unsigned long long)light.light_p99 / 1000, (unsigned long long)both.light_p99 / 1000,
         heavy.heavy_ops, both.heavy_ops);
  assert_true(both.heavy_ops >= heavy.heavy_ops * 0.25);
  assert_true(both.light_p99 <= light.light_p99 * 3);
}

static void many_heavy_ones_share(void **state) {
  (void)state;
  const uint32_t depths[3] = {512, 256, 64};
  struct rig *r = rig_create(1, device_with(ssd_100k, RIG_VARIED));
  double sum = 0;
  for (int i = 0; i < 3; i++) rig_volume(r, 0, depths[i], 4096, NULL);
  rig_run(r, 300 * MS, 1300 * MS);
  for (int i = 0; i < 3; i++) sum += (double)r->volumes[i].ops;
  printf("three of depth 512, 256, 64: %.0f/s, shares", sum);
  for (int i = 0; i < 3; i++) {
    double share = (double)r->volumes[i].ops / sum * 3;
    printf(" %.3f", share);
    assert_true(share >= 0.9);
    assert_true(share <= 1.1);
  }
  printf(" of a third\n");
  assert_true(sum >= 80000);
  rig_destroy(r);
}

static void shares_are_of_cost(void **state) {
  (void)state;
  struct rig *r = rig_create(1, device_with(ssd_500k, RIG_VARIED));
  struct rig_volume *small = rig_volume(r, 0, 256, 4096, NULL);
  struct rig_volume *large = rig_volume(r, 0, 256, 131072, NULL);
  rig_run(r, 300 * MS, 1300 * MS);
  double ratio =
      ((double)small->ops * window_cost(4096)) / ((double)large->ops * window_cost(131072));
  printf("4 KiB against 128 KiB: %llu and %llu ops/s, cost %.3f to 1\n",
         (unsigned long long)small->ops, (unsigned long long)large->ops, ratio);
  assert_true(ratio >= 0.9);
  assert_true(ratio <= 1.1);
  rig_destroy(r);
}

/* Of any mixture, no op waits much longer than the shares allow. */
static void nobody_starves(void **state) {
  (void)state;
  const struct {
    uint32_t depth, bytes;
  } volumes[RIG_VOLUMES] = {{512, 4096},  {256, 1 << 20}, {1, 4096},   {1, 262144},
                            {128, 16384}, {2, 512},       {33, 65536}, {512, 131072}};
  struct rig *r = rig_create(1, device_with(ssd_100k, RIG_VARIED));
  for (int i = 0; i < RIG_VOLUMES; i++) rig_volume(r, 0, volumes[i].depth, volumes[i].bytes, NULL);
  rig_run(r, 300 * MS, 2300 * MS);
  uint64_t total = 0;
  for (int i = 0; i < RIG_VOLUMES; i++) total += r->volumes[i].ops * window_cost(volumes[i].bytes);
  for (int i = 0; i < RIG_VOLUMES; i++) {
    struct rig_volume *v = &r->volumes[i];
    double cost = (double)v->ops * window_cost(volumes[i].bytes);
    printf("depth %3u, %7u bytes: %6llu ops, %4.1f %% of cost, longest %llu us\n", v->depth,
           v->bytes, (unsigned long long)v->ops, cost * 100 / (double)total,
           (unsigned long long)v->longest_ns / 1000);
    assert_true(v->ops > 0);
    /* Of those that always have ops waiting each has its share, a depth of 1 asks for less. */
    if (volumes[i].depth > 100) assert_true(cost >= (double)total / RIG_VOLUMES * 0.9);
  }
  rig_destroy(r);
}

static void grows_again_when_calm(void **state) {
  (void)state;
  struct rig *r = rig_create(1, device_with(ssd_100k, RIG_VARIED));
  struct gate *g = &r->gates[0];
  struct gate_stats stats;
  struct rig_volume *heavy = rig_volume(r, 0, 300, 4096, NULL);
  struct rig_volume *light = rig_volume(r, 0, 1, 4096, NULL);
  light->begin_ns = 100 * MS;
  light->end_ns = 600 * MS;
  rig_run(r, 0, 50 * MS);
  gate_stats(g, &stats);
  assert_false(stats.shared);
  assert_int_equal(stats.in_flight, 256);
  rig_run(r, 300 * MS, 500 * MS);
  gate_stats(g, &stats);
  assert_true(stats.shared);
  assert_in_range(stats.in_flight, 1, 40);
  assert_in_range(stats.in_flight_units, 1, stats.window_units * 3 / 2);
  assert_true(stats.waits_turn > 0);
  rig_run(r, 600 * MS, 2000 * MS);
  gate_stats(g, &stats);
  assert_false(stats.shared);
  assert_int_equal(stats.in_flight, 256);
  assert_true(heavy->ops > 120000);
  rig_destroy(r);
}

/* Two volumes that do not fill the device do not notice each other. */
static void modest_ones_are_not_held_up(void **state) {
  (void)state;
  struct rig *r = rig_create(1, device_with(ssd_500k, RIG_FIXED));
  struct gate_stats stats;
  rig_volume(r, 0, 3, 4096, NULL);
  rig_volume(r, 0, 3, 4096, NULL);
  rig_run(r, 0, 1000 * MS);
  gate_stats(&r->gates[0], &stats);
  assert_true(stats.shared);
  for (int i = 0; i < 2; i++) assert_int_equal(rig_percentile(&r->volumes[i], 1.0), 80000);
  rig_destroy(r);
}

/* ---- Limits --------------------------------------------------------------------------------- */

static struct limit_params per_second(uint64_t ops, uint64_t bytes) {
  struct limit_params p = {0};
  if (ops) p.ops = (struct bucket_params){ops, 0, 1000};
  if (bytes) p.bytes = (struct bucket_params){bytes, 0, 1000};
  return p;
}

/* Late timers do not lower it, even where buckets hold only 1 ms and timers are later than that. */
static void keeps_the_rate(void **state) {
  (void)state;
  const struct {
    uint64_t ops, bytes;
    uint32_t op_bytes, depth;
  } cases[] = {
      {1, 0, 4096, 1},           {10, 0, 4096, 1},           {10, 0, 4096, 128},
      {100, 0, 4096, 128},       {1000, 0, 4096, 128},       {1000, 0, 4096, 1},
      {50000, 0, 4096, 128},     {0, 1000000, 4096, 128},    {0, 1000000, 131072, 32},
      {0, 1000000, 1 << 20, 4},  {0, 50000000, 4096, 128},   {0, 50000000, 1 << 20, 4},
      {0, 500000000, 4096, 256}, {0, 500000000, 131072, 32}, {1000, 50000000, 65536, 32},
  };
  for (size_t i = 0; i < array_size(cases); i++) {
    for (int small = 0; small < 2; small++) {
      struct limit_params p = per_second(cases[i].ops, cases[i].bytes);
      double rate = cases[i].ops ? (double)cases[i].ops : 1e18;
      if (cases[i].bytes && (double)cases[i].bytes / cases[i].op_bytes < rate)
        rate = (double)cases[i].bytes / cases[i].op_bytes;
      if (small && (cases[i].ops % 1000 || cases[i].depth == 1)) continue;
      if (small) { /* the same rate from a bucket of 1 ms */
        p.ops = (struct bucket_params){p.ops.size / 1000, 0, p.ops.size ? 1 : 0};
        p.bytes = (struct bucket_params){p.bytes.size / 1000, 0, p.bytes.size ? 1 : 0};
      }
      assert_int_equal(limit_params_check(&p), 0);
      struct limit l;
      struct rig *r = rig_create(1, device_with(ssd_500k, RIG_VARIED));
      limit_init(&l, &p, NULL, 0);
      r->late_ns = small ? 4 * MS : MS;
      struct rig_volume *v = rig_volume(r, 0, cases[i].depth, cases[i].op_bytes, &l);
      for (uint64_t k = 0; k < p.ops.size; k++) /* empty them */
        limit_take(&l, 0, 0);
      if (p.bytes.size) limit_take(&l, 0, p.bytes.size);
      uint64_t begin = cases[i].op_bytes > 100000 ? 10 * SECOND : SECOND;
      rig_run(r, begin, begin + 5 * SECOND);
      double off = (double)v->ops / (rate * 5);
      printf("%5llu ops/s %9llu bytes/s, ops of %7u, depth %3u%s: %.4f\n",
             (unsigned long long)cases[i].ops, (unsigned long long)cases[i].bytes,
             cases[i].op_bytes, cases[i].depth, small ? ", 1 ms" : "", off);
      /* In 5 s there may be one op more or less. */
      assert_true((double)v->ops >= rate * 5 * 0.95 - 1);
      assert_true((double)v->ops <= rate * 5 * 1.05 + 1);
      rig_destroy(r);
    }
  }
}

/* Four cores, eight volumes, two groups, one store. */
static void parents_are_shared(void **state) {
  (void)state;
  struct limit store, groups[2];
  const struct limit_params store_params = per_second(30000, 0),
                            group_params[2] = {per_second(20000, 0), per_second(0, 50000000)};
  limit_init(&store, &store_params, NULL, 0);
  struct rig *r = rig_create(4, device_with(ssd_500k, RIG_VARIED));
  r->late_ns = MS;
  for (int i = 0; i < 2; i++) limit_init(&groups[i], &group_params[i], &store, 0);
  for (uint32_t i = 0; i < 8; i++) rig_volume(r, i % 4, 64, 4096, &groups[i / 4]);
  rig_run(r, 2 * SECOND, 7 * SECOND);
  double ops[2] = {0};
  for (int i = 0; i < 8; i++) ops[i / 4] += (double)r->volumes[i].ops / 5;
  printf("groups of 20000/s and 50 MB/s (12207/s) in a store of 30000/s: %.0f + %.0f\n", ops[0],
         ops[1]);
  assert_in_range((uint64_t)(ops[0] + ops[1]), 30000 * 0.95, 30000 * 1.05);
  assert_true(ops[0] <= 20000 * 1.05);
  assert_true(ops[1] <= 12207 * 1.05);
  for (int i = 0; i < 8; i++) { /* the cores take turns at the parents */
    double share = (double)r->volumes[i].ops / 5 / (ops[i / 4] / 4);
    assert_true(share >= 0.9);
    assert_true(share <= 1.1);
  }
  /* Each by itself. */
  limit_set(&store, NULL, r->now_ns);
  for (uint32_t i = 0; i < 4; i++) gate_limits_changed(&r->gates[i], r->now_ns);
  rig_run(r, 8 * SECOND, 13 * SECOND);
  ops[0] = ops[1] = 0;
  for (int i = 0; i < 8; i++) ops[i / 4] += (double)r->volumes[i].ops / 5;
  printf("without the store's limit: %.0f + %.0f\n", ops[0], ops[1]);
  assert_in_range((uint64_t)ops[0], 20000 * 0.95, 20000 * 1.05);
  assert_in_range((uint64_t)ops[1], 12207 * 0.95, 12207 * 1.05);
  rig_destroy(r);
}

/* A volume that waits for its own tokens takes none of its group's, and no turn. */
static void who_waits_holds_up_nobody(void **state) {
  (void)state;
  struct limit group, slow;
  const struct limit_params group_params = per_second(1000, 0), slow_params = per_second(2, 0);
  limit_init(&group, &group_params, NULL, 0);
  limit_init(&slow, &slow_params, &group, 0);
  struct rig *r = rig_create(1, device_with(ssd_100k, RIG_VARIED));
  struct rig_volume *a = rig_volume(r, 0, 128, 4096, &slow);
  struct rig_volume *b = rig_volume(r, 0, 16, 4096, &group);
  struct rig_volume *free_one = rig_volume(r, 0, 128, 4096, NULL);
  rig_run(r, 2 * SECOND, 7 * SECOND);
  assert_in_range(a->ops, 9, 11);
  assert_in_range(b->ops, 4950, 5000);
  assert_true(free_one->ops > 5 * 80000);
  rig_destroy(r);
}

/* What waits at its volume's limit has not taken from its group before: all of that can be used. */
static void waiting_ones_hold_no_tokens(void **state) {
  (void)state;
  struct limit group, slow[7];
  const struct limit_params group_params = per_second(1, 0), slow_params = {.ops = {1, 0, 100000}};
  limit_init(&group, &group_params, NULL, 0);
  struct rig *r = rig_create(1, device_with(ssd_100k, RIG_VARIED));
  for (int i = 0; i < 7; i++) {
    limit_init(&slow[i], &slow_params, &group, 0);
    rig_volume(r, 0, 2, 4096, &slow[i]);
  }
  rig_volume(r, 0, 2, 4096, &group);
  rig_run(r, 0, 20 * SECOND + 500 * MS);
  uint64_t total = 0;
  for (int i = 0; i < 8; i++) total += r->volumes[i].ops;
  assert_int_equal(total, 21);
  rig_destroy(r);
}

static void changes_live(void **state) {
  (void)state;
  struct limit l;
  struct limit_params p = per_second(1, 0);
  limit_init(&l, &p, NULL, 0);
  struct rig *r = rig_create(1, device_with(ssd_100k, RIG_VARIED));
  struct rig_volume *v = rig_volume(r, 0, 64, 4096, &l);
  rig_run(r, 0, 3 * SECOND + 500 * MS);
  assert_int_equal(v->ops, 4);
  p = per_second(1000, 0);
  limit_set(&l, &p, r->now_ns);
  gate_limits_changed(&r->gates[0], r->now_ns);
  rig_run(r, r->now_ns, r->now_ns + SECOND);
  assert_in_range(v->ops, 999, 1001);
  for (int i = 0; i < 50; i++) { /* to and fro */
    p = per_second(i % 2 ? 1000 : 100, 0);
    limit_set(&l, &p, r->now_ns);
    gate_limits_changed(&r->gates[0], r->now_ns);
    rig_run(r, r->now_ns, r->now_ns + 20 * MS);
    assert_in_range(v->ops, i % 2 ? 18 : 1, i % 2 ? 21 : 3);
  }
  /* To be told of changes that are none costs no tokens. */
  uint64_t ops = 0;
  for (int i = 0; i < 1000; i++) {
    if (i % 2)
      gate_limits_changed(&r->gates[0], r->now_ns);
    else
      gate_queue_set_limit(&r->gates[0], &v->queue, &l, r->now_ns);
    rig_run(r, r->now_ns, r->now_ns + 1 * MS);
    ops += v->ops;
  }
  assert_in_range(ops, 995, 1005);
  gate_queue_set_limit(&r->gates[0], &v->queue, NULL, r->now_ns);
  rig_run(r, r->now_ns, r->now_ns + SECOND);
  assert_true(v->ops > 80000);
  p = per_second(10, 0);
  limit_set(&l, &p, r->now_ns);
  gate_queue_set_limit(&r->gates[0], &v->queue, &l, r->now_ns);
  rig_run(r, r->now_ns, r->now_ns + SECOND);
  assert_in_range(v->ops, 10, 10 + 64 + 10);
  rig_destroy(r);
}

/* ---- Clock ---------------------------------------------------------------------------------- */

static void stands_a_clock_that_steps_back(void **state) {
  (void)state;
  struct gate g;
  struct gate_queue queues[2];
  struct gate_stats stats;
  struct shard_op ops[40];
  struct limit l;
  const struct limit_params p = per_second(5, 0);
  uint64_t now = 100 * SECOND, started = 0;
  memset(queues, 0, sizeof(queues));
  memset(ops, 0, sizeof(ops));
  gate_init(&g, 0);
  limit_init(&l, &p, NULL, now);
  gate_queue_set_limit(&g, &queues[0], &l, now);
  for (int i = 0; i < 38; i++) {
    ops[i].kind = OP_READ;
    started += gate_submit(&g, &queues[0], &ops[i], now);
  }
  assert_int_equal(started, 5);
  assert_true(gate_submit(&g, &queues[1], &ops[38], now));
  now -= 50 * SECOND;
  assert_null(gate_next(&g, now));
  assert_int_equal(gate_wake_ns(&g), 100 * SECOND + 200 * MS);
  gate_done(&g, &queues[1], &ops[38], 1000, now);
  assert_true(gate_submit(&g, &queues[1], &ops[39], now));
  gate_stats(&g, &stats);
  assert_true(stats.shared);
  for (now = 99 * SECOND; now <= 101 * SECOND; now += 10 * MS) {
    for (struct shard_op *op; (op = gate_next(&g, now)); started++)
      gate_done(&g, &queues[0], op, 0, now);
  }
  assert_int_equal(started, 10);
  assert_ptr_equal(gate_queue_cancel(&g, &queues[0]), &ops[10]);
}

/* ---- Bookkeeping ---------------------------------------------------------------------------- */

enum { QUEUES = 6, OPS = 40, DEPTH = 24 };
struct chance_op {
  struct shard_op op;
  uint64_t number; /* of its queue, in the order of submission */
  enum { UNUSED, WAITING, IN_FLIGHT } is;
};
struct chance {
  struct gate g;
  struct gate_queue queues[QUEUES];
  struct chance_op ops[QUEUES][OPS];
  uint64_t submitted[QUEUES], started[QUEUES];
  struct limit store, limits[QUEUES];
  struct random random;
  uint64_t now;
  uint32_t in_flight, waiting;
};

static void chance_start(struct chance *c, int q, struct chance_op *op) {
  assert_int_equal(op->is, WAITING);
  assert_int_equal(op->number, c->started[q]++);
  op->is = IN_FLIGHT;
  c->in_flight++;
  c->waiting--;
  assert_true(c->in_flight <= DEPTH);
}

static void chance_next(struct chance *c) {
  struct shard_op *op;
  while ((op = gate_next(&c->g, c->now))) {
    size_t at = (size_t)((char *)op - (char *)c->ops) / sizeof(struct chance_op);
    chance_start(c, (int)(at / OPS), &c->ops[at / OPS][at % OPS]);
  }
  assert_true(gate_wake_ns(&c->g) > c->g.now_ns);
  assert_true(c->in_flight || !c->waiting || gate_wake_ns(&c->g) != UINT64_MAX);
}

static void chance_submit(struct chance *c, int q, struct chance_op *op) {
  static const uint8_t kinds[] = {OP_READ, OP_WRITE, OP_DISCARD, OP_SYNC};
  op->op.kind = kinds[random_below(&c->random, 4)];
  op->op.bytes = random_below(&c->random, 64) * 4096;
  op->is = WAITING;
  op->number = c->submitted[q]++;
  c->waiting++;
  if (gate_submit(&c->g, &c->queues[q], &op->op, c->now)) chance_start(c, q, op);
}

static void chance_done(struct chance *c, int q, struct chance_op *op) {
  op->is = UNUSED;
  c->in_flight--;
  gate_done(&c->g, &c->queues[q], &op->op, random_below(&c->random, 300000), c->now);
}

static void chance_cancel(struct chance *c, int q) {
  struct shard_op *op = gate_queue_cancel(&c->g, &c->queues[q]);
  for (; op; op = op->next) {
    struct chance_op *o = container_of(op, struct chance_op, op);
    assert_int_equal(o->is, WAITING);
    assert_int_equal(o->number, c->started[q]++);
    o->is = UNUSED;
    c->waiting--;
  }
  assert_null(c->queues[q].last);
}

static void chance_change(struct chance *c, int q) {
  struct limit_params p = {.ops = {1 + random_below(&c->random, 2000), 0, 10}};
  if (random_below(&c->random, 2)) p.bytes = (struct bucket_params){1 << 20, 1 << 16, 5};
  struct limit *l = random_below(&c->random, 4) ? &c->limits[q] : &c->store;
  limit_set(l, random_below(&c->random, 3) ? &p : NULL, c->now);
  gate_limits_changed(&c->g, c->now);
}

static void chance_step(struct chance *c) {
  int q = (int)random_below(&c->random, QUEUES);
  struct chance_op *op = &c->ops[q][random_below(&c->random, OPS)];
  struct gate_queue *queue = &c->queues[q];
  uint64_t what = random_below(&c->random, 1000);
  if (what < 900) {
    if (op->is == UNUSED)
      chance_submit(c, q, op);
    else if (op->is == IN_FLIGHT)
      chance_done(c, q, op);
  } else if (what < 905) {
    chance_cancel(c, q);
  } else if (what < 915) {
    chance_change(c, q);
  } else if (what < 925) {
    struct limit *to = random_below(&c->random, 2) ? &c->limits[q] : NULL;
    gate_queue_set_limit(&c->g, queue, to, c->now);
  } else if (what < 930) {
    gate_queue_hurry(&c->g, queue, (enum gate_hurry)random_below(&c->random, 3), c->now);
  } else if (what < 935) {
    if (!gate_queue_is_idle(queue)) return;
    gate_queue_finish(&c->g, queue);
    memset(queue, 0, sizeof(*queue));
  } else {
    c->now += random_below(&c->random, what < 999 ? 200000 : 2 * SECOND);
    if (what == 940 && c->now > SECOND) c->now -= SECOND;
  }
}

/* Each op starts once, in the order of its queue, or is given back; the depth is kept; somebody can
 * always go on. */
static void stands_any_order(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    struct chance *c = calloc(1, sizeof(*c));
    c->random.state = seed;
    c->now = seed % 2 ? 0 : 1000 * SECOND;
    gate_init(&c->g, DEPTH);
    limit_init(&c->store, NULL, NULL, c->now);
    for (int q = 0; q < QUEUES; q++) limit_init(&c->limits[q], NULL, &c->store, c->now);
    for (int i = 0; i < 20000; i++) {
      chance_step(c);
      chance_next(c);
      assert_int_equal(c->g.in_flight, c->in_flight);
      assert_int_equal(c->g.waiting, c->waiting);
      uint32_t waiting = 0;
      for (int q = 0; q < QUEUES; q++) waiting += c->queues[q].waiting;
      assert_int_equal(waiting, c->waiting);
    }
    while (c->in_flight || c->waiting) {
      for (int i = 0; i < QUEUES * OPS; i++)
        if (c->ops[i / OPS][i % OPS].is == IN_FLIGHT)
          chance_done(c, i / OPS, &c->ops[i / OPS][i % OPS]);
      chance_next(c);
      if (!c->in_flight && c->waiting) c->now = gate_wake_ns(&c->g);
      chance_next(c);
    }
    assert_int_equal(c->g.in_flight_units, 0);
    assert_null(c->g.turns);
    assert_null(c->g.times);
    for (int q = 0; q < QUEUES; q++) {
      assert_int_equal(c->started[q], c->submitted[q]);
      gate_queue_finish(&c->g, &c->queues[q]);
    }
    assert_null(c->g.recent);
    free(c);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(heavy_spares_light),
      cmocka_unit_test(large_ops_spare_light),
      cmocka_unit_test(seldom_ones_are_spared),
      cmocka_unit_test(throughput_has_a_floor),
      cmocka_unit_test(many_heavy_ones_share),
      cmocka_unit_test(shares_are_of_cost),
      cmocka_unit_test(nobody_starves),
      cmocka_unit_test(grows_again_when_calm),
      cmocka_unit_test(modest_ones_are_not_held_up),
      cmocka_unit_test(keeps_the_rate),
      cmocka_unit_test(parents_are_shared),
      cmocka_unit_test(who_waits_holds_up_nobody),
      cmocka_unit_test(waiting_ones_hold_no_tokens),
      cmocka_unit_test(changes_live),
      cmocka_unit_test(stands_a_clock_that_steps_back),
      cmocka_unit_test(stands_any_order),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
