/* block_set.c - see block_set.h. Single-threaded.
 *
 * Every change of level 0 goes through put_word(), which carries the summaries along; a change
 * stops climbing at the first level that does not care, so it mostly touches one word. */
#include "shards/base/block_set.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define ALL_ONES UINT64_MAX

int block_set_init(struct block_set *set, uint64_t bits, bool finds_clear) {
  *set = (struct block_set){.bits = bits};
  uint64_t words = max_u64(bits, 1), total = 0;
  for (unsigned level = 0; level < BLOCK_SET_LEVELS; level++) {
    words = div_up(words, 64);
    set->words[level] = words;
    total += words * (level == 0 || !finds_clear ? 1 : level == 1 ? 2 : 3);
  }
  set->ram_bytes = round_up(total * 8, 4096);
  uint64_t *at = mmap(NULL, set->ram_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    *set = (struct block_set){.bits = 0};
    return -ENOMEM;
  }
  for (unsigned level = 0; level < BLOCK_SET_LEVELS; level++) {
    set->any[level] = at;
    at += set->words[level];
    if (level == 0) set->full[0] = set->any[0];
    if (level == 0 || !finds_clear) continue;
    set->full[level] = at;
    at += set->words[level];
    set->busy[level] = level == 1 ? set->any[1] : at;
    if (level > 1) at += set->words[level];
  }
  return 0;
}

void block_set_finish(struct block_set *set) {
  if (set->ram_bytes > 0) munmap(set->any[0], set->ram_bytes);
  *set = (struct block_set){.bits = 0};
}

/* The word of level-1 that `bit` of `level` speaks of has become, or is no longer, non-zero. */
static void note_any(struct block_set *set, unsigned level, uint64_t bit, bool on) {
  for (; level < BLOCK_SET_LEVELS; level++, bit >>= 6) {
    uint64_t *word = &set->any[level][bit >> 6], old = *word, mask = UINT64_C(1) << (bit & 63);
    *word = on ? old | mask : old & ~mask;
    if (on ? old != 0 : *word != 0) return;
  }
}

/* The same for summaries that say "all ones". */
static void note_all(uint64_t *const chain[], unsigned level, uint64_t bit, bool on) {
  for (; level < BLOCK_SET_LEVELS; level++, bit >>= 6) {
    uint64_t *word = &chain[level][bit >> 6], old = *word, mask = UINT64_C(1) << (bit & 63);
    *word = on ? old | mask : old & ~mask;
    if ((on ? *word : old) != ALL_ONES) return;
  }
}

static void put_word(struct block_set *set, uint64_t i, uint64_t value) {
  uint64_t old = set->any[0][i];
  set->any[0][i] = value;
  if ((old == 0) != (value == 0)) {
    uint64_t above = set->any[1][i >> 6];
    note_any(set, 1, i, value != 0);
    /* busy shares its level 1 with any, so only a change to or from all ones goes further */
    bool was = above == ALL_ONES, is = set->any[1][i >> 6] == ALL_ONES;
    if (set->busy[1] && was != is) note_all(set->busy, 2, i >> 6, is);
  }
  if (set->full[1] && (old == ALL_ONES) != (value == ALL_ONES))
    note_all(set->full, 1, i, value == ALL_ONES);
}

/* The bits of word i that lie in [first, last]. */
static uint64_t mask_of(uint64_t i, uint64_t first, uint64_t last) {
  uint64_t mask = ALL_ONES;
  if (i == first >> 6) mask &= ALL_ONES << (first & 63);
  if (i == last >> 6) mask &= ALL_ONES >> (63 - (last & 63));
  return mask;
}

uint64_t block_set_add(struct block_set *set, uint64_t first, uint64_t n) {
  if (n == 0) return 0;
  check(first < set->bits && n <= set->bits - first);
  uint64_t last = first + n - 1, changed = 0;
  for (uint64_t i = first >> 6; i <= last >> 6; i++) {
    uint64_t old = set->any[0][i], value = old | mask_of(i, first, last);
    changed += (uint64_t)__builtin_popcountll(value ^ old);
    if (value != old) put_word(set, i, value);
  }
  set->count += changed;
  return changed;
}

uint64_t block_set_remove(struct block_set *set, uint64_t first, uint64_t n) {
  if (n == 0) return 0;
  check(first < set->bits && n <= set->bits - first);
  uint64_t last = first + n - 1, changed = 0;
  for (uint64_t i = first >> 6; i <= last >> 6; i++) {
    uint64_t old = set->any[0][i], value = old & ~mask_of(i, first, last);
    changed += (uint64_t)__builtin_popcountll(value ^ old);
    if (value != old) put_word(set, i, value);
  }
  set->count -= changed;
  return changed;
}

void block_set_take(struct block_set *set, struct block_set *from) {
  check(set->bits >= from->bits);
  if (set->count == 0 && set->bits == from->bits && !set->full[1] == !from->full[1]) {
    struct block_set empty = *set;
    *set = *from;
    *from = empty;
    return;
  }
  for (uint64_t at = 0; (at = block_set_next(from, at)) != BLOCK_SET_NONE; at = (at | 63) + 1) {
    uint64_t i = at >> 6, old = set->any[0][i], value = old | from->any[0][i];
    set->count += (uint64_t)__builtin_popcountll(value ^ old);
    put_word(set, i, value);
    put_word(from, i, 0);
  }
  from->count = 0;
}

void block_set_subtract(struct block_set *set, struct block_set *from) {
  check(set->bits == from->bits);
  for (uint64_t at = 0; (at = block_set_next(from, at)) != BLOCK_SET_NONE; at = (at | 63) + 1) {
    uint64_t i = at >> 6, gone = from->any[0][i];
    check((set->any[0][i] & gone) == gone);
    put_word(set, i, set->any[0][i] & ~gone);
    put_word(from, i, 0);
  }
  set->count -= from->count;
  from->count = 0;
}

/* The first bit of level `low` at or after from that is one (flip 0) or zero (flip all ones).
 * Climbs while the rest of a word has none, then descends to the hit; the bits that a level has
 * beyond the words below it are zero, hence the check on the way down. */
static uint64_t seek(const struct block_set *set, uint64_t *const chain[], unsigned low,
                     uint64_t from, uint64_t flip) {
  unsigned level = low;
  uint64_t at = from, word;
  for (;;) {
    uint64_t i = at >> 6;
    if (i >= set->words[level]) return BLOCK_SET_NONE;
    word = (chain[level][i] ^ flip) & (ALL_ONES << (at & 63));
    if (level == BLOCK_SET_LEVELS - 1)
      while (word == 0 && ++i < set->words[level]) word = chain[level][i] ^ flip;
    if (word != 0) {
      at = i * 64 + (uint64_t)__builtin_ctzll(word);
      break;
    }
    if (level == BLOCK_SET_LEVELS - 1) return BLOCK_SET_NONE;
    at = i + 1;
    level++;
  }
  while (level > low) {
    level--;
    if (at >= set->words[level]) return BLOCK_SET_NONE;
    at = at * 64 + (uint64_t)__builtin_ctzll(chain[level][at] ^ flip);
  }
  return at;
}

uint64_t block_set_next(const struct block_set *set, uint64_t from) {
  return seek(set, set->any, 0, from, 0);
}

uint64_t block_set_next_clear(const struct block_set *set, uint64_t from) {
  uint64_t at = seek(set, set->full, 0, from, ALL_ONES);
  return at < set->bits ? at : BLOCK_SET_NONE;
}

uint64_t block_set_next_empty(const struct block_set *set, uint64_t from) {
  uint64_t i = seek(set, set->busy, 1, from >> 6, ALL_ONES);
  if (i >= set->words[0]) return BLOCK_SET_NONE;
  uint64_t at = i * 64;
  /* the run may begin in the word before, which is not empty or lies before `from` */
  if (i > 0) at -= set->any[0][i - 1] ? (uint64_t)__builtin_clzll(set->any[0][i - 1]) : 64;
  at = max_u64(at, from);
  return at < set->bits ? at : BLOCK_SET_NONE;
}

uint64_t block_set_next_clear_run(const struct block_set *set, uint64_t from, uint64_t min) {
  check(min >= 1 && min <= 64);
  while ((from = block_set_next_clear(set, from)) != BLOCK_SET_NONE) {
    uint64_t i = from >> 6, clear = ~set->any[0][i] & (ALL_ONES << (from & 63)), starts = clear;
    /* after each step a bit of starts says that `have` clear ones begin there */
    for (uint64_t have = 1; have < min;) {
      uint64_t more = min_u64(have, min - have);
      starts &= starts >> more;
      have += more;
    }
    uint64_t start = i * 64 + 64;
    if (starts)
      start = i * 64 + (uint64_t)__builtin_ctzll(starts);
    else if (clear >> 63) /* not all ones, or there would be starts: goes on in the next word? */
      start -= (uint64_t)__builtin_clzll(~clear);
    if (start < i * 64 + 64 && block_set_clear_run(set, start, min) == min) return start;
    from = i * 64 + 64;
  }
  return BLOCK_SET_NONE;
}

bool block_set_is_clear(const struct block_set *set, uint64_t first, uint64_t n) {
  if (n == 0) return true;
  check(first < set->bits && n <= set->bits - first);
  uint64_t last = first + n - 1, found = 0;
  for (uint64_t i = first >> 6; i <= last >> 6 && !found; i++)
    found = set->any[0][i] & mask_of(i, first, last);
  return found == 0;
}

uint64_t block_set_clear_run(const struct block_set *set, uint64_t from, uint64_t max) {
  if (from >= set->bits) return 0;
  uint64_t end = min_u64(block_set_next(set, from), set->bits);
  return min_u64(end - from, max);
}

uint64_t block_set_end(const struct block_set *set) {
  if (set->count == 0) return 0;
  unsigned level = BLOCK_SET_LEVELS - 1;
  uint64_t i = set->words[level] - 1;
  while (set->any[level][i] == 0) i--;
  for (;; level--) {
    i = i * 64 + 63 - (uint64_t)__builtin_clzll(set->any[level][i]);
    if (level == 0) return i + 1;
  }
}
