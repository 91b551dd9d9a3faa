/* host_answer.c - a request to a reply: finds who carries it out, and puts errors into words. Any
 * worker's thread. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/host.h"
#include "tools/host_upgrade.h"

uint64_t host_now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int ping(struct host *h, struct sr_port *port, const struct host_command *c,
                struct js *reply, char why[HOST_WHY_BYTES]) {
  (void)port, (void)c, (void)why;
  js_text(reply, "version", sr_version());
  js_count(reply, "protocol", 1);
  js_count(reply, "pid", (uint64_t)getpid());
  js_real(reply, "uptime_s", (double)(host_now_ns() - h->started_ns) / 1e9);
  js_bool(reply, "draining", h->draining);
  return 0;
}

static const struct {
  enum host_do what;
  host_run *run;
} runs[] = {
    {HOST_PING, ping},          {HOST_VERSION, ping},           {HOST_ATTACH, host_attach},
    {HOST_DETACH, host_detach}, {HOST_CLONE, host_clone},       {HOST_CREATE, host_create},
    {HOST_REMOVE, host_remove}, {HOST_LIST, host_list},         {HOST_VOLUMES, host_volumes},
    {HOST_STAT, host_stat},     {HOST_LIMIT, host_limit},       {HOST_RESIZE, host_resize},
    {HOST_FLUSH, host_flush},   {HOST_SNAPSHOT, host_snapshot}, {HOST_STORE, host_store},
    {HOST_DRAIN, host_drain},   {HOST_UPGRADE, host_upgrade},   {HOST_RANGES, host_ranges},
};

/* ---- Errors ---------------------------------------------------------------------------------- */

/* Words for what strerror() says too generally. */
static const char *meaning(int error) {
  switch (error) {
  case ENOENT:
    return "there is no such disk, volume or file";
  case EEXIST:
    return "the name is taken, or something is at the socket's place";
  case EINVAL:
    return "a malformed name, or a value that is impossible here";
  case EBUSY:
    return "it is in use";
  case ENOSPC:
    return "the store is full, or there are as many disks as may be";
  case EROFS:
    return "a snapshot never changes, and a read-only store neither";
  case ENOTEMPTY:
    return "there is data beyond the new end: force throws it away";
  case EBADMSG:
    return "damaged";
  case ESHUTDOWN:
    return "draining: no disk is attached any more";
  default:
    return strerror(error);
  }
}

static struct js *begin_reply(const struct host_command *c, bool ok) {
  struct js *reply = js_object();
  if (c->id_is_text)
    js_text(reply, "id", c->id_text);
  else if (c->has_id)
    js_count(reply, "id", c->id);
  js_bool(reply, "ok", ok);
  return reply;
}

static char *end_reply(struct js *reply) {
  char *line = js_line(reply);
  js_free(reply);
  return line;
}

char *host_refusal(const struct host_command *c, int error, const char *why) {
  struct js *reply = begin_reply(c, false);
  const char *name = strerrorname_np(-error);
  js_text(reply, "error", name ? name : "EIO");
  js_text(reply, "message", *why ? why : meaning(-error));
  return end_reply(reply);
}

char *host_answer(struct host *h, struct sr_port *port, const struct host_command *c, int *error) {
  struct js *reply = begin_reply(c, true);
  char why[HOST_WHY_BYTES] = "";
  *error = -ENOSYS;
  for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++)
    if (runs[i].what == c->what) *error = runs[i].run(h, port, c, reply, why);
  if (*error == 0) return end_reply(reply);
  js_free(reply);
  return host_refusal(c, *error, why);
}
