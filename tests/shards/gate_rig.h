/* gate_rig.h - volumes with closed loops of ops, gates and a device, in virtual time. */
#ifndef TESTS_GATE_RIG_H
#define TESTS_GATE_RIG_H

#include "shards/gate.h"
#include "tests/random.h"

enum { RIG_VOLUMES = 8, RIG_DEPTH = 512, RIG_GATES = 4, RIG_SERVERS = 64 };
#define MS     UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

/* Servers take ops in the order of arrival; each serves one at a time. Any of them can take any op,
 * or (dies) chance says which one must. */
struct rig_device {
  uint32_t servers;
  bool dies;
  uint64_t op_ns, kib_ns; /* of one server */
  enum { RIG_FIXED, RIG_VARIED, RIG_EXPONENTIAL } variance;
  uint64_t free_ns[RIG_SERVERS];
};

struct rig_op {
  struct shard_op op;
  struct rig_volume *volume;
  uint64_t submitted_ns, started_ns, event_ns;
  bool measured, comes; /* comes: the event is its submission, else its completion */
};

struct rig_volume {
  struct gate_queue queue;
  struct gate *gate;
  uint32_t depth, bytes;
  uint64_t think_ns; /* between a completion and the next submission: mean */
  uint64_t begin_ns, end_ns;
  /* Measured, between measure_ns and end. */
  uint64_t ops, done_bytes;
  uint64_t *latencies; /* of the first ones */
  uint32_t latency_count;
  uint64_t longest_ns;
  struct rig_op all[RIG_DEPTH];
};

struct rig {
  struct gate gates[RIG_GATES];
  struct rig_device device;
  struct rig_volume volumes[RIG_VOLUMES];
  uint32_t gate_count, volume_count;
  struct random random;
  uint64_t now_ns, measure_ns;
  uint64_t late_ns; /* timers are late by up to so much */
  uint64_t wake_ns[RIG_GATES], wake_for_ns[RIG_GATES];
  uint32_t event_count;
  struct rig_op *events[RIG_VOLUMES * RIG_DEPTH]; /* heap by event_ns */
};

struct rig *rig_create(uint32_t gates, struct rig_device device);
void rig_destroy(struct rig *r);
/* Submits `depth` ops at begin, and one for each that completes, until end. */
struct rig_volume *rig_volume(struct rig *r, uint32_t gate, uint32_t depth, uint32_t bytes,
                              struct limit *limit);
/* Runs until then; counts from measure on. */
void rig_run(struct rig *r, uint64_t measure_ns, uint64_t until_ns);
uint64_t rig_percentile(struct rig_volume *v, double part);

#endif
