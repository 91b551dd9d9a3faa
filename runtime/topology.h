/* topology.h - which CPUs the cores of a store run on, and which shards each core hosts.
 *
 * A pure function from the machine and a request to a plan; nothing is kept. Any thread; not on
 * the request path (reading the machine takes milliseconds).
 *
 * What may be used: the CPUs that are in the calling thread's affinity mask and in the
 * cgroup's cpuset. What is chosen:
 *   - With a list, exactly its CPUs, in its order.
 *   - With a count, that many. Without, one per shard, but at most one per physical core, and
 *     at most the cgroup's CPU quota rounded up (v2 cpu.max, v1 cpu.cfs_quota_us, of this
 *     group and those above it).
 *   - One hardware thread of each physical core first; second threads only when more cores are
 *     asked for than there are physical ones.
 *   - Among equals, CPUs on the NUMA nodes of the shards' devices, in proportion to the shards
 *     there. Where no node is known, or those nodes are full, cores stay together on as few
 *     nodes as will do.
 * Shards are dealt so that any two cores differ by at most one shard, and within that as many
 * shards as possible are on the node of their device, round-robin in the order of their
 * numbers. Cores without a shard are fine. */
#ifndef RUNTIME_TOPOLOGY_H
#define RUNTIME_TOPOLOGY_H

#include <stddef.h>
#include <stdint.h>

#define TOPOLOGY_CORES_MAX  256u
#define TOPOLOGY_SHARDS_MAX 1024u

struct topology_request {
  const char *cores;           /* CPUs, "0-3,8": decimal numbers and ascending ranges; NULL: no
                                  list. Wins over core_count. */
  uint32_t core_count;         /* 0: the default above */
  uint32_t shard_count;        /* up to TOPOLOGY_SHARDS_MAX. 0: none to deal; the default count is
                                  then all physical cores within the quota */
  const int *shard_numa_nodes; /* [shard_count]: the OS's number of the node of each shard's
                                  device, or -1 for unknown. NULL: all unknown */

  /* For tests; all NULL: this machine. */
  const char *synthetic; /* an hwloc synthetic description, "node:2 core:8 pu:2" */
  const char *xml;       /* an hwloc XML document; wins over synthetic */
  const char *allowed;   /* a list that stands for the affinity mask */
  const char *sysroot;   /* a directory that stands for / when the CPU quota is read. NULL with
                            synthetic or xml: there is no quota */
};

struct topology_core {
  uint32_t cpu;  /* the OS's number */
  int numa_node; /* the OS's number, or -1 */
  char why[64];  /* why this CPU, for people */
};

struct topology_plan {
  uint32_t core_count; /* 1 to TOPOLOGY_CORES_MAX */
  struct topology_core cores[TOPOLOGY_CORES_MAX];
  uint32_t core_of_shard[TOPOLOGY_SHARDS_MAX]; /* index into cores */
  char why[128];                               /* why so many, for people */
};

/* Fills *plan (about 25 KiB: mind the stack). Otherwise error (error_size bytes, cut to fit,
 * always ended; may be NULL with 0) says in words what is wrong:
 *   -EINVAL  the list cannot be read, is empty, names a CPU twice, or one that does not exist
 *            or may not be used (named); more cores than CPUs (the number is told) or than
 *            TOPOLOGY_CORES_MAX; too many shards; a test description that cannot be read
 *   -ENOMEM, -EIO  hwloc could not read the machine */
int topology_choose(const struct topology_request *request, struct topology_plan *plan, char *error,
                    size_t error_size);

/* Pins the calling thread to one CPU. -EINVAL: no such CPU, or not in the cpuset. */
int topology_pin_self(uint32_t cpu);

#endif
