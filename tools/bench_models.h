/* bench_models.h - what the workloads of our users ask for, as functions of a seed: nothing here
 * knows of stores. Any thread; whoever has one of these structs owns it. */
#ifndef TOOLS_BENCH_MODELS_H
#define TOOLS_BENCH_MODELS_H

#include <stdbool.h>
#include <stdint.h>

/* ---- --workload=kv: the mixes of YCSB (Cooper et al., "Benchmarking Cloud Serving Systems with
 * YCSB", SoCC 2010) that need neither scans nor inserts, in percent. Its keys are zipfian with the
 * constant 0.99, and what is popular is scattered over all of them (bench_distribution.h). */
#define YCSB_CHOICES "a|b|c|f"
enum ycsb { YCSB_A, YCSB_B, YCSB_C, YCSB_F };
struct ycsb_mix {
  uint32_t read, update, modify; /* modify: read, then update */
};
struct ycsb_mix ycsb_mix_of(enum ycsb which);

#endif
