/* host_command.c - see host_command.h. Two tables: what each member may be, and which members each
 * command takes. */
#include "tools/host_command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/args.h"
#include "api/control/json.h"

#define ATTACH_MEMBERS                                                                             \
  (HOST_M_NAME | HOST_M_SOCKET | HOST_M_MODE | HOST_M_GROUP_ID | HOST_M_QUEUES |                   \
   HOST_M_QUEUE_SIZE | HOST_M_READ_ONLY | HOST_M_CACHE | HOST_M_SERIAL | HOST_M_LISTEN |           \
   HOST_M_SHARE)

const char host_cache_words[] = "write-back|write-through|ephemeral";

static const struct known_command {
  const char *word;
  enum host_do what;
  uint64_t needed, allowed; /* allowed: besides those that are needed */
  bool slow;
} commands[] = {
    {"ping", HOST_PING, 0, 0, false},
    {"version", HOST_VERSION, 0, 0, false},
    {"attach", HOST_ATTACH, 0, HOST_M_VOLUME | HOST_M_FILE | ATTACH_MEMBERS, true},
    {"detach", HOST_DETACH, HOST_M_NAME, HOST_M_FORCE | HOST_M_REMOVE | HOST_M_DURABLE, true},
    {"clone", HOST_CLONE, HOST_M_SNAPSHOT | HOST_M_VOLUME,
     HOST_M_ATTACH | HOST_M_SIZE | HOST_M_SHARD | HOST_M_DURABLE | ATTACH_MEMBERS, true},
    {"create", HOST_CREATE, HOST_M_VOLUME | HOST_M_SIZE,
     HOST_M_ATTACH | HOST_M_BLOCK | HOST_M_STRIPED | HOST_M_STRIPE | HOST_M_SHARD | HOST_M_DURABLE |
         ATTACH_MEMBERS,
     true},
    {"remove", HOST_REMOVE, HOST_M_VOLUME, HOST_M_DURABLE, true},
    {"list", HOST_LIST, 0, HOST_M_AFTER | HOST_M_MAX, false},
    {"volumes", HOST_VOLUMES, 0, HOST_M_AFTER | HOST_M_MAX, false},
    {"stat", HOST_STAT, 0, HOST_M_NAME | HOST_M_VOLUME, false},
    {"limit", HOST_LIMIT, 0,
     HOST_M_VOLUME | HOST_M_GROUP | HOST_M_NO_GROUP | HOST_M_ALL | HOST_M_BYTES | HOST_M_OPS |
         HOST_M_UNLIMITED | HOST_M_DURABLE,
     true},
    {"resize", HOST_RESIZE, HOST_M_VOLUME | HOST_M_SIZE, HOST_M_FORCE | HOST_M_DURABLE, true},
    {"snapshot", HOST_SNAPSHOT, HOST_M_VOLUME | HOST_M_SNAPSHOT, HOST_M_DURABLE, true},
    {"flush", HOST_FLUSH, 0, 0, true},
    {"store", HOST_STORE, 0, 0, false},
    {"drain", HOST_DRAIN, 0, HOST_M_ON, false},
    {"upgrade", HOST_UPGRADE, 0, HOST_M_STORE, false},
    {"ranges", HOST_RANGES, HOST_M_VOLUME | HOST_M_OFFSET | HOST_M_LENGTH, HOST_M_MAX, false},
};

/* ---- Members --------------------------------------------------------------------------------- */

enum kind { TEXT, NUMBER, BOOL, CACHE, BUCKET };

static const struct known_member {
  const char *key;
  uint64_t bit; /* enum host_member */
  enum kind kind;
  size_t offset;
  uint64_t min, max; /* of a text: bytes */
} members[] = {
#define MEMBER(key, bit, kind, field, min, max)                                                    \
  { key, bit, kind, offsetof(struct host_command, field), min, max }
#define NAME(key, bit, field)                                                                      \
  MEMBER(key, bit, TEXT, field, 1, sizeof(((struct host_command *)0)->field) - 1)
    NAME("volume", HOST_M_VOLUME, volume),
    NAME("name", HOST_M_NAME, name),
    NAME("snapshot", HOST_M_SNAPSHOT, snapshot),
    NAME("file", HOST_M_FILE, file),
    NAME("socket", HOST_M_SOCKET, socket),
    NAME("listen", HOST_M_LISTEN, listen),
    NAME("serial", HOST_M_SERIAL, serial),
    NAME("group", HOST_M_GROUP, group),
    NAME("store", HOST_M_STORE, store),
    MEMBER("after", HOST_M_AFTER, TEXT, after, 0, SR_VOLUME_NAME_BYTES_MAX),
    MEMBER("mode", HOST_M_MODE, NUMBER, mode, 0, 0777),
    MEMBER("group_id", HOST_M_GROUP_ID, NUMBER, group_id, 1, UINT32_MAX - 1),
    MEMBER("queues", HOST_M_QUEUES, NUMBER, queues, 1, 64),
    MEMBER("queue_size", HOST_M_QUEUE_SIZE, NUMBER, queue_size, 2, 1024),
    MEMBER("size_bytes", HOST_M_SIZE, NUMBER, size_bytes, 512, SR_VOLUME_BYTES_MAX),
    MEMBER("block_bytes", HOST_M_BLOCK, NUMBER, block_bytes, 512, 4096),
    MEMBER("stripe_bytes", HOST_M_STRIPE, NUMBER, stripe_bytes, 65536, 1 << 30),
    MEMBER("shard", HOST_M_SHARD, NUMBER, shard, 0, SR_SHARDS_MAX - 1),
    MEMBER("max", HOST_M_MAX, NUMBER, max, 1, HOST_LIST_MAX),
    MEMBER("offset", HOST_M_OFFSET, NUMBER, offset, 0, SR_VOLUME_BYTES_MAX),
    MEMBER("bytes", HOST_M_LENGTH, NUMBER, length, 1, SR_VOLUME_BYTES_MAX),
    MEMBER("read_only", HOST_M_READ_ONLY, BOOL, read_only, 0, 0),
    MEMBER("attach", HOST_M_ATTACH, BOOL, attach, 0, 0),
    MEMBER("force", HOST_M_FORCE, BOOL, force, 0, 0),
    MEMBER("remove", HOST_M_REMOVE, BOOL, remove, 0, 0),
    MEMBER("striped", HOST_M_STRIPED, BOOL, striped, 0, 0),
    MEMBER("no_group", HOST_M_NO_GROUP, BOOL, no_group, 0, 0),
    MEMBER("all", HOST_M_ALL, BOOL, all, 0, 0),
    MEMBER("unlimited", HOST_M_UNLIMITED, BOOL, unlimited, 0, 0),
    MEMBER("durable", HOST_M_DURABLE, BOOL, durable, 0, 0),
    MEMBER("on", HOST_M_ON, BOOL, on, 0, 0),
    MEMBER("share", HOST_M_SHARE, BOOL, share, 0, 0),
    MEMBER("cache", HOST_M_CACHE, CACHE, cache, 0, 0),
    MEMBER("bytes", HOST_M_BYTES, BUCKET, bytes, 0, 0),
    MEMBER("ops", HOST_M_OPS, BUCKET, ops, 0, 0),
#undef NAME
#undef MEMBER
};

/* What is being read, and where to complain. */
struct reader {
  struct host_command *c;
  const struct known_command *command;
  char *why;
  size_t why_bytes;
};

static int refuse(struct reader *r, const char *key, const char *what) {
  /* The key is the client's: as much of it as makes sense in a message. */
  snprintf(r->why, r->why_bytes, "%.64s: %s", key, what);
  return -EINVAL;
}

static int take_text(struct reader *r, const struct known_member *m, const struct js *value) {
  const char *text = js_text_of(value);
  size_t n = strlen(text);
  char what[64];
  if (!js_is_text(value)) return refuse(r, m->key, "must be a text");
  if (n < m->min || n > m->max) {
    snprintf(what, sizeof(what), "must have %u to %u bytes", (unsigned)m->min, (unsigned)m->max);
    return refuse(r, m->key, what);
  }
  memcpy((char *)r->c + m->offset, text, n + 1);
  return 0;
}

static int take_number(struct reader *r, const char *key, const struct js *value, uint64_t min,
                       uint64_t max, uint64_t *to) {
  uint64_t v;
  char what[96];
  if (js_count_of(value, &v) && v >= min && v <= max) return *to = v, 0;
  snprintf(what, sizeof(what), "must be a whole number from %llu to %llu", (unsigned long long)min,
           (unsigned long long)max);
  return refuse(r, key, what);
}

static int take_cache(struct reader *r, const struct js *value) {
  char word[32];
  for (int i = 0; i < 3; i++)
    if (js_is_text(value) &&
        strcmp(args_choice(host_cache_words, i, word, sizeof(word)), js_text_of(value)) == 0)
      return r->c->cache = i, 0;
  return refuse(r, "cache", host_cache_words);
}

struct bucket_reader {
  struct reader *r;
  struct sr_bucket *b;
};

static int take_bucket_member(void *arg, const char *key, const struct js *value) {
  struct bucket_reader *br = arg;
  const uint64_t most = UINT64_C(1) << 60;
  if (strcmp(key, "size") == 0) return take_number(br->r, key, value, 1, most, &br->b->size);
  if (strcmp(key, "one_time_burst") == 0)
    return take_number(br->r, key, value, 0, most, &br->b->one_time_burst);
  if (strcmp(key, "refill_ms") == 0)
    return take_number(br->r, key, value, 1, UINT64_C(1) << 32, &br->b->refill_ms);
  return refuse(br->r, key, "a bucket has size, one_time_burst, refill_ms");
}

/* A size alone comes back each second. */
static int take_bucket(struct reader *r, const struct known_member *m, const struct js *value) {
  struct sr_bucket b = {0};
  struct bucket_reader br = {r, &b};
  if (!js_is_object(value)) return refuse(r, m->key, "must be a bucket: {\"size\":N, ...}");
  int rc = js_each(value, take_bucket_member, &br);
  if (rc == 0 && !b.size) return refuse(r, m->key, "the bucket needs its size");
  if (rc < 0) return rc;
  if (!b.refill_ms) b.refill_ms = 1000;
  memcpy((char *)r->c + m->offset, &b, sizeof(b));
  return 0;
}

static int take_value(struct reader *r, const struct known_member *m, const struct js *value) {
  switch (m->kind) {
  case TEXT:
    return take_text(r, m, value);
  case NUMBER:
    return take_number(r, m->key, value, m->min, m->max, (uint64_t *)((char *)r->c + m->offset));
  case BOOL:
    if (!js_is_bool(value)) return refuse(r, m->key, "must be true or false");
    *(bool *)((char *)r->c + m->offset) = js_number_of(value) != 0;
    return 0;
  case CACHE:
    return take_cache(r, value);
  case BUCKET:
    return take_bucket(r, m, value);
  }
  return -EINVAL;
}

static int take_member(void *arg, const char *key, const struct js *value) {
  struct reader *r = arg;
  uint64_t allowed = r->command->needed | r->command->allowed;
  if (strcmp(key, "do") == 0 || strcmp(key, "id") == 0) return 0;
  for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
    const struct known_member *m = members + i;
    if (strcmp(m->key, key) != 0 || !(allowed & m->bit)) continue;
    r->c->given |= m->bit;
    return take_value(r, m, value);
  }
  return refuse(r, key, "this command has no such member");
}

/* ---- The whole ------------------------------------------------------------------------------- */

bool host_plain_name(const char *name) { return *name && *name != '.' && !strchr(name, '/'); }

static int take_id(struct reader *r, const struct js *value) {
  struct host_command *c = r->c;
  if (!value) return 0;
  if (js_is_text(value) && strlen(js_text_of(value)) < sizeof(c->id_text)) {
    snprintf(c->id_text, sizeof(c->id_text), "%s", js_text_of(value));
    c->has_id = c->id_is_text = true;
    return 0;
  }
  if (js_count_of(value, &c->id)) return c->has_id = true, 0;
  return refuse(r, "id", "must be a whole number or a text of up to 64 bytes");
}

static const struct known_command *find_command(const char *word) {
  for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
    if (strcmp(commands[i].word, word) == 0) return commands + i;
  return NULL;
}

static int check_needed(struct reader *r) {
  uint64_t missing = r->command->needed & ~r->c->given;
  for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
    if (missing & members[i].bit) return refuse(r, members[i].key, "is missing");
  return 0;
}

/* What no single member shows. */
static int check_together(struct reader *r) {
  const struct host_command *c = r->c;
  uint64_t g = c->given;
  if ((g & HOST_M_SOCKET) && !host_plain_name(c->socket))
    return refuse(r, "socket", "must be a name in the socket directory, without a dot in front");
  if ((g & HOST_M_FILE) && !host_plain_name(c->file))
    return refuse(r, "file", "must be a name in the file directory, without a dot in front");
  if ((g & HOST_M_SOCKET) && (g & HOST_M_LISTEN)) return refuse(r, "listen", "excludes a socket");
  if ((g & HOST_M_QUEUE_SIZE) && (c->queue_size & (c->queue_size - 1)))
    return refuse(r, "queue_size", "must be a power of two");
  switch (c->what) {
  case HOST_ATTACH:
    if (!(g & HOST_M_VOLUME) == !(g & HOST_M_FILE))
      return refuse(r, "volume", "exactly one of volume and file");
    return 0;
  case HOST_STAT:
    if (!(g & HOST_M_VOLUME) == !(g & HOST_M_NAME))
      return refuse(r, "name", "exactly one of name and volume");
    return 0;
  case HOST_LIMIT:
    if (c->all ? (g & (HOST_M_VOLUME | HOST_M_GROUP)) != 0 : !(g & (HOST_M_VOLUME | HOST_M_GROUP)))
      return refuse(r, "volume", "exactly one of volume, group and all; or a volume and its group");
    if (c->no_group && (!(g & HOST_M_VOLUME) || (g & HOST_M_GROUP)))
      return refuse(r, "no_group", "goes with a volume, and without group");
    if (!(g & (HOST_M_BYTES | HOST_M_OPS)) && !c->unlimited && !c->no_group &&
        !((g & HOST_M_VOLUME) && (g & HOST_M_GROUP)))
      return refuse(r, "bytes", "nothing to do: bytes, ops, unlimited, group or no_group");
    return 0;
  default:
    return 0;
  }
}

/* Defaults that depend on the command: what is cheap to make again is not flushed. */
static void set_defaults(struct host_command *c) {
  if (!(c->given & HOST_M_ATTACH)) c->attach = c->what == HOST_CLONE;
  if (!(c->given & HOST_M_DURABLE)) c->durable = c->what != HOST_CLONE && c->what != HOST_DETACH;
  if (!(c->given & HOST_M_ON)) c->on = true;
  if (!(c->given & HOST_M_MAX)) c->max = 256;
}

static int parse_object(struct reader *r, const struct js *root) {
  struct host_command *c = r->c;
  if (!js_is_object(root)) return refuse(r, "request", "must be an object");
  int rc = take_id(r, js_member(root, "id"));
  if (rc < 0) return rc;
  const struct js *word = js_member(root, "do");
  if (!js_is_text(word)) return refuse(r, "do", "is missing");
  r->command = find_command(js_text_of(word));
  if (!r->command) {
    snprintf(r->why, r->why_bytes, "%.64s: there is no such command", js_text_of(word));
    return -ENOSYS;
  }
  c->what = r->command->what;
  c->word = r->command->word;
  c->slow = r->command->slow;
  rc = js_each(root, take_member, r);
  if (rc == 0) rc = check_needed(r);
  if (rc == 0) rc = check_together(r);
  if (rc == 0) set_defaults(c);
  return rc;
}

int host_command_parse(struct host_command *c, const char *line, size_t bytes, char *why,
                       size_t why_bytes) {
  memset(c, 0, sizeof(*c));
  struct reader r = {c, NULL, why, why_bytes};
  struct js *root = js_parse(line, bytes, HOST_DEPTH_MAX, why, why_bytes);
  if (!root) return -EBADMSG;
  int rc = parse_object(&r, root);
  js_free(root);
  return rc;
}
