/* client.c - see client.h. */
#include "api/control/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define ERRNO_MAX   133
#define REPLY_DEPTH 64

struct control_client {
  int fd;
  FILE *in;
};

int control_open(struct control_client **out, const char *path, uint32_t wait_ms) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const struct timeval wait = {.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};
  if (strlen(path) >= sizeof(address.sun_path)) return -ENAMETOOLONG;
  memcpy(address.sun_path, path, strlen(path));
  struct control_client *c = calloc(1, sizeof(*c));
  if (!c) return -ENOMEM;
  c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int r = c->fd < 0 ? -errno : 0;
  if (!r && connect(c->fd, (const struct sockaddr *)&address, sizeof(address)) < 0) r = -errno;
  if (!r && setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0) r = -errno;
  if (!r && !(c->in = fdopen(c->fd, "r"))) r = -errno;
  if (r) {
    if (c->fd >= 0) close(c->fd);
    free(c);
    return r;
  }
  *out = c;
  return 0;
}

void control_close(struct control_client *c) {
  if (!c) return;
  fclose(c->in);
  free(c);
}

static int send_all(int fd, const char *bytes, size_t count) {
  while (count > 0) {
    ssize_t n = send(fd, bytes, count, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    bytes += n;
    count -= (size_t)n;
  }
  return 0;
}

static int say(char *why, size_t why_bytes, const char *text, int error) {
  if (why) snprintf(why, why_bytes, "%s", text);
  return error;
}

int control_ask_line(struct control_client *c, const char *line, struct js **reply, char *why,
                     size_t why_bytes) {
  char *answer = NULL, parse_error[256];
  size_t room = 0;
  /* Who was turned away, and hung up on, may have been told why. */
  if (send_all(c->fd, line, strlen(line)) == 0) send_all(c->fd, "\n", 1);
  errno = 0;
  ssize_t n = getline(&answer, &room, c->in);
  int error = errno;
  if (n > 0 && answer[n - 1] != '\n') n = 0; /* its beginning; nobody waits for the rest */
  *reply =
      n > 0 ? js_parse(answer, (size_t)n, REPLY_DEPTH, parse_error, sizeof(parse_error)) : NULL;
  free(answer);
  if (n <= 0 && (error == EAGAIN || error == EWOULDBLOCK))
    return say(why, why_bytes, "shard-host does not answer", -ETIMEDOUT);
  if (n <= 0) return say(why, why_bytes, "shard-host hung up", -ECONNRESET);
  return *reply ? 0 : say(why, why_bytes, parse_error, -EBADMSG);
}

bool control_is_ok(const struct js *reply) { return js_number_of(js_member(reply, "ok")) != 0; }

static int error_of(const struct js *reply) {
  const char *name = js_text_of(js_member(reply, "error"));
  for (int error = 1; error <= ERRNO_MAX; error++) {
    const char *other = strerrorname_np(error);
    if (other && strcmp(name, other) == 0) return -error;
  }
  return -EIO;
}

int control_ask(struct control_client *c, struct js *request, struct js **reply, char *why,
                size_t why_bytes) {
  char *line = js_line(request);
  struct js *root;
  int r = control_ask_line(c, line, &root, why, why_bytes);
  free(line);
  js_free(request);
  if (r) return r;
  if (control_is_ok(root)) {
    *reply = root;
    return 0;
  }
  if (why)
    snprintf(why, why_bytes, "%s (%s)", js_text_of(js_member(root, "message")),
             js_text_of(js_member(root, "error")));
  r = error_of(root);
  js_free(root);
  return r;
}

struct js *control_request(const char *what) {
  struct js *request = js_object();
  js_text(request, "do", what);
  return request;
}
