/* bench_vhost_open.c - a job of --engine=vhost with --rate_iops: requests are sent when they are
 * due, and response times count from then. On the job's own thread.
 *
 *   pending -> (due: aim) submit -> in flight -> (reap) pending
 *
 * It sleeps while nothing is due; with requests in flight until the server calls, for whole
 * milliseconds only, as vfront_wait() knows no others, and polls the rest of the time. */
#include "tools/bench_vhost.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define REAP_MAX 64u
#define SPIN_NS  UINT64_C(60000) /* what a sleep may be late */
#define SLEEP_MS 100             /* at most: the end may come at any time */
#define STUCK_MS 30000           /* nothing finishes: an error */
#define MS       UINT64_C(1000000)

/* Sends what is due and has a request free. */
static int send_due(struct job *j, struct vfront_queue *q, uint64_t now) {
  uint32_t n = j->aimed; /* the ring was full */
  bool over = *j->stop || now >= j->deadline_ns;
  while (!over && n < j->pending_count && arrivals_due_ns(&j->arrivals) <= now) {
    struct job_work *w = (struct job_work *)j->pending[n];
    job_aim_next(j, w);
    w->request.start_ns = now;
    w->due_ns = arrivals_due_ns(&j->arrivals);
    arrivals_next(&j->arrivals);
    n++;
  }
  j->aimed = n;
  if (n == 0) return 0;
  int sent = vfront_submit(q, j->pending, n);
  if (sent < 0) return sent;
  j->pending_count -= (uint32_t)sent;
  j->aimed -= (uint32_t)sent;
  memmove(j->pending, j->pending + sent, j->pending_count * sizeof(struct vfront_request *));
  return 0;
}

static int sleep_until(struct job *j, struct vfront_queue *q, uint64_t now) {
  uint64_t due = arrivals_due_ns(&j->arrivals);
  if (due > j->deadline_ns) due = j->deadline_ns;
  if (due > now + SLEEP_MS * MS || j->pending_count == 0) due = now + SLEEP_MS * MS;
  uint64_t left = due > now + SPIN_NS ? due - now - SPIN_NS : 0;
  if (q->in_flight > 0) {
    if (left < MS) {
      __builtin_ia32_pause();
      return 0;
    }
    j->sleeps++;
    int r = vfront_wait(q, (int)(left / MS));
    return r < 0 ? r : 0;
  }
  if (*j->stop) return 0;
  const struct timespec nap = {.tv_nsec = (long)left};
  if (left > 0) nanosleep(&nap, NULL);
  return vfront_alive(j->front);
}

static int turn(struct job *j, struct vfront_queue *q, uint64_t *moved_ns) {
  struct vfront_request *done[REAP_MAX];
  int n = vfront_reap(q, done, REAP_MAX);
  if (n < 0) return n;
  job_take(j, done, (uint32_t)n);
  uint64_t now = bench_now_ns();
  if (n > 0 || q->in_flight == 0) *moved_ns = now;
  if (now - *moved_ns > STUCK_MS * MS) return -ETIMEDOUT;
  int r = send_due(j, q, now);
  return r < 0 || n > 0 ? r : sleep_until(j, q, now);
}

static bool is_over(const struct job *j, const struct vfront_queue *q) {
  return q->in_flight == 0 && (*j->stop || (j->aimed == 0 && bench_now_ns() >= j->deadline_ns));
}

int job_run_open(struct job *j, struct vfront_queue *q) {
  uint64_t moved_ns = j->run_ns;
  int r = 0;
  if (j->arrivals.interval_ns == 0) { /* not after the server was away */
    arrivals_begin(&j->arrivals, (double)j->o->rate, j->o->rate_process == 1, j->random, j->run_ns);
    j->deadline_ns =
        j->run_ns + (uint64_t)(j->o->runtime_s * 1e9); /* threads begin when they can */
  }
  while (r == 0 && !is_over(j, q)) r = turn(j, q, &moved_ns);
  if (r < 0) return r;
  uint64_t now = bench_now_ns();
  j->unsent = arrivals_count_until(&j->arrivals, now < j->deadline_ns ? now : j->deadline_ns);
  return 0;
}
