/* host_main.c - shard-host: serves the volumes of a store to virtual machines, one UNIX socket for
 * each disk. Options, and the order of start and end.
 *
 * Threads: the main one (control socket, signals), workers for its requests, the log's, the
 * metrics'; and the library's own, its cores and its server of monitors. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/args.h"
#include "tools/host.h"
#include "tools/host_control.h"
#include "tools/host_log.h"
#include "tools/host_metrics.h"
#include "tools/host_sandbox.h"
#include "tools/host_sockets.h"
#include "tools/host_upgrade.h"

enum { TAKEOVER_LOCK_MS = 10000 };
enum { SANDBOX_ON = 0, SANDBOX_MUST, SANDBOX_OFF };

struct options {
  const char *store, *socket_dir, *control, *cores, *metrics, *user, *file_dir, *memory_dir;
  const char *control_mode, *control_group, *socket_mode, *socket_group, *takeover;
  int log_level, sandbox;
  bool no_sandbox, background, help, version;
  uint64_t clients_max, disks_max, workers, queue_depth, core_count;
  double activate_s, drain_s, lock_s;
};

/* What main() has begun, in the order in which it ends. */
struct daemon {
  struct options o;
  struct host host;
  struct host_user user;
  char control_path[108];
  bool control_is_ours;
  bool control_is_taken; /* from the one before us, whose it is until we serve */
  bool metrics_is_ours;
  struct host_takeover takeover;
  int control_fd, metrics_fd, signal_fd;
  int background_fd; /* --background: who has started us waits here; -1 */
  struct host_work *work;
  struct host_http *http;
};

/* ---- Options --------------------------------------------------------------------------------- */

static void help(const struct arg *table) {
  puts(HOST_TOOL " --store=WHERE --socket-dir=DIR [options]: serves volumes to virtual machines.\n"
                 "shard-ctl host drives it; docs/host-control.md has the protocol.\n");
  args_help(table);
  puts("\nSIGTERM: attaches nothing any more, waits for guests to go, flushes, closes, exit status "
       "0.\nA second one: does not wait. A third one: exits at once, status 1.\nExit status: 0 "
       "after a signal, 1 failed, 2 the command "
       "line is wrong.");
}

/* Of sr_open_options. What a host has by default need not be there. */
static const char *memory_dir(const struct options *o) {
  if (o->memory_dir) return strcmp(o->memory_dir, "none") ? o->memory_dir : "";
  return access("/dev/shm", W_OK) ? "" : "/dev/shm";
}

static char own_control[] = "--takeover=-";

/* Returns 0, 1 when there is nothing left to do, or ARGS_USAGE. */
static int parse_options(struct options *o, int argc, char **argv) {
  *o = (struct options){.control_mode = "0600",
                        .socket_mode = "0600",
                        .log_level = HOST_INFO,
                        .clients_max = 64,
                        .disks_max = 16384,
                        .workers = 4,
                        .drain_s = 10};
  const struct arg table[] = {
      {"store", ARG_TEXT, &o->store, .help = "where the store lies (shard-ctl format makes one)"},
      {"socket-dir", ARG_TEXT, &o->socket_dir, .help = "where sockets of disks are made"},
      {"control", ARG_TEXT, &o->control,
       .help = "control socket; default: control in the socket directory"},
      {"control-mode", ARG_TEXT, &o->control_mode, .help = "its permissions; default 0600"},
      {"control-group", ARG_TEXT, &o->control_group, .help = "its group"},
      {"socket-mode", ARG_TEXT, &o->socket_mode,
       .help = "permissions of disks' sockets unless a request says so; default 0600"},
      {"socket-group", ARG_TEXT, &o->socket_group, .help = "their group"},
      {"file-dir", ARG_TEXT, &o->file_dir, .help = "plain files in it can be attached, too"},
      {"memory-dir", ARG_TEXT, &o->memory_dir,
       .help = "in memory (tmpfs): what completed survives a killed daemon; default /dev/shm, "
               "none: not"},
      {"cores", ARG_TEXT, &o->cores, .help = "CPUs to run on, as 0-3,8; default: by topology"},
      {"core-count", ARG_NUMBER, &o->core_count, 1, SR_CORES_MAX, .help = "how many of them"},
      {"queue-depth", ARG_NUMBER, &o->queue_depth, 1, 4096,
       .help = "device requests in flight per core; default: the store's settings, else 256"},
      {"metrics", ARG_TEXT, &o->metrics, .help = "serve Prometheus on ADDRESS:PORT"},
      {"log-level", ARG_CHOICE, &o->log_level, .choices = "error|warning|info|debug",
       .help = "default info"},
      {"user", ARG_TEXT, &o->user, .help = "become that one once the store is open"},
      {"sandbox", ARG_CHOICE, &o->sandbox, .choices = "on|must|off",
       .help = "landlock and seccomp; on: what there is; must: both or nothing"},
      {"no-sandbox", ARG_FLAG, &o->no_sandbox, .help = "the same as --sandbox=off"},
      {"clients-max", ARG_NUMBER, &o->clients_max, 1, 4096,
       .help = "control connections at a time; default 64"},
      {"disks-max", ARG_NUMBER, &o->disks_max, 1, 1 << 20, .help = "default 16384"},
      {"workers", ARG_NUMBER, &o->workers, 2, 32,
       .help = "control requests carried out at a time; default 4"},
      {"activate-timeout", ARG_SECONDS, &o->activate_s, 0, 3600,
       .help = "drop monitors that take longer to set up a queue; default: never"},
      {"drain-timeout", ARG_SECONDS, &o->drain_s, 0, 86400,
       .help = "on SIGTERM wait so long for guests to go; default 10s"},
      {"lock-timeout", ARG_SECONDS, &o->lock_s, 0, 3600,
       .help = "wait so long for another process that has the store open"},
      {"takeover", ARG_TEXT, &o->takeover,
       .help = "take the place of the daemon with that control socket, its disks and connections; "
               "without =TEXT: that of --control"},
      {"background", ARG_FLAG, &o->background,
       .help = "return when it serves, with 0; or as it exits before (for ExecReload=)"},
      {"version", ARG_FLAG, &o->version, .help = ""},
      {"help", ARG_FLAG, &o->help, .help = ""},
      {NULL, 0, NULL, .help = NULL},
  };
  const char *words[1];
  /* The one option whose value may be left out. */
  for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
    if (strcmp(argv[i], "--takeover") == 0) argv[i] = own_control;
  if (args_parse(HOST_TOOL, table, argc, argv, words, 0) < 0) return ARGS_USAGE;
  if (o->version) return printf("%s %s\n", HOST_TOOL, sr_version()), 1;
  if (o->help) return help(table), 1;
  if (o->no_sandbox) o->sandbox = SANDBOX_OFF;
  if (o->store && o->socket_dir) return 0;
  fprintf(stderr, "%s: --%s=%s is missing; see %s --help\n", HOST_TOOL,
          o->store ? "socket-dir" : "store", o->store ? "DIR" : "WHERE", HOST_TOOL);
  return ARGS_USAGE;
}

/* Octal digits. 0 or ARGS_USAGE. */
static int parse_mode(const char *option, const char *text, uint32_t *mode) {
  char *end;
  unsigned long v = strtoul(text, &end, 8);
  if (*text >= '0' && *text <= '7' && !*end && v <= 0777) return *mode = (uint32_t)v, 0;
  fprintf(stderr, "%s: --%s=%s: not a legal value; legal: 0 to 0777\n", HOST_TOOL, option, text);
  return ARGS_USAGE;
}

static int parse_group(const char *option, const char *text, int64_t *group) {
  *group = -1;
  if (!text) return 0;
  char *end;
  unsigned long v = strtoul(text, &end, 10);
  const struct group *g = *end ? getgrnam(text) : NULL;
  if (g || !*end) return *group = g ? (int64_t)g->gr_gid : (int64_t)v, 0;
  fprintf(stderr, "%s: --%s=%s: there is no such group\n", HOST_TOOL, option, text);
  return ARGS_USAGE;
}

/* ---- Start ----------------------------------------------------------------------------------- */

static int failed(const char *what, const char *about, int error) {
  host_log_error(what, about, error);
  return 1;
}

static void on_store_line(void *arg, enum sr_log_level level, const char *line) {
  (void)arg;
  host_log((enum host_log_level)level, "store", LOG_TEXT("line", line));
}

static void on_vhost_event(void *arg, const struct sr_vhost_event *e) {
  static const char *const names[] = {"event", "connected", "active", "disconnected", "dropped"};
  (void)arg;
  host_log(e->kind == SR_VHOST_DROPPED ? HOST_WARNING : HOST_INFO,
           e->kind < sizeof(names) / sizeof(names[0]) ? names[e->kind] : names[0],
           LOG_TEXT("disk", e->disk), LOG_TEXT("what", e->what ? e->what : ""));
}

/* Signals come through a descriptor; a client that is gone is an error of send(). */
static int take_signals(struct daemon *d) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  sigprocmask(SIG_BLOCK, &set, NULL);
  d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  return d->signal_fd < 0 ? failed("signalfd", "signals", -errno) : 0;
}

static int make_socket_dir(struct daemon *d) {
  const char *dir = d->o.socket_dir;
  if (mkdir(dir, 0755) == 0) {
    if (d->user.name && chown(dir, d->user.uid, d->user.gid) < 0)
      return failed("socket_dir", dir, -errno);
  } else if (errno != EEXIST) {
    return failed("socket_dir", dir, -errno);
  }
  return 0;
}

static int find_control_path(struct daemon *d) {
  const struct options *o = &d->o;
  int n = o->control
              ? snprintf(d->control_path, sizeof(d->control_path), "%s", o->control)
              : snprintf(d->control_path, sizeof(d->control_path), "%s/control", o->socket_dir);
  return n < (int)sizeof(d->control_path)
             ? 0
             : failed("control", o->control ? o->control : o->socket_dir, -ENAMETOOLONG);
}

static int listen_control(struct daemon *d) {
  const struct options *o = &d->o;
  uint32_t mode;
  int64_t group;
  int r = parse_mode("control-mode", o->control_mode, &mode);
  if (r == 0) r = parse_group("control-group", o->control_group, &group);
  if (r) return r;
  d->control_fd = host_inherited_take(&d->host.inherited, "control");
  if (d->control_fd >= 0) {
    int flags = fcntl(d->control_fd, F_GETFL);
    return flags < 0 || fcntl(d->control_fd, F_SETFL, flags | O_NONBLOCK) < 0
               ? failed("control", "the inherited socket", -errno)
               : 0;
  }
  if (d->takeover.control_fd >= 0 && strcmp(d->takeover.control_at, d->control_path) == 0) {
    d->control_fd = d->takeover.control_fd;
    d->takeover.control_fd = -1;
    d->control_is_taken = true;
    return 0;
  }
  d->control_fd = host_listen_unix(d->control_path, (mode_t)mode, d->user.uid, (gid_t)group);
  if (d->control_fd < 0) return failed("control", d->control_path, d->control_fd);
  d->control_is_ours = true;
  return 0;
}

static int listen_metrics(struct daemon *d) {
  d->metrics_fd = host_inherited_take(&d->host.inherited, "metrics");
  if (d->metrics_fd >= 0 || !d->o.metrics) return 0;
  if (d->takeover.metrics_fd >= 0 && strcmp(d->takeover.metrics_at, d->o.metrics) == 0) {
    d->metrics_fd = d->takeover.metrics_fd;
    d->takeover.metrics_fd = -1;
    d->metrics_is_ours = true;
    return 0;
  }
  d->metrics_fd = host_listen_tcp(d->o.metrics);
  if (d->metrics_fd == -EINVAL) {
    fprintf(stderr, "%s: --metrics=%s: not a legal value; legal: ADDRESS:PORT, in digits\n",
            HOST_TOOL, d->o.metrics);
    return ARGS_USAGE;
  }
  if (d->metrics_fd < 0) return failed("metrics", d->o.metrics, d->metrics_fd);
  /* Port 0 lets the system choose. */
  host_log(HOST_INFO, "metrics", LOG_NUMBER("port", host_port_of(d->metrics_fd)));
  d->metrics_is_ours = true;
  return 0;
}

/* Without it only where that was allowed. */
static int sandbox_result(const struct daemon *d, const char *part, const char *about, int r) {
  if (r == 0) return 0;
  if (r != -ENOSYS || d->o.sandbox == SANDBOX_MUST) return failed(part, about, r);
  host_log(HOST_WARNING, part, LOG_TEXT("why", "not there: going on without"));
  return 0;
}

static int enter_paths(struct daemon *d) {
  const struct options *o = &d->o;
  const struct host_paths paths = {
      o->store, o->socket_dir, d->control_is_ours || d->control_is_taken ? d->control_path : NULL,
      o->file_dir, memory_dir(o)};
  const char *bad;
  if (o->sandbox == SANDBOX_OFF) return 0;
  int r = host_sandbox_paths(&paths, &bad);
  return sandbox_result(d, "landlock", bad, r);
}

static int open_store(struct daemon *d) {
  const struct options *o = &d->o;
  struct sr_open_options open = SR_OPEN_OPTIONS_INIT;
  open.cores = o->cores;
  open.core_count = (uint32_t)o->core_count;
  open.queue_depth = (uint32_t)o->queue_depth;
  open.lock_timeout_ms = (uint32_t)(o->lock_s * 1000);
  if (o->takeover && open.lock_timeout_ms < TAKEOVER_LOCK_MS)
    open.lock_timeout_ms = TAKEOVER_LOCK_MS; /* the kernel lets go of it a little later */
  open.memory_dir = memory_dir(o);
  open.log = on_store_line;
  int r = sr_store_open(o->store, &open, &d->host.store);
  return r < 0 ? failed("store", o->store, r) : 0;
}

static int start_vhost(struct daemon *d) {
  struct sr_vhost_options v = SR_VHOST_OPTIONS_INIT;
  v.disks_max = (uint32_t)d->o.disks_max;
  v.activate_ms = (uint32_t)(d->o.activate_s * 1000);
  v.event = on_vhost_event;
  int r = sr_vhost_start(d->host.store, &v, &d->host.vhost);
  return r < 0 ? failed("vhost", d->o.store, r) : 0;
}

/* ---- Takeover -------------------------------------------------------------------------------- */

static int identify_store(struct daemon *d) {
  int r = host_store_identity(d->o.store, d->host.identity);
  return r < 0 ? failed("store", d->o.store, r) : 0;
}

/* What a successor of this one would have to know. */
static int describe_us(struct daemon *d) {
  struct host *h = &d->host;
  h->control_fd = d->control_fd;
  if (d->control_is_ours || d->control_is_taken) h->control_at = d->control_path;
  /* Another descriptor of it, since the server of figures closes its own. */
  if (d->metrics_fd < 0) return 0;
  h->metrics_fd = fcntl(d->metrics_fd, F_DUPFD_CLOEXEC, 0);
  h->metrics_at = d->metrics_is_ours ? d->o.metrics : NULL;
  return h->metrics_fd < 0 ? failed("metrics", d->o.metrics, -errno) : 0;
}

/* Before we listen anywhere: that comes from the old one as well. */
static int ask_predecessor(struct daemon *d) {
  struct host *h = &d->host;
  char why[HOST_WHY_BYTES] = "";
  if (!d->o.takeover) return 0;
  const char *control = strcmp(d->o.takeover, "-") == 0 ? d->control_path : d->o.takeover;
  int r = *h->identity ? host_takeover_ask(&d->takeover, control, h->identity, d->signal_fd,
                                           &h->inherited, why)
                       : -EOPNOTSUPP;
  if (r == 0) {
    h->draining = d->takeover.draining;
    return 0;
  }
  host_log(HOST_ERROR, "takeover", LOG_TEXT("about", control),
           LOG_TEXT("why", *why ? why : strerror(-r)));
  return 1;
}

/* The disks, and then the store's lock. */
static int take_disks(struct daemon *d) {
  if (!d->o.takeover) return 0;
  int r = host_takeover_receive(&d->takeover);
  if (r < 0) {
    host_log(HOST_ERROR, "takeover", LOG_NUMBER("pid", d->takeover.pid),
             LOG_TEXT("why", strerror(-r)),
             LOG_TEXT("what", "the disks stay where they were; the log there says why"));
    return 1;
  }
  host_log(HOST_INFO, "received", LOG_NUMBER("pid", d->takeover.pid));
  r = host_takeover_wait(&d->takeover);
  return r < 0 ? failed("takeover", "the other one does not close its store", r) : 0;
}

/* The first error of a disk is told; the others are there, and so are we. */
static void resume_disks(struct daemon *d) {
  if (!d->o.takeover) return;
  int r = sr_vhost_resume(d->host.vhost, d->takeover.handover);
  d->takeover.handover = NULL;
  if (r < 0) failed("resume", "a disk, or more than one", r);
  d->control_is_ours |= d->control_is_taken;
  host_log(HOST_INFO, "taken_over", LOG_NUMBER("pid", d->takeover.pid));
}

/* ---- All of it ------------------------------------------------------------------------------- */

/* The daemon is a child; the process that was started ends when that one is ready, or gone. */
static int go_to_background(struct daemon *d) {
  int ends[2], status = 0;
  char ready;
  ssize_t n;
  if (!d->o.background) return 0;
  if (pipe2(ends, O_CLOEXEC) < 0) return failed("background", d->o.store, -errno);
  pid_t pid = fork();
  if (pid < 0) return failed("background", d->o.store, -errno);
  if (pid == 0) {
    close(ends[0]);
    d->background_fd = ends[1];
    return 0;
  }
  close(ends[1]);
  while ((n = read(ends[0], &ready, 1)) < 0 && errno == EINTR)
    ;
  if (n == 1) exit(0);
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
    ;
  exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

/* What needs neither the store nor a second thread. */
static int prepare(struct daemon *d) {
  struct options *o = &d->o;
  struct host *h = &d->host;
  host_log_level((enum host_log_level)o->log_level);
  h->started_ns = host_now_ns();
  h->where = o->store;
  h->socket_dir = o->socket_dir;
  h->file_dir = o->file_dir;
  h->control_fd = -1;
  pthread_mutex_init(&h->lock, NULL);
  umask(0); /* every socket gets the very mode that was asked for */
  host_notify_init();
  host_inherited_read(&h->inherited);
  int r = parse_mode("socket-mode", o->socket_mode, &h->socket_mode);
  if (r == 0) r = parse_group("socket-group", o->socket_group, &h->socket_group);
  if (r == 0 && host_find_user(o->user, &d->user) < 0) r = failed("user", o->user, -ENOENT);
  if (r == 0) r = take_signals(d);
  if (r == 0) r = make_socket_dir(d);
  if (r == 0) r = find_control_path(d);
  if (r == 0) r = identify_store(d);
  if (r == 0) r = ask_predecessor(d);
  if (r == 0) r = listen_control(d);
  if (r == 0) r = listen_metrics(d);
  if (r == 0) r = describe_us(d);
  host_raise_limits();
  return r ? r : enter_paths(d);
}

/* All threads, and then the last of the sandbox. */
static int start(struct daemon *d) {
  host_log_start();
  int r = open_store(d);
  if (r) return r;
  r = host_drop_user(&d->user);
  if (r < 0) return failed("user", d->o.user, r);
  r = start_vhost(d);
  if (r) return r;
  resume_disks(d);
  r = host_work_start(&d->work, &d->host, (uint32_t)d->o.workers);
  if (r < 0) return failed("workers", d->o.store, r);
  if (d->metrics_fd >= 0) {
    r = host_http_start(&d->http, &d->host, d->metrics_fd);
    d->metrics_fd = -1;
    if (r < 0) return failed("metrics", d->o.metrics ? d->o.metrics : "inherited", r);
  }
  r = d->o.sandbox == SANDBOX_OFF ? 0 : host_sandbox_calls();
  return sandbox_result(d, "seccomp", "system calls", r);
}

static void announce(const struct daemon *d) {
  char line[64];
  host_log(HOST_INFO, "ready", LOG_TEXT("store", d->o.store),
           LOG_TEXT("control", d->control_is_ours ? d->control_path : "inherited"),
           LOG_NUMBER("shards", sr_shard_count(d->host.store)),
           LOG_NUMBER("cores", sr_core_count(d->host.store)), LOG_NUMBER("pid", getpid()));
  snprintf(line, sizeof(line), "MAINPID=%d\nREADY=1\nSTATUS=serving", (int)getpid());
  host_notify(d->o.takeover ? line : strchr(line, '\n') + 1);
  if (d->background_fd < 0) return;
  ssize_t n = write(d->background_fd, line, 1);
  (void)n; /* whoever has stopped waiting does not want to know */
  close(d->background_fd);
}

/* ---- End ------------------------------------------------------------------------------------- */

/* The library's calls take NULL for what was never begun. */
static int finish(struct daemon *d, int status) {
  struct host *h = &d->host;
  host_http_stop(d->http);
  host_work_free(d->work);
  if (d->host.vhost) sr_vhost_stop(d->host.vhost);
  int r = sr_store_close(d->host.store);
  if (r < 0) status = failed("close", d->o.store, r);
  if (d->control_is_ours) unlink(d->control_path);
  if (d->control_fd >= 0) close(d->control_fd);
  if (d->metrics_fd >= 0) close(d->metrics_fd);
  if (h->metrics_fd >= 0) close(h->metrics_fd);
  host_takeover_end(&d->takeover);
  host_inherited_close(&h->inherited);
  if (status == 0) host_log(HOST_INFO, "stopped", LOG_TEXT("store", d->o.store));
  host_log_stop();
  /* The successor goes on when that one is closed. */
  if (h->successor.fd >= 0) close(h->successor.fd);
  return status;
}

int main(int argc, char **argv) {
  static struct daemon d = {.control_fd = -1,
                            .metrics_fd = -1,
                            .signal_fd = -1,
                            .background_fd = -1,
                            .takeover = HOST_TAKEOVER_INIT};
  int status = parse_options(&d.o, argc, argv);
  if (status) return status == 1 ? 0 : status;
  d.host.successor.fd = d.host.metrics_fd = -1;
  status = go_to_background(&d);
  if (status == 0) status = prepare(&d);
  if (status == 0) status = take_disks(&d);
  if (status == 0) status = start(&d);
  if (status != 0) {
    if (d.work) host_work_stop(d.work);
    return finish(&d, status);
  }
  const struct host_control_config control = {&d.host,
                                              d.work,
                                              d.control_fd,
                                              d.signal_fd,
                                              (uint32_t)d.o.clients_max,
                                              (uint64_t)(d.o.drain_s * 1e9)};
  announce(&d);
  int r = host_control_run(&control);
  if (r < 0) status = failed("control", d.control_path, r);
  if (r == HOST_HANDED_OVER)
    d.control_is_ours = false; /* the socket goes on, without us */
  else
    host_notify("STOPPING=1\nSTATUS=flushing");
  return finish(&d, status);
}
