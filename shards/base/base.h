/* base.h - what every layer shares: units, checks, small helpers. No state, no threads. */
#ifndef SHARDS_BASE_BASE_H
#define SHARDS_BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BLOCK_BYTES 4096u
#define BLOCK_SHIFT 12

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* An assertion that stays on in release builds: prints file, line, condition; aborts. For
 * what we prove, never for bytes from outside. */
#define check(cond) (likely(cond) ? (void)0 : check_failed(__FILE__, __LINE__, #cond))
void check_failed(const char *file, int line, const char *cond) __attribute__((noreturn, cold));

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define array_size(a)                   (sizeof(a) / sizeof((a)[0]))

static inline uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }
/* unit: a power of two */
static inline uint64_t round_up(uint64_t v, uint64_t unit) { return (v + unit - 1) & ~(unit - 1); }
static inline uint64_t round_down(uint64_t v, uint64_t unit) { return v & ~(unit - 1); }
static inline uint64_t div_up(uint64_t v, uint64_t d) { return v / d + (v % d != 0); }
static inline bool is_aligned(uint64_t v, uint64_t unit) { return (v & (unit - 1)) == 0; }
static inline uint64_t bytes_to_blocks(uint64_t bytes) {
  return (bytes >> BLOCK_SHIFT) + ((bytes & (BLOCK_BYTES - 1)) != 0);
}

struct blob_id {
  uint64_t hi, lo;
};
static inline bool blob_id_equal(struct blob_id a, struct blob_id b) {
  return a.hi == b.hi && a.lo == b.lo;
}

/* A hash of an id, keyed by the store's own random key (from its UUID), so that ids chosen
 * by a stranger do not pile up. The folded 64x64 to 128 bit multiplication is the mixing
 * step of wyhash (Wang Yi, public domain). Routing takes the top 32 bits; the index of a
 * shard takes the low 32. */
#define HASH_MIX UINT64_C(0x9e3779b97f4a7c15)
/* mixed: the key, its second half xor HASH_MIX. */
static inline uint64_t hash_id_mixed(struct blob_id id, const uint64_t mixed[2]) {
  __uint128_t m = (__uint128_t)(id.lo ^ mixed[0]) * (id.hi ^ mixed[1]);
  uint64_t h = (uint64_t)m ^ (uint64_t)(m >> 64);
  m = (__uint128_t)(h ^ UINT64_C(0xa0761d6478bd642f)) * UINT64_C(0xe7037ed1a0b428db);
  return (uint64_t)m ^ (uint64_t)(m >> 64);
}
static inline uint64_t hash_id(struct blob_id id, const uint64_t key[2]) {
  return hash_id_mixed(id, (const uint64_t[2]){key[0], key[1] ^ HASH_MIX});
}
static inline uint32_t shard_of_hash(uint64_t hash, uint32_t shard_count) {
  return (uint32_t)(((hash >> 32) * shard_count) >> 32);
}
/* An op for whatever shard: routing goes by hash alone. */
static inline uint64_t hash_of_shard(uint32_t shard, uint32_t shard_count) {
  return div_up((uint64_t)shard << 32, shard_count) << 32;
}

static inline bool bytes_are_zero(const void *buf, uint64_t bytes) {
  const char *b = (const char *)buf;
  return bytes == 0 || (b[0] == 0 && memcmp(b, b + 1, bytes - 1) == 0);
}

/* Where messages for the operator go. level as enum sr_log_level: 0 error, 1 warning,
 * 2 info. One line, no newline. Any thread may call. */
struct logger {
  void (*line)(void *arg, int level, const char *text);
  void *arg;
};
void log_line(const struct logger *logger, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A point in time; injected so that a simulator can own it. */
struct clock {
  uint64_t (*now_ns)(void *arg);
  void *arg;
};
static inline uint64_t clock_now_ns(const struct clock *clock) { return clock->now_ns(clock->arg); }
/* CLOCK_MONOTONIC. */
extern const struct clock clock_monotonic;

#endif
