/* bench_stop.c - see bench_stop.h. The watching thread is never joined: it ends with the process.
 */
#include "tools/bench_stop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#define SAME_ONE_NS 200000000

static atomic_int asked;
static atomic_int child_pid;
static sigset_t watched, before;

static void say(void) {
  fprintf(stderr, "\nshard-bench: %s: stopping; another one ends it at once\n", bench_stop_name());
}

static void pass_on(void) {
  int signal_number = atomic_load(&asked);
  pid_t child = atomic_load(&child_pid);
  if (child > 0 && signal_number) kill(child, signal_number);
}

static void *watch(void *arg) {
  const struct timespec moment = {.tv_nsec = SAME_ONE_NS};
  int signal_number = 0;
  (void)arg;
  while (sigwait(&watched, &signal_number) != 0) continue;
  atomic_store(&asked, signal_number);
  if (atomic_load(&child_pid) == 0) say();
  pass_on();
  while (sigtimedwait(&watched, NULL, &moment) > 0 || errno == EINTR) continue;
  pthread_sigmask(SIG_UNBLOCK, &watched, NULL);
  for (;;) pause(); /* the next one ends the process here */
  return NULL;
}

/* A child has no watching thread: it gets the signals as usual. */
static void in_child(void) { pthread_sigmask(SIG_SETMASK, &before, NULL); }

/* As of a shell's background jobs. */
static void add_unless_ignored(int signal_number) {
  struct sigaction action;
  if (sigaction(signal_number, NULL, &action) == 0 && action.sa_handler == SIG_IGN) return;
  sigaddset(&watched, signal_number);
}

void bench_stop_watch(void) {
  static bool children;
  pthread_t thread;
  sigemptyset(&watched);
  add_unless_ignored(SIGINT);
  add_unless_ignored(SIGTERM);
  atomic_store(&asked, 0);
  atomic_store(&child_pid, 0);
  if (pthread_sigmask(SIG_BLOCK, &watched, &before) != 0) return;
  if (!children) pthread_atfork(NULL, NULL, in_child);
  children = true;
  if (pthread_create(&thread, NULL, watch, NULL) == 0)
    pthread_detach(thread);
  else
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int bench_stop_signal(void) { return atomic_load_explicit(&asked, memory_order_relaxed); }

const char *bench_stop_name(void) {
  int signal_number = bench_stop_signal();
  return signal_number == SIGINT ? "SIGINT" : signal_number ? "SIGTERM" : "";
}

void bench_stop_child(pid_t child) {
  atomic_store(&child_pid, child);
  pass_on();
}
