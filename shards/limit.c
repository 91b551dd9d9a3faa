/* limit.c - see limit.h.
 *
 * A bucket is one number, the time at which it will be full again (the "theoretical arrival time"
 * of ATM's generic cell rate algorithm): `full_ns - now` is what is missing, priced in ns. A take
 * moves it on by its price, from now if the bucket was full. An op of price p may go when no more
 * than depth - p is missing, where the depth is the price of all `size` tokens.
 *
 * Invariants: rate is one word, so that price and depth always belong together. The price is cut,
 * the depth is not, so that `size` single tokens always fit. */
#include "shards/limit.h"

#include <errno.h>
#include <string.h>

#define NS_PER_MS 1000000.0
/* 146 years: no price is higher. */
#define PRICE_NS_MAX (UINT64_C(1) << 62)

struct rate {
  float token_ns, depth_ns;
};

static struct rate rate_of(uint64_t word) {
  struct rate r;
  memcpy(&r, &word, sizeof(r));
  return r;
}

/* The next positive float up (1) or down (-1): they are in the order of their bits. */
static float float_beside(float f, int step) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof(bits));
  bits += (uint32_t)step;
  memcpy(&f, &bits, sizeof(f));
  return f;
}

static uint64_t rate_word(const struct bucket_params *p) {
  if (!p->size) return 0;
  double depth = (double)p->refill_time_ms * NS_PER_MS, token = depth / (double)p->size;
  struct rate r = {(float)token, (float)depth};
  if ((double)r.token_ns > token) r.token_ns = float_beside(r.token_ns, -1);
  if ((double)r.depth_ns < depth) r.depth_ns = float_beside(r.depth_ns, 1);
  uint64_t word;
  memcpy(&word, &r, sizeof(word));
  return word;
}

static uint64_t add_capped(uint64_t a, uint64_t b) { return a + b < a ? UINT64_MAX : a + b; }

static uint64_t price_ns(struct rate r, uint64_t tokens) {
  double ns = (double)tokens * (double)r.token_ns;
  return ns < (double)PRICE_NS_MAX ? (uint64_t)ns : PRICE_NS_MAX;
}

/* ---- Parameters ----------------------------------------------------------------------------- */

static bool bucket_params_ok(const struct bucket_params *p) {
  if (!p->size) return !p->one_time_burst && !p->refill_time_ms;
  return p->refill_time_ms && p->refill_time_ms <= LIMIT_REFILL_MS_MAX &&
         p->size <= LIMIT_SIZE_MAX && p->one_time_burst <= LIMIT_SIZE_MAX;
}

int limit_params_check(const struct limit_params *params) {
  if (!params->bytes.size && !params->ops.size) return -EINVAL;
  return bucket_params_ok(&params->bytes) && bucket_params_ok(&params->ops) ? 0 : -EINVAL;
}

/* What is left of a burst when so much of it, or of an earlier one, was used. */
static uint64_t burst_left(const struct bucket_params *p, uint64_t used) {
  return p->one_time_burst > used ? p->one_time_burst - used : 0;
}

static void bucket_set_burst(struct bucket *b, const struct bucket_params *p) {
  uint64_t granted = burst_left(&b->params, b->burst_used), used, next;
  uint64_t left = atomic_load_explicit(&b->burst_left, memory_order_relaxed);
  do {
    used = b->burst_used + (granted - left);
    next = burst_left(p, used);
  } while (!atomic_compare_exchange_weak_explicit(&b->burst_left, &left, next, memory_order_relaxed,
                                                  memory_order_relaxed));
  b->burst_used = used;
}

/* The time at which the bucket would be full at the new rate with the tokens that it has now. */
static uint64_t full_at_rate(uint64_t full_ns, struct rate from, struct rate to, uint64_t now_ns) {
  double missing_ns = full_ns > now_ns ? (double)(full_ns - now_ns) : 0;
  double level = ((double)from.depth_ns - missing_ns) / (double)from.token_ns;
  double lag_ns = (double)to.depth_ns - level * (double)to.token_ns;
  if (lag_ns <= 0) return now_ns;
  return add_capped(now_ns, lag_ns < (double)PRICE_NS_MAX ? (uint64_t)lag_ns : PRICE_NS_MAX);
}

static void bucket_set(struct bucket *b, const struct bucket_params *p, uint64_t now_ns) {
  uint64_t old = atomic_load_explicit(&b->rate, memory_order_relaxed), new = rate_word(p);
  if (old != new) {
    uint64_t full = atomic_load_explicit(&b->full_ns, memory_order_relaxed), next;
    do {
      next = old && new ? full_at_rate(full, rate_of(old), rate_of(new), now_ns) : 0;
    } while (!atomic_compare_exchange_weak_explicit(&b->full_ns, &full, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    atomic_store_explicit(&b->rate, new, memory_order_relaxed);
  }
  bucket_set_burst(b, p);
  b->params = *p;
}

void limit_init(struct limit *l, const struct limit_params *params, struct limit *parent,
                uint64_t now_ns) {
  memset(l, 0, sizeof(*l));
  l->parent = parent;
  limit_set(l, params, now_ns);
}

void limit_set(struct limit *l, const struct limit_params *params, uint64_t now_ns) {
  static const struct limit_params none;
  if (!params) params = &none;
  check(bucket_params_ok(&params->bytes));
  check(bucket_params_ok(&params->ops));
  bucket_set(&l->bytes, &params->bytes, now_ns);
  bucket_set(&l->ops, &params->ops, now_ns);
}

void limit_params_get(const struct limit *l, struct limit_params *params) {
  params->bytes = l->bytes.params;
  params->ops = l->ops.params;
}

/* ---- Tokens --------------------------------------------------------------------------------- */

/* Pays what it can out of the one-time burst and returns the rest. */
static uint64_t burst_take(struct bucket *b, uint64_t tokens) {
  uint64_t left = atomic_load_explicit(&b->burst_left, memory_order_relaxed), used;
  do {
    if (likely(!left)) return tokens;
    used = min_u64(left, tokens);
  } while (!atomic_compare_exchange_weak_explicit(&b->burst_left, &left, left - used,
                                                  memory_order_relaxed, memory_order_relaxed));
  return tokens - used;
}

static uint64_t bucket_take(struct bucket *b, uint64_t at_ns, uint64_t tokens) {
  uint64_t word = atomic_load_explicit(&b->rate, memory_order_relaxed);
  if (!word || !tokens) return at_ns;
  tokens = burst_take(b, tokens);
  if (!tokens) return at_ns;
  struct rate r = rate_of(word);
  uint64_t price = price_ns(r, tokens), depth = (uint64_t)(double)r.depth_ns, begin;
  uint64_t full = atomic_load_explicit(&b->full_ns, memory_order_relaxed);
  do {
    begin = max_u64(full, at_ns);
  } while (!atomic_compare_exchange_weak_explicit(&b->full_ns, &full, add_capped(begin, price),
                                                  memory_order_relaxed, memory_order_relaxed));
  /* More than the bucket holds: when it is full. */
  uint64_t lacks = depth - min_u64(price, depth);
  return max_u64(at_ns, begin > lacks ? begin - lacks : 0);
}

static void bucket_give_back(struct bucket *b, uint64_t tokens) {
  uint64_t word = atomic_load_explicit(&b->rate, memory_order_relaxed);
  if (!word) return;
  uint64_t price = price_ns(rate_of(word), tokens);
  uint64_t full = atomic_load_explicit(&b->full_ns, memory_order_relaxed);
  while (!atomic_compare_exchange_weak_explicit(&b->full_ns, &full, full > price ? full - price : 0,
                                                memory_order_relaxed, memory_order_relaxed))
    ;
}

uint64_t limit_take(struct limit *l, uint64_t at_ns, uint64_t bytes) {
  return max_u64(bucket_take(&l->bytes, at_ns, bytes), bucket_take(&l->ops, at_ns, 1));
}

void limit_give_back(struct limit *l, uint64_t bytes) {
  bucket_give_back(&l->bytes, bytes);
  bucket_give_back(&l->ops, 1);
}
