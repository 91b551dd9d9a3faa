/* test_topology.c - which CPUs are chosen and how shards are dealt, on machines that we do not
 * have: hwloc's synthetic descriptions and an asymmetric machine in XML. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/cpu_quota.h"
#include "runtime/topology.h"
#include "tests/random.h"

static const char two_nodes[] = "node:2 core:8 pu:2"; /* CPUs 0-15 and 16-31, pairs are a core */

static struct topology_plan plan;
static char error[160];

static int choose(struct topology_request request) {
  error[0] = 0;
  return topology_choose(&request, &plan, error, sizeof error);
}

static void expect_cpus(const uint32_t *cpus, uint32_t count) {
  assert_int_equal(plan.core_count, count);
  for (uint32_t c = 0; c < count; c++) assert_int_equal(plan.cores[c].cpu, cpus[c]);
}
#define EXPECT_CPUS(...)                                                                           \
  expect_cpus((const uint32_t[]){__VA_ARGS__},                                                     \
              sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static uint32_t cores_on(int node) {
  uint32_t n = 0;
  for (uint32_t c = 0; c < plan.core_count; c++) n += plan.cores[c].numa_node == node;
  return n;
}

static void expect_even(uint32_t shards) {
  uint32_t load[TOPOLOGY_CORES_MAX] = {0};
  for (uint32_t s = 0; s < shards; s++) {
    assert_true(plan.core_of_shard[s] < plan.core_count);
    load[plan.core_of_shard[s]]++;
  }
  for (uint32_t c = 0; c < plan.core_count; c++) {
    assert_true(load[c] >= shards / plan.core_count);
    assert_true(load[c] <= shards / plan.core_count + 1);
  }
}

static uint32_t shards_at_home(const int *nodes, uint32_t shards) {
  uint32_t n = 0;
  for (uint32_t s = 0; s < shards; s++)
    n += plan.cores[plan.core_of_shard[s]].numa_node == nodes[s];
  return n;
}

/* ---- How many ---- */

static void default_is_one_per_shard(void **state) {
  (void)state;
  assert_int_equal(choose((struct topology_request){.synthetic = two_nodes, .shard_count = 4}), 0);
  EXPECT_CPUS(0, 2, 4, 6); /* no node known: together on one */
  assert_non_null(strstr(plan.why, "one per shard"));
  expect_even(4);
}

static void default_is_at_most_the_physical_cores(void **state) {
  (void)state;
  assert_int_equal(choose((struct topology_request){.synthetic = two_nodes, .shard_count = 64}), 0);
  assert_int_equal(plan.core_count, 16);
  for (uint32_t c = 0; c < 16; c++) {
    assert_int_equal(plan.cores[c].cpu, 2 * c);
    assert_non_null(strstr(plan.cores[c].why, "physical core"));
  }
  assert_non_null(strstr(plan.why, "physical cores allowed"));
  expect_even(64);
}

static void no_shards_means_all_physical_cores(void **state) {
  (void)state;
  assert_int_equal(choose((struct topology_request){.synthetic = two_nodes}), 0);
  assert_int_equal(plan.core_count, 16);
}

static void second_threads_come_last(void **state) {
  (void)state;
  assert_int_equal(
      choose((struct topology_request){.synthetic = two_nodes, .core_count = 18, .shard_count = 2}),
      0);
  assert_int_equal(plan.core_count, 18);
  for (uint32_t c = 0; c < 16; c++) assert_int_equal(plan.cores[c].cpu % 2, 0);
  for (uint32_t c = 16; c < 18; c++) {
    assert_int_equal(plan.cores[c].cpu % 2, 1);
    assert_non_null(strstr(plan.cores[c].why, "another hardware thread"));
  }
  expect_even(2);
}

static void all_cpus_can_be_asked_for(void **state) {
  (void)state;
  bool seen[32] = {false};
  assert_int_equal(choose((struct topology_request){.synthetic = two_nodes, .core_count = 32}), 0);
  assert_int_equal(plan.core_count, 32);
  for (uint32_t c = 0; c < 32; c++) {
    assert_true(plan.cores[c].cpu < 32);
    assert_false(seen[plan.cores[c].cpu]);
    seen[plan.cores[c].cpu] = true;
  }
}

static void too_many_cores_is_refused_with_the_number(void **state) {
  (void)state;
  assert_int_equal(choose((struct topology_request){.synthetic = two_nodes, .core_count = 33}),
                   -EINVAL);
  assert_non_null(strstr(error, "33"));
  assert_non_null(strstr(error, "32 CPUs"));
  assert_int_equal(
      choose((struct topology_request){.synthetic = "node:4 core:256 pu:1", .core_count = 257}),
      -EINVAL);
  assert_non_null(strstr(error, "at most 256"));
  assert_int_equal(
      choose((struct topology_request){.synthetic = "node:4 core:256 pu:1", .cores = "0-256"}),
      -EINVAL);
  assert_non_null(strstr(error, "more than 256 CPUs are listed"));
  assert_int_equal(
      choose((struct topology_request){.synthetic = "node:4 core:256 pu:1", .cores = "700-955"}),
      0);
  assert_int_equal(plan.core_count, 256);
}

static void large_machine_is_cut_to_the_maximum(void **state) {
  (void)state;
  assert_int_equal(
      choose((struct topology_request){.synthetic = "node:4 core:256 pu:1", .shard_count = 1024}),
      0);
  assert_int_equal(plan.core_count, TOPOLOGY_CORES_MAX);
  expect_even(1024);
  assert_int_equal(choose((struct topology_request){.synthetic = two_nodes, .shard_count = 1025}),
                   -EINVAL);
  assert_non_null(strstr(error, "1024"));
}

static void one_core_serves_all(void **state) {
  (void)state;
  assert_int_equal(choose((struct topology_request){.synthetic = "core:1 pu:1", .shard_count = 8}),
                   0);
  EXPECT_CPUS(0);
  for (uint32_t s = 0; s < 8; s++) assert_int_equal(plan.core_of_shard[s], 0);
  assert_int_equal(choose((struct topology_request){.synthetic = "core:1 pu:1", .core_count = 2}),
                   -EINVAL);
  assert_non_null(strstr(error, "1 CPUs"));
}

/* ---- Where ---- */

static void cores_are_near_the_devices(void **state) {
  (void)state;
  const int nodes[] = {1, 1, 1, 1};
  assert_int_equal(choose((struct topology_request){
                       .synthetic = two_nodes, .shard_count = 4, .shard_numa_nodes = nodes}),
                   0);
  EXPECT_CPUS(16, 18, 20, 22);
  assert_int_equal(plan.cores[0].numa_node, 1);
  assert_non_null(strstr(plan.cores[0].why, "near 4 shards"));
}

static void cores_follow_the_devices_in_proportion(void **state) {
  (void)state;
  const int nodes[] = {0, 1, 1, 1, 0, 1, 1, 1}; /* 2 and 6 */
  assert_int_equal(
      choose((struct topology_request){
          .synthetic = two_nodes, .core_count = 4, .shard_count = 8, .shard_numa_nodes = nodes}),
      0);
  assert_int_equal(cores_on(0), 1);
  assert_int_equal(cores_on(1), 3);
  expect_even(8);
  assert_int_equal(shards_at_home(nodes, 8), 8);
}

static void physical_cores_elsewhere_come_before_second_threads(void **state) {
  (void)state;
  int nodes[10];
  for (int s = 0; s < 10; s++) nodes[s] = 1;
  assert_int_equal(choose((struct topology_request){
                       .synthetic = two_nodes, .shard_count = 10, .shard_numa_nodes = nodes}),
                   0);
  assert_int_equal(cores_on(1), 8);
  assert_int_equal(cores_on(0), 2);
  assert_non_null(strstr(plan.cores[9].why, "no room nearer"));
  for (uint32_t c = 0; c < 10; c++) assert_int_equal(plan.cores[c].cpu % 2, 0);
  expect_even(10);
}

static void unknown_nodes_do_not_count(void **state) {
  (void)state;
  const int nodes[] = {-1, -1, -1, 1, 77};
  assert_int_equal(
      choose((struct topology_request){
          .synthetic = two_nodes, .core_count = 2, .shard_count = 5, .shard_numa_nodes = nodes}),
      0);
  EXPECT_CPUS(16, 18);
  expect_even(5);
}

static void shards_are_dealt_round_robin_at_home(void **state) {
  (void)state;
  const int nodes[] = {0, 0, 0, 0, 1, 1, 1, 1};
  assert_int_equal(
      choose((struct topology_request){
          .synthetic = two_nodes, .core_count = 4, .shard_count = 8, .shard_numa_nodes = nodes}),
      0);
  assert_int_equal(shards_at_home(nodes, 8), 8);
  assert_int_equal(plan.core_of_shard[0], plan.core_of_shard[2]);
  assert_int_equal(plan.core_of_shard[1], plan.core_of_shard[3]);
  assert_int_not_equal(plan.core_of_shard[0], plan.core_of_shard[1]);
  assert_int_equal(plan.core_of_shard[4], plan.core_of_shard[6]);
  assert_int_not_equal(plan.core_of_shard[4], plan.core_of_shard[5]);
}

static void evenness_wins_over_home(void **state) {
  (void)state;
  const int nodes[] = {0, 0, 0, 0, 0, 0, 0}; /* listed: one core here, one there */
  assert_int_equal(
      choose((struct topology_request){
          .synthetic = two_nodes, .cores = "0,16", .shard_count = 7, .shard_numa_nodes = nodes}),
      0);
  expect_even(7);
  assert_int_equal(shards_at_home(nodes, 7), 4); /* the odd one is at home */
}

/* For two nodes the best number at home can be computed: it is what the loads allow. */
static void random_deals_are_even_and_at_home(void **state) {
  (void)state;
  struct random random = {.state = 7};
  for (int round = 0; round < 300; round++) {
    int nodes[48];
    uint32_t shards = 1 + (uint32_t)random_below(&random, 48), per_node[2] = {0, 0};
    for (uint32_t s = 0; s < shards; s++) per_node[nodes[s] = (int)random_below(&random, 2)]++;
    uint32_t cores = 1 + (uint32_t)random_below(&random, 16);
    assert_int_equal(choose((struct topology_request){.synthetic = "node:2 core:8 pu:1",
                                                      .core_count = cores,
                                                      .shard_count = shards,
                                                      .shard_numa_nodes = nodes}),
                     0);
    assert_int_equal(plan.core_count, cores);
    expect_even(shards);
    uint32_t best = 0, extras = shards % cores;
    for (int n = 0; n < 2; n++) {
      uint32_t here = cores_on(n), base = here * (shards / cores);
      uint32_t fit = per_node[n] < base ? per_node[n] : base;
      uint32_t more = per_node[n] - fit;
      if (more > here) more = here;
      if (more > extras) more = extras;
      extras -= more;
      best += fit + more;
    }
    assert_int_equal(shards_at_home(nodes, shards), best);
  }
}

/* ---- Asymmetric ---- */

/* Node 0 with three cores of two threads, node 1 with one core of one. */
#define PU(n)                                                                                      \
  "<object type=\"PU\" os_index=\"" #n "\" cpuset=\"" BIT_##n "\" complete_cpuset=\"" BIT_##n      \
      "\" nodeset=\"" NODE_##n "\" complete_nodeset=\"" NODE_##n "\"/>"
#define BIT_0  "0x00000001"
#define BIT_1  "0x00000002"
#define BIT_2  "0x00000004"
#define BIT_3  "0x00000008"
#define BIT_4  "0x00000010"
#define BIT_5  "0x00000020"
#define BIT_6  "0x00000040"
#define NODE_0 "0x00000001"
#define NODE_1 NODE_0
#define NODE_2 NODE_0
#define NODE_3 NODE_0
#define NODE_4 NODE_0
#define NODE_5 NODE_0
#define NODE_6 "0x00000002"
#define OBJECT(type, index, cpus, node)                                                            \
  "<object type=\"" type "\" os_index=\"" index "\" cpuset=\"" cpus "\" complete_cpuset=\"" cpus   \
  "\" nodeset=\"" node "\" complete_nodeset=\"" node "\""
static const char asymmetric[] =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
    "<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n"
    "<topology version=\"2.0\">\n"
    "<object type=\"Machine\" os_index=\"0\" cpuset=\"0x0000007f\" complete_cpuset=\"0x0000007f\""
    " allowed_cpuset=\"0x0000007f\" nodeset=\"0x00000003\" complete_nodeset=\"0x00000003\""
    " allowed_nodeset=\"0x00000003\">" OBJECT("Package", "0", "0x0000003f", "0x00000001") ">" //
    OBJECT("NUMANode", "0", "0x0000003f", "0x00000001") " local_memory=\"1073741824\"/>"      //
    OBJECT("Core", "0", "0x00000003", "0x00000001") ">" PU(0) PU(1) "</object>"               //
    OBJECT("Core", "1", "0x0000000c", "0x00000001") ">" PU(2) PU(3) "</object>"               //
    OBJECT("Core", "2", "0x00000030", "0x00000001") ">" PU(4) PU(5) "</object>"
                                                                    "</object>"          //
    OBJECT("Package", "1", "0x00000040", "0x00000002") ">"                               //
    OBJECT("NUMANode", "1", "0x00000040", "0x00000002") " local_memory=\"1073741824\"/>" //
    OBJECT("Core", "3", "0x00000040", "0x00000002") ">" PU(6) "</object>"
                                                              "</object>"
                                                              "</object>"
                                                              "</topology>";

static void asymmetric_nodes_fill_and_overflow(void **state) {
  (void)state;
  const int nodes[] = {1, 1, 1, 0};
  assert_int_equal(choose((struct topology_request){
                       .xml = asymmetric, .shard_count = 4, .shard_numa_nodes = nodes}),
                   0);
  EXPECT_CPUS(6, 0, 2, 4); /* node 1 has only one to give */
  expect_even(4);
  assert_int_equal(shards_at_home(nodes, 4), 2);
  assert_int_equal(choose((struct topology_request){.xml = asymmetric, .core_count = 7}), 0);
  EXPECT_CPUS(0, 2, 4, 6, 1, 3, 5);
  assert_int_equal(choose((struct topology_request){.xml = asymmetric, .core_count = 8}), -EINVAL);
  assert_non_null(strstr(error, "7 CPUs"));
}

/* ---- What is allowed ---- */

static void affinity_leaves_what_it_leaves(void **state) {
  (void)state;
  /* of node 0 one whole core and a second thread, of node 1 two cores */
  struct topology_request request = {
      .synthetic = two_nodes, .allowed = "2,3,5,16-19", .shard_count = 9};
  assert_int_equal(choose(request), 0);
  EXPECT_CPUS(2, 5, 16, 18); /* 5 is the first thread that its core has left */
  request.core_count = 8;
  assert_int_equal(choose(request), -EINVAL);
  assert_non_null(strstr(error, "7 CPUs"));
  request.core_count = 0;
  request.allowed = "100-120";
  assert_int_equal(choose(request), -EINVAL);
  assert_non_null(strstr(error, "affinity"));
}

static void list_is_taken_as_it_is(void **state) {
  (void)state;
  struct topology_request request = {
      .synthetic = two_nodes, .cores = "8-10,3,31", .core_count = 2, .shard_count = 3};
  assert_int_equal(choose(request), 0);
  EXPECT_CPUS(8, 9, 10, 3, 31);
  assert_int_equal(plan.cores[4].numa_node, 1);
  assert_string_equal(plan.cores[0].why, "listed");
  assert_string_equal(plan.why, "5 listed");
  expect_even(3);
}

static void listed_cpu_must_be_allowed(void **state) {
  (void)state;
  struct topology_request request = {.synthetic = two_nodes, .cores = "0,32"};
  assert_int_equal(choose(request), -EINVAL);
  assert_non_null(strstr(error, "CPU 32"));
  request.cores = "0-4";
  request.allowed = "0-3";
  assert_int_equal(choose(request), -EINVAL);
  assert_non_null(strstr(error, "CPU 4"));
  request.cores = "1,0-3";
  assert_int_equal(choose(request), -EINVAL);
  assert_non_null(strstr(error, "CPU 1 is listed twice"));
}

static void bad_lists_are_refused(void **state) {
  (void)state;
  const char *const lists[] = {"",
                               ",",
                               "0,",
                               ",0",
                               "0,,1",
                               "-1",
                               "1-",
                               "3-1",
                               "a",
                               "0x1",
                               "0 1",
                               " 0",
                               "0-1-2",
                               "0;1",
                               "1.5",
                               "+1",
                               "0 ",
                               "9999",
                               "99999999999999999999",
                               "0-8192",
                               "\n0"};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
    assert_int_equal(choose((struct topology_request){.synthetic = two_nodes, .cores = lists[i]}),
                     -EINVAL);
    assert_true(strlen(error) > 0);
  }
}

static void bad_descriptions_are_refused(void **state) {
  (void)state;
  assert_int_equal(choose((struct topology_request){.synthetic = "not a machine"}), -EINVAL);
  assert_int_equal(choose((struct topology_request){.xml = "<topology"}), -EINVAL);
  assert_int_equal(choose((struct topology_request){.synthetic = two_nodes, .allowed = "x"}),
                   -EINVAL);
  struct topology_request request = {.synthetic = two_nodes, .core_count = 100};
  char little[8];
  memset(little, 'x', sizeof little);
  assert_int_equal(topology_choose(&request, &plan, little, sizeof little), -EINVAL);
  assert_int_equal(strlen(little), sizeof little - 1);
  assert_int_equal(topology_choose(&request, &plan, NULL, 0), -EINVAL);
}

/* ---- The quota ---- */

static char root[256];

static void put_file(const char *path, const char *text) {
  char full[512];
  snprintf(full, sizeof full, "%s%s", root, path);
  for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')); *at++ = '/') {
    *at = 0;
    assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
  }
  FILE *file = fopen(full, "w");
  assert_non_null(file);
  assert_true(fputs(text, file) >= 0);
  assert_int_equal(fclose(file), 0);
}

static int make_root(void **state) {
  (void)state;
  const char *tmp = getenv("TMPDIR");
  snprintf(root, sizeof root, "%s/shardring-quota-XXXXXX", tmp ? tmp : "/tmp");
  return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state) {
  (void)state;
  char command[300];
  snprintf(command, sizeof command, "rm -rf '%s'", root);
  return system(command);
}

static void quota_v2_limits_the_default(void **state) {
  (void)state;
  put_file("/proc/self/cgroup", "0::/box/inner\n");
  put_file("/sys/fs/cgroup/box/cpu.max", "250000 100000\n");
  put_file("/sys/fs/cgroup/box/inner/cpu.max", "max 100000\n");
  assert_int_equal(cpu_quota_read(root), 3);
  struct topology_request request = {.synthetic = two_nodes, .shard_count = 8, .sysroot = root};
  assert_int_equal(choose(request), 0);
  EXPECT_CPUS(0, 2, 4);
  assert_non_null(strstr(plan.why, "quota 3"));
  request.core_count = 5; /* asked for by number */
  assert_int_equal(choose(request), 0);
  assert_int_equal(plan.core_count, 5);
  request.core_count = 0;
  request.cores = "1-6"; /* and by name */
  assert_int_equal(choose(request), 0);
  assert_int_equal(plan.core_count, 6);
  request.cores = NULL;
  request.sysroot = NULL;
  assert_int_equal(choose(request), 0);
  assert_int_equal(plan.core_count, 8);
}

static void quota_takes_the_smallest_of_all_levels(void **state) {
  (void)state;
  put_file("/proc/self/cgroup", "0::/a/b\n");
  put_file("/sys/fs/cgroup/a/b/cpu.max", "400000 100000\n");
  put_file("/sys/fs/cgroup/a/cpu.max", "100001 50000\n"); /* 2.00002 */
  assert_int_equal(cpu_quota_read(root), 3);
  put_file("/sys/fs/cgroup/a/cpu.max", "1 50000\n");
  assert_int_equal(cpu_quota_read(root), 1);
}

static void quota_of_a_container_is_at_its_root(void **state) {
  (void)state;
  put_file("/proc/self/cgroup", "0::/docker/0123/not/visible\n");
  put_file("/sys/fs/cgroup/cpu.max", "200000 100000\n");
  assert_int_equal(cpu_quota_read(root), 2);
}

static void quota_v1(void **state) {
  (void)state;
  put_file("/proc/self/cgroup", "5:cpuset:/x\n4:cpu,cpuacct:/x\n0::/\n");
  put_file("/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "150000\n");
  put_file("/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
  put_file("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  put_file("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  assert_int_equal(cpu_quota_read(root), 2);
  put_file("/proc/self/cgroup", "5:cpuset:/x\n4:cpuacct:/x\n"); /* not the cpu controller's */
  assert_int_equal(cpu_quota_read(root), 0);
}

static void quota_that_cannot_be_read_is_none(void **state) {
  (void)state;
  assert_int_equal(cpu_quota_read(root), 0);
  const char *const bad[] = {"", "max 100000\n", "max\n", "100000\n", "x y\n", "-5 100\n", "5 0\n"};
  put_file("/proc/self/cgroup", "garbage\n\n:\n0::/\n");
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    put_file("/sys/fs/cgroup/cpu.max", bad[i]);
    assert_int_equal(cpu_quota_read(root), 0);
  }
  put_file("/sys/fs/cgroup/cpu.max", "7 7\n");
  assert_int_equal(cpu_quota_read(root), 1);
}

/* ---- This machine ---- */

static void this_machine_gives_what_affinity_allows(void **state) {
  (void)state;
  cpu_set_t before;
  if (sched_getaffinity(0, sizeof before, &before)) skip(); /* over 1024 CPUs */
  assert_int_equal(choose((struct topology_request){.shard_count = 1024}), 0);
  for (uint32_t c = 0; c < plan.core_count; c++) assert_true(CPU_ISSET(plan.cores[c].cpu, &before));
  uint32_t cpu = plan.cores[plan.core_count - 1].cpu;
  assert_int_equal(topology_pin_self(cpu), 0);
  assert_int_equal(sched_getcpu(), cpu);
  assert_int_equal(choose((struct topology_request){.shard_count = 3}), 0);
  assert_int_equal(plan.core_count, 1);
  assert_int_equal(plan.cores[0].cpu, cpu);
  expect_even(3);
  assert_int_equal(choose((struct topology_request){.core_count = 2}), -EINVAL);
  assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
  assert_int_equal(topology_pin_self(8191), -EINVAL);
  assert_int_equal(topology_pin_self(UINT32_MAX), -EINVAL);
}

#define QUOTA_TEST(name) cmocka_unit_test_setup_teardown(name, make_root, remove_root)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(default_is_one_per_shard),
      cmocka_unit_test(default_is_at_most_the_physical_cores),
      cmocka_unit_test(no_shards_means_all_physical_cores),
      cmocka_unit_test(second_threads_come_last),
      cmocka_unit_test(all_cpus_can_be_asked_for),
      cmocka_unit_test(too_many_cores_is_refused_with_the_number),
      cmocka_unit_test(large_machine_is_cut_to_the_maximum),
      cmocka_unit_test(one_core_serves_all),
      cmocka_unit_test(cores_are_near_the_devices),
      cmocka_unit_test(cores_follow_the_devices_in_proportion),
      cmocka_unit_test(physical_cores_elsewhere_come_before_second_threads),
      cmocka_unit_test(unknown_nodes_do_not_count),
      cmocka_unit_test(shards_are_dealt_round_robin_at_home),
      cmocka_unit_test(evenness_wins_over_home),
      cmocka_unit_test(random_deals_are_even_and_at_home),
      cmocka_unit_test(asymmetric_nodes_fill_and_overflow),
      cmocka_unit_test(affinity_leaves_what_it_leaves),
      cmocka_unit_test(list_is_taken_as_it_is),
      cmocka_unit_test(listed_cpu_must_be_allowed),
      cmocka_unit_test(bad_lists_are_refused),
      cmocka_unit_test(bad_descriptions_are_refused),
      QUOTA_TEST(quota_v2_limits_the_default),
      QUOTA_TEST(quota_takes_the_smallest_of_all_levels),
      QUOTA_TEST(quota_of_a_container_is_at_its_root),
      QUOTA_TEST(quota_v1),
      QUOTA_TEST(quota_that_cannot_be_read_is_none),
      cmocka_unit_test(this_machine_gives_what_affinity_allows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
