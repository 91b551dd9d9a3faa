/* test_host_work.c - host_work: slow requests do not keep quick ones waiting, and all that was
 * submitted comes back. What a request does is ours here: host_answer() stands below. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <poll.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "tools/host_work.h"

static sem_t begun, go;
static atomic_int running, most_running;

char *host_answer(struct host *h, struct sr_port *port, const struct host_command *c, int *error) {
  *error = port && h ? 0 : -1;
  if (c->slow) {
    int now = ++running, most = most_running;
    while (now > most && !atomic_compare_exchange_weak(&most_running, &most, now)) continue;
    sem_post(&begun);
    sem_wait(&go);
    running--;
  }
  return strdup(c->id_text);
}

struct fixture {
  struct host host;
  struct host_work *work;
};

static int set_up(void **state) {
  struct fixture *f = calloc(1, sizeof(*f));
  struct sr_open_options open = SR_OPEN_OPTIONS_INIT;
  open.core_count = 1;
  sem_init(&begun, 0, 0);
  sem_init(&go, 0, 0);
  running = most_running = 0;
  *state = f;
  return sr_store_open("mem:64M:1", &open, &f->host.store);
}
static int tear_down(void **state) {
  struct fixture *f = *state;
  int r = sr_store_close(f->host.store);
  sem_destroy(&begun);
  sem_destroy(&go);
  free(f);
  return r;
}

static void submit(struct fixture *f, struct host_job *job, const char *id, bool slow) {
  memset(job, 0, sizeof(*job));
  job->command.slow = slow;
  strcpy(job->command.id_text, id);
  host_work_submit(f->work, job);
}

/* The next finished one, however long it takes. */
static struct host_job *next(struct fixture *f) {
  struct host_job *job;
  while (!(job = host_work_finished(f->work))) {
    struct pollfd p = {.fd = host_work_fd(f->work), .events = POLLIN};
    assert_int_equal(poll(&p, 1, -1), 1);
  }
  return job;
}

static void expect_next(struct fixture *f, const struct host_job *want) {
  struct host_job *job = next(f);
  assert_ptr_equal(job, want);
  assert_int_equal(job->error, 0);
  assert_string_equal(job->reply, job->command.id_text);
  free(job->reply);
}

static void quick_passes_slow(void **state) {
  struct fixture *f = *state;
  struct host_job slow[5], quick[3];
  assert_int_equal(host_work_start(&f->work, &f->host, 3), 0);
  for (int i = 0; i < 5; i++) submit(f, slow + i, "slow", true);
  sem_wait(&begun);
  sem_wait(&begun); /* two of three threads are in slow ones, which do not end */
  for (int i = 0; i < 3; i++) {
    submit(f, quick + i, "quick", false);
    expect_next(f, quick + i);
  }
  assert_null(host_work_finished(f->work));
  assert_int_equal(running, 2);
  for (int i = 0; i < 5; i++) sem_post(&go);
  for (int i = 0; i < 5; i++) free(next(f)->reply);
  assert_int_equal(most_running, 2);
  host_work_stop(f->work);
  assert_null(host_work_finished(f->work));
  host_work_free(f->work);
}

static atomic_int swept;
static void sweep(struct host *h) {
  (void)h;
  swept++;
}

static void stop_waits_for_all(void **state) {
  struct fixture *f = *state;
  struct host_job slow[4], own = {.run = sweep};
  assert_int_equal(host_work_start(&f->work, &f->host, 2), 0);
  for (int i = 0; i < 4; i++) submit(f, slow + i, "s", true);
  host_work_submit(f->work, &own);
  assert_ptr_equal(next(f), &own);
  assert_int_equal(swept, 1);
  for (int i = 0; i < 4; i++) sem_post(&go);
  host_work_stop(f->work);
  for (int i = 0; i < 4; i++) expect_next(f, slow + i); /* in the order of submission */
  assert_null(host_work_finished(f->work));
  assert_int_equal(most_running, 1);
  host_work_free(f->work);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(quick_passes_slow, set_up, tear_down),
      cmocka_unit_test_setup_teardown(stop_waits_for_all, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
