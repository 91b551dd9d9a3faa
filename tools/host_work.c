/* host_work.c - see host_work.h. */
#include "tools/host_work.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WORKERS_MAX = 32 };

struct queue {
  struct host_job *first, **last;
};

struct worker {
  pthread_t thread;
  struct sr_port *port;
  struct host_work *work;
};

struct host_work {
  struct host *host;
  pthread_mutex_t lock;
  pthread_cond_t more;
  struct queue quick, slow, finished;
  uint32_t count, slow_running;
  bool stopping;
  int fd;
  struct worker workers[WORKERS_MAX];
};

static void queue_init(struct queue *q) {
  q->first = NULL;
  q->last = &q->first;
}
static void queue_add(struct queue *q, struct host_job *job) {
  job->next = NULL;
  *q->last = job;
  q->last = &job->next;
}
static struct host_job *queue_take(struct queue *q) {
  struct host_job *job = q->first;
  if (!job) return NULL;
  q->first = job->next;
  if (!q->first) q->last = &q->first;
  return job;
}

/* Under the lock. The last free thread is for what is quick. */
static struct host_job *next_job(struct host_work *w) {
  struct host_job *job = queue_take(&w->quick);
  if (job || w->slow_running + 1 >= w->count) return job;
  job = queue_take(&w->slow);
  if (job) w->slow_running++;
  return job;
}

static void carry_out(struct worker *me, struct host_job *job) {
  const uint64_t one = 1;
  struct host_work *w = me->work;
  if (job->run)
    job->run(w->host);
  else
    job->reply = host_answer(w->host, me->port, &job->command, &job->error);
  pthread_mutex_lock(&w->lock);
  if (!job->run && job->command.slow) w->slow_running--;
  queue_add(&w->finished, job);
  if (w->slow.first) pthread_cond_signal(&w->more);
  pthread_mutex_unlock(&w->lock);
  ssize_t n = write(w->fd, &one, sizeof(one));
  (void)n; /* it only fails when the count is full, and then it is readable */
}

static void *work(void *arg) {
  struct worker *me = arg;
  struct host_work *w = me->work;
  pthread_mutex_lock(&w->lock);
  for (;;) {
    struct host_job *job = next_job(w);
    if (job) {
      pthread_mutex_unlock(&w->lock);
      carry_out(me, job);
      pthread_mutex_lock(&w->lock);
    } else if (w->stopping && !w->slow.first) {
      break;
    } else {
      pthread_cond_wait(&w->more, &w->lock);
    }
  }
  pthread_cond_broadcast(&w->more);
  pthread_mutex_unlock(&w->lock);
  return NULL;
}

static int start_worker(struct host_work *w) {
  struct worker *me = w->workers + w->count;
  me->work = w;
  int r = sr_port_open(w->host->store, NULL, &me->port);
  if (r < 0) return r;
  r = -pthread_create(&me->thread, NULL, work, me);
  if (r < 0) {
    sr_port_close(me->port);
    return r;
  }
  pthread_mutex_lock(&w->lock);
  w->count++;
  pthread_mutex_unlock(&w->lock);
  return 0;
}

int host_work_start(struct host_work **out, struct host *h, uint32_t workers) {
  struct host_work *w = calloc(1, sizeof(*w));
  if (!w) return -ENOMEM;
  w->host = h;
  pthread_mutex_init(&w->lock, NULL);
  pthread_cond_init(&w->more, NULL);
  queue_init(&w->quick);
  queue_init(&w->slow);
  queue_init(&w->finished);
  w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  int r = w->fd < 0 ? -errno : 0;
  for (uint32_t i = 0; i < workers && i < WORKERS_MAX && r == 0; i++) r = start_worker(w);
  if (r < 0) {
    host_work_stop(w);
    host_work_free(w);
    return r;
  }
  *out = w;
  return 0;
}

void host_work_stop(struct host_work *w) {
  pthread_mutex_lock(&w->lock);
  w->stopping = true;
  pthread_cond_broadcast(&w->more);
  pthread_mutex_unlock(&w->lock);
  for (uint32_t i = 0; i < w->count; i++) {
    pthread_join(w->workers[i].thread, NULL);
    sr_port_close(w->workers[i].port);
  }
}

void host_work_free(struct host_work *w) {
  if (!w) return;
  if (w->fd >= 0) close(w->fd);
  pthread_cond_destroy(&w->more);
  pthread_mutex_destroy(&w->lock);
  free(w);
}

void host_work_submit(struct host_work *w, struct host_job *job) {
  bool slow = !job->run && job->command.slow;
  pthread_mutex_lock(&w->lock);
  queue_add(slow ? &w->slow : &w->quick, job);
  pthread_cond_signal(&w->more);
  pthread_mutex_unlock(&w->lock);
}

int host_work_fd(const struct host_work *w) { return w->fd; }

struct host_job *host_work_finished(struct host_work *w) {
  uint64_t count;
  pthread_mutex_lock(&w->lock);
  struct host_job *job = queue_take(&w->finished);
  if (!job) {
    ssize_t n = read(w->fd, &count, sizeof(count));
    (void)n;
    job = queue_take(&w->finished);
  }
  pthread_mutex_unlock(&w->lock);
  return job;
}
