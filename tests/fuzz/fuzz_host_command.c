/* fuzz_host_command.c - lines of the control socket's clients. What is taken is in range and has
 * what its command needs; what is refused is refused in one line; nothing of the line is read
 * behind its end. And that a line which was taken is taken in the same way when it has been written
 * again.
 *
 * Input: the line. */
#include <errno.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"
#include "tools/host_command.h"
#include "api/control/json.h"

static void check_text(const char *text, size_t room) { check(memchr(text, 0, room) != NULL); }

static void check_bucket(const struct host_command *c, uint32_t bit, const struct sr_bucket *b) {
  static const struct sr_bucket none;
  if (!(c->given & bit)) {
    check(memcmp(b, &none, sizeof none) == 0);
    return;
  }
  check(b->size >= 1 && b->size <= UINT64_C(1) << 60);
  check(b->one_time_burst <= UINT64_C(1) << 60);
  check(b->refill_ms >= 1 && b->refill_ms <= UINT64_C(1) << 32);
}

/* What may not be there is not there; what must be, is. */
static void check_members(const struct host_command *c) {
  uint32_t g = c->given;
  check(!(g & HOST_M_VOLUME) == !*c->volume);
  check(!(g & HOST_M_NAME) == !*c->name);
  check(!(g & HOST_M_SNAPSHOT) == !*c->snapshot);
  check(!(g & HOST_M_SOCKET) == !*c->socket);
  check(!(g & HOST_M_FILE) == !*c->file);
  check(!*c->socket || host_plain_name(c->socket));
  check(!*c->file || (host_plain_name(c->file) && strcmp(c->file, "..") != 0));
  check(c->mode <= 0777 && c->queues <= 64 && c->shard < SR_SHARDS_MAX);
  check(c->queue_size <= 1024 && (c->queue_size & (c->queue_size - 1)) == 0);
  check(c->size_bytes <= SR_VOLUME_BYTES_MAX && c->max >= 1 && c->max <= HOST_LIST_MAX);
  check(c->cache >= 0 && c->cache <= 2);
  check(c->block_bytes <= 4096 && c->stripe_bytes <= 1 << 30 && c->group_id < UINT32_MAX);
  if (!(g & HOST_M_SIZE)) check(c->size_bytes == 0);
  if (!(g & HOST_M_FORCE)) check(!c->force);
  if (!(g & HOST_M_REMOVE)) check(!c->remove);
}

static void check_command(const struct host_command *c) {
  switch (c->what) {
  case HOST_ATTACH:
    check(!*c->volume == !!*c->file);
    break;
  case HOST_STAT:
    check(!*c->volume == !!*c->name);
    break;
  case HOST_DETACH:
    check(*c->name);
    break;
  case HOST_CLONE:
  case HOST_SNAPSHOT:
    check(*c->snapshot && *c->volume);
    break;
  case HOST_CREATE:
  case HOST_RESIZE:
    check(*c->volume && c->size_bytes >= 512);
    break;
  case HOST_REMOVE:
    check(*c->volume);
    break;
  case HOST_RANGES:
    check(*c->volume && c->length > 0 && c->offset + c->length > c->offset && c->max > 0);
    break;
  case HOST_LIMIT:
    check(c->all ? !*c->volume && !*c->group : *c->volume || *c->group);
    break;
  default:
    check(!*c->volume && !*c->name && !*c->file);
    break;
  }
}

static void check_again(const struct host_command *c, const char *line, size_t bytes) {
  char why[256] = "";
  struct js *root = js_parse(line, bytes, HOST_DEPTH_MAX, why, sizeof why);
  check(root != NULL);
  char *again = js_line(root);
  struct host_command second;
  check(!strchr(again, '\n'));
  check(host_command_parse(&second, again, strlen(again), why, sizeof why) == 0);
  check(memcmp(&second, c, sizeof second) == 0);
  free(again);
  js_free(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  /* Exactly as long as the line: it has no zero at its end. */
  char *line = fuzz_alloc(size), why[256];
  struct host_command c;
  if (size) memcpy(line, data, size);
  memset(&c, 0xa5, sizeof c);
  memset(why, 0xa5, sizeof why);
  int r = host_command_parse(&c, line, size, why, sizeof why);
  check_text(c.id_text, sizeof c.id_text);
  check(!c.id_is_text || c.has_id);
  if (r == 0) {
    check(c.what >= HOST_PING && c.what <= HOST_RANGES && c.word);
    check_members(&c);
    check_command(&c);
    check_bucket(&c, HOST_M_BYTES, &c.bytes);
    check_bucket(&c, HOST_M_OPS, &c.ops);
    check_again(&c, line, size);
  } else {
    check(r == -EBADMSG || r == -ENOSYS || r == -EINVAL);
    check_text(why, sizeof why);
    check(*why);
  }
  free(line);
  return 0;
}
