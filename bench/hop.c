/* hop.c - what it costs to send a request that does nothing (SR_OP_NOP) to a core and to get it
 * back, beside what cannot be avoided. Turns of both, one after the other, a line for each pair:
 *
 *   hop batch CLIENT CORE [PAIRS]    nanoseconds for each request, in batches of 16, up to 512 in
 * flight: on the client (submit, and reap where it finds something), on the core (the time in which
 * one comes back after the other: what the core takes if it never waits for requests, else more; in
 * a turn of its own, in which the client does not look at the clock), the same without a hop (on
 * the core, through its own port), the share of reaps that found something hop single CLIENT CORE
 * [PAIRS]   microseconds, median of the round trips of one request; and of one pointer through two
 * bare rings between two threads
 *
 * CLIENT, CORE: CPUs to run on. The main thread is the client, on CLIENT; the store's one core and
 * the other end of the bare rings are on CORE, never both awake at once: the core sleeps 50 us
 * after its last request. Requests belong to the port that they were submitted to until they are
 * back. */
#include <ck_ring.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "api/shardring.h"
#include "bench/clock.h"

#define BATCH       16u
#define IN_FLIGHT   256u
#define BATCH_OPS   1000000u /* of a turn */
#define TRIPS       20000u
#define TRIPS_FIRST 2000u /* are not counted: both sides get awake */
#define RING_SLOTS  256u

static struct sr_store *store;
static struct sr_request requests[IN_FLIGHT];

static void must(const char *what, int64_t result) {
  if (result >= 0) return;
  fprintf(stderr, "hop: %s: %s\n", what, strerror((int)-result));
  exit(1);
}

static void pin(pthread_t thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((size_t)cpu, &set);
  must("CPU", -pthread_setaffinity_np(thread, sizeof set, &set));
}

static void pause_cpu(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/* What a pair of looks at the clock adds to a time. */
static double clock_ns(void) {
  uint64_t start = now_ns();
  for (int i = 0; i < 100000; i++) now_ns();
  return (double)(now_ns() - start) / 100001;
}

/* ---- Batches ------------------------------------------------------------------------------- */

struct batch_turn {
  double client_ns, wall_ns, found;
};

/* Reaps that find nothing are the client's leisure and do not count as its work. Three looks at the
 * clock for each batch are a fifth of the time that it takes: not timed, only the wall's time
 * counts. */
static struct batch_turn batches(struct sr_port *port, double look_ns, bool timed) {
  struct sr_request *idle[IN_FLIGHT];
  uint64_t worked = 0, looks = 0, reaps = 0, found = 0, begun = now_ns();
  uint32_t idle_count = IN_FLIGHT, back = 0, sent = 0;
  for (uint32_t i = 0; i < IN_FLIGHT; i++) idle[i] = &requests[i];
  while (back < BATCH_OPS) {
    uint64_t before = timed ? now_ns() : 0;
    while (idle_count >= BATCH && sent < BATCH_OPS) {
      int n = sr_port_submit(port, &idle[idle_count - BATCH], BATCH);
      if (n == -11) break; /* -EAGAIN: the mailbox is full */
      must("submit", n);
      idle_count -= (uint32_t)n, sent += (uint32_t)n;
    }
    uint64_t between = timed ? now_ns() : 0;
    uint32_t room = IN_FLIGHT - idle_count < BATCH ? IN_FLIGHT - idle_count : BATCH;
    int n = sr_port_reap(port, &idle[idle_count], room);
    must("reap", n);
    worked += between - before, looks++, reaps++;
    if (n == 0) continue;
    worked += (timed ? now_ns() : 0) - between, looks++, found++;
    idle_count += (uint32_t)n, back += (uint32_t)n;
  }
  double wall = (double)(now_ns() - begun);
  return (struct batch_turn){((double)worked - (double)looks * look_ns) / BATCH_OPS,
                             wall / BATCH_OPS, (double)found / (double)reaps};
}

struct local {
  struct sr_port *port;
  uint32_t back;
  uint64_t left, begun, ended;
  sem_t finished;
};

static void local_submit(struct local *l) {
  struct sr_request *list[BATCH];
  for (uint32_t i = 0; i < BATCH; i++) list[i] = &requests[i];
  l->back = 0, l->left -= BATCH;
  must("submit", sr_port_submit(l->port, list, BATCH));
}

static void local_done(struct sr_request *request) {
  struct local *l = request->user;
  if (++l->back < BATCH) return;
  if (l->left >= BATCH) {
    local_submit(l);
  } else {
    l->ended = now_ns();
    sem_post(&l->finished);
  }
}

static void local_begin(struct sr_port *port, void *arg) {
  struct local *l = arg;
  l->port = port, l->begun = now_ns();
  local_submit(l);
}

static void set_requests(void (*done)(struct sr_request *), void *user) {
  memset(requests, 0, sizeof requests);
  for (uint32_t i = 0; i < IN_FLIGHT; i++) {
    requests[i].op = SR_OP_NOP, requests[i].id = (struct sr_id){i, i};
    requests[i].done = done, requests[i].user = user;
  }
}

static double local_ns(void) {
  struct local l = {.left = BATCH_OPS};
  sem_init(&l.finished, 0, 0);
  set_requests(local_done, &l);
  must("run", sr_store_run(store, 0, local_begin, &l));
  while (sem_wait(&l.finished)) continue;
  sem_destroy(&l.finished);
  return (double)(l.ended - l.begun) / BATCH_OPS;
}

static void print_batches(struct sr_port *port, uint32_t pairs) {
  double look = clock_ns();
  for (uint32_t i = 0; i < pairs; i++) {
    double local = local_ns();
    set_requests(NULL, NULL);
    struct batch_turn client = batches(port, look, true), core = batches(port, look, false);
    printf("%.2f\t%.2f\t%.2f\t%.3f\n", client.client_ns, core.wall_ns, local, client.found);
    fflush(stdout);
  }
}

/* ---- One at a time --------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double times[TRIPS];
static double median(void) {
  qsort(times, TRIPS, sizeof *times, by_value);
  return times[TRIPS / 2];
}

static double hop_us(struct sr_port *port) {
  struct sr_request *one[1] = {&requests[0]};
  set_requests(NULL, NULL);
  for (uint32_t i = 0; i < TRIPS_FIRST + TRIPS; i++) {
    uint64_t start = now_ns();
    must("submit", sr_port_submit(port, one, 1));
    while (sr_port_reap(port, one, 1) == 0) pause_cpu();
    if (i >= TRIPS_FIRST) times[i - TRIPS_FIRST] = (double)(now_ns() - start) / 1e3;
  }
  return median();
}

/* There and back; each ring has one sender and one receiver. */
struct ping {
  struct one_way {
    ck_ring_t ring;
    ck_ring_buffer_t slots[RING_SLOTS] __attribute__((aligned(128)));
  } there, back;
};

static void take(struct one_way *way, void **what) {
  while (!ck_ring_dequeue_spsc(&way->ring, way->slots, what)) pause_cpu();
}

static void *other_end(void *arg) {
  struct ping *p = arg;
  void *what;
  for (uint32_t i = 0; i < TRIPS_FIRST + TRIPS; i++) {
    take(&p->there, &what);
    ck_ring_enqueue_spsc(&p->back.ring, p->back.slots, what);
  }
  return NULL;
}

static double bare_us(int core_cpu) {
  static struct ping p;
  pthread_t other;
  void *what;
  ck_ring_init(&p.there.ring, RING_SLOTS);
  ck_ring_init(&p.back.ring, RING_SLOTS);
  must("thread", -pthread_create(&other, NULL, other_end, &p));
  pin(other, core_cpu);
  for (uint32_t i = 0; i < TRIPS_FIRST + TRIPS; i++) {
    uint64_t start = now_ns();
    ck_ring_enqueue_spsc(&p.there.ring, p.there.slots, &p);
    take(&p.back, &what);
    if (i >= TRIPS_FIRST) times[i - TRIPS_FIRST] = (double)(now_ns() - start) / 1e3;
  }
  pthread_join(other, NULL);
  return median();
}

static void print_singles(struct sr_port *port, uint32_t pairs, int core_cpu) {
  for (uint32_t i = 0; i < pairs; i++) {
    double hop = hop_us(port);
    usleep(5000); /* the core goes to sleep */
    printf("%.4f\t%.4f\n", hop, bare_us(core_cpu));
    fflush(stdout);
  }
}

int main(int argc, char **argv) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct sr_port_options p = SR_PORT_OPTIONS_INIT;
  struct sr_port *port;
  bool batch = argc >= 4 && strcmp(argv[1], "batch") == 0;
  if (argc < 4 || argc > 5 || (!batch && strcmp(argv[1], "single") != 0)) {
    fprintf(stderr, "usage: hop batch|single CLIENT CORE [PAIRS]\n");
    return 2;
  }
  uint32_t pairs = argc == 5 ? (uint32_t)strtoul(argv[4], NULL, 10) : 11;
  o.engine = "null", o.core_count = 1, o.cores = argv[3], o.no_background = true, o.memory_dir = "";
  p.depth = IN_FLIGHT;
  must("open", sr_store_open("mem:64M:1", &o, &store));
  must("port", sr_port_open(store, &p, &port));
  pin(pthread_self(), atoi(argv[2]));
  if (batch)
    print_batches(port, pairs);
  else
    print_singles(port, pairs, atoi(argv[3]));
  sr_port_close(port);
  sr_store_abandon(store);
  return 0;
}
