/* sim_memory.h - memory that outlives a simulated process: a survivors_place (runtime/survivors.h)
 * without files. One thread. */
#ifndef TESTS_SIM_MEMORY_H
#define TESTS_SIM_MEMORY_H

#include "runtime/survivors.h"

struct sim_memory {
  struct survivors_place place;
  uint32_t shards;
  char *now, *next; /* what the next open finds, and what this one makes */
  bool there;       /* now */
  bool made, settled;
};
void sim_memory_create(struct sim_memory *m, uint32_t shards);
void sim_memory_destroy(struct sim_memory *m);
/* A process that has opened and is killed now leaves something that is used. */
bool sim_memory_counts(const struct sim_memory *m);
/* The memory as it is now becomes that of another world: a process is killed. */
void sim_memory_copy(struct sim_memory *to, const struct sim_memory *from);

#endif
