/* remote.c - see remote.h. The lock guards all but the calls' states, which are futexes.
 *
 * Invariants: a call is free, or of the thread that took it. It is in the ring from submit until it
 * is reaped or has failed; who is in the ring waits for its state. While `led`, one thread leads,
 * or has been told to; only that one waits for the server, or connects again. The front and its
 * memory stay as long as a call is taken; a broken one goes with the last, and only then there may
 * be a new one, of whose ring nothing old can come. */
#include "api/nbdkit/remote.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shards/base/base.h"

#define CALLS          32u
#define BUFFER_BYTES   (128u << 10)
#define ZERO_BYTES_MAX (UINT64_C(1) << 30)
#define WAIT_MS        1000
#define NAP_MS         20

enum call_state { CALL_IN_WORK, CALL_LEADS, CALL_FINISHED };
struct call {
  struct vfront_request request;
  struct call *next; /* that is free, or to be woken */
  char *buffer;      /* of `front` */
  bool in_ring;
  int result;
  _Atomic uint32_t state; /* enum call_state */
};

struct remote {
  struct remote_options o;
  pthread_mutex_t lock;
  pthread_cond_t freed;
  struct vfront *front; /* NULL: patience had ended */
  bool broken;          /* it has; everything fails */
  bool led;
  uint32_t taken;
  struct call calls[CALLS], *free;
};

/* ---- Connecting --------------------------------------------------------------------------------
 */

static uint64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void nap(void) {
  const struct timespec t = {.tv_nsec = NAP_MS * 1000000};
  nanosleep(&t, NULL);
}

/* The server may be about to come, or to go. */
static bool passes(int error) {
  switch (error) {
  case -ENOENT:
  case -ECONNREFUSED:
  case -ECONNRESET:
  case -EPIPE:
  case -ETIMEDOUT:
    return true;
  default:
    return false;
  }
}

static void say(struct remote *r, const char *what, const char *why) {
  char line[400];
  snprintf(line, sizeof(line), "%s: %s", what, why);
  r->o.say(r->o.arg, line);
}

static int open_front(struct remote *r, const char *socket, char *why, size_t why_bytes) {
  const struct vfront_options o = {.socket = socket,
                                   .queues = 1,
                                   .depth = CALLS,
                                   .buffer_bytes = CALLS * BUFFER_BYTES,
                                   .protocol_off = UINT64_C(1) << VHOST_PF_BACKEND_REQ};
  return vfront_open(&r->front, &o, why, why_bytes);
}

/* With the lock, and no call in the ring. */
static int connect_anew(struct remote *r, uint32_t patience_ms) {
  uint64_t end = now_ms() + patience_ms;
  char socket[108], why[256];
  int e;
  for (;;) {
    *why = 0;
    e = r->o.attach(r->o.arg, socket);
    bool later = e == -EAGAIN;
    if (!e) {
      e = open_front(r, socket, why, sizeof(why));
      later = e && passes(e);
    }
    if (!later || now_ms() >= end) break;
    nap();
  }
  if (*why) say(r, "connecting", why);
  for (uint32_t i = 0; !e && i < CALLS; i++) {
    r->calls[i].buffer = r->front->buffers + (size_t)i * BUFFER_BYTES;
  }
  return e;
}

/* The server is gone: to the next one, with all that is in flight. With the lock, by who leads. */
static int connect_again(struct remote *r) {
  uint64_t end = now_ms() + r->o.patience_ms;
  char socket[108];
  int e;
  say(r, "connecting again", "the server is gone");
  for (;;) {
    e = r->o.attach(r->o.arg, socket);
    bool later = e == -EAGAIN;
    if (!e) {
      memcpy(r->front->socket, socket, sizeof(socket));
      e = vfront_reconnect(r->front, 0);
      later = e && passes(e);
    }
    if (!later || now_ms() >= end) break;
    nap();
  }
  say(r, "connecting again", e ? strerror(-e) : "requests go on");
  return e;
}

/* ---- Finishing ---------------------------------------------------------------------------------
 */

static int result_of(int status) {
  return status == BLK_OK ? 0 : status == BLK_UNSUPPORTED ? -EOPNOTSUPP : -EIO;
}

static void wake(struct call *c, enum call_state state) {
  atomic_store_explicit(&c->state, state, memory_order_release);
  syscall(SYS_futex, &c->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void finish(struct call *c, int result, struct call **finished) {
  c->result = result;
  c->in_ring = false;
  c->next = *finished;
  *finished = c;
}

static void fail_all(struct remote *r, struct call **finished) {
  for (uint32_t i = 0; i < CALLS; i++)
    if (r->calls[i].in_ring) finish(&r->calls[i], -EIO, finished);
  r->broken = true;
}

/* Takes what is finished. Goes to another server if this one is gone, and says that everything has
 * failed if there is none. */
static void take_finished(struct remote *r, int error, struct call **finished) {
  struct vfront_request *done[CALLS];
  struct vfront_queue *q = r->front->queues;
  int n = error == -ECONNRESET ? connect_again(r) : error;
  if (n == 0) n = vfront_reap(q, done, CALLS);
  for (int i = 0; i < n; i++) {
    struct call *c = container_of(done[i], struct call, request);
    finish(c, result_of(c->request.status), finished);
  }
  if (n >= 0) return;
  if (q->error) say(r, "the server's answer", q->why);
  fail_all(r, finished);
}

/* With the lock: who leads next. */
static struct call *pass_lead(struct remote *r) {
  for (uint32_t i = 0; i < CALLS; i++)
    if (r->calls[i].in_ring) return &r->calls[i];
  r->led = false;
  return NULL;
}

/* Enters with the lock and leaves without; then it is finished. */
static void lead(struct remote *r, struct call *me) {
  int error = 0;
  for (;;) {
    struct call *finished = NULL, *leader = NULL;
    take_finished(r, error, &finished);
    bool done = !me->in_ring;
    if (done) leader = pass_lead(r);
    struct vfront_queue *q = r->front->queues;
    pthread_mutex_unlock(&r->lock);
    while (finished) {
      struct call *c = finished;
      finished = c->next;
      if (c != me) wake(c, CALL_FINISHED);
    }
    if (leader) wake(leader, CALL_LEADS);
    if (done) return;
    error = vfront_wait(q, WAIT_MS);
    if (error > 0) error = 0;
    pthread_mutex_lock(&r->lock);
  }
}

static void follow(struct remote *r, struct call *me) {
  uint32_t state;
  while ((state = atomic_load_explicit(&me->state, memory_order_acquire)) == CALL_IN_WORK)
    syscall(SYS_futex, &me->state, FUTEX_WAIT_PRIVATE, CALL_IN_WORK, NULL, NULL, 0);
  if (state == CALL_FINISHED) return;
  pthread_mutex_lock(&r->lock);
  lead(r, me);
}

/* ---- Requests ----------------------------------------------------------------------------------
 */

/* NULL: there is no server. */
static struct call *take_call(struct remote *r) {
  struct call *c = NULL;
  pthread_mutex_lock(&r->lock);
  while (!r->free) pthread_cond_wait(&r->freed, &r->lock);
  if (!r->broken && (r->front || connect_anew(r, 0) == 0)) {
    c = r->free;
    r->free = c->next;
    r->taken++;
  }
  pthread_mutex_unlock(&r->lock);
  return c;
}

static void drop_broken(struct remote *r) {
  if (!r->broken || r->taken) return;
  vfront_close(r->front);
  r->front = NULL;
  r->broken = false;
}

static void put_call(struct remote *r, struct call *c) {
  pthread_mutex_lock(&r->lock);
  c->next = r->free;
  r->free = c;
  r->taken--;
  drop_broken(r);
  pthread_mutex_unlock(&r->lock);
  pthread_cond_signal(&r->freed);
}

static int submit_and_wait(struct remote *r, struct call *c) {
  struct vfront_request *request = &c->request;
  atomic_store_explicit(&c->state, CALL_IN_WORK, memory_order_relaxed);
  pthread_mutex_lock(&r->lock);
  if (r->broken || vfront_submit(r->front->queues, &request, 1) != 1) {
    r->broken = true; /* who leads finds that out, too */
    pthread_mutex_unlock(&r->lock);
    return -EIO;
  }
  c->in_ring = true;
  if (r->led) {
    pthread_mutex_unlock(&r->lock);
    follow(r, c);
  } else {
    r->led = true;
    lead(r, c);
  }
  return c->result;
}

/* At most a buffer full of data. */
static int run_piece(struct remote *r, enum vfront_op op, char *buf, uint32_t bytes,
                     uint64_t offset) {
  struct call *c = take_call(r);
  if (!c) return -EIO;
  c->request = (struct vfront_request){
      .op = op, .bytes = bytes, .offset = offset, .buf = c->buffer, .unmap = true};
  if (op == VFRONT_WRITE) memcpy(c->buffer, buf, bytes);
  int result = submit_and_wait(r, c);
  if (op == VFRONT_READ && !result) memcpy(buf, c->buffer, bytes);
  put_call(r, c);
  return result;
}

int remote_run(struct remote *r, enum vfront_op op, void *buf, uint64_t bytes, uint64_t offset) {
  bool data = op == VFRONT_READ || op == VFRONT_WRITE;
  uint64_t most = data ? BUFFER_BYTES : ZERO_BYTES_MAX, done = 0;
  int result;
  do {
    uint64_t now = min_u64(bytes - done, most);
    result = run_piece(r, op, data ? (char *)buf + done : NULL, (uint32_t)now, offset + done);
    done += now;
  } while (!result && done < bytes);
  return result;
}

int remote_look(struct remote *r, uint64_t *size_bytes, uint32_t *block_bytes, bool *read_only) {
  pthread_mutex_lock(&r->lock);
  int e = r->broken ? -EIO : r->front ? vfront_config(r->front) : connect_anew(r, 0);
  bool goes_on = r->front && !r->broken;
  if (e && goes_on && r->led) {
    e = 0; /* who leads finds out that the server has gone, and goes to the next: as it was */
  } else if (e && goes_on) {
    e = connect_again(r);
    if (!e) e = vfront_config(r->front);
    r->broken = e;
    drop_broken(r);
  }
  if (!e) {
    *size_bytes = r->front->size_bytes;
    *block_bytes = r->front->block_bytes;
    *read_only = r->front->read_only;
  }
  pthread_mutex_unlock(&r->lock);
  return e ? -EIO : 0;
}

/* ---- Life --------------------------------------------------------------------------------------
 */

int remote_open(struct remote **out, const struct remote_options *options) {
  struct remote *r = calloc(1, sizeof(*r));
  if (!r) return -ENOMEM;
  r->o = *options;
  pthread_mutex_init(&r->lock, NULL);
  pthread_cond_init(&r->freed, NULL);
  for (uint32_t i = CALLS; i-- > 0;) {
    r->calls[i].next = r->free;
    r->free = &r->calls[i];
  }
  int e = connect_anew(r, r->o.patience_ms);
  if (e) {
    remote_close(r);
    return e;
  }
  *out = r;
  return 0;
}

void remote_close(struct remote *r) {
  vfront_close(r->front);
  pthread_cond_destroy(&r->freed);
  pthread_mutex_destroy(&r->lock);
  free(r);
}
