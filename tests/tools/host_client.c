/* host_client.c - what tests of shard-host need besides shard-ctl: bytes to and from a UNIX socket
 * as they are, and a parent that starts a daemon as systemd does.
 *
 *   host_client lines SOCKET                        stdin to the socket, then what comes, to stdout
 *   host_client hold SOCKET COUNT                   so many connections; ends when stdin does
 *   host_client hear SOCKET NOTES                  a notification socket; what comes, a line for
 *       each, into the file NOTES, until it is killed
 *   host_client activate SOCKET NOTES COMMAND...    runs the command with a listening socket that
 * is named "control" in $LISTEN_FDNAMES, writes what it notifies into the file NOTES, a line for
 *       each; exits as it does. SIGTERM is passed on */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what) {
  perror(what);
  exit(99);
}

static struct sockaddr_un address_of(const char *path) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof(a.sun_path)) {
    fprintf(stderr, "%s: too long\n", path);
    exit(99);
  }
  memcpy(a.sun_path, path, strlen(path));
  return a;
}

static int connect_to(const char *path) {
  struct sockaddr_un a = address_of(path);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0) die(path);
  return fd;
}

/* False at the end. The other side may have hung up already: what it said is still to be read. */
static bool copy(int from, int to) {
  char bytes[4096];
  ssize_t n = read(from, bytes, sizeof(bytes));
  for (ssize_t at = 0; at < n;) {
    ssize_t w = write(to, bytes + at, (size_t)(n - at));
    if (w < 0 && errno == EINTR) continue;
    if (w < 0) return false;
    at += w;
  }
  return n > 0;
}

static int lines(const char *path) {
  struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                          {.fd = connect_to(path), .events = POLLIN}};
  for (;;) {
    if (poll(fds, 2, -1) < 0) die("poll");
    if (fds[1].revents && !copy(fds[1].fd, STDOUT_FILENO)) return 0;
    if (!fds[0].revents || copy(STDIN_FILENO, fds[1].fd)) continue;
    shutdown(fds[1].fd, SHUT_WR);
    fds[0].fd = -1;
    fds[0].revents = 0;
  }
}

static int hold(const char *path, int count) {
  char byte;
  for (int i = 0; i < count; i++) connect_to(path);
  puts("held");
  fflush(stdout);
  while (read(STDIN_FILENO, &byte, 1) > 0) continue;
  return 0;
}

/* ---- activate -------------------------------------------------------------------------------- */

static pid_t child;
static void pass_on(int signal_number) { kill(child, signal_number); }

static int bind_to(const char *path, int type) {
  struct sockaddr_un a = address_of(path);
  int fd = socket(AF_UNIX, type, 0);
  unlink(path);
  if (fd < 0 || bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0) die(path);
  return fd;
}

static void become(int control, const char *notify, char **command) {
  char pid[32];
  snprintf(pid, sizeof(pid), "%d", (int)getpid());
  setenv("LISTEN_PID", pid, 1);
  setenv("LISTEN_FDS", "1", 1);
  setenv("LISTEN_FDNAMES", "control", 1);
  setenv("NOTIFY_SOCKET", notify, 1);
  if (control != 3 && dup2(control, 3) < 0) die("dup2");
  execv(command[0], command);
  die(command[0]);
}

static int activate(const char *path, const char *notes, char **command) {
  char notify[108], text[1024];
  snprintf(notify, sizeof(notify), "%.100s.notify", path);
  int control = bind_to(path, SOCK_STREAM), heard = bind_to(notify, SOCK_DGRAM), status;
  if (listen(control, 16) < 0) die(path);
  FILE *out = fopen(notes, "we");
  if (!out) die(notes);
  fcntl(heard, F_SETFD, FD_CLOEXEC);
  child = fork();
  if (child < 0) die("fork");
  if (child == 0) become(control, notify, command);
  signal(SIGTERM, pass_on);
  close(control);
  for (;;) {
    struct pollfd p = {.fd = heard, .events = POLLIN};
    ssize_t n = poll(&p, 1, 50) > 0 ? recv(heard, text, sizeof(text) - 1, MSG_DONTWAIT) : 0;
    if (n > 0) {
      fprintf(out, "%.*s\n", (int)n, text);
      fflush(out);
    } else if (waitpid(child, &status, WNOHANG) == child) {
      fclose(out);
      return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
    }
  }
}

static int hear(const char *path, const char *notes) {
  char text[1024];
  int heard = bind_to(path, SOCK_DGRAM);
  FILE *out = fopen(notes, "we");
  if (!out) die(notes);
  for (ssize_t n; (n = recv(heard, text, sizeof(text) - 1, 0)) >= 0;) {
    fprintf(out, "%.*s\n", (int)n, text);
    fflush(out);
  }
  die(path);
  return 99;
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  if (argc == 3 && strcmp(argv[1], "lines") == 0) return lines(argv[2]);
  if (argc == 4 && strcmp(argv[1], "hold") == 0) return hold(argv[2], atoi(argv[3]));
  if (argc == 4 && strcmp(argv[1], "hear") == 0) return hear(argv[2], argv[3]);
  if (argc > 4 && strcmp(argv[1], "activate") == 0) return activate(argv[2], argv[3], argv + 4);
  fputs("host_client lines SOCKET | hold SOCKET COUNT | hear SOCKET NOTES | activate SOCKET NOTES "
        "COMMAND...\n",
        stderr);
  return 99;
}
