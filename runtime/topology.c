/* topology.c - chooses CPUs and deals shards. The one door to hwloc.
 *
 * Any thread, no state: a struct machine is read, a plan is made from it, it is dropped.
 *
 *   read_machine()   hwloc's tree, cut down to a flat table of the CPUs that may be used
 *   take_list()      cores= : exactly these
 *   take_best()      a count: lowest rank first, near the shards' devices
 *   deal_shards()    evenly, at home where possible */
#include "runtime/topology.h"

#include <ctype.h>
#include <errno.h>
#include <hwloc.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cpu_quota.h"
#include "shards/base/base.h"

#define CPUS_MAX  8192 /* the kernel's own limit */
#define NODES_MAX 1024 /* likewise */

/* One hardware thread that may be used. */
struct cpu {
  uint32_t number;
  int node;      /* -1: hwloc knows none */
  uint32_t rank; /* 0: the first usable thread of its physical core, 1: the second, ... */
  bool taken;
};

/* A NUMA node's share in the choice. */
struct node {
  int number;
  uint32_t shards; /* whose device is here */
  uint32_t chosen; /* cores */
};

struct machine {
  struct cpu *cpus; /* in hwloc's order: neighbours share caches */
  uint32_t cpu_count;
  uint32_t core_count; /* physical */
  struct node *nodes;
  uint32_t node_count;
  uint32_t quota; /* CPUs, 0: none */
};

struct complaint {
  char *text;
  size_t size;
};

__attribute__((format(printf, 3, 4))) static int complain(const struct complaint *to, int error,
                                                          const char *format, ...) {
  va_list args;
  va_start(args, format);
  if (to->text && to->size) vsnprintf(to->text, to->size, format, args);
  va_end(args);
  return error;
}

/* ---- Lists ----------------------------------------------------------------------------- */

/* Decimal digits, nothing else. */
static bool parse_number(const char **at, uint32_t *value) {
  if (!isdigit((unsigned char)**at)) return false;
  uint64_t v = 0;
  for (; isdigit((unsigned char)**at); (*at)++)
    if ((v = v * 10 + (uint64_t)(**at - '0')) >= CPUS_MAX) return false;
  *value = (uint32_t)v;
  return true;
}

/* The next range of a list; *at moves behind it and its comma. 1: got one, 0: end, or -EINVAL.
 * A comma must be followed by another range. */
static int parse_range(const char **at, uint32_t *first, uint32_t *last) {
  if (!**at) return 0;
  if (!parse_number(at, first)) return -EINVAL;
  *last = *first;
  if (**at == '-') {
    (*at)++;
    if (!parse_number(at, last) || *last < *first) return -EINVAL;
  }
  if (!**at) return 1;
  if (**at != ',' || !(*at)[1]) return -EINVAL;
  (*at)++;
  return 1;
}

/* ---- The machine ------------------------------------------------------------------------ */

static int affinity(hwloc_bitmap_t set) {
  cpu_set_t *mask = CPU_ALLOC(CPUS_MAX);
  if (!mask) return -ENOMEM;
  int r = 0;
  if (sched_getaffinity(0, CPU_ALLOC_SIZE(CPUS_MAX), mask)) r = -errno;
  for (unsigned i = 0; !r && i < CPUS_MAX; i++)
    if (CPU_ISSET_S(i, CPU_ALLOC_SIZE(CPUS_MAX), mask) && hwloc_bitmap_set(set, i)) r = -ENOMEM;
  CPU_FREE(mask);
  return r;
}

/* What the affinity mask, or its stand-in, lets us use. */
static int allowed_set(const struct topology_request *request, hwloc_bitmap_t set,
                       const struct complaint *to) {
  bool here = !request->synthetic && !request->xml;
  if (!request->allowed) {
    if (!here) {
      hwloc_bitmap_fill(set);
      return 0;
    }
    int r = affinity(set);
    return r ? complain(to, r, "the affinity mask cannot be read: %s", strerror(-r)) : 0;
  }
  const char *at = request->allowed;
  uint32_t first, last;
  int r;
  while ((r = parse_range(&at, &first, &last)) > 0)
    if (hwloc_bitmap_set_range(set, first, (int)last)) return -ENOMEM;
  return r ? complain(to, r, "allowed=%s is no list of CPUs", request->allowed) : 0;
}

/* hwloc, by default, leaves out what the cgroup's cpuset does not allow. */
static int load_tree(const struct topology_request *request, hwloc_topology_t *tree,
                     const struct complaint *to) {
  if (hwloc_topology_init(tree)) return complain(to, -ENOMEM, "hwloc: out of memory");
  int r = 0;
  if (request->xml &&
      hwloc_topology_set_xmlbuffer(*tree, request->xml, (int)strlen(request->xml) + 1))
    r = complain(to, -EINVAL, "hwloc cannot read the XML topology");
  else if (request->synthetic && !request->xml &&
           hwloc_topology_set_synthetic(*tree, request->synthetic))
    r = complain(to, -EINVAL, "hwloc cannot read the topology \"%s\"", request->synthetic);
  else if (hwloc_topology_load(*tree))
    r = complain(to, request->xml || request->synthetic ? -EINVAL : -EIO,
                 "hwloc cannot load the topology: %s", strerror(errno));
  if (r) hwloc_topology_destroy(*tree);
  return r;
}

static struct node *node_of(struct machine *machine, int number) {
  for (uint32_t n = 0; n < machine->node_count; n++)
    if (machine->nodes[n].number == number) return &machine->nodes[n];
  return NULL;
}

static void add_cpu(struct machine *machine, hwloc_topology_t tree, hwloc_obj_t pu,
                    hwloc_obj_t *core_before) {
  hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(tree, HWLOC_OBJ_CORE, pu);
  bool same_core = core && core == *core_before; /* PUs come core by core */
  struct cpu *before = machine->cpu_count ? &machine->cpus[machine->cpu_count - 1] : NULL;
  struct cpu *cpu = &machine->cpus[machine->cpu_count++];
  cpu->number = pu->os_index;
  cpu->node = pu->nodeset ? hwloc_bitmap_first(pu->nodeset) : -1;
  cpu->rank = same_core ? before->rank + 1 : 0;
  machine->core_count += cpu->rank == 0;
  *core_before = core;
  if (!node_of(machine, cpu->node) && machine->node_count < NODES_MAX)
    machine->nodes[machine->node_count++] = (struct node){.number = cpu->node};
}

static int flatten(struct machine *machine, hwloc_topology_t tree, hwloc_const_bitmap_t allowed,
                   const struct complaint *to) {
  int count = hwloc_get_nbobjs_by_type(tree, HWLOC_OBJ_PU);
  if (count <= 0) return complain(to, -EIO, "hwloc sees no CPU");
  machine->cpus = calloc((size_t)count, sizeof *machine->cpus);
  machine->nodes = calloc(NODES_MAX, sizeof *machine->nodes);
  if (!machine->cpus || !machine->nodes) return complain(to, -ENOMEM, "out of memory");
  hwloc_obj_t pu = NULL, core_before = NULL;
  while ((pu = hwloc_get_next_obj_by_type(tree, HWLOC_OBJ_PU, pu)))
    if (hwloc_bitmap_isset(allowed, pu->os_index)) add_cpu(machine, tree, pu, &core_before);
  if (machine->cpu_count == 0)
    return complain(to, -EINVAL, "the affinity mask allows no CPU of this machine");
  return 0;
}

static void count_shards(struct machine *machine, const struct topology_request *request) {
  if (!request->shard_numa_nodes) return;
  for (uint32_t s = 0; s < request->shard_count; s++) {
    int number = request->shard_numa_nodes[s];
    struct node *node = number >= 0 ? node_of(machine, number) : NULL;
    if (node) node->shards++;
  }
}

static int read_machine(struct machine *machine, const struct topology_request *request,
                        const struct complaint *to) {
  hwloc_topology_t tree;
  hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
  if (!allowed) return complain(to, -ENOMEM, "out of memory");
  int r = allowed_set(request, allowed, to);
  if (!r && !(r = load_tree(request, &tree, to))) {
    r = flatten(machine, tree, allowed, to);
    hwloc_topology_destroy(tree);
  }
  hwloc_bitmap_free(allowed);
  if (r) return r;
  count_shards(machine, request);
  bool here = !request->synthetic && !request->xml;
  if (here || request->sysroot)
    machine->quota = cpu_quota_read(request->sysroot ? request->sysroot : "");
  return 0;
}

static void drop_machine(struct machine *machine) {
  free(machine->cpus);
  free(machine->nodes);
}

/* ---- Cores ------------------------------------------------------------------------------ */

__attribute__((format(printf, 4, 5))) static void add_core(struct topology_plan *plan,
                                                           struct machine *machine, struct cpu *cpu,
                                                           const char *why, ...) {
  check(!cpu->taken);
  check(plan->core_count < TOPOLOGY_CORES_MAX);
  struct topology_core *core = &plan->cores[plan->core_count++];
  struct node *node = node_of(machine, cpu->node);
  cpu->taken = true;
  if (node) node->chosen++;
  core->cpu = cpu->number;
  core->numa_node = cpu->node;
  va_list args;
  va_start(args, why);
  vsnprintf(core->why, sizeof core->why, why, args);
  va_end(args);
}

static int take_listed(struct topology_plan *plan, struct machine *machine, uint32_t number,
                       const struct complaint *to) {
  for (uint32_t i = 0; i < machine->cpu_count; i++) {
    struct cpu *cpu = &machine->cpus[i];
    if (cpu->number != number) continue;
    if (cpu->taken) return complain(to, -EINVAL, "CPU %u is listed twice", number);
    if (plan->core_count == TOPOLOGY_CORES_MAX)
      return complain(to, -EINVAL, "more than %u CPUs are listed", TOPOLOGY_CORES_MAX);
    add_core(plan, machine, cpu, "listed");
    return 0;
  }
  return complain(to, -EINVAL, "CPU %u does not exist or may not be used by this process", number);
}

static int take_list(struct topology_plan *plan, struct machine *machine, const char *list,
                     const struct complaint *to) {
  const char *at = list;
  uint32_t first, last;
  int r;
  while ((r = parse_range(&at, &first, &last)) > 0)
    for (uint32_t number = first; number <= last; number++)
      if ((r = take_listed(plan, machine, number, to)) < 0) return r;
  if (r) return complain(to, r, "\"%s\" is no list of CPUs such as 0-3,8", list);
  if (plan->core_count == 0) return complain(to, -EINVAL, "the list of CPUs is empty");
  snprintf(plan->why, sizeof plan->why, "%u listed", plan->core_count);
  return 0;
}

/* Whether a should give the next core rather than b; both have a free CPU of the rank. */
static bool node_before(const struct node *a, uint32_t free_a, const struct node *b,
                        uint32_t free_b) {
  /* The highest average: shards over cores, were it to get one more. */
  uint64_t share_a = (uint64_t)a->shards * (b->chosen + 1);
  uint64_t share_b = (uint64_t)b->shards * (a->chosen + 1);
  if (share_a != share_b) return share_a > share_b;
  if (a->shards) return false; /* the lower one: it came first */
  /* No shard at either: stay where there are cores already, else where there is most room. */
  if (!a->chosen != !b->chosen) return a->chosen;
  return free_a > free_b;
}

static uint32_t free_cpus(const struct machine *machine, int node, uint32_t rank) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < machine->cpu_count; i++) {
    const struct cpu *cpu = &machine->cpus[i];
    n += !cpu->taken && cpu->rank == rank && cpu->node == node;
  }
  return n;
}

static struct node *best_node(const struct machine *machine, uint32_t rank) {
  struct node *best = NULL;
  uint32_t best_free = 0;
  for (uint32_t n = 0; n < machine->node_count; n++) {
    struct node *node = &machine->nodes[n];
    uint32_t room = free_cpus(machine, node->number, rank);
    if (room == 0) continue;
    if (best && !node_before(node, room, best, best_free)) continue;
    best = node;
    best_free = room;
  }
  return best;
}

static void take_from(struct topology_plan *plan, struct machine *machine, struct node *node,
                      uint32_t rank, bool nodes_known) {
  struct cpu *cpu = machine->cpus;
  while (cpu->taken || cpu->rank != rank || cpu->node != node->number) cpu++;
  const char *kind = rank ? "another hardware thread" : "physical core";
  if (node->shards)
    add_core(plan, machine, cpu, "%s, near %u shards' devices", kind, node->shards);
  else if (nodes_known)
    add_core(plan, machine, cpu, "%s, no room nearer the devices", kind);
  else
    add_core(plan, machine, cpu, "%s, devices' node unknown", kind);
}

static void take_best(struct topology_plan *plan, struct machine *machine, uint32_t count) {
  bool nodes_known = false;
  for (uint32_t n = 0; n < machine->node_count; n++) nodes_known |= machine->nodes[n].shards > 0;
  for (uint32_t rank = 0; plan->core_count < count;) {
    struct node *node = best_node(machine, rank);
    if (node)
      take_from(plan, machine, node, rank, nodes_known);
    else
      rank++; /* ends: the caller has seen that there are enough CPUs */
  }
}

static uint32_t default_count(const struct machine *machine, uint32_t shards, char *why,
                              size_t why_size) {
  uint32_t count = machine->core_count;
  const char *limit = "physical cores allowed";
  if (machine->quota && machine->quota < count) {
    count = machine->quota;
    limit = "the CPU quota";
  }
  if (TOPOLOGY_CORES_MAX < count) {
    count = TOPOLOGY_CORES_MAX;
    limit = "the most there can be";
  }
  if (shards && shards <= count) {
    count = shards;
    limit = "one per shard";
  }
  int n = snprintf(why, why_size, "%u: %s (%u physical cores, %u CPUs allowed", count, limit,
                   machine->core_count, machine->cpu_count);
  if (machine->quota && n > 0 && (size_t)n < why_size)
    n += snprintf(why + n, why_size - (size_t)n, ", quota %u", machine->quota);
  if (n > 0 && (size_t)n < why_size) snprintf(why + n, why_size - (size_t)n, ")");
  return count;
}

static int take_count(struct topology_plan *plan, struct machine *machine,
                      const struct topology_request *request, const struct complaint *to) {
  uint32_t count = request->core_count;
  if (count > TOPOLOGY_CORES_MAX)
    return complain(to, -EINVAL, "%u cores asked for, at most %u are possible", count,
                    TOPOLOGY_CORES_MAX);
  if (count > machine->cpu_count)
    return complain(to, -EINVAL, "%u cores asked for, but this process may use %u CPUs", count,
                    machine->cpu_count);
  if (count)
    snprintf(plan->why, sizeof plan->why, "%u asked for (%u physical cores, %u CPUs allowed)",
             count, machine->core_count, machine->cpu_count);
  else
    count = default_count(machine, request->shard_count, plan->why, sizeof plan->why);
  take_best(plan, machine, count);
  return 0;
}

/* ---- Shards ----------------------------------------------------------------------------- */

#define UNDEALT UINT32_MAX

struct deal {
  uint32_t load[TOPOLOGY_CORES_MAX];
  uint32_t extras; /* how many cores may still take one more than the others */
};

/* The least loaded core below `limit`, the first of equals; node -1: of any node. */
static uint32_t core_for(const struct topology_plan *plan, const struct deal *deal, int node,
                         uint32_t limit) {
  uint32_t best = UNDEALT;
  for (uint32_t c = 0; c < plan->core_count; c++) {
    if (node >= 0 && plan->cores[c].numa_node != node) continue;
    if (deal->load[c] >= limit) continue;
    if (best == UNDEALT || deal->load[c] < deal->load[best]) best = c;
  }
  return best;
}

/* Deals the shards that are left, up to the even share, or one beyond it while extras last. */
static void deal_round(struct topology_plan *plan, const struct topology_request *request,
                       struct deal *deal, bool at_home, bool beyond) {
  uint32_t share = request->shard_count / plan->core_count;
  for (uint32_t s = 0; s < request->shard_count; s++) {
    if (plan->core_of_shard[s] != UNDEALT) continue;
    if (beyond && deal->extras == 0) return;
    int node = request->shard_numa_nodes ? request->shard_numa_nodes[s] : -1;
    if (at_home && node < 0) continue;
    uint32_t core = core_for(plan, deal, at_home ? node : -1, share + beyond);
    if (core == UNDEALT) continue;
    if (deal->load[core] == share) deal->extras--;
    deal->load[core]++;
    plan->core_of_shard[s] = core;
  }
}

/* Each round leaves for the next what did not fit; the even shares and the extras together are
 * as many as there are shards, so the last leaves none. Home comes first in both, so that no
 * place at home is lost to a stranger. */
static void deal_shards(struct topology_plan *plan, const struct topology_request *request) {
  struct deal deal = {.extras = request->shard_count % plan->core_count};
  for (uint32_t s = 0; s < request->shard_count; s++) plan->core_of_shard[s] = UNDEALT;
  deal_round(plan, request, &deal, true, false);
  deal_round(plan, request, &deal, true, true);
  deal_round(plan, request, &deal, false, false);
  deal_round(plan, request, &deal, false, true);
  for (uint32_t s = 0; s < request->shard_count; s++) check(plan->core_of_shard[s] != UNDEALT);
}

/* ---- The interface ---------------------------------------------------------------------- */

int topology_choose(const struct topology_request *request, struct topology_plan *plan, char *error,
                    size_t error_size) {
  const struct complaint to = {error, error_size};
  struct machine machine = {0};
  memset(plan, 0, sizeof *plan);
  if (request->shard_count > TOPOLOGY_SHARDS_MAX)
    return complain(&to, -EINVAL, "%u shards, at most %u are possible", request->shard_count,
                    TOPOLOGY_SHARDS_MAX);
  int r = read_machine(&machine, request, &to);
  if (!r)
    r = request->cores ? take_list(plan, &machine, request->cores, &to)
                       : take_count(plan, &machine, request, &to);
  if (!r) deal_shards(plan, request);
  drop_machine(&machine);
  return r;
}

int topology_pin_self(uint32_t cpu) {
  if (cpu >= CPUS_MAX) return -EINVAL;
  cpu_set_t *mask = CPU_ALLOC(CPUS_MAX);
  if (!mask) return -ENOMEM;
  const size_t bytes = CPU_ALLOC_SIZE(CPUS_MAX);
  CPU_ZERO_S(bytes, mask);
  CPU_SET_S(cpu, bytes, mask);
  int r = sched_setaffinity(0, bytes, mask) ? -errno : 0;
  CPU_FREE(mask);
  return r;
}
