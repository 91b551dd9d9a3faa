/* kill_loop.c - kills a verifying writer with SIGKILL again and again, reopens the store and holds
 * it against the ledger. Every tenth kill hits an open, with its recovery, instead of a writer.
 *
 *   kill_loop [--kills=N] [--seed=N] [--ctl=shard-ctl] [--self-test] [--verbose]
 *
 * The store is on files; what a killed process has written stays in the page cache or on disk,
 * and what it had only in memory is lost. The ledger is in memory shared with the writer. This
 * process forks only while it has no store open.
 *
 * --self-test: the same look must find what is made wrong on purpose. */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/crash/look.h"
#include "tests/crash/self_test.h"
#include "tests/crash/writer.h"
#include "tests/random.h"

#define SHARD_BYTES (UINT64_C(24) << 20)

struct loop {
  uint64_t kills, seed;
  uint32_t cpus; /* as many cores a store can have at most */
  const char *ctl;
  bool self_test, verbose;
  struct random random;
  struct ledger *l;
  char directory[256], where[264];
  /* Of all stores together. */
  uint64_t kills_done, kills_in_open, findings, lost, unpromised, acks, blobs, bytes, open_ns;
  uint64_t counts[COUNTS];
};

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static void sleep_ns(uint64_t ns) {
  struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
  nanosleep(&t, NULL);
}

static const char *engine_of(uint64_t n) { return n & 1 ? "uring" : "pool"; }

static uint32_t random_cores(struct loop *k, uint32_t shards) {
  return 1 + (uint32_t)random_below(&k->random, shards < k->cpus ? shards + 1 : k->cpus);
}

/* ---- The victim ---------------------------------------------------------------------------------
 */

static struct writer_options random_writer(struct loop *k, uint32_t shards) {
  return (struct writer_options){.where = k->where,
                                 .engine = engine_of(random_next(&k->random)),
                                 .cores = random_cores(k, shards),
                                 .seed = random_next(&k->random)};
}

static pid_t start_writer(struct loop *k, const struct writer_options *o) {
  atomic_store(&k->l->opening, 0);
  atomic_store(&k->l->opened, 0);
  pid_t parent = getpid();
  pid_t child = fork();
  if (child) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  writer_run(o, k->l);
  _exit(1); /* it ends only when something is wrong */
}

/* Waits until *number is at least `least`, or the child has gone. */
static void await(const pid_t child, const _Atomic uint64_t *acks, uint64_t least,
                  const _Atomic uint32_t *flag) {
  siginfo_t gone = {0};
  while (acks ? atomic_load(acks) < least : !atomic_load(flag)) {
    if (waitid(P_PID, (id_t)child, &gone, WEXITED | WNOHANG | WNOWAIT) || gone.si_pid) return;
    sleep_ns(100000);
  }
}

/* False if the child had ended before it was killed. */
static bool kill_child(struct loop *k, pid_t child) {
  int status = 0;
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  k->kills_done++;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return true;
  fprintf(stderr, "finding: the writer ended by itself, status %x\n", (unsigned)status);
  k->findings++;
  return false;
}

static bool kill_writer(struct loop *k, const struct writer_options *o, uint64_t ms_least,
                        uint64_t ms_most) {
  uint64_t acks = atomic_load(&k->l->acks);
  uint64_t ns = (ms_least * 1000 + random_below(&k->random, (ms_most - ms_least) * 1000)) * 1000;
  pid_t child = start_writer(k, o);
  await(child, &k->l->acks, acks + 1, NULL);
  sleep_ns(ns);
  return kill_child(k, child);
}

/* Somewhere in the time that the last looks needed for it. */
static bool kill_open(struct loop *k, const struct writer_options *o) {
  uint64_t ns = random_below(&k->random, k->open_ns + 1);
  pid_t child = start_writer(k, o);
  await(child, NULL, 0, &k->l->opening);
  sleep_ns(ns);
  bool good = kill_child(k, child);
  if (!atomic_load(&k->l->opened)) k->kills_in_open++;
  return good;
}

/* ---- The look -----------------------------------------------------------------------------------
 */

static void look(struct loop *k, uint32_t shards, bool scrub) {
  static struct found found;
  struct look v = {.engine = engine_of(random_next(&k->random)),
                   .cores = random_cores(k, shards),
                   .read_only = random_below(&k->random, 3) != 0,
                   .scrub = scrub};
  uint64_t start = now_ns();
  int r = look_at_store(k->where, k->l, &v, &found);
  if (k->verbose)
    fprintf(stderr, "look: %s %u cores %s: %" PRIu64 " blobs, %" PRIu64 " us, %" PRIu64 " lost\n",
            v.engine, v.cores, v.read_only ? "ro" : "rw", v.blobs, (now_ns() - start) / 1000,
            v.lost);
  k->findings += v.findings;
  k->lost += v.lost;
  k->unpromised += v.unpromised;
  k->blobs += v.blobs;
  k->bytes += v.bytes;
  if (r == 0 && v.findings == 0) ledger_accept(k->l, &found);
}

/* The tool that a user would take. */
static void check_by_tool(struct loop *k) {
  char command[1000];
  snprintf(command, sizeof command, "'%s' check '%s' >'%s/check' 2>&1", k->ctl, k->where,
           k->directory);
  if (system(command) == 0) return;
  k->findings++;
  snprintf(command, sizeof command, "cat '%s/check' >&2", k->directory);
  if (system(command)) fprintf(stderr, "finding: shard-ctl check failed\n");
}

/* ---- Stores -------------------------------------------------------------------------------------
 */

static bool format_store(struct loop *k, uint32_t shards) {
  struct sr_format_options o = SR_FORMAT_OPTIONS_INIT;
  o.size_bytes = shards * SHARD_BYTES;
  o.shards = shards;
  o.force = true;
  int r = sr_format(k->where, &o);
  if (r) {
    fprintf(stderr, "format: %s\n", strerror(-r));
    k->findings++;
  }
  ledger_init(k->l, random_next(&k->random));
  k->open_ns = 3000000;
  return r == 0;
}

static void measure_open(struct loop *k) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct sr_store *s;
  o.no_pin = o.read_only = true;
  o.arena_bytes = 1 << 20;
  uint64_t start = now_ns();
  if (sr_store_open(k->where, &o, &s)) return;
  k->open_ns = now_ns() - start;
  sr_store_close(s);
}

static bool kill_and_look(struct loop *k, uint32_t shards, uint64_t n) {
  struct writer_options o = random_writer(k, shards);
  if (n % 10 == 9) {
    measure_open(k);
    if (!kill_open(k, &o)) return false;
  } else if (!kill_writer(k, &o, 5, 150)) {
    return false;
  }
  look(k, shards, n % 5 == 4);
  if (n % 20 == 18 && k->ctl) check_by_tool(k);
  return k->findings == 0;
}

static void take_counts(struct loop *k) {
  for (int i = 0; i < COUNTS; i++) k->counts[i] += atomic_load(&k->l->counts[i]);
  k->acks += atomic_load(&k->l->acks);
}

static void run_kills(struct loop *k) {
  for (uint32_t shards = 1; shards <= 4 && k->findings == 0; shards++) {
    uint64_t kills = k->kills * shards / 4 - k->kills * (shards - 1) / 4;
    if (!format_store(k, shards)) return;
    for (uint64_t n = 0; n < kills; n++)
      if (!kill_and_look(k, shards, k->kills_done)) break;
    take_counts(k);
  }
}

/* A run that has not done what it says is a failure, too. */
static void check_effort(struct loop *k) {
  static const char *const names[COUNTS] = {[COUNT_PUT] = "puts",
                                            [COUNT_DELETE] = "deletes",
                                            [COUNT_DURABLE] = "durable",
                                            [COUNT_STREAM] = "streams",
                                            [COUNT_BATCH] = "batches",
                                            [COUNT_FLUSH] = "flushes",
                                            [COUNT_CHECKPOINT] = "checkpoints",
                                            [COUNT_VACUUM] = "vacuums",
                                            [COUNT_READ] = "reads",
                                            [COUNT_DISK_WRITE] = "disk writes",
                                            [COUNT_DISK_ZEROS] = "zeros",
                                            [COUNT_DISK_DISCARD] = "discards",
                                            [COUNT_DISK_DURABLE] = "with FUA",
                                            [COUNT_DISK_READ] = "disk reads",
                                            [COUNT_DISK_SYNC] = "disk flushes",
                                            [COUNT_DISK_CREATE] = "volumes",
                                            [COUNT_DISK_SNAPSHOT] = "snapshots",
                                            [COUNT_DISK_CLONE] = "clones",
                                            [COUNT_DISK_RENAME] = "renames",
                                            [COUNT_DISK_FLATTEN] = "flattened",
                                            [COUNT_DISK_REMOVE] = "removes",
                                            [COUNT_FULL] = "refused as full"};
  for (int i = 0; i < COUNTS; i++) {
    printf("%s %" PRIu64 "%s", names[i], k->counts[i], i + 1 < COUNTS ? ", " : "\n");
    if (k->findings || k->counts[i] || i == COUNT_FULL) continue;
    if (i == COUNT_DISK_FLATTEN && k->kills < 100) continue; /* it is rare */
    printf("NOT DONE: no %s\n", names[i]);
    k->findings++;
  }
  if (k->findings) return;
  if (k->lost == 0 || k->kills_in_open == 0 || k->counts[COUNT_FULL] * 2 > k->counts[COUNT_PUT]) {
    printf("NOT DONE: no kill hit what was not durable, or an open; or the stores were full\n");
    k->findings++;
  }
}

/* ---- Self-test ----------------------------------------------------------------------------------
 */

static uint64_t look_quietly(struct loop *k, struct ledger *l) {
  static struct found found;
  struct look v = {.engine = "pool", .cores = 2, .read_only = true, .quiet = true};
  look_at_store(k->where, l, &v, &found);
  return v.findings;
}

static void expect(struct loop *k, const char *what, bool found) {
  printf("%s: %s\n", what, found ? "found" : "NOT FOUND");
  if (!found) k->findings++;
}

/* Each unit in turn is said to have been promised one version more than there ever was; then, to
 * have been promised nothing that is there. */
static void self_test_ledger(struct loop *k) {
  uint64_t found_newer = 0, found_older = 0, units = 0;
  struct ledger *wrong = malloc(sizeof *wrong);
  for (uint32_t u = 0; u < LEDGER_UNITS; u += 8) {
    const struct unit *real = &k->l->units[u];
    if (real->base == 0) continue;
    /* Of one blob two versions may be alike: both deleted, both empty. */
    int64_t now = member_bytes(k->l->seed, u, 0, real->base);
    int64_t next = member_bytes(k->l->seed, u, 0, real->issued + 1);
    if (now == next || now <= 0) continue;
    units++;
    memcpy(wrong, k->l, sizeof *wrong);
    wrong->units[u].issued = wrong->units[u].durable = real->issued + 1;
    found_newer += look_quietly(k, wrong) == 1;
    memcpy(wrong, k->l, sizeof *wrong);
    wrong->units[u].base = 0;
    found_older += look_quietly(k, wrong) == 1;
  }
  free(wrong);
  printf("of %" PRIu64 " units: lost %" PRIu64 ", back again %" PRIu64 "\n", units, found_newer,
         found_older);
  expect(k, "a promised version that is not there", units > 5 && found_newer == units);
  expect(k, "a version that must not be there", units > 5 && found_older == units);
}

static int change_blob(struct loop *k, struct sr_id id, const void *buf, uint64_t bytes) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct sr_store *s;
  struct sr_port *p;
  o.no_pin = true;
  int r = sr_store_open(k->where, &o, &s);
  if (r) return r;
  sr_port_open(s, NULL, &p);
  r = buf ? sr_put(p, id, buf, bytes, 0) : sr_delete(p, id, 0);
  sr_port_close(p);
  int closed = sr_store_close(s);
  return r ? r : closed;
}

/* The store itself is changed: a blob that nobody wrote, one byte, one half of a batch. */
static void self_test_store(struct loop *k) {
  static uint8_t buf[LEDGER_BLOB_MAX];
  struct sr_id foreign = {1, 2};
  bool good = change_blob(k, foreign, "x", 1) == 0;
  expect(k, "a blob that nobody wrote", good && look_quietly(k, k->l) == 1);
  good = change_blob(k, foreign, NULL, 0) == 0;
  expect(k, "nothing, when it has gone", good && look_quietly(k, k->l) == 0);
  uint32_t u = 0, version = 0;
  int64_t bytes = 0;
  for (; u < LEDGER_SINGLES && bytes < 100; u++) {
    version = k->l->units[u].base;
    bytes = member_bytes(k->l->seed, u, 0, version);
  }
  u--;
  member_fill(k->l->seed, u, 0, version, buf, (uint64_t)bytes);
  buf[bytes - 1] ^= 1;
  good = change_blob(k, unit_id(u, 0), buf, (uint64_t)bytes) == 0;
  expect(k, "a wrong last bit", good && look_quietly(k, k->l) == 1);
  buf[bytes - 1] ^= 1;
  good = change_blob(k, unit_id(u, 0), buf, (uint64_t)bytes) == 0;
  expect(k, "nothing, when it is right again", good && look_quietly(k, k->l) == 0);
  /* A group's first member one version on, and that version was asked for. */
  for (u = LEDGER_SINGLES; u + 1 < LEDGER_UNITS; u++)
    if (member_bytes(k->l->seed, u, 0, k->l->units[u].issued + 1) > 100 &&
        member_bytes(k->l->seed, u, 1, k->l->units[u].issued + 1) > 100)
      break;
  version = atomic_fetch_add(&k->l->units[u].issued, 1) + 1;
  bytes = member_bytes(k->l->seed, u, 0, version);
  member_fill(k->l->seed, u, 0, version, buf, (uint64_t)bytes);
  good = change_blob(k, unit_id(u, 0), buf, (uint64_t)bytes) == 0;
  expect(k, "a torn batch", good && look_quietly(k, k->l) == 1);
}

/* A writer that takes a change for durable when it is submitted. */
static void self_test_early(struct loop *k, bool disks) {
  uint64_t found = 0, kills = 0;
  for (; kills < 20 && !found; kills++) {
    if (!format_store(k, 2)) return;
    struct writer_options o = random_writer(k, 2);
    o.promise_early = !disks;
    o.promise_early_disks = disks;
    if (!kill_writer(k, &o, 20, 100)) return;
    found = look_quietly(k, k->l);
  }
  printf("%" PRIu64 " kills, %" PRIu64 " findings\n", kills, found);
  expect(k, disks ? "promises of volumes that were made too early" : "promises made too early",
         found > 0);
}

static void run_self_test(struct loop *k) {
  if (!format_store(k, 2)) return;
  for (int i = 0; i < 3; i++)
    if (!kill_and_look(k, 2, 0)) return;
  k->findings += disk_self_test(k->where, k->l);
  self_test_ledger(k);
  self_test_store(k);
  self_test_early(k, false);
  self_test_early(k, true);
}

/* ---- Main ---------------------------------------------------------------------------------------
 */

static bool parse_args(struct loop *k, int count, char **args) {
  for (int i = 1; i < count; i++) {
    const char *a = args[i];
    if (!strncmp(a, "--kills=", 8))
      k->kills = strtoull(a + 8, NULL, 0);
    else if (!strncmp(a, "--seed=", 7))
      k->seed = strtoull(a + 7, NULL, 0);
    else if (!strncmp(a, "--ctl=", 6))
      k->ctl = a + 6;
    else if (!strcmp(a, "--self-test"))
      k->self_test = true;
    else if (!strcmp(a, "--verbose"))
      k->verbose = true;
    else
      return false;
  }
  return true;
}

int main(int count, char **args) {
  static struct loop loop = {.kills = 200, .seed = 1};
  struct loop *k = &loop;
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof cpus, &cpus)) return perror("affinity"), 1;
  k->cpus = (uint32_t)CPU_COUNT(&cpus);
  if (!parse_args(k, count, args)) {
    fputs("usage: kill_loop [--kills=N] [--seed=N] [--ctl=PATH] [--self-test] [--verbose]\n",
          stderr);
    return 2;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  k->random.state = k->seed;
  const char *tmp = getenv("TMPDIR");
  snprintf(k->directory, sizeof k->directory, "%.200s/shardring-kill-XXXXXX",
           tmp ? tmp : "/var/tmp");
  if (!mkdtemp(k->directory)) return perror(k->directory), 1;
  snprintf(k->where, sizeof k->where, "%.250s/store", k->directory);
  k->l = mmap(NULL, sizeof *k->l, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (k->l == MAP_FAILED) return perror("mmap"), 1;
  uint64_t start = now_ns();
  if (k->self_test) {
    run_self_test(k);
  } else {
    run_kills(k);
    check_effort(k);
    printf("seed %" PRIu64 ": %" PRIu64 " kills (%" PRIu64 " in an open), %" PRIu64
           " promises, %" PRIu64 " blobs with %" PRIu64 " MiB read again, %" PRIu64
           " units had lost what was not durable, %" PRIu64
           " were beyond what was promised; %" PRIu64 " findings, %" PRIu64 " s\n",
           k->seed, k->kills_done, k->kills_in_open, k->acks, k->blobs, k->bytes >> 20, k->lost,
           k->unpromised, k->findings, (now_ns() - start) / 1000000000u);
  }
  char command[600];
  snprintf(command, sizeof command, "rm -rf '%.250s'", k->directory);
  if (k->findings)
    fprintf(stderr, "the store stays in %s\n", k->directory);
  else if (system(command))
    return 1;
  return k->findings ? 1 : 0;
}
