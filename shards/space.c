/* space.c - see space.h. Single-threaded, owned by a shard.
 *
 * `used` holds everything that cannot be allocated, what is pending included; each pending block
 * is in exactly one of four more sets:
 *
 *   space_free()        used  -> open
 *   space_seal()        open  -> sealed      space_unseal()  sealed -> open
 *   space_durable()     sealed -> ready
 *   advance()           ready -> grace, when grace is empty: turns the generation of readers
 *   advance()           grace -> free, when the readers of the generation before have gone
 *
 * Readers that begin after the turn cannot know what was freed before it. Invariant: while grace
 * is empty the generation that is not current has no readers, so a turn is always possible. */
#include "shards/space.h"
#include "shards/base/plant.h"
#include "shards/base/block_set.h"

#include <errno.h>
#include <stdlib.h>

#define BIG_RUN     127u /* a run that long holds an empty word, which is found quickly */
#define RUNS_LOOKED 256u /* at most, for one extent that holds all, before taking several */

enum pending_set { OPEN, SEALED, READY, GRACE, PENDING_SETS };
struct space_sets {
  struct block_set used;
  struct block_set pending[PENDING_SETS];
};
struct space {
  struct space_readers readers; /* the first: space_read_begin() counts on that */
  struct space_sets sets;
  uint64_t cursor; /* where the last allocation ended */
  /* Since blocks last became free, so many were refused as so many extents: asking for as much
   * again need not look. refused_max is 0 if there is nothing to remember. */
  uint64_t refused_blocks;
  uint32_t refused_max;
  uint64_t reuses; /* read by other threads */
};
_Static_assert(offsetof(struct space, readers) == 0, "as space.h says");

static void finish_sets(struct space_sets *sets) {
  block_set_finish(&sets->used);
  for (int i = 0; i < PENDING_SETS; i++) block_set_finish(&sets->pending[i]);
}
static int init_sets(struct space_sets *sets, uint64_t blocks) {
  *sets = (struct space_sets){.used = {.bits = 0}};
  int rc = block_set_init(&sets->used, blocks, true);
  for (int i = 0; i < PENDING_SETS && rc == 0; i++)
    rc = block_set_init(&sets->pending[i], blocks, false);
  if (rc < 0) finish_sets(sets);
  return rc;
}

int space_create(struct space **out, uint64_t blocks) {
  struct space *s = calloc(1, sizeof *s);
  if (!s) return -ENOMEM;
  int rc = init_sets(&s->sets, blocks);
  if (rc < 0)
    free(s);
  else
    *out = s;
  return rc;
}

void space_destroy(struct space *s) {
  if (!s) return;
  finish_sets(&s->sets);
  free(s);
}

int space_grow(struct space *s, uint64_t blocks) {
  struct space_sets larger; /* all or nothing */
  int rc = init_sets(&larger, s->sets.used.bits + blocks);
  if (rc < 0) return rc;
  block_set_take(&larger.used, &s->sets.used);
  for (int i = 0; i < PENDING_SETS; i++) block_set_take(&larger.pending[i], &s->sets.pending[i]);
  finish_sets(&s->sets);
  s->sets = larger;
  s->refused_max = 0;
  return 0;
}

int space_claim(struct space *s, uint64_t block, uint64_t blocks) {
  if (block > s->sets.used.bits || blocks > s->sets.used.bits - block) return -ERANGE;
  if (!block_set_is_clear(&s->sets.used, block, blocks)) return -EEXIST;
  block_set_add(&s->sets.used, block, blocks);
  return 0;
}

void space_claim_prefetch(const struct space *s, uint64_t block) {
  block_set_prefetch(&s->sets.used, block);
}

void space_unclaim(struct space *s, uint64_t block, uint64_t blocks) {
  check(block_set_remove(&s->sets.used, block, blocks) == blocks);
  s->refused_max = 0;
}

/* Where to look for free blocks: [at, end), then once more from 0 to wrap. */
struct search {
  const struct block_set *used;
  uint64_t at, end, wrap;
  uint64_t min; /* shorter runs are of no use; above 64 some of them are seen all the same */
  bool big;     /* only runs that hold an empty word */
};

static struct search search_from(const struct space *s, uint64_t below, bool big) {
  struct search search = {.used = &s->sets.used, .end = s->sets.used.bits, .min = 1, .big = big};
  if (below)
    search.end = min_u64(below, s->sets.used.bits);
  else
    search.at = search.wrap = s->cursor;
  return search;
}

/* The next free run, as long as it is; false at the end. */
static bool next_run(struct search *search, struct extent *run) {
  for (;;) {
    uint64_t start =
        search->big ? block_set_next_empty(search->used, search->at)
                    : block_set_next_clear_run(search->used, search->at, min_u64(search->min, 64));
    if (start < search->end) {
      run->block = start;
      run->blocks = block_set_clear_run(search->used, start, search->end - start);
      search->at = start + run->blocks;
      return true;
    }
    if (search->wrap == 0) return false;
    /* The run that holds the cursor is seen in two parts; they do not overlap. */
    search->at = 0;
    search->end = search->wrap;
    search->wrap = 0;
  }
}

static bool find_one(const struct space *s, uint64_t blocks, uint64_t below, struct extent *found) {
  struct search search = search_from(s, below, blocks >= BIG_RUN);
  for (uint32_t i = 0; i < RUNS_LOOKED && next_run(&search, found); i++) {
    if (found->blocks < blocks) continue;
    found->blocks = blocks;
    return true;
  }
  return false;
}

/* A heap in the caller's array, the shortest extent on top. */
static void sift_down(struct extent *heap, uint32_t count, uint32_t i) {
  struct extent moving = heap[i];
  for (uint32_t child; (child = 2 * i + 1) < count; i = child) {
    if (child + 1 < count && heap[child + 1].blocks < heap[child].blocks) child++;
    if (heap[child].blocks >= moving.blocks) break;
    heap[i] = heap[child];
  }
  heap[i] = moving;
}
static void sift_up(struct extent *heap, uint32_t i) {
  struct extent moving = heap[i];
  for (; i > 0 && heap[(i - 1) / 2].blocks > moving.blocks; i = (i - 1) / 2)
    heap[i] = heap[(i - 1) / 2];
  heap[i] = moving;
}

/* Drops what is too much from the shortest ones, then sorts: longest first. */
static uint32_t trim_and_sort(struct extent *heap, uint32_t count, uint64_t excess) {
  while (excess >= heap[0].blocks) {
    excess -= heap[0].blocks;
    heap[0] = heap[--count];
    sift_down(heap, count, 0);
  }
  heap[0].blocks -= excess;
  for (uint32_t rest = count; rest > 1;) {
    struct extent shortest = heap[0];
    heap[0] = heap[--rest];
    heap[rest] = shortest;
    sift_down(heap, rest, 0);
  }
  return count;
}

/* Several extents: the first runs from the cursor on that are enough, and if `max` of them are
 * not, the longest that there are. Says no only after it has seen all: then `max` runs cannot
 * hold that much. */
static int gather(const struct space *s, uint64_t blocks, struct extent *heap, uint32_t max,
                  uint64_t below, bool big) {
  struct search search = search_from(s, below, big);
  struct extent run;
  uint32_t count = 0;
  uint64_t sum = 0;
  while (sum < blocks && next_run(&search, &run)) {
    if (count < max) {
      heap[count] = run;
      sift_up(heap, count++);
    } else if (run.blocks > heap[0].blocks) {
      sum -= heap[0].blocks;
      heap[0] = run;
      sift_down(heap, count, 0);
    } else {
      continue;
    }
    sum += run.blocks;
    if (count == max) search.min = heap[0].blocks + 1;
  }
  return sum < blocks ? -ENOSPC : (int)trim_and_sort(heap, count, sum - blocks);
}

/* The searches above see a run that holds the cursor as two; where `max` is short of one extent
 * that makes the difference. */
static bool cursor_splits_run(const struct space *s) {
  return s->cursor > 0 && !block_set_test(&s->sets.used, s->cursor - 1) &&
         !block_set_test(&s->sets.used, s->cursor);
}

static int find(struct space *s, uint64_t blocks, struct extent *extents, uint32_t max,
                uint64_t below) {
  int count = -ENOSPC;
  if (find_one(s, blocks, below, &extents[0])) count = 1;
  if (count < 0 && blocks >= BIG_RUN) count = gather(s, blocks, extents, max, below, true);
  if (count < 0) count = gather(s, blocks, extents, max, below, false);
  if (count < 0 && !below && cursor_splits_run(s)) {
    s->cursor = 0;
    count = gather(s, blocks, extents, max, below, false);
  }
  return count;
}

int space_alloc(struct space *s, uint64_t blocks, struct extent *extents, uint32_t max,
                uint64_t below) {
  if (blocks > s->sets.used.bits - s->sets.used.count || max == 0) return -ENOSPC;
  if (blocks == 0) return 0;
  if (!below && blocks >= s->refused_blocks && max <= s->refused_max) return -ENOSPC;
  int count = find(s, blocks, extents, max, below);
  if (count < 0 && !below) {
    s->refused_blocks = blocks;
    s->refused_max = max;
  }
  for (int i = 0; i < count; i++)
    check(block_set_add(&s->sets.used, extents[i].block, extents[i].blocks) == extents[i].blocks);
  if (count > 0 && !below) {
    s->cursor = extents[count - 1].block + extents[count - 1].blocks;
    if (s->cursor >= s->sets.used.bits) s->cursor = 0;
  }
  return count;
}

void space_cancel(struct space *s, const struct extent *extents, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) space_unclaim(s, extents[i].block, extents[i].blocks);
}

void space_free(struct space *s, const struct extent *extents, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    check(block_set_test(&s->sets.used, extents[i].block));
    check(block_set_add(&s->sets.pending[OPEN], extents[i].block, extents[i].blocks) ==
          extents[i].blocks);
  }
}

static void advance(struct space *s) {
  struct block_set *ready = &s->sets.pending[READY], *grace = &s->sets.pending[GRACE];
  for (;;) {
    if (grace->count > 0) {
      if (s->readers.count[s->readers.generation ^ 1] > 0 && !PLANTED(reuse_under_readers)) return;
      /* Before anybody can be given them; what is then written there goes to the device by ways
       * that are barriers all. */
      __atomic_store_n(&s->reuses, s->reuses + 1, __ATOMIC_RELEASE);
      block_set_subtract(&s->sets.used, grace);
      s->refused_max = 0;
    }
    if (ready->count == 0) return;
    check(s->readers.count[s->readers.generation ^ 1] == 0 || PLANTED(reuse_under_readers));
    block_set_take(grace, ready);
    s->readers.generation ^= 1;
  }
}

void space_seal(struct space *s) {
  check(s->sets.pending[SEALED].count == 0);
  block_set_take(&s->sets.pending[SEALED], &s->sets.pending[OPEN]);
  if (PLANTED(reuse_one_epoch_early)) space_durable(s);
}

void space_durable(struct space *s) {
  block_set_take(&s->sets.pending[READY], &s->sets.pending[SEALED]);
  advance(s);
}

void space_unseal(struct space *s) {
  block_set_take(&s->sets.pending[OPEN], &s->sets.pending[SEALED]);
}

void space_readers_gone(struct space *s) { advance(s); }

uint64_t space_reuses(const struct space *s) {
  return __atomic_load_n(&s->reuses, __ATOMIC_ACQUIRE);
}

uint64_t space_free_blocks(const struct space *s) { return s->sets.used.bits - s->sets.used.count; }

uint64_t space_pending_blocks(const struct space *s) {
  uint64_t sum = 0;
  for (int i = 0; i < PENDING_SETS; i++) sum += s->sets.pending[i].count;
  return sum;
}

uint64_t space_total_blocks(const struct space *s) { return s->sets.used.bits; }

bool space_is_used(const struct space *s, uint64_t block) {
  check(block < s->sets.used.bits);
  return block_set_test(&s->sets.used, block);
}

uint64_t space_end(const struct space *s) { return block_set_end(&s->sets.used); }

uint64_t space_next_free(const struct space *s, uint64_t block, uint64_t max, struct extent *run) {
  uint64_t start = block_set_next_clear(&s->sets.used, block);
  if (start == BLOCK_SET_NONE || max == 0) return 0;
  *run = (struct extent){.block = start, .blocks = block_set_clear_run(&s->sets.used, start, max)};
  return run->blocks;
}
