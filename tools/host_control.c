/* host_control.c - see host_control.h. The main thread.
 *
 * A client has one request in work at a time: its next line is not looked at before the reply to
 * the last one has left, so that a client that only sends, or does not read, holds one buffer of
 * each kind and nothing else. Descriptors are armed for one event (EPOLLONESHOT), so that a client
 * that hangs up while its request is in work makes no noise. */
#include "tools/host_control.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tools/host_log.h"
#include "tools/host_upgrade.h"

enum { EVENTS = 64, SWEEP_MS = 100, MS = 1000000 };

struct client {
  struct client *next, **at; /* in control.clients */
  int fd;
  struct ucred peer;
  char *in; /* HOST_LINE_BYTES_MAX and a newline */
  size_t used;
  char *out; /* NULL: nothing to send */
  size_t out_bytes, sent;
  bool busy, eof, last; /* last: goodbye after this reply */
  struct host_job job;
};

struct control {
  const struct host_control_config *config;
  int epoll;
  struct client *clients;
  uint32_t count;
  struct host_job sweep;
  bool sweeping, done;
  uint32_t in_work;         /* requests of clients */
  struct client *successor; /* has asked to take over; NULL */
  struct host_job give;
  bool giving, handed_over;
  int signals;       /* so many have come */
  uint64_t sweep_ns; /* the next one not before */
  uint64_t stop_ns;  /* until then guests are waited for */
  int spare;         /* a descriptor to give up when there are none left */
};

/* What stands in an event besides clients. */
static char is_listener, is_signal, is_work;

/* ---- Clients --------------------------------------------------------------------------------- */

static void client_go(struct control *k, struct client *c);

static int watch(struct control *k, int fd, char *what) {
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = what};
  return epoll_ctl(k->epoll, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

static void client_close(struct control *k, struct client *c) {
  host_log(HOST_DEBUG, "client_gone", LOG_NUMBER("pid", c->peer.pid));
  close(c->fd);
  *c->at = c->next;
  if (c->next) c->next->at = c->at;
  k->count--;
  free(c->out);
  free(c->in);
  free(c);
}

static void client_arm(struct control *k, struct client *c, uint32_t events) {
  struct epoll_event e = {.events = events | EPOLLONESHOT, .data.ptr = c};
  epoll_ctl(k->epoll, EPOLL_CTL_MOD, c->fd, &e);
}

/* False: the client is gone. */
static bool client_send(struct control *k, struct client *c) {
  while (c->sent < c->out_bytes) {
    ssize_t n = send(c->fd, c->out + c->sent, c->out_bytes - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      client_arm(k, c, EPOLLOUT);
      return true;
    }
    if (n < 0) {
      client_close(k, c);
      return false;
    }
    c->sent += (size_t)n;
  }
  free(c->out);
  c->out = NULL;
  if (!c->last) return true;
  client_close(k, c);
  return false;
}

/* Takes the line, which was malloc'd; false: the client is gone. */
static bool client_reply(struct control *k, struct client *c, char *line) {
  size_t n = strlen(line);
  line[n] = '\n'; /* in place of the zero */
  c->out = line;
  c->out_bytes = n + 1;
  c->sent = 0;
  return client_send(k, c);
}

static bool refuse(struct control *k, struct client *c, int error, const char *why) {
  host_log(HOST_INFO, "refused", LOG_NUMBER("pid", c->peer.pid), LOG_NUMBER("uid", c->peer.uid),
           LOG_TEXT("why", why));
  return client_reply(k, c, host_refusal(&c->job.command, error, why));
}

/* ---- Upgrade --------------------------------------------------------------------------------- */

/* Only when nothing else is in work: what the reply says holds until the disks are away. */
static void go_on_upgrade(struct control *k) {
  struct client *c = k->successor;
  if (!c || k->giving || k->handed_over || k->in_work || k->sweeping) return;
  k->in_work++;
  host_work_submit(k->config->work, &c->job);
}

/* behind: where the line ends. False: the client is gone. */
static bool begin_upgrade(struct control *k, struct client *c, const char *behind) {
  const char *why = NULL;
  int error = -EPERM;
  if (c->peer.uid != 0 && c->peer.uid != geteuid()) {
    why = "a successor must be started by root, or by the user that the daemon runs as";
  } else if (k->signals) {
    error = -ESHUTDOWN;
    why = "the daemon is ending";
  } else if (behind != c->in + c->used) {
    error = -EINVAL;
    why = "upgrade must be the last request of its connection";
  }
  if (why) {
    c->busy = false;
    return refuse(k, c, error, why);
  }
  host_log(HOST_INFO, "upgrade", LOG_NUMBER("pid", c->peer.pid), LOG_NUMBER("uid", c->peer.uid));
  k->successor = c;
  go_on_upgrade(k);
  return true;
}

/* The reply is made: it goes with the disks. From now on whoever connects waits in the socket's
 * queue, for us or for the successor. */
static void give(struct control *k, struct client *c) {
  struct host *h = k->config->host;
  h->successor.pid = c->peer.pid;
  h->successor.error = -EMFILE;
  h->successor.reply = c->out;
  h->successor.fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0);
  k->giving = true;
  epoll_ctl(k->epoll, EPOLL_CTL_DEL, k->config->listen_fd, NULL);
  k->give.run = host_upgrade_give;
  host_work_submit(k->config->work, &k->give);
}

static void given(struct control *k) {
  struct host *h = k->config->host;
  struct client *c = k->successor;
  char line[64];
  k->giving = false;
  if (h->successor.error == 0) {
    host_log(HOST_INFO, "handed_over", LOG_NUMBER("pid", h->successor.pid));
    /* Whose word counts is still the one that systemd has started. */
    snprintf(line, sizeof(line), "MAINPID=%d\nSTATUS=handed over", (int)h->successor.pid);
    host_notify(line);
    k->done = k->handed_over = true;
    return;
  }
  host_log(HOST_ERROR, "upgrade", LOG_NUMBER("pid", h->successor.pid),
           LOG_TEXT("why", strerror(-h->successor.error)), LOG_TEXT("what", "all goes on here"));
  if (h->successor.fd >= 0) close(h->successor.fd);
  h->successor.fd = -1;
  k->successor = NULL;
  client_close(k, c);
  watch(k, k->config->listen_fd, &is_listener);
}

/* ---- Requests -------------------------------------------------------------------------------- */

/* One line without its newline; false: the client is gone. */
static bool client_line(struct control *k, struct client *c, const char *line, size_t bytes) {
  char why[HOST_WHY_BYTES] = "";
  int r = host_command_parse(&c->job.command, line, bytes, why, sizeof(why));
  if (r < 0) return refuse(k, c, r, why);
  if (k->successor) return refuse(k, c, -EAGAIN, "a successor takes over: ask it in a moment");
  c->busy = true;
  c->job.owner = c;
  if (c->job.command.what == HOST_UPGRADE) return begin_upgrade(k, c, line + bytes + 1);
  k->in_work++;
  host_work_submit(k->config->work, &c->job);
  return true;
}

static bool is_blank(const char *line, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    if (!strchr(" \t\r", line[i])) return false;
  return true;
}

/* Goes on with the client as far as it goes now: lines that are there, then waiting for more. */
static void client_go(struct control *k, struct client *c) {
  while (!c->busy && !c->out) {
    char *newline = memchr(c->in, '\n', c->used);
    if (newline) {
      size_t n = (size_t)(newline - c->in);
      bool there = is_blank(c->in, n) || client_line(k, c, c->in, n);
      if (!there) return;
      c->used -= n + 1;
      memmove(c->in, newline + 1, c->used);
    } else if (c->used > HOST_LINE_BYTES_MAX) {
      c->last = true;
      memset(&c->job.command, 0, sizeof(c->job.command));
      refuse(k, c, -EMSGSIZE, "a line has at most 65536 bytes");
      return;
    } else if (c->eof) {
      client_close(k, c);
      return;
    } else {
      client_arm(k, c, EPOLLIN);
      return;
    }
  }
}

static void client_read(struct control *k, struct client *c) {
  ssize_t n = recv(c->fd, c->in + c->used, HOST_LINE_BYTES_MAX + 1 - c->used, MSG_DONTWAIT);
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) c->eof = true;
  if (n > 0) c->used += (size_t)n;
  client_go(k, c);
}

static void client_event(struct control *k, struct client *c) {
  if (c->busy) return;
  if (!c->out) {
    client_read(k, c);
  } else if (client_send(k, c)) {
    client_go(k, c);
  }
}

/* Requests that only look are many and tell little. */
static bool only_looks(enum host_do what) {
  switch (what) {
  case HOST_PING:
  case HOST_VERSION:
  case HOST_LIST:
  case HOST_VOLUMES:
  case HOST_STAT:
  case HOST_STORE:
  case HOST_RANGES:
    return true;
  default:
    return false;
  }
}

static void client_finished(struct control *k, struct client *c) {
  const struct host_command *what = &c->job.command;
  const char *name = *what->name ? what->name : *what->volume ? what->volume : what->file;
  const char *error = c->job.error ? strerrorname_np(-c->job.error) : "none";
  char *reply = c->job.reply;
  c->busy = false;
  c->job.reply = NULL;
  k->in_work--;
  host_log(only_looks(what->what) && !c->job.error ? HOST_DEBUG : HOST_INFO, "request",
           LOG_TEXT("do", what->word), LOG_TEXT("name", name),
           LOG_TEXT("error", error ? error : "EIO"), LOG_NUMBER("pid", c->peer.pid),
           LOG_NUMBER("uid", c->peer.uid));
  if (c == k->successor && !c->job.error) {
    c->busy = true;
    c->out = reply;
    give(k, c);
    return;
  }
  if (c == k->successor) k->successor = NULL;
  if (client_reply(k, c, reply)) client_go(k, c);
}

/* ---- The listener ---------------------------------------------------------------------------- */

static struct client *client_new(struct control *k, int fd) {
  struct client *c = calloc(1, sizeof(*c));
  socklen_t bytes = sizeof(c->peer);
  if (c) c->in = malloc(HOST_LINE_BYTES_MAX + 1);
  if (!c || !c->in) {
    free(c);
    return NULL;
  }
  c->fd = fd;
  getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c->peer, &bytes);
  c->next = k->clients;
  if (c->next) c->next->at = &c->next;
  c->at = &k->clients;
  k->clients = c;
  k->count++;
  return c;
}

static void turn_away(int fd) {
  static const char line[] =
      "{\"ok\":false,\"error\":\"EMFILE\",\"message\":\"as many clients as may be\"}\n";
  ssize_t n = send(fd, line, sizeof(line) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
  (void)n;
  close(fd);
  host_log(HOST_WARNING, "clients_max", LOG_TEXT("what", "a control client was turned away"));
}

/* The system has no descriptor left. Whoever waits is taken with the spare one, so that the loop
 * does not go round and round for him. */
static int take_last(struct control *k) {
  if (k->spare >= 0) close(k->spare);
  int fd = accept4(k->config->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd >= 0) turn_away(fd);
  k->spare = eventfd(0, EFD_CLOEXEC);
  return -1;
}

static void take_clients(struct control *k) {
  for (;;) {
    int fd = accept4(k->config->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE)) fd = take_last(k);
    if (fd < 0) return;
    struct client *c = k->count < k->config->clients_max ? client_new(k, fd) : NULL;
    if (!c) {
      turn_away(fd);
      continue;
    }
    struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = c};
    host_log(HOST_INFO, "client", LOG_NUMBER("pid", c->peer.pid), LOG_NUMBER("uid", c->peer.uid),
             LOG_NUMBER("gid", c->peer.gid));
    if (epoll_ctl(k->epoll, EPOLL_CTL_ADD, fd, &e) < 0) client_close(k, c);
  }
}

/* ---- Signals, draining ----------------------------------------------------------------------- */

static void take_signal(struct control *k) {
  struct signalfd_siginfo s;
  while (read(k->config->signal_fd, &s, sizeof(s)) == sizeof(s)) {
    host_log(HOST_INFO, "signal", LOG_TEXT("signal", sigabbrev_np((int)s.ssi_signo)),
             LOG_NUMBER("pid", s.ssi_pid), LOG_NUMBER("uid", s.ssi_uid));
    if (++k->signals > 1) k->done = true;
    if (k->signals == 1) host_notify("STOPPING=1\nSTATUS=waiting for guests");
    k->config->host->draining = true;
    k->stop_ns = host_now_ns() + k->config->drain_ns;
  }
}

/* From the end of the loop on. The first two have done what they do; a third one is for an end that
 * does not come. Stores survive it. */
static volatile sig_atomic_t last_signals;

static void on_last_signal(int number) {
  (void)number;
  if (++last_signals >= 3) _exit(1);
}

static void leave_signals(const struct control *k) {
  const struct sigaction action = {.sa_handler = on_last_signal};
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  last_signals = k->signals;
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void begin_sweep(struct control *k) {
  uint64_t now_ns = host_now_ns();
  if (k->sweeping || k->successor || !k->config->host->draining || now_ns < k->sweep_ns) return;
  k->sweeping = true;
  k->sweep_ns = now_ns + SWEEP_MS * MS;
  k->sweep.run = host_sweep;
  host_work_submit(k->config->work, &k->sweep);
}

static void take_finished(struct control *k) {
  struct host_job *job;
  while ((job = host_work_finished(k->config->work))) {
    if (job == &k->sweep) {
      k->sweeping = false;
      if (k->signals && k->config->host->disks_left == 0) k->done = true;
    } else if (job == &k->give) {
      given(k);
    } else {
      client_finished(k, job->owner);
    }
    go_on_upgrade(k);
  }
}

/* ---- The loop -------------------------------------------------------------------------------- */

static void take_event(struct control *k, void *what) {
  if (what == &is_listener)
    take_clients(k);
  else if (what == &is_signal)
    take_signal(k);
  else if (what == &is_work)
    take_finished(k);
  else
    client_event(k, what);
}

/* A client's own event comes once, so none of a batch belongs to one that an earlier one of the
 * same batch has closed: only its own event or its own reply closes it, and while it has an event
 * armed it has no request in work. */
static int serve(struct control *k) {
  struct epoll_event events[EVENTS];
  while (!k->done || k->giving) {
    int n = epoll_wait(k->epoll, events, EVENTS, k->config->host->draining ? SWEEP_MS : -1);
    if (n < 0 && errno != EINTR) return -errno;
    for (int i = 0; i < n; i++) take_event(k, events[i].data.ptr);
    begin_sweep(k);
    if (k->signals && host_now_ns() >= k->stop_ns) k->done = true;
  }
  return 0;
}

int host_control_run(const struct host_control_config *config) {
  struct control k = {
      .config = config, .epoll = epoll_create1(EPOLL_CLOEXEC), .spare = eventfd(0, EFD_CLOEXEC)};
  int r = k.epoll < 0 ? -errno : 0;
  if (r == 0) r = watch(&k, config->listen_fd, &is_listener);
  if (r == 0) r = watch(&k, config->signal_fd, &is_signal);
  if (r == 0) r = watch(&k, host_work_fd(config->work), &is_work);
  if (r == 0) r = serve(&k);
  leave_signals(&k);
  k.successor = NULL; /* too late for one that is not through */
  /* Lines that clients sent behind these stay unread. */
  host_work_stop(config->work);
  struct host_job *job;
  while ((job = host_work_finished(config->work))) {
    struct client *c = job->owner;
    if (job == &k.sweep || job == &k.give) continue;
    c->last = true;
    client_finished(&k, c);
  }
  while (k.clients) client_close(&k, k.clients);
  if (k.spare >= 0) close(k.spare);
  if (k.epoll >= 0) close(k.epoll);
  return r == 0 && k.handed_over ? HOST_HANDED_OVER : r;
}
