/* hostile.c - the command line, the server's life, and what is looked after for each case. */
#include <errno.h>
#include <poll.h>
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/hostile/hostile.h"
#include "api/vhost/front.h"

#define PATIENCE_MS   20000
#define GOOD_REQUESTS 40

struct world world = {.control = -1};
static const struct hostile_case *const groups[] = {
    cases_message, cases_descriptor, cases_memory, cases_ring,  cases_chain,
    cases_request, cases_inflight,   cases_repeat, cases_order, cases_packed,
};

static struct {
  const char *socket, *good, *command, *only, *serve;
  bool list, own;
} options;
static char directory[200], bad_path[300], good_path[300], slow_path[300], late_path[300];
static int answers = -1; /* our server's stdout */
static jmp_buf failed;
static char why[512];

void fail_case(const char *format, ...) {
  va_list ap;
  va_start(ap, format);
  vsnprintf(why, sizeof why, format, ap);
  va_end(ap);
  longjmp(failed, 1);
}

uint64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void nap_ms(uint32_t ms) {
  struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};
  nanosleep(&t, NULL);
}

/* ---- What a server holds --------------------------------------------------------------------- */

uint32_t server_fds(void) {
  char path[64];
  uint32_t n = 0;
  snprintf(path, sizeof path, "/proc/%d/fd", world.pid);
  DIR *d = world.pid ? opendir(path) : NULL;
  while (d && readdir(d)) n++;
  if (d) closedir(d);
  return n;
}

uint32_t server_maps(void) {
  char path[64], line[1024];
  uint32_t n = 0;
  snprintf(path, sizeof path, "/proc/%d/maps", world.pid);
  FILE *f = world.pid ? fopen(path, "r") : NULL;
  while (f && fgets(line, sizeof line, f)) n += strstr(line, "memfd:") != NULL;
  if (f) fclose(f);
  return n;
}

void expect_back_to(uint32_t fds, uint32_t maps) {
  uint64_t end = now_ms() + PATIENCE_MS;
  uint32_t fds_now, maps_now;
  for (;;) {
    fds_now = server_fds();
    maps_now = server_maps();
    if (fds_now <= fds && maps_now <= maps) return;
    if (now_ms() > end) break;
    nap_ms(5);
  }
  fail_case("the server holds %u descriptors and %u mappings; before: %u and %u", fds_now, maps_now,
            fds, maps);
}

/* ---- Life of the server ---------------------------------------------------------------------- */

/* Its exit status if it has ended, else -1. */
static int server_ended(void) {
  int status;
  if (!world.pid || waitpid(world.pid, &status, WNOHANG) != world.pid) return -1;
  world.pid = 0;
  return status;
}

static void run_child(int from_us, int to_us) {
  char argument[300];
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGPIPE, SIG_DFL); /* a server that nobody has prepared for broken pipes */
  if (options.own) {
    dup2(from_us, STDIN_FILENO);
    dup2(to_us, STDOUT_FILENO);
    snprintf(argument, sizeof argument, "--serve=%s", directory);
    execl("/proc/self/exe", "hostile", argument, (char *)NULL);
  } else {
    execl("/bin/sh", "sh", "-c", options.command, (char *)NULL);
  }
  _exit(127);
}

static void await_line(void) {
  char c = 0;
  struct pollfd p = {.fd = answers, .events = POLLIN};
  while (c != '\n') {
    if (poll(&p, 1, 60000) <= 0) fail_case("our server does not answer");
    if (read(answers, &c, 1) != 1) fail_case("our server has ended");
  }
}

static void name_sockets(void) {
  const char *tmp = getenv("TMPDIR");
  snprintf(directory, sizeof directory, "%s/hostile-XXXXXX", tmp ? tmp : "/tmp");
  /* A socket's path is short. */
  if (strlen(directory) > 90) strcpy(directory, "/tmp/hostile-XXXXXX");
  if (!mkdtemp(directory)) {
    perror(directory);
    exit(1);
  }
  snprintf(bad_path, sizeof bad_path, "%s/bad", directory);
  snprintf(good_path, sizeof good_path, "%s/good", directory);
  snprintf(slow_path, sizeof slow_path, "%s/slow", directory);
  snprintf(late_path, sizeof late_path, "%s/late", directory);
  world.bad = bad_path;
  world.good = good_path;
  world.slow = slow_path;
  world.late = late_path;
}

static void remove_directory(void) {
  char command[300];
  if (!directory[0]) return;
  snprintf(command, sizeof command, "rm -rf '%s'", directory);
  if (system(command) != 0) fprintf(stderr, "%s stays\n", directory);
  directory[0] = 0;
}

static void start_server(void) {
  int to[2], from[2];
  if (options.own) name_sockets();
  if (!options.own && !options.command) return;
  check(pipe(to) == 0);
  check(pipe(from) == 0);
  world.pid = fork();
  check(world.pid >= 0);
  if (world.pid == 0) {
    close(to[1]);
    close(from[0]);
    run_child(to[0], from[1]);
  }
  close(to[0]);
  close(from[1]);
  world.control = to[1];
  answers = from[0];
  if (options.own) await_line();
}

static void close_pipes(void) {
  if (world.control >= 0) close(world.control);
  if (answers >= 0) close(answers);
  world.control = answers = -1;
}

/* It is asked to end, and does within a minute (a sanitizer looks for leaks). 0: in order. */
static int stop_server(void) {
  int status = -1;
  uint64_t end = now_ms() + 60000;
  if (world.control >= 0) close(world.control);
  world.control = -1;
  if (world.pid && !options.own) kill(world.pid, SIGTERM);
  while (world.pid && (status = server_ended()) < 0 && now_ms() < end) nap_ms(5);
  if (world.pid) {
    printf("the server does not end\n");
    if (getenv("HOSTILE_HOLD")) pause();
    kill(world.pid, SIGKILL);
    waitpid(world.pid, &status, 0);
    world.pid = 0;
    status = 1;
  }
  close_pipes();
  if (options.own) remove_directory();
  return options.own ? status : 0;
}

void own_server_resize(void) {
  expect(write(world.control, "r", 1) == 1);
  await_line();
}

/* ---- Afterwards ------------------------------------------------------------------------------ */

void expect_serves(const char *socket) {
  struct vfront_options o = {.socket = socket,
                             .queues = 1,
                             .depth = 4,
                             .pieces = 1,
                             .buffer_bytes = 8192,
                             .connect_ms = PATIENCE_MS};
  struct vfront *f = NULL;
  char text[300] = "";
  int r = vfront_open(&f, &o, text, sizeof text);
  if (r < 0) fail_case("a well-behaved client cannot connect afterwards: %s", text);
  struct vfront_request q = {.op = VFRONT_WRITE, .bytes = 4096, .offset = 8192, .buf = f->buffers};
  memset(f->buffers, 0x3c, 4096);
  int written = vfront_do(&f->queues[0], &q);
  q.op = VFRONT_READ;
  q.buf = f->buffers + 4096;
  int read_back = vfront_do(&f->queues[0], &q);
  bool same = memcmp(f->buffers, f->buffers + 4096, 4096) == 0;
  snprintf(text, sizeof text, "%s", f->queues[0].why);
  vfront_close(f);
  if (written || read_back || !same)
    fail_case("a well-behaved client afterwards: write %d, read %d, %s; %s", written, read_back,
              same ? "the same" : "other data", text);
}

static void look_after(uint32_t fds, uint32_t maps) {
  int status = server_ended();
  if (status >= 0) fail_case("the server has ended, status 0x%x", (unsigned)status);
  expect_serves(world.bad);
  const char *wrong = good_progress(GOOD_REQUESTS);
  if (wrong) fail_case("%s", wrong);
  expect_back_to(fds, maps);
  if (server_ended() >= 0) fail_case("the server has ended");
}

static bool run_case(const struct hostile_case *c) {
  volatile bool fine = true;
  volatile uint32_t fds = 0, maps = 0;
  why[0] = 0;
  if (setjmp(failed) == 0) {
    expect_serves(world.bad);
    nap_ms(1);
    fds = server_fds();
    maps = server_maps();
    /* The last client may be on its way out: the least of some looks counts. */
    for (uint32_t i = 0; i < 5 && world.pid; i++) {
      nap_ms(2);
      if (server_fds() < fds) fds = server_fds();
      if (server_maps() < maps) maps = server_maps();
    }
    c->run();
  } else {
    fine = false;
  }
  mon_close_all();
  if (fine && setjmp(failed) == 0)
    look_after(fds, maps);
  else
    fine = false;
  return fine;
}

/* ---- The command line ------------------------------------------------------------------------ */

static const char usage[] =
    "usage: hostile [--list] [--only=NAME] [--socket=PATH [--good=PATH] [--server=COMMAND]]\n"
    "Plays hostile guests and monitors against a vhost-user-blk server; by default our own, as a\n"
    "child process.\n"
    "  --list            names of the cases, and what they are for\n"
    "  --only=NAME       one case, or all whose name begins so\n"
    "  --socket=PATH     another server: where it listens, for a disk of at least 8 MiB that may\n"
    "                    be overwritten, with 2 queues of at least 128\n"
    "  --good=PATH       another disk of it, for the well-behaved client; default: none\n"
    "  --server=COMMAND  starts it (and again, when it has died)\n"
    "Exit status: 0: all is well; 1: something is not; 2: the command line is wrong.\n";

static const char *value_of(const char *argument, const char *name) {
  size_t n = strlen(name);
  return strncmp(argument, name, n) == 0 ? argument + n : NULL;
}

static bool take_argument(const char *argument) {
  const char *v;
  if (strcmp(argument, "--list") == 0)
    options.list = true;
  else if ((v = value_of(argument, "--only=")))
    options.only = v;
  else if ((v = value_of(argument, "--socket=")))
    options.socket = v;
  else if ((v = value_of(argument, "--good=")))
    options.good = v;
  else if ((v = value_of(argument, "--server=")))
    options.command = v;
  else if ((v = value_of(argument, "--serve=")))
    options.serve = v;
  else
    return false;
  return true;
}

/* A case that runs with both kinds of rings has a name for each. */
static const char *name_of(const struct hostile_case *c, bool packed) {
  static char name[64];
  snprintf(name, sizeof name, "%s%s", packed && (c->kind & BOTH_RINGS) ? "packed_" : "", c->name);
  return name;
}

static bool is_wanted(const struct hostile_case *c, bool packed) {
  if (packed ? !(c->kind & (BOTH_RINGS | PACKED_RINGS)) : c->kind & PACKED_RINGS) return false;
  return !options.only || strncmp(name_of(c, packed), options.only, strlen(options.only)) == 0;
}

/* After a failure nobody waits for a server that may hang. */
static void break_world(void) {
  if (world.pid) kill(world.pid, SIGKILL);
  if (world.pid) waitpid(world.pid, NULL, 0);
  world.pid = 0;
  good_stop();
  close_pipes();
  remove_directory();
}

static bool begin_world_once(void) {
  world.bad = options.socket;
  world.good = options.good;
  world.strict = options.own;
  if (setjmp(failed) == 0) {
    start_server();
    if (!world.good || good_start(world.good) == 0) return true;
  }
  printf("cannot begin: %s\n", why);
  return false;
}

/* Some servers take more than one start. */
static bool begin_world(void) {
  for (uint32_t i = 0; i < 3; i++) {
    if (begin_world_once()) return true;
    break_world();
  }
  return false;
}

static bool end_world(void) {
  good_stop();
  int status = stop_server();
  if (status != 0) printf("the server ended with status 0x%x\n", (unsigned)status);
  return status == 0;
}

struct results {
  uint32_t passed, bad, left_out;
  bool up;
};

static void run_one(const struct hostile_case *c, struct results *r) {
  uint64_t began = now_ms();
  bool ok = run_case(c);
  printf("%-28s %s%s%s\n", name_of(c, world.packed), ok ? "ok" : "FAILED", ok ? "" : ": ",
         ok ? "" : why);
  if (getenv("HOSTILE_TIMES")) printf("  %u ms\n", (unsigned)(now_ms() - began));
  fflush(stdout);
  r->passed += ok;
  r->bad += !ok;
  if (ok) return;
  break_world(); /* the next case begins with a new one */
  r->up = begin_world();
}

static bool has_packed_rings(void) {
  static struct monitor m;
  if (options.own) return true;
  if (setjmp(failed) == 0) {
    mon_open(&m, world.bad);
    mon_negotiate(&m);
  }
  mon_close_all();
  return m.has_packed;
}

static void run_with_rings(bool packed, struct results *r) {
  bool has = !packed || (r->up && has_packed_rings());
  world.packed = packed;
  for (uint32_t g = 0; g < array_size(groups); g++)
    for (const struct hostile_case *c = groups[g]; c->name && r->up; c++) {
      if (!is_wanted(c, packed)) continue;
      if (has && (!(c->kind & OWN_SERVER) || options.own))
        run_one(c, r);
      else
        r->left_out++;
    }
}

static int run_all(void) {
  struct results r = {.up = begin_world()};
  run_with_rings(false, &r);
  run_with_rings(true, &r);
  bool fine = end_world() && r.up;
  printf("%u passed, %u failed, %u left out\n", r.passed, r.bad, r.left_out);
  return fine && r.bad == 0 && r.passed > 0 ? 0 : 1;
}

static int list_all(void) {
  for (uint32_t packed = 0; packed < 2; packed++)
    for (uint32_t g = 0; g < array_size(groups); g++)
      for (const struct hostile_case *c = groups[g]; c->name; c++)
        if (is_wanted(c, packed))
          printf("%-28s %s%s\n", name_of(c, packed), c->what,
                 c->kind & OWN_SERVER ? " (own server)" : "");
  return 0;
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  for (int i = 1; i < argc; i++)
    if (!take_argument(argv[i])) {
      fputs(usage, stderr);
      return 2;
    }
  if (options.serve) return own_server_main(options.serve);
  options.own = !options.socket;
  return options.list ? list_all() : run_all();
}
