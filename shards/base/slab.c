/* slab.c - see slab.h. Single-threaded. A free piece's first four bytes name the next one; other
 * threads may still look at them, and drop what they see (watched.h). */
#include "shards/base/slab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CHUNK_BYTES (1u << SLAB_CHUNK_SHIFT)
#define CHUNK_UNITS (CHUNK_BYTES / SLAB_UNIT)
#define SMALL_UNITS 32u /* classes below: one for each unit */

/* Classes count units, from 0: 1 to 32 units are classes 0 to 31. Beyond, with e the power of two
 * at or below units - 1, a class is one of 16 steps between it and the next one. */
static uint32_t class_of(uint32_t units) {
  if (units <= SMALL_UNITS) return units - 1;
  uint32_t e = 31 - (uint32_t)__builtin_clz(units - 1); /* 5 and up */
  return SMALL_UNITS + (e - 5) * 16 + ((units - 1) >> (e - 4)) - 16;
}
static uint32_t class_units(uint32_t class) {
  if (class < SMALL_UNITS) return class + 1;
  uint32_t e = 5 + (class - SMALL_UNITS) / 16, step = (class - SMALL_UNITS) % 16;
  return (17 + step) << (e - 4);
}
static uint32_t units_of(uint32_t bytes) {
  check(bytes > 0);
  check(bytes <= SLAB_BYTES_MAX);
  return (bytes + SLAB_UNIT - 1) / SLAB_UNIT;
}

uint32_t slab_piece_bytes(uint32_t bytes) {
  return class_units(class_of(units_of(bytes))) * SLAB_UNIT;
}

void slab_init(struct slab *slab) {
  memset(slab, 0, sizeof *slab);
  check(class_of(SLAB_BYTES_MAX / SLAB_UNIT) == SLAB_CLASSES - 1);
}

void slab_finish(struct slab *slab) {
  for (uint32_t i = 0; i < slab->chunks; i++)
    munmap(slab->tables[i / SLAB_TABLE][i % SLAB_TABLE], CHUNK_BYTES);
  for (uint32_t i = 0; i < SLAB_TABLE; i++) free(slab->tables[i]);
  memset(slab, 0, sizeof *slab);
}

static void push(struct slab *slab, uint32_t class, uint32_t ref) {
  __atomic_store_n((uint32_t *)slab_at(slab, ref), slab->free_head[class], __ATOMIC_RELAXED);
  slab->free_head[class] = ref;
  slab->not_empty[class / 64] |= UINT64_C(1) << (class % 64);
}

static uint32_t pop(struct slab *slab, uint32_t class) {
  uint32_t ref = slab->free_head[class];
  memcpy(&slab->free_head[class], slab_at(slab, ref), sizeof(uint32_t));
  if (slab->free_head[class] == 0) slab->not_empty[class / 64] &= ~(UINT64_C(1) << (class % 64));
  return ref;
}

/* Puts any stretch of units into the free lists, as the largest pieces that fit. */
static void donate(struct slab *slab, uint32_t ref, uint32_t units) {
  while (units > 0) {
    uint32_t class = class_of(min_u64(units, SLAB_BYTES_MAX / SLAB_UNIT));
    if (class_units(class) > units) class --;
    push(slab, class, ref);
    ref += class_units(class);
    units -= class_units(class);
  }
}

/* The smallest class from `class` up that has a free piece; SLAB_CLASSES if none has. */
static uint32_t free_class(const struct slab *slab, uint32_t class) {
  uint64_t word = slab->not_empty[class / 64] & (UINT64_MAX << (class % 64));
  for (uint32_t i = class / 64;;) {
    if (word) return i * 64 + (uint32_t)__builtin_ctzll(word);
    if (++i == array_size(slab->not_empty)) return SLAB_CLASSES;
    word = slab->not_empty[i];
  }
}

static int map_chunk(struct slab *slab) {
  uint32_t table = slab->chunks / SLAB_TABLE;
  if (table == SLAB_TABLE) return -ENOMEM;
  if (!slab->tables[table]) {
    slab->tables[table] = calloc(SLAB_TABLE, sizeof(char *));
    if (!slab->tables[table]) return -ENOMEM;
    slab->mapped_bytes += SLAB_TABLE * sizeof(char *);
  }
  char *chunk = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (chunk == MAP_FAILED) return -ENOMEM;
  donate(slab, slab->bump, slab->bump_end - slab->bump);
  slab->tables[table][slab->chunks % SLAB_TABLE] = chunk;
  slab->bump = slab->chunks * CHUNK_UNITS;
  slab->bump_end = slab->bump + (CHUNK_UNITS - 1);
  /* Reference 0 means none, and the end of the last chunk must not wrap: so every chunk leaves
   * one unit out, the first chunk its first one. */
  if (slab->chunks == 0) slab->bump++, slab->bump_end++;
  slab->chunks++;
  slab->mapped_bytes += CHUNK_BYTES;
  return 0;
}

int slab_reserve(struct slab *slab, uint32_t bytes) {
  uint32_t class = class_of(units_of(bytes));
  if (class_units(class) <= slab->bump_end - slab->bump) return 0;
  if (free_class(slab, class) < SLAB_CLASSES) return 0;
  return map_chunk(slab);
}

uint32_t slab_alloc(struct slab *slab, uint32_t bytes) {
  uint32_t class = class_of(units_of(bytes)), units = class_units(class), ref;
  if (slab->free_head[class]) {
    ref = pop(slab, class);
  } else if (units <= slab->bump_end - slab->bump) {
    ref = slab->bump;
    slab->bump += units;
  } else {
    uint32_t larger = free_class(slab, class);
    if (larger == SLAB_CLASSES) return 0;
    ref = pop(slab, larger);
    donate(slab, ref + units, class_units(larger) - units);
  }
  slab->used_bytes += (uint64_t)units * SLAB_UNIT;
  return ref;
}

void slab_free(struct slab *slab, uint32_t ref, uint32_t bytes) {
  if (ref == 0) return;
  uint32_t class = class_of(units_of(bytes));
  slab->used_bytes -= (uint64_t)class_units(class) * SLAB_UNIT;
  push(slab, class, ref);
}
