/* kv.c - one turn of one key-value store: so many threads get or put values of one size for a
 * while. bench/kv alternates turns of several stores; see there, and kv.h.
 *
 *   kv --peer=NAME --dir=DIRECTORY --op=load|get|put ...
 *
 * Prints one line: peer, operation, value bytes, threads, batch, operations a second, microseconds
 * of processor time for each (whole process), values compared, version. The time of puts includes
 * one sync at the end, unless each is durable. A thread owns its buffers, counters and random
 * numbers; the main thread reads them when it has joined it. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bench/clock.h"
#include "bench/kv.h"
#include "tools/args.h"

#define PAGE         4096u
#define POOL_BYTES   (UINT64_C(1) << 20)
#define COMPARE_EACH 64 /* of so many gets one is compared as a whole */
#define THREADS_MAX  256

enum op { OP_LOAD, OP_GET, OP_PUT };

struct stamp {
  uint64_t key;
  uint32_t body, page; /* where in the pool the rest of the value is from */
};

struct kv_thread {
  const struct kv_peer *peer;
  const struct kv_config *config;
  void *store, *own;
  pthread_t thread;
  pthread_barrier_t *start;
  enum op op;
  uint64_t random, first, count; /* OP_LOAD: its share */
  uint64_t deadline_ns, most;    /* operations */
  uint64_t ops, seen, compared, wrong;
  int error;
};

static const struct kv_peer *const peers[] = {
    &kv_shardring,
#ifdef HAVE_ROCKSDB
    &kv_rocksdb,
#endif
#ifdef HAVE_LMDB
    &kv_lmdb,
#endif
#ifdef HAVE_SQLITE
    &kv_sqlite,
#endif
};
#define PEERS (sizeof peers / sizeof peers[0])

static char *pool; /* random bytes, POOL_BYTES and one value more */

int kv_fail(const char *what, const char *why, int error) {
  fprintf(stderr, "kv: %s: %s\n", what, why ? why : strerror(-error));
  return error;
}

/* splitmix64: a bijection, so no two keys are alike. */
uint64_t kv_key_high(uint64_t key) {
  uint64_t z = key + UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

void kv_key_bytes(uint64_t key, char bytes[KV_KEY_BYTES]) {
  uint64_t halves[2] = {__builtin_bswap64(kv_key_high(key)), __builtin_bswap64(key)};
  memcpy(bytes, halves, sizeof halves);
}

static uint64_t next_random(struct kv_thread *t) { return kv_key_high(t->random++); }

/* ---- Contents ------------------------------------------------------------------------------- */

/* The body is there since the buffer was made; a put only stamps it, so it costs no copy. */
static void stamp_value(struct kv_item *item, uint64_t bytes) {
  for (uint64_t at = 0; at < bytes; at += PAGE) {
    struct stamp s;
    memcpy(&s, item->buffer + at, sizeof s);
    s.key = item->key;
    memcpy(item->buffer + at, &s, sizeof s);
  }
}

static void make_body(char *buffer, uint64_t bytes, uint32_t body) {
  memcpy(buffer, pool + body, bytes);
  for (uint64_t at = 0; at < bytes; at += PAGE) {
    struct stamp s = {0, body, (uint32_t)(at / PAGE)};
    memcpy(buffer + at, &s, sizeof s);
  }
}

static bool same_body(const char *value, uint64_t bytes, uint32_t body) {
  for (uint64_t at = 0; at < bytes; at += PAGE) {
    uint64_t end = at + PAGE < bytes ? at + PAGE : bytes, from = at + sizeof(struct stamp);
    if (memcmp(value + from, pool + body + from, end - from) != 0) return false;
  }
  return true;
}

void kv_seen(const struct kv_item *item, const void *value, uint64_t bytes) {
  struct kv_thread *t = item->thread;
  bool fine = bytes == t->config->value_bytes;
  struct stamp s = {0, 0, 0};
  for (uint64_t at = 0; fine && at < bytes; at += PAGE) {
    memcpy(&s, (const char *)value + at, sizeof s);
    fine = s.key == item->key && s.page == at / PAGE && s.body < POOL_BYTES;
  }
  if (fine && t->seen % COMPARE_EACH == 0) {
    fine = same_body(value, bytes, s.body);
    t->compared++;
  }
  t->seen++;
  if (!fine) t->wrong++;
}

/* ---- Threads -------------------------------------------------------------------------------- */

static int prepare_items(struct kv_thread *t, struct kv_item *items) {
  uint64_t bytes = t->config->value_bytes, room = (bytes + PAGE - 1) / PAGE * PAGE;
  for (uint32_t i = 0; i < t->config->batch; i++) {
    char *buffer = t->peer->buffer ? t->peer->buffer(t->store, room) : aligned_alloc(PAGE, room);
    if (!buffer) return kv_fail("buffers", NULL, -ENOMEM);
    make_body(buffer, bytes, (uint32_t)(next_random(t) % POOL_BYTES));
    items[i] = (struct kv_item){.buffer = buffer, .thread = t};
  }
  return 0;
}

static int step(struct kv_thread *t, struct kv_item *items, uint32_t count) {
  if (t->op == OP_GET) return t->peer->get(t->own, items, count);
  for (uint32_t i = 0; i < count; i++) stamp_value(&items[i], t->config->value_bytes);
  return t->peer->put(t->own, items, count);
}

static int load_share(struct kv_thread *t, struct kv_item *items) {
  int r = 0;
  for (uint64_t at = 0; r == 0 && at < t->count;) {
    uint32_t n = 0;
    for (; n < t->config->batch && at < t->count; n++, at++) items[n].key = t->first + at;
    r = step(t, items, n);
    t->ops += n;
  }
  return r;
}

static int run_until(struct kv_thread *t, struct kv_item *items) {
  uint32_t batch = (uint32_t)t->config->batch;
  int r = 0;
  while (r == 0 && t->ops < t->most && now_ns() < t->deadline_ns) {
    for (uint32_t i = 0; i < batch; i++) items[i].key = next_random(t) % t->config->values;
    r = step(t, items, batch);
    t->ops += batch;
  }
  return r;
}

static void *thread_main(void *arg) {
  struct kv_thread *t = arg;
  static __thread struct kv_item items[KV_BATCH_MAX];
  int r = t->peer->thread_open(t->store, t->config, &t->own);
  if (r == 0) r = prepare_items(t, items);
  pthread_barrier_wait(t->start); /* all are ready */
  pthread_barrier_wait(t->start); /* the clock runs */
  if (r == 0) r = t->op == OP_LOAD ? load_share(t, items) : run_until(t, items);
  t->error = r;
  if (t->own) t->peer->thread_close(t->own);
  return NULL;
}

struct turn {
  uint64_t ops, compared, wrong;
  double seconds, cpu;
  int error;
};

/* The time includes the sync: what was put without it is nothing that can be relied upon. */
static int finish_turn(const struct kv_thread *t, const struct kv_config *config) {
  void *own = NULL;
  int r = t->peer->thread_open(t->store, config, &own);
  if (r == 0 && t->op != OP_GET && !config->durable) r = t->peer->sync(own);
  if (r == 0 && t->op == OP_LOAD && t->peer->settle) r = t->peer->settle(own);
  if (r == 0 && config->describe && t->peer->describe) t->peer->describe(own);
  if (own) t->peer->thread_close(own);
  return r;
}

static struct turn run_threads(struct kv_thread *threads, const struct kv_config *config,
                               double seconds) {
  pthread_barrier_t start;
  struct turn turn = {0};
  pthread_barrier_init(&start, NULL, (unsigned)config->threads + 1);
  for (uint64_t i = 0; i < config->threads; i++) {
    threads[i].start = &start;
    if (pthread_create(&threads[i].thread, NULL, thread_main, &threads[i])) abort();
  }
  pthread_barrier_wait(&start);
  uint64_t begin = now_ns();
  double cpu = cpu_s();
  for (uint64_t i = 0; i < config->threads; i++)
    threads[i].deadline_ns = begin + (uint64_t)(seconds * 1e9);
  pthread_barrier_wait(&start);
  for (uint64_t i = 0; i < config->threads; i++) {
    pthread_join(threads[i].thread, NULL);
    turn.ops += threads[i].ops;
    turn.compared += threads[i].compared;
    turn.wrong += threads[i].wrong;
    if (threads[i].error && !turn.error) turn.error = threads[i].error;
  }
  if (!turn.error) turn.error = finish_turn(&threads[0], config);
  turn.seconds = (double)(now_ns() - begin) * 1e-9;
  turn.cpu = cpu_s() - cpu;
  pthread_barrier_destroy(&start);
  return turn;
}

/* ---- The turn ------------------------------------------------------------------------------- */

static int forget_file(const char *path, const struct stat *st, int kind, struct FTW *where) {
  (void)st, (void)where;
  if (kind != FTW_F) return 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  if (fd >= 0) close(fd);
  return 0;
}

static int make_pool(uint64_t value_bytes) {
  uint64_t words = (POOL_BYTES + value_bytes + 7) / 8;
  uint64_t *p = malloc(words * 8);
  for (uint64_t i = 0; p && i < words; i++) p[i] = kv_key_high(i ^ UINT64_C(0x5bd1e995));
  pool = (char *)p;
  return p ? 0 : -ENOMEM;
}

static struct turn take_turn(const struct kv_peer *peer, const struct kv_config *config, enum op op,
                             double seconds, uint64_t most, uint64_t seed) {
  static struct kv_thread threads[THREADS_MAX];
  struct turn turn = {0};
  void *store = NULL;
  turn.error = peer->open(config, &store);
  if (turn.error) return turn;
  for (uint64_t i = 0; i < config->threads; i++)
    threads[i] = (struct kv_thread){.peer = peer,
                                    .config = config,
                                    .store = store,
                                    .op = op,
                                    .most = most ? most / config->threads : UINT64_MAX,
                                    .random = (seed * THREADS_MAX + i) << 40,
                                    .first = config->values * i / config->threads,
                                    .count = config->values * (i + 1) / config->threads -
                                             config->values * i / config->threads};
  turn = run_threads(threads, config, seconds);
  int r = peer->close(store);
  if (!turn.error) turn.error = r;
  return turn;
}

static int list_peers(void) {
  char version[128];
  for (size_t i = 0; i < PEERS; i++) {
    peers[i]->version(version, sizeof version);
    printf("%s\t%s\n", peers[i]->name, version);
  }
  return 0;
}

int main(int argc, char **argv) {
  struct kv_config config = {
      .values = 1, .value_bytes = 4096, .threads = 1, .batch = 1, .cache_bytes = 32 << 20};
  const char *name = NULL, *words[1];
  int op = OP_GET;
  double seconds = 1;
  uint64_t seed = 1, most = 0;
  bool list = false, help = false;
  const struct arg table[] = {
      {.name = "peer", .kind = ARG_TEXT, .value = &name, .help = "which store"},
      {.name = "peers", .kind = ARG_FLAG, .value = &list, .help = "those that are built in"},
      {.name = "dir", .kind = ARG_TEXT, .value = &config.directory, .help = "where its files lie"},
      {.name = "op", .kind = ARG_CHOICE, .value = &op, .choices = "load|get|put", .help = ""},
      {.name = "values", .kind = ARG_NUMBER, .value = &config.values, .min = 1, .max = 1u << 31},
      {.name = "value-size",
       .kind = ARG_SIZE,
       .value = &config.value_bytes,
       .min = 64,
       .max = 1 << 20},
      {.name = "threads",
       .kind = ARG_NUMBER,
       .value = &config.threads,
       .min = 1,
       .max = THREADS_MAX},
      {.name = "batch", .kind = ARG_NUMBER, .value = &config.batch, .min = 1, .max = KV_BATCH_MAX},
      {.name = "cache", .kind = ARG_SIZE, .value = &config.cache_bytes, .max = UINT64_C(1) << 40},
      {.name = "cores", .kind = ARG_NUMBER, .value = &config.cores, .max = 256},
      {.name = "poll-us", .kind = ARG_NUMBER, .value = &config.poll_us, .max = 1000000},
      {.name = "durable", .kind = ARG_FLAG, .value = &config.durable, .help = "each put"},
      {.name = "log", .kind = ARG_FLAG, .value = &config.log, .help = "puts go to a log, too"},
      {.name = "runtime", .kind = ARG_SECONDS, .value = &seconds, .max = 3600},
      {.name = "most", .kind = ARG_NUMBER, .value = &most, .max = UINT64_MAX, .help = "operations"},
      {.name = "describe",
       .kind = ARG_FLAG,
       .value = &config.describe,
       .help = "the store's own counters"},
      {.name = "seed", .kind = ARG_NUMBER, .value = &seed, .max = 1u << 15},
      {.name = "help", .kind = ARG_FLAG, .value = &help},
      {.name = NULL}};
  if (args_parse("kv", table, argc, argv, words, 0) < 0) return ARGS_USAGE;
  if (help) return args_help(table), 0;
  if (list) return list_peers();
  const struct kv_peer *peer = NULL;
  for (size_t i = 0; name && i < PEERS; i++)
    if (strcmp(peers[i]->name, name) == 0) peer = peers[i];
  if (!peer || !config.directory) {
    fprintf(stderr, "kv: --peer and --dir are needed; --peers lists those that are built in\n");
    return ARGS_USAGE;
  }
  if (make_pool(config.value_bytes)) return kv_fail("memory", NULL, -ENOMEM), 1;
  config.create = op == OP_LOAD;
  if (config.create) mkdir(config.directory, 0777);
  nftw(config.directory, forget_file, 16, FTW_PHYS);
  struct turn turn = take_turn(peer, &config, (enum op)op, seconds, most, seed);
  if (turn.wrong) turn.error = kv_fail(peer->name, "a value is not what was put", -EBADMSG);
  if (turn.error) return 1;
  char version[128], word[16];
  peer->version(version, sizeof version);
  printf("%s\t%s\t%llu\t%llu\t%llu\t%.1f\t%.2f\t%llu\t%s\n", peer->name,
         args_choice("load|get|put", op, word, sizeof word), (unsigned long long)config.value_bytes,
         (unsigned long long)config.threads, (unsigned long long)config.batch,
         (double)turn.ops / turn.seconds, turn.cpu / (double)turn.ops * 1e6,
         (unsigned long long)turn.compared, version);
  return 0;
}
