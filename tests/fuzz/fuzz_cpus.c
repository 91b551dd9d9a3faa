/* fuzz_cpus.c - topology_choose(): lists of CPUs, and counts, on a few machines. A plan has each
 * CPU at most once, only those that are there and allowed, a list in its own order, and deals its
 * shards evenly.
 *
 * Input: the machine (1 byte), how many cores (2) and shards (2), a node for each of the first 8
 * shards (1), then two texts that end with a zero: cores and allowed; empty: there is none. */
#include <errno.h>
#include <stdlib.h>

#include "runtime/topology.h"
#include "tests/fuzz/fuzz.h"

#define CPUS 8192u

static const struct {
  const char *synthetic;
  uint32_t cpus;
} machines[] = {{"node:2 core:4 pu:2", 16}, {"core:1 pu:1", 1}, {"node:1 core:3 pu:1", 3}};

static char *feed_text(struct feed *f) {
  const uint8_t *end = f->left ? memchr(f->at, 0, f->left) : NULL;
  size_t n = end ? (size_t)(end - f->at) : f->left;
  char *text = fuzz_string(f->at, n);
  f->at += n + (end != NULL);
  f->left -= n + (end != NULL);
  return text;
}

/* A second reader of lists: the CPUs in their order, or -1. */
static int read_list(const char *text, uint16_t *cpus, int max) {
  int count = 0;
  if (!*text) return 0;
  for (;;) {
    uint32_t range[2] = {0, 0};
    int i = 0;
    for (;; text++) {
      size_t digits = strspn(text, "0123456789");
      if (digits == 0) return -1;
      for (range[i] = 0; digits > 0; digits--, text++) {
        range[i] = range[i] * 10 + (uint32_t)(*text - '0');
        if (range[i] >= CPUS) return -1;
      }
      if (i == 1 || *text != '-') break;
      i = 1;
    }
    if (i == 0) range[1] = range[0];
    if (range[1] < range[0]) return -1;
    for (uint32_t c = range[0]; c <= range[1]; c++)
      if (count < max) cpus[count++] = (uint16_t)c;
    if (!*text) return count;
    if (*text++ != ',') return -1;
  }
}

static bool has(const uint16_t *cpus, int count, uint32_t cpu) {
  for (int i = 0; i < count; i++)
    if (cpus[i] == cpu) return true;
  return false;
}

static void check_shards(const struct topology_plan *plan, uint32_t shards) {
  uint32_t load[TOPOLOGY_CORES_MAX] = {0};
  for (uint32_t s = 0; s < shards; s++) {
    check(plan->core_of_shard[s] < plan->core_count);
    load[plan->core_of_shard[s]]++;
  }
  for (uint32_t c = 0; c < plan->core_count; c++)
    check(load[c] == shards / plan->core_count || load[c] == shards / plan->core_count + 1);
}

/* A list is for the parser of this file what it is for topology.c. */
static void check_plan(const struct topology_request *q, const struct topology_plan *plan,
                       uint32_t machine_cpus) {
  static uint16_t listed[CPUS], allowed[CPUS];
  int a = q->allowed ? read_list(q->allowed, allowed, CPUS) : 0;
  check(a >= 0);
  check(plan->core_count >= 1 && plan->core_count <= TOPOLOGY_CORES_MAX);
  check(plan->why[0] && memchr(plan->why, 0, sizeof plan->why));
  for (uint32_t c = 0; c < plan->core_count; c++) {
    check(plan->cores[c].cpu < machine_cpus);
    check(!q->allowed || has(allowed, a, plan->cores[c].cpu));
    for (uint32_t k = 0; k < c; k++) check(plan->cores[k].cpu != plan->cores[c].cpu);
    check(memchr(plan->cores[c].why, 0, sizeof plan->cores[c].why));
  }
  if (q->cores) {
    int n = read_list(q->cores, listed, CPUS);
    check(n == (int)plan->core_count);
    for (int i = 0; i < n; i++) check(plan->cores[i].cpu == listed[i]);
  } else if (q->core_count) {
    check(plan->core_count == q->core_count);
  }
  check_shards(plan, q->shard_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed f = {data, size};
  uint32_t machine = feed_u8(&f) % array_size(machines);
  struct topology_request q = {.synthetic = machines[machine].synthetic,
                               .core_count = feed_u16(&f),
                               .shard_count = feed_u16(&f)};
  static int nodes[65536];
  for (uint32_t i = 0; i < array_size(nodes); i++) nodes[i] = -1;
  for (uint32_t i = 0; i < 8; i++) nodes[i] = (int8_t)feed_u8(&f);
  q.shard_numa_nodes = nodes;
  char *cores = feed_text(&f), *allowed = feed_text(&f);
  if (*cores) q.cores = cores;
  if (*allowed) q.allowed = allowed;
  struct topology_plan *plan = fuzz_alloc(sizeof *plan);
  char error[40] = "";
  static uint16_t list[CPUS];
  int r = topology_choose(&q, plan, error, sizeof error);
  check(r == 0 || r == -EINVAL);
  check((r == 0) == (error[0] == 0));
  if (r == 0) check_plan(&q, plan, machines[machine].cpus);
  if (q.cores && read_list(cores, list, CPUS) < 0) check(r == -EINVAL);
  if (q.allowed && read_list(allowed, list, CPUS) < 0) check(r == -EINVAL);
  free(plan);
  free(allowed);
  free(cores);
  return 0;
}
