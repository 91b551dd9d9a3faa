/* fuzz_limit.c - limits: what parameters are taken, and that no bucket ever gives more than its
 * rate allows, whatever the parameters are; a change of them leaves no nonsense.
 *
 * Input: flags (1 byte; 1: parameters change and tokens are given back), the clock at the start
 * (8), parameters of a node and of the one above (6 fields of 8 bytes each), then steps: kind (1),
 * time that passes (4), bytes (5); after a change six fields. */
#include <errno.h>

#include "shards/limit.h"
#include "tests/fuzz/fuzz.h"

#define STEPS_MAX 300
#define TIME_MAX  (UINT64_C(1) << 62) /* what is later is not computed with */

static struct bucket_params feed_bucket(struct feed *f) {
  struct bucket_params b;
  b.size = feed_number(f, 8);
  b.one_time_burst = feed_number(f, 8);
  b.refill_time_ms = feed_number(f, 8);
  return b;
}
static struct limit_params feed_params(struct feed *f) {
  struct limit_params p;
  p.bytes = feed_bucket(f);
  p.ops = feed_bucket(f);
  return p;
}

/* As shardring.h says it. */
static bool bucket_is_good(const struct bucket_params *b) {
  if (!b->size) return !b->one_time_burst && !b->refill_time_ms;
  return b->size <= UINT64_C(1) << 60 && b->one_time_burst <= UINT64_C(1) << 60 &&
         b->refill_time_ms >= 1 && b->refill_time_ms <= UINT64_C(1) << 32;
}

static bool check_params(const struct limit_params *p) {
  bool any = p->bytes.size || p->ops.size;
  bool good = any && bucket_is_good(&p->bytes) && bucket_is_good(&p->ops);
  check(limit_params_check(p) == (good ? 0 : -EINVAL));
  return good;
}

/* ---- The rate -------------------------------------------------------------------------------- */

/* What was taken from one bucket since it was full, at start_ns. */
struct account {
  const struct bucket_params *params;
  uint64_t start_ns;
  double tokens, takes;
};

/* Tokens that go at at_ns: not more together than the bucket held at first, its burst and what has
 * come back since; of what is larger than the bucket, nothing that came before counts double. The
 * price of a token has 24 bits, and of a take it is cut to whole ns. */
static void account_take(struct account *a, uint64_t at_ns, uint64_t tokens) {
  const struct bucket_params *p = a->params;
  double size = (double)p->size, refill_ns = (double)p->refill_time_ms * 1e6;
  if (!p->size || !tokens) return;
  a->tokens += (double)tokens;
  a->takes++;
  if ((double)tokens * refill_ns / size > (double)(TIME_MAX / 4)) a->start_ns = UINT64_MAX;
  if (a->start_ns == UINT64_MAX || at_ns >= TIME_MAX) return;
  double held = (double)max_u64(p->size, tokens) + (double)p->one_time_burst;
  double back = (double)(at_ns - a->start_ns) + a->takes + 1;
  check(a->tokens <= (held + back * size / refill_ns) * (1 + 1e-6) + 1);
}

struct node {
  struct limit limit;
  struct limit_params params;
  struct account bytes, ops;
};

static void node_init(struct node *n, const struct limit_params *p, struct limit *parent,
                      uint64_t now_ns) {
  static const struct limit_params none;
  n->params = p ? *p : none;
  limit_init(&n->limit, p, parent, now_ns);
  n->bytes = (struct account){.params = &n->params.bytes, .start_ns = now_ns};
  n->ops = (struct account){.params = &n->params.ops, .start_ns = now_ns};
}

static uint64_t take(struct node *n, uint64_t at_ns, uint64_t bytes, bool steady) {
  uint64_t t = limit_take(&n->limit, at_ns, bytes);
  check(t >= at_ns);
  if (!limit_is_on(&n->limit)) check(t == at_ns);
  if (steady) {
    account_take(&n->bytes, t, bytes);
    account_take(&n->ops, t, 1);
  }
  return t;
}

/* ---- Changes --------------------------------------------------------------------------------- */

static void change(struct node *n, struct feed *f, uint64_t now_ns) {
  struct limit_params p = feed_params(f), have;
  static const struct limit_params none;
  bool good = check_params(&p);
  limit_set(&n->limit, good ? &p : NULL, now_ns);
  limit_params_get(&n->limit, &have);
  check(memcmp(&have, good ? &p : &none, sizeof have) == 0);
  check(limit_is_on(&n->limit) == good);
  uint64_t bytes_full = n->limit.bytes.full_ns, ops_full = n->limit.ops.full_ns;
  limit_set(&n->limit, good ? &p : NULL, now_ns); /* the same once more changes nothing */
  check(n->limit.bytes.full_ns == bytes_full && n->limit.ops.full_ns == ops_full);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed f = {data, size};
  bool steady = !(feed_u8(&f) & 1);
  uint64_t now_ns = feed_number(&f, 8) % TIME_MAX;
  struct limit_params low = feed_params(&f), high = feed_params(&f);
  struct node above, node;
  node_init(&above, check_params(&high) ? &high : NULL, NULL, now_ns);
  node_init(&node, check_params(&low) ? &low : NULL, &above.limit, now_ns);
  check(node.limit.parent == &above.limit);
  for (int i = 0; i < STEPS_MAX && f.left > 0; i++) {
    uint8_t kind = feed_u8(&f);
    now_ns += feed_number(&f, 4);
    uint64_t bytes = feed_number(&f, 5);
    if (!steady && kind % 4 == 1) change(kind & 4 ? &above : &node, &f, now_ns);
    if (!steady && kind % 4 == 2) limit_give_back(&node.limit, bytes);
    if (!steady && kind % 4 != 3 && kind % 4 != 0) continue;
    uint64_t t = take(&node, now_ns, bytes, steady);
    if (kind % 4 == 3) take(&above, t, bytes, steady);
  }
  return 0;
}
