/* host_command.h - one request of a control client, taken apart: a line of JSON to a struct.
 *
 * The line is hostile: it is at most HOST_LINE_BYTES_MAX long (the reader sees to that), containers
 * lie at most HOST_DEPTH_MAX deep, every member must be known to its command and in range, and
 * nothing is kept of the line. Knows neither sockets nor stores; any thread. */
#ifndef TOOLS_HOST_COMMAND_H
#define TOOLS_HOST_COMMAND_H

#include "api/shardring.h"

#define HOST_LINE_BYTES_MAX 65536u
#define HOST_DEPTH_MAX      4u
#define HOST_LIST_MAX       1000u

enum host_do {
  HOST_PING = 1,
  HOST_VERSION,
  HOST_ATTACH,
  HOST_DETACH,
  HOST_CLONE,
  HOST_CREATE,
  HOST_REMOVE,
  HOST_LIST,
  HOST_VOLUMES,
  HOST_STAT,
  HOST_LIMIT,
  HOST_RESIZE,
  HOST_SNAPSHOT,
  HOST_FLUSH,
  HOST_STORE,
  HOST_DRAIN,
  HOST_UPGRADE,
  HOST_RANGES,
};

/* Members of a request, as bits of `given`. */
enum host_member {
  HOST_M_VOLUME = 1u << 0,
  HOST_M_NAME = 1u << 1,
  HOST_M_SNAPSHOT = 1u << 2,
  HOST_M_FILE = 1u << 3,
  HOST_M_SOCKET = 1u << 4,
  HOST_M_MODE = 1u << 5,
  HOST_M_GROUP_ID = 1u << 6,
  HOST_M_QUEUES = 1u << 7,
  HOST_M_QUEUE_SIZE = 1u << 8,
  HOST_M_READ_ONLY = 1u << 9,
  HOST_M_CACHE = 1u << 10,
  HOST_M_SERIAL = 1u << 11,
  HOST_M_ATTACH = 1u << 12,
  HOST_M_FORCE = 1u << 13,
  HOST_M_REMOVE = 1u << 14,
  HOST_M_SIZE = 1u << 15,
  HOST_M_BLOCK = 1u << 16,
  HOST_M_STRIPED = 1u << 17,
  HOST_M_STRIPE = 1u << 18,
  HOST_M_SHARD = 1u << 19,
  HOST_M_AFTER = 1u << 20,
  HOST_M_MAX = 1u << 21,
  HOST_M_BYTES = 1u << 22,
  HOST_M_OPS = 1u << 23,
  HOST_M_GROUP = 1u << 24,
  HOST_M_NO_GROUP = 1u << 25,
  HOST_M_ALL = 1u << 26,
  HOST_M_UNLIMITED = 1u << 27,
  HOST_M_DURABLE = 1u << 28,
  HOST_M_ON = 1u << 29,
  HOST_M_LISTEN = 1u << 30,
};
/* No int, as the others have to be. */
#define HOST_M_STORE  (UINT64_C(1) << 31)
#define HOST_M_SHARE  (UINT64_C(1) << 32)
#define HOST_M_OFFSET (UINT64_C(1) << 33)
#define HOST_M_LENGTH (UINT64_C(1) << 34)

struct host_command {
  enum host_do what;
  const char *word; /* of `what` */
  bool slow;        /* may take longer than looking something up */
  bool has_id, id_is_text;
  uint64_t id;
  char id_text[65];

  uint64_t given; /* enum host_member; what is not given is 0, "" or false */
  char volume[SR_VOLUME_NAME_BYTES_MAX + 1], name[SR_VOLUME_NAME_BYTES_MAX + 1],
      snapshot[SR_VOLUME_NAME_BYTES_MAX + 1], after[SR_VOLUME_NAME_BYTES_MAX + 1];
  char file[256], socket[108], listen[256], serial[21], group[64], store[17];
  uint64_t mode, group_id, queues, queue_size, size_bytes, block_bytes, stripe_bytes, shard, max,
      offset, length;
  int cache; /* enum sr_vhost_cache */
  bool read_only, attach, force, remove, striped, no_group, all, unlimited, durable, on, share;
  struct sr_bucket bytes, ops;
};

/* 0, or an error: -EBADMSG it is no JSON or too deep, -ENOSYS no such command, -EINVAL a member is
 * missing, unknown or out of range; why is one line then. What could be read of the id is in the
 * command in any case. */
int host_command_parse(struct host_command *c, const char *line, size_t bytes, char *why,
                       size_t why_bytes);

/* "write-back|write-through|ephemeral", in the order of enum sr_vhost_cache. */
extern const char host_cache_words[];
/* True for a name that stays in its directory: not empty, no slash, no dot in front. */
bool host_plain_name(const char *name);

#endif
