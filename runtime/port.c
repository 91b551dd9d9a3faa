/* port.c - ports: batching ops to cores, collecting them when done. See port.h. */
#include "runtime/port.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/port_direct.h"
#include "runtime/store.h"

#define SPIN_NS_MAX 20000

/* The slot's memory is kept until the store closes, so that a request submitted to a closed port
 * finds a closed port, not freed memory. */
static int make(struct port **out, struct store *store, uint32_t number) {
  struct port *port = aligned_alloc(64, round_up(sizeof *port, 64));
  if (!port) return -ENOMEM;
  *port = (struct port){.store = store, .cores = store->cores, .event_fd = -1};
  port->peer = (struct peer){.number = number, .inbox = &port->inbox, .event_fd = -1};
  port->sending = calloc(store->core_count, sizeof *port->sending);
  port->sending_touched = calloc(store->core_count, sizeof *port->sending_touched);
  int r = port->sending && port->sending_touched ? inbox_init(&port->inbox, store->core_count)
                                                 : -ENOMEM;
  for (uint32_t c = 0; !r && c < store->core_count; c++) {
    r = inbox_add_peer(&port->inbox, c, MAILBOX_SLOTS);
    if (!r) r = inbox_add_peer(&store->cores[c].inbox, number, MAILBOX_SLOTS);
    if (r == -EEXIST) r = 0; /* of an attempt that failed later; nothing was ever sent */
  }
  if (!r) r = port_direct_create(&port->direct, store, number);
  port->event_fd = port->peer.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (!r && port->event_fd < 0) r = -errno;
  if (r) {
    port_free(port);
    return r;
  }
  *out = port;
  return 0;
}

void port_free(struct port *port) {
  if (!port) return;
  if (!port->peer.local) inbox_finish(&port->inbox);
  if (port->event_fd >= 0) close(port->event_fd);
  free(port->sending);
  free(port->sending_touched);
  port_direct_destroy(port->direct);
  free(port);
}

int port_open(struct port **out, struct store *store, uint32_t depth) {
  int r = -EMFILE;
  pthread_mutex_lock(&store->lock);
  for (uint32_t i = 0; i < PORTS_MAX; i++) {
    if (store->ports[i] && store->ports[i]->open) continue;
    r = store->ports[i] ? 0 : make(&store->ports[i], store, i);
    if (r) break;
    struct port *port = store->ports[i];
    port->depth = depth;
    port->open = true;
    port->fd_used = false;
    inbox_awake(&port->inbox);
    *out = port;
    break;
  }
  pthread_mutex_unlock(&store->lock);
  return r;
}

int port_close(struct port *port) {
  if (!port) return 0;
  if (port->peer.local) return -EINVAL;
  if (!port->open) return -ESHUTDOWN;
  if (port->in_flight || port->finished.head) return -EBUSY;
  pthread_mutex_lock(&port->store->lock);
  port->open = false;
  pthread_mutex_unlock(&port->store->lock);
  return 0;
}

int port_open_local(struct port **out, struct core *core,
                    void (*finished)(struct peer *peer, struct shard_op *op)) {
  struct port *port = calloc(1, sizeof *port);
  if (!port) return -ENOMEM;
  port->store = core->store;
  port->cores = core->store->cores;
  port->peer = core->self;
  port->peer.finished = finished;
  port->event_fd = -1;
  port->depth = UINT32_MAX;
  port->open = true;
  *out = port;
  return 0;
}

void port_send(struct port *port) {
  for (uint32_t i = 0; i < port->sending_count; i++) {
    uint32_t c = port->sending_touched[i];
    /* There was room when the chain began, and only this thread takes it. */
    check(core_post_mail(&port->store->cores[c], &port->peer, &port->sending[c]));
  }
  port->sending_count = 0;
}

static void deliver(void *arg, uint32_t peer, void *batch) {
  struct port *port = arg;
  struct shard_op *op = batch;
  (void)peer;
  if (port->finished.tail)
    port->finished.tail->next = op;
  else
    port->finished.head = op;
  port->finished.tail = op_fetch_chain(op);
}

bool port_drain(struct port *port) {
  if (!port->peer.local) inbox_drain(&port->inbox, deliver, port);
  return port->finished.head != NULL;
}

struct shard_op *port_take(struct port *port) {
  struct shard_op *op = port->finished.head;
  if (!op) return NULL;
  port->finished.head = op->next;
  if (!op->next) port->finished.tail = NULL;
  port->in_flight--;
  return op;
}

static void clear_event(struct port *port) {
  uint64_t count;
  ssize_t n = read(port->event_fd, &count, sizeof count);
  (void)n; /* EAGAIN: nobody has written */
}

static void signal_event(struct port *port) {
  uint64_t one = 1;
  ssize_t n = write(port->event_fd, &one, sizeof one);
  (void)n; /* EAGAIN: readable already */
}

void port_arm(struct port *port) {
  clear_event(port);
  /* Something came between the drain and now: the descriptor must say so. */
  if (!inbox_prepare_sleep(&port->inbox)) signal_event(port);
}

/* A stepped store makes progress only when somebody steps it. */
static int wait_stepped(struct port *port, int64_t timeout_ns) {
  uint64_t end =
      timeout_ns < 0 ? UINT64_MAX : clock_now_ns(&port->store->clock) + (uint64_t)timeout_ns;
  for (;;) {
    if (port_drain(port)) return 1;
    if (!store_step(port->store) && clock_now_ns(&port->store->clock) >= end) return 0;
  }
}

static int64_t left_ns(uint64_t start, uint64_t now, int64_t timeout_ns) {
  if (timeout_ns < 0) return INT64_MAX;
  uint64_t gone = now - start;
  return gone >= (uint64_t)timeout_ns ? 0 : timeout_ns - (int64_t)gone;
}

/* Polls for a moment: what is on its way comes sooner than a sleep ends. True: something is here.
 */
static bool spin(struct port *port, uint64_t start_ns, uint64_t spin_ns) {
  struct store *store = port->store;
  bool done = false, yielded = false;
  if (atomic_fetch_add_explicit(&store->spinners, 1, memory_order_relaxed) < store->spinners_max) {
    while (!(done = port_drain(port))) {
      uint64_t gone = clock_now_ns(&store->clock) - start_ns;
      if (gone >= spin_ns) break;
      if (gone >= SPIN_NS_MAX / 2 && !yielded) {
        if (core_cpu_is_wanted(&store->clock)) break;
        yielded = true;
      }
      __builtin_ia32_pause();
    }
  }
  atomic_fetch_sub_explicit(&store->spinners, 1, memory_order_relaxed);
  return done;
}

int port_wait(struct port *port, int64_t timeout_ns) {
  struct store *store = port->store;
  if (store->config.stepped) return wait_stepped(port, timeout_ns);
  if (port_drain(port)) return 1;
  uint64_t start = clock_now_ns(&store->clock);
  uint64_t spin_ns = min_u64((uint64_t)store->config.poll_us * 1000, SPIN_NS_MAX);
  if (timeout_ns >= 0) spin_ns = min_u64(spin_ns, (uint64_t)timeout_ns);
  if (spin_ns && spin(port, start, spin_ns)) return 1;
  bool slept = false, done;
  while (!(done = port_drain(port))) {
    int64_t left = left_ns(start, clock_now_ns(&store->clock), timeout_ns);
    if (left == 0) break;
    slept = true;
    clear_event(port);
    if (!inbox_prepare_sleep(&port->inbox)) continue;
    struct timespec ts = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    struct pollfd pfd = {.fd = port->event_fd, .events = POLLIN};
    ppoll(&pfd, 1, timeout_ns < 0 ? NULL : &ts, NULL);
    inbox_awake(&port->inbox);
  }
  if (slept &&
      port->fd_used) { /* who polls the descriptor must not miss what we saw, or wait for */
    if (done)
      signal_event(port);
    else
      port_arm(port);
  }
  return done;
}

/* A core with a full mailbox is at work on it. */
static void wait_for_room(struct port *port) {
  if (port->store->config.stepped)
    store_step(port->store);
  else
    sched_yield();
}

int port_run(struct port *port, uint32_t core, struct shard_op *op) {
  /* Beyond the depth, too: what fills it may be waiting to be reaped, by our caller. */
  while (port_enter(port, core, op)) wait_for_room(port);
  port_send(port);
  struct op_chain others = {0};
  for (;;) {
    struct shard_op *done = port->finished.head ? port_take(port) : NULL;
    if (done == op) break;
    if (done)
      op_chain_add(&others, done), port->in_flight++; /* not ours: stays for the next reap */
    else
      port_wait(port, -1);
  }
  /* What others finished goes in front of what has come since. */
  if (others.head) {
    others.tail->next = port->finished.head;
    if (!port->finished.tail) port->finished.tail = others.tail;
    port->finished.head = others.head;
  }
  if (port->fd_used)
    signal_event(port); /* our waits have disarmed it; what it was armed for may be here */
  return 0;
}
