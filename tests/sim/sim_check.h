/* sim_check.h - looks at states that a power cut may leave: builds one on an image, opens the store
 * on it with the unchanged code, and compares all that is there with the model. One thread. */
#ifndef TESTS_SIM_CHECK_H
#define TESTS_SIM_CHECK_H

#include "tests/sim/sim_store.h"

/* A set of 64-bit hashes. */
struct seen {
  uint64_t *slots;
  uint64_t room, count;
};
bool seen_add(struct seen *s, uint64_t hash); /* false: it was there */

struct checker {
  struct random random;
  struct seen states;     /* distinct images that were opened and compared */
  struct seen looks;      /* ... with what was expected of them at that time */
  uint64_t recovery_cuts; /* cuts inside the opening after a cut */
  uint64_t scrubs;        /* of states after a cut */
  uint64_t kills;         /* states that a kill may leave, opened with what is left in memory */
  uint64_t atoms_max;     /* blocks that one cut had to choose from */
  /* Moments of which all states were looked at: all subsets of sectors, or, where these are too
   * many, of blocks; and the others. */
  uint64_t complete, complete_blocks, sampled;
  /* Of the run. */
  struct sim_io image;
  struct cut cut;
  struct sim_memory memory;
  uint32_t shards;
  bool whole_blocks; /* the disks tear at 4 KiB, not at 512 bytes */
};

/* Reports what is wrong, with the seed, and ends the process with status 1. */
void sim_violation(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* With SIM_LOG in the environment: a line of what is asked for and answered. */
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The line that reproduces the run: set by main. */
extern char sim_reproduce[256];

/* Everything that an opened store says against the model. found[id]: which versions it may be. A
 * violation if none, if a batch is torn, or if lists and counts differ. damage: -EBADMSG is an
 * answer, too (found: all versions). */
void sim_compare(struct sr_store *store, const struct model *m, bool damage, uint64_t found[]);

/* With no request in flight: every block that is taken has an owner. */
void sim_account(struct sr_store *store);
/* Several frames of one log are on their way. */
bool sim_log_busy(struct sr_store *store);
/* Frames, or the root, say of all that is durable that it is: damage of it is not taken for a torn
 * tail. */
bool sim_log_told(struct sr_store *store);

void checker_begin(struct checker *c, const struct sim_io *io, uint32_t shards, uint64_t seed);
void checker_end(struct checker *c);
/* The power may fail at this moment: looks at so many states by chance. */
void checker_sample(struct checker *c, const struct sim_io *io, const struct model *m,
                    uint32_t count);
/* The process may be killed at this moment: the same. The model says what is expected then. */
void checker_kills(struct checker *c, const struct sim_io *io, const struct model *m,
                   const struct sim_memory *memory, uint32_t count);
/* ... at all subsets of sectors if there are at most `limit` of them, else at all of whole blocks
 * and some by chance, torn. */
void checker_enumerate(struct checker *c, const struct sim_io *io, const struct model *m,
                       uint32_t limit);
/* One state by chance, left on c->image, unopened: for a life that goes on from it. */
void checker_choose(struct checker *c, const struct sim_io *io);

#endif
