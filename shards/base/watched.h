/* watched.h - memory that its owner changes while threads beside it read.
 *
 * Such readers look at a version before and after, and drop what they read if it has changed: so
 * it does not matter what they see of a change, only that they see the version move. The owner
 * makes it odd before, even after a change (watched_begin(), watched_end()); readers load words
 * with watched_word(), and the version last.
 *
 * The owner copies with memcpy() and memmove(), which are several times faster than word by word.
 * By the letter of the language that is a race; compilers cannot make anything of it here, as they
 * cannot move a store over the fence, and a load that is torn is one that is dropped. For
 * ThreadSanitizer, which is to find the races that are none of these, words are copied one by
 * one. */
#ifndef SHARDS_BASE_WATCHED_H
#define SHARDS_BASE_WATCHED_H

#include <string.h>

#include "shards/base/base.h"

#if defined(__SANITIZE_THREAD__)
#define WATCHED_BY_WORDS 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WATCHED_BY_WORDS 1
#endif
#endif

/* to and from may overlap. Both, and bytes, are multiples of 4. */
static inline void watched_move(void *to, const void *from, size_t bytes) {
#ifdef WATCHED_BY_WORDS
  uint32_t *t = to;
  const uint32_t *f = from;
  size_t n = bytes / 4;
  for (size_t i = 0; i < n; i++) {
    size_t k = t > f ? n - 1 - i : i;
    __atomic_store_n(&t[k], f[k], __ATOMIC_RELAXED);
  }
#else
  memmove(to, from, bytes);
#endif
}
static inline void watched_copy(void *to, const void *from, size_t bytes) {
#ifdef WATCHED_BY_WORDS
  watched_move(to, from, bytes);
#else
  memcpy(to, from, bytes);
#endif
}

/* ---- The owner --------------------------------------------------------------------------------
 */

static inline void watched_begin(uint32_t *version) {
  __atomic_store_n(version, *version + 1, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_RELEASE); /* the odd version is seen before any change */
}
static inline void watched_end(uint32_t *version) {
  __atomic_store_n(version, *version + 1, __ATOMIC_RELEASE);
}

/* ---- Readers ----------------------------------------------------------------------------------
 */

/* Acquire: what is loaded after it was not loaded before it, the version least of all. */
static inline uint64_t watched_word(const uint64_t *word) {
  return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}
static inline uint32_t watched_half(const uint32_t *word) {
  return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

#endif
