/* test_gate_waits.c - requests that wait at a limit: how they are counted, and how they hurry.
 * Without a device: what starts is done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/shards/gate_rig.h"

static struct limit_params per_second(uint64_t ops, uint64_t bytes) {
  struct limit_params p = {0};
  if (ops) p.ops = (struct bucket_params){ops, 0, 1000};
  if (bytes) p.bytes = (struct bucket_params){bytes, 0, 1000};
  return p;
}

static void assert_waits(const struct gate_queue *q, uint64_t count, uint64_t ns) {
  uint64_t waits, wait_ns;
  gate_queue_waits(q, &waits, &wait_ns);
  assert_int_equal(waits, count);
  assert_int_equal(wait_ns, ns);
}

/* Five tokens, five more a second: who waits is counted once, for as long as a limit is why. */
static void counts_waits(void **state) {
  (void)state;
  struct gate g;
  struct gate_queue q = {0}, other = {0};
  struct shard_op ops[16], big = {.kind = OP_READ, .bytes = 4096};
  struct limit l;
  const struct limit_params p = per_second(5, 0);
  uint64_t now = SECOND;
  memset(ops, 0, sizeof(ops));
  gate_init(&g, 1);
  limit_init(&l, &p, NULL, now);
  gate_queue_set_limit(&g, &q, &l, now);
  for (int i = 0; i < 8; i++) {
    ops[i].kind = OP_READ;
    if (gate_submit(&g, &q, &ops[i], now)) gate_done(&g, &q, &ops[i], 0, now);
  }
  assert_waits(&q, 3, 0);
  now += 200 * MS; /* one goes, after 200 ms; the others have waited as long, so far */
  assert_ptr_equal(gate_next(&g, now), &ops[5]);
  assert_waits(&q, 3, 600 * MS);
  now += 50 * MS; /* another one comes */
  assert_false(gate_submit(&g, &q, &ops[8], now));
  assert_waits(&q, 4, 700 * MS);
  gate_done(&g, &q, &ops[5], 0, now);
  assert_true(gate_submit(&g, &other, &big, now)); /* all depth is taken: its turn, not its limit */
  now += 150 * MS;
  assert_null(gate_next(&g, now));
  assert_waits(&q, 4, 1150 * MS);
  assert_false(gate_submit(&g, &q, &ops[9], now));
  now += SECOND;
  assert_null(gate_next(&g, now));
  assert_waits(&q, 4, 1150 * MS);
  gate_done(&g, &other, &big, 0, now);
  for (int i = 6; i < 10; i++) { /* tokens of a second have come back */
    struct shard_op *op = gate_next(&g, now);
    assert_ptr_equal(op, &ops[i]);
    gate_done(&g, &q, op, 0, now);
  }
  assert_waits(&q, 4, 1150 * MS); /* the last one has never met the limit */
  gate_queue_finish(&g, &q);
  gate_queue_finish(&g, &other);
}

/* ---- Hurry ---------------------------------------------------------------------------------- */

enum { HURRY_OPS = 128 };
struct hurry {
  struct gate g;
  struct gate_queue q;
  struct limit store, own;
  struct shard_op ops[HURRY_OPS];
  uint64_t now, started;
};

/* A volume of 10 ops a second under a store of so many. */
static void hurry_begin(struct hurry *h, uint64_t store_rate) {
  const struct limit_params p = per_second(10, 0), all = per_second(store_rate, 0);
  memset(h, 0, sizeof(*h));
  h->now = SECOND;
  gate_init(&h->g, 0);
  limit_init(&h->store, &all, NULL, h->now);
  h->store.shared = true;
  limit_init(&h->own, &p, &h->store, h->now);
  gate_queue_set_limit(&h->g, &h->q, &h->own, h->now);
}

static void hurry_start(struct hurry *h, struct shard_op *op) {
  h->started++;
  gate_done(&h->g, &h->q, op, 0, h->now);
  op->kind = 0;
}

/* All ops that are not in the gate go there, what may start does. */
static void hurry_step(struct hurry *h) {
  struct shard_op *op;
  while ((op = gate_next(&h->g, h->now))) hurry_start(h, op);
  for (int i = 0; i < HURRY_OPS; i++) {
    if (h->ops[i].kind) continue;
    h->ops[i].kind = OP_READ;
    if (gate_submit(&h->g, &h->q, &h->ops[i], h->now)) hurry_start(h, &h->ops[i]);
  }
}

static void hurry_end(struct hurry *h) {
  gate_queue_hurry(&h->g, &h->q, GATE_HURRY_NONE, h->now);
  gate_queue_cancel(&h->g, &h->q);
  gate_queue_finish(&h->g, &h->q);
}

/* All that wait go at once; then nobody does until that is paid for: on average nothing changes. */
static void who_hurries_pays_later(void **state) {
  (void)state;
  struct hurry h;
  hurry_begin(&h, 1000);
  hurry_step(&h);
  assert_int_equal(h.started, 10);
  uint32_t waiting = h.q.waiting;
  assert_in_range(waiting, HURRY_OPS - 10, HURRY_OPS);
  gate_queue_hurry(&h.g, &h.q, GATE_HURRY_ALL, h.now);
  for (struct shard_op *op; (op = gate_next(&h.g, h.now));) hurry_start(&h, op);
  assert_int_equal(h.started, 10 + waiting);
  assert_null(h.q.last);
  gate_queue_hurry(&h.g, &h.q, GATE_HURRY_NONE, h.now);
  uint64_t begin = h.now, paid = begin + waiting * (SECOND / 10);
  for (; h.now < paid; h.now += 10 * MS) {
    hurry_step(&h);
    assert_int_equal(h.started, 10 + waiting);
  }
  for (; h.now <= begin + 60 * SECOND; h.now += 10 * MS) hurry_step(&h);
  assert_in_range(h.started, 10 + 60 * 10 - 1, 10 + 60 * 10 + 1);
  hurry_end(&h);
}

/* However often somebody has his queue stopped, he gets no more than 30 s ahead of his limit, and
 * 1 s of one that he shares. */
static void who_hurries_often_gains_little(void **state) {
  (void)state;
  const struct { uint64_t store_rate, rate, ahead_s; } cases[] = {{1000, 10, 30}, {2, 2, 1}};
  for (int i = 0; i < 2; i++) {
    struct hurry h;
    uint64_t rate = cases[i].rate, ahead = rate * (1 + cases[i].ahead_s), most = 0;
    hurry_begin(&h, cases[i].store_rate);
    for (uint64_t begin = h.now; h.now <= begin + 120 * SECOND; h.now += 5 * MS) {
      hurry_step(&h);
      gate_queue_hurry(&h.g, &h.q, GATE_HURRY_SOME, h.now);
      for (struct shard_op *op; (op = gate_next(&h.g, h.now));) hurry_start(&h, op);
      gate_queue_hurry(&h.g, &h.q, GATE_HURRY_NONE, h.now);
      uint64_t right = rate * (h.now - begin) / SECOND;
      most = max_u64(most, h.started - right);
      assert_true(h.started <= right + ahead + 1);
    }
    assert_true(most + 1 >= ahead); /* it is of use */
    hurry_end(&h);
  }
}

/* What one volume does at its owner's wish is no reason for others under the same limit to wait for
 * longer than a second, however much it was; nor do they get anything for it. */
static void others_do_not_pay(void **state) {
  (void)state;
  for (int cancelled = 0; cancelled < 2; cancelled++) {
    struct hurry h;
    struct gate_queue other = {0};
    struct shard_op op = {.kind = OP_READ};
    hurry_begin(&h, 10);
    gate_queue_set_limit(&h.g, &other, &h.store, h.now);
    hurry_step(&h);
    assert_int_equal(h.started, 10);
    if (cancelled) h.g.depth_max = h.g.in_flight = 1; /* the head waits for its turn */
    for (int i = 0; cancelled && i < 20; i++) limit_take(&h.store, h.now, 0);
    gate_queue_hurry(&h.g, &h.q, GATE_HURRY_ALL, h.now);
    for (struct shard_op *next; (next = gate_next(&h.g, h.now));) hurry_start(&h, next);
    assert_int_equal(h.started, cancelled ? 10 : 10 + HURRY_OPS - 10);
    gate_queue_cancel(&h.g, &h.q);
    h.g.depth_max = 256;
    h.g.in_flight = 0;
    assert_false(gate_submit(&h.g, &other, &op, h.now));
    uint64_t due = gate_wake_ns(&h.g) - h.now;
    if (cancelled)
      assert_int_equal(due, 2 * SECOND + SECOND / 10); /* as if it had never been there */
    else
      assert_in_range(due, SECOND, SECOND + SECOND / 5);
    h.now += 3 * SECOND;
    assert_ptr_equal(gate_next(&h.g, h.now), &op);
    gate_done(&h.g, &other, &op, 0, h.now);
    gate_queue_finish(&h.g, &other);
    hurry_end(&h);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(counts_waits),
      cmocka_unit_test(who_hurries_pays_later),
      cmocka_unit_test(who_hurries_often_gains_little),
      cmocka_unit_test(others_do_not_pay),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
