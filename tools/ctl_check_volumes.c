/* ctl_check_volumes.c - check, of volumes: counts them, and reads what each of them has of its own,
 * so that what lies below many is read once, and every checksum that there is is verified. One
 * thread.
 *
 * Who lies where, and that nothing is claimed twice or by nobody, recovery has found out already
 * when the store was opened: what it says comes as a finding of the open. */
#include "tools/ctl.h"
#include "tools/ctl_check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES  1048576u
#define LIST_ENTRIES 64u

struct volume_check {
  struct check *check;
  struct sr_port *port;
  struct sr_block *block;
  const char *name;
  uint64_t size_bytes;
  char *buf;
};

/* A bad place does not hide the others: the chunks behind it are read all the same. */
static int read_range(void *arg, const struct sr_volume_range *range) {
  struct volume_check *v = arg;
  uint64_t at = range->offset_bytes, end = at + range->bytes;
  char detail[512];
  if (end > v->size_bytes) end = v->size_bytes;
  for (; !range->zeros && at < end; at += CHUNK_BYTES) {
    uint64_t want = end - at < CHUNK_BYTES ? end - at : CHUNK_BYTES;
    int64_t n = sr_block_read(v->port, v->block, v->buf, at, want);
    if (n < 0) {
      check_take_detail(v->check, detail, (int)-n);
      check_find(v->check, v->name, "bytes %" PRIu64 " to %" PRIu64 ": %s", at, at + want, detail);
    }
    v->check->volume_read_bytes += want;
  }
  return 0;
}

/* What the volume has that the snapshot below it has not; all, if that has no name any more. */
static int read_volume(struct volume_check *v, const struct sr_volume_info *info) {
  struct sr_block_options options = SR_BLOCK_OPTIONS_INIT;
  char parent[32];
  options.read_only = true;
  int r = sr_volume_open(v->port, info->name, &options, &v->block);
  if (r < 0) return r;
  snprintf(parent, sizeof(parent), "#%" PRIu64, info->parent_id);
  v->name = info->name;
  v->size_bytes = info->size_bytes;
  r = info->parent_id ? sr_volume_diff(v->port, parent, info->name, read_range, v) : -ENOENT;
  if (r == -ENOENT) r = sr_volume_diff(v->port, NULL, info->name, read_range, v);
  int closed = sr_block_close(v->port, v->block);
  return r < 0 ? r : closed;
}

static void check_volume(struct volume_check *v, const struct sr_volume_info *info) {
  struct check *c = v->check;
  c->volumes++;
  c->snapshots += info->snapshot;
  c->own_bytes += info->used_bytes;
  int r = c->o->scrub ? 0 : read_volume(v, info);
  if (r < 0) check_find(c, info->name, "%s", strerror(-r));
}

void check_volumes(struct check *c, struct sr_port *port, const struct sr_space *space) {
  struct sr_volume_info infos[LIST_ENTRIES];
  struct volume_check v = {.check = c, .port = port};
  char after[sizeof(infos->name)] = "";
  int n = 0;
  if (posix_memalign((void **)&v.buf, 4096, CHUNK_BYTES)) {
    check_find(c, "volumes", "%s", strerror(ENOMEM));
    return;
  }
  while ((n = sr_volume_list(port, after, infos, LIST_ENTRIES)) > 0) {
    for (int i = 0; i < n; i++) check_volume(&v, infos + i);
    memcpy(after, infos[n - 1].name, sizeof(after));
  }
  free(v.buf);
  c->volume_bytes = space->volume_bytes;
  if (n < 0)
    check_find(c, "volumes", "%s", strerror(-n));
  else if (c->own_bytes > space->volume_bytes)
    check_find(c, "volumes", "they have %" PRIu64 " bytes, the store counts %" PRIu64, c->own_bytes,
               space->volume_bytes);
  else if (!c->volumes && space->volume_bytes)
    check_find(c, "volumes", "%" PRIu64 " bytes belong to none", space->volume_bytes);
}
