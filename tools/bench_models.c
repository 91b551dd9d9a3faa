/* bench_models.c - see bench_models.h. */
#include "tools/bench_models.h"

/* ---- kv -------------------------------------------------------------------------------------- */

struct ycsb_mix ycsb_mix_of(enum ycsb which) {
  static const struct ycsb_mix mixes[] = {[YCSB_A] = {.read = 50, .update = 50},
                                          [YCSB_B] = {.read = 95, .update = 5},
                                          [YCSB_C] = {.read = 100},
                                          [YCSB_F] = {.read = 50, .modify = 50}};
  return mixes[which];
}
