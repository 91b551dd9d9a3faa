/* volume_open.c - handles: volumes, and files and devices outside the store. Under the catalog's
 * lock. A volume's parts are opened in their shards once, for all its handles. */
#include <stdio.h>

#include "runtime/volumes_internal.h"
#include "shards/direct.h"

/* ---- Parts -------------------------------------------------------------------------------------
 */

struct opening {
  const struct vdisk *disk;
  struct volume **parts;
  uint32_t count;
  bool read_only;
  struct limit *limit;
};

static uint32_t part_of(const struct vdisk *d, uint32_t shard) { return shard - vdisk_first(d); }

uint64_t vdisk_part_bytes(const struct vdisk *d, uint32_t count, uint32_t part, uint64_t size) {
  const struct block shape = {.stripe_shift = d->stripe_shift, .part_count = count};
  return block_part_bytes(&shape, size, part);
}

static int open_part(struct core *core, uint32_t shard, void *arg) {
  const struct opening *o = arg;
  const struct vdisk *d = o->disk;
  struct volume **part = &o->parts[part_of(d, shard)];
  struct volume_config config = {
      .layer = d->layer,
      .read_only = d->sealed || o->read_only,
      .live_sums = d->live_sums && !d->sealed,
      .size_bytes = vdisk_part_bytes(d, o->count, part_of(d, shard), d->size_bytes),
      .block_bytes = 512}; /* the handle's is what requests are held to */
  if (*part) return 0;
  int r = shard_volume_open(core->shards[shard].shard, &config, part);
  if (!r) shard_volume_set_limit(core->shards[shard].shard, *part, o->limit);
  return r;
}

static int close_part(struct core *core, uint32_t shard, void *arg) {
  const struct opening *o = arg;
  struct volume **part = &o->parts[part_of(o->disk, shard)];
  int r = *part ? shard_volume_close(core->shards[shard].shard, *part) : 0;
  if (!r) *part = NULL;
  return r;
}

static struct opening opening_of(const struct port *port, const struct vdisk *d,
                                 struct volume **parts) {
  struct store *s = port->store;
  return (struct opening){d, parts, vdisk_part_count(d, s->shard_count), s->config.read_only,
                          d->limit ? d->limit : &s->catalog.limit};
}

static int open_parts(struct port *port, struct vdisk *d, struct vdisk_open **out) {
  uint32_t first = vdisk_first(d), end = vdisk_end(d, port->store->shard_count);
  struct vdisk_open *open = calloc(1, sizeof *open + (end - first) * sizeof open->parts[0]);
  if (!open) return -ENOMEM;
  struct opening o = opening_of(port, d, open->parts);
  int r = call_shards(port, first, end, open_part, &o);
  if (!r) {
    *out = open;
    return 0;
  }
  call_shards(port, first, end, close_part, &o);
  free(open);
  return r;
}

/* Without memory for it, or where it cannot be, the part is read through its core. A device that
 * keeps no bytes is to be measured as it is. */
static int open_direct(struct core *core, uint32_t shard, void *arg) {
  struct block *b = arg;
  struct block_part *p = &b->parts[part_of(b->owner, shard)];
  if (core->device->ops == &device_null ||
      shard_volume_direct(core->shards[shard].shard, p->volume, &p->direct))
    p->direct = NULL;
  return 0;
}

/* All, or none: those that were closed before one that is busy come back. Their handles are told.
 */
static int close_parts(struct port *port, struct vdisk *d) {
  uint32_t first = vdisk_first(d), end = vdisk_end(d, port->store->shard_count);
  struct opening o = opening_of(port, d, d->open->parts);
  int r = call_shards(port, first, end, close_part, &o);
  if (!r) return 0;
  check(call_shards(port, first, end, open_part, &o) == 0);
  for (struct block *b = d->open->handles; b; b = b->next)
    for (uint32_t i = 0; i < b->part_count; i++) b->parts[i].volume = d->open->parts[i];
  for (struct block *b = d->open->handles; b; b = b->next)
    if (b->direct) call_shards(port, first, end, open_direct, b);
  return r;
}

int vdisk_hold(struct port *port, struct vdisk *d) {
  int r = d->open ? 0 : open_parts(port, d, &d->open);
  if (!r) d->open->openers++;
  return r;
}

/* The parts are closed if it is the last one. */
static void forget_opener(struct vdisk *d) {
  if (--d->open->openers) return;
  free(d->open);
  d->open = NULL;
}

int vdisk_release(struct port *port, struct vdisk *d) {
  int r = d->open->openers == 1 ? close_parts(port, d) : 0;
  if (!r) forget_opener(d);
  return r;
}

/* ---- All parts at a time ------------------------------------------------------------------------
 */

static int64_t ask_part(struct port *port, struct vdisk *d, uint32_t part, uint8_t kind) {
  struct shard_op op = {.kind = kind};
  volume_args(&op)->volume = d->open->parts[part];
  return run_in_shard(port, vdisk_first(d) + part, &op);
}

int vdisk_freeze(struct port *port, struct vdisk *d) {
  uint32_t count = d->open ? vdisk_part_count(d, port->store->shard_count) : 0;
  for (uint32_t i = 0; i < count; i++) {
    int64_t r = ask_part(port, d, i, OP_FREEZE);
    if (r >= 0) continue;
    while (i-- > 0) ask_part(port, d, i, OP_THAW);
    return (int)r;
  }
  return 0;
}

void vdisk_thaw(struct port *port, struct vdisk *d) {
  uint32_t count = d->open ? vdisk_part_count(d, port->store->shard_count) : 0;
  for (uint32_t i = 0; i < count; i++) ask_part(port, d, i, OP_THAW);
}

struct setting {
  const struct vdisk *disk;
  uint64_t layer;
  bool read_only;
};

static int set_part_layer(struct core *core, uint32_t shard, void *arg) {
  const struct setting *s = arg;
  struct volume *part = s->disk->open->parts[part_of(s->disk, shard)];
  return shard_volume_set_layer(core->shards[shard].shard, part, s->layer, s->read_only);
}

int vdisk_set_layer(struct port *port, struct vdisk *d, uint64_t layer) {
  uint32_t first = vdisk_first(d), end = vdisk_end(d, port->store->shard_count);
  struct setting s = {d, layer, d->sealed};
  int r = d->open ? call_shards(port, first, end, set_part_layer, &s) : 0;
  if (!r) return 0;
  s.layer = d->layer;
  check(call_shards(port, first, end, set_part_layer, &s) == 0);
  return r;
}

static int note_part(struct core *core, uint32_t shard, void *arg) {
  const struct vdisk *d = arg;
  shard_volume_note_changes(core->shards[shard].shard, d->open->parts[part_of(d, shard)]);
  return 0;
}

void vdisk_note_changes(struct port *port, struct vdisk *d) {
  if (d->open)
    call_shards(port, vdisk_first(d), vdisk_end(d, port->store->shard_count), note_part, d);
}

struct sizing {
  const struct vdisk *disk;
  uint64_t size_bytes;
};

static int size_part(struct core *core, uint32_t shard, void *arg) {
  const struct sizing *s = arg;
  const struct vdisk *d = s->disk;
  uint32_t count = vdisk_part_count(d, core->shard_count), part = part_of(d, shard);
  shard_volume_resize(d->open->parts[part], vdisk_part_bytes(d, count, part, s->size_bytes));
  return 0;
}

void vdisk_set_size(struct port *port, struct vdisk *d, uint64_t size_bytes) {
  struct sizing s = {d, size_bytes};
  call_shards(port, vdisk_first(d), vdisk_end(d, port->store->shard_count), size_part, &s);
}

void vdisk_show_size(struct vdisk *d, uint64_t size_bytes) {
  for (struct block *b = d->open->handles; b; b = b->next)
    atomic_store_explicit(&b->size_bytes, size_bytes, memory_order_release);
}

/* ---- Handles of volumes ---------------------------------------------------------------------- */

static struct block *make_block(uint32_t parts) {
  struct block *b = calloc(1, sizeof *b + parts * sizeof b->parts[0]);
  if (b) b->part_count = parts;
  return b;
}

static void fill_part(const struct store *s, struct block_part *p, uint32_t shard,
                      struct volume *volume) {
  *p = (struct block_part){.volume = volume,
                           .hash = hash_of_shard(shard, s->shard_count),
                           .core = s->core_of_shard[shard]};
}

static int make_handle(struct port *port, struct vdisk *d, bool read_only, struct block **out) {
  uint32_t count = vdisk_part_count(d, port->store->shard_count);
  struct block *b = make_block(count);
  int r = b ? vdisk_hold(port, d) : -ENOMEM;
  if (r) {
    free(b);
    return r;
  }
  atomic_init(&b->size_bytes, d->size_bytes);
  b->block_bytes = 1u << d->block_shift;
  b->read_only = read_only;
  b->stripe_shift = d->stripe_shift;
  b->owner = d;
  b->next = d->open->handles;
  d->open->handles = b;
  d->open->writers += !read_only;
  for (uint32_t i = 0; i < count; i++)
    fill_part(port->store, &b->parts[i], vdisk_first(d) + i, d->open->parts[i]);
  *out = b;
  return 0;
}

int catalog_open_volume(struct port *port, const char *name, bool read_only, bool share,
                        struct block **block) {
  struct catalog *c;
  struct vdisk *d;
  int r = catalog_enter(port, !read_only, &c);
  if (r) return r;
  r = catalog_find(c, name, &d);
  if (!r && !read_only && d->sealed) r = -EROFS;
  if (!r && !read_only && !share && d->open && d->open->writers) r = -EBUSY;
  return catalog_leave(c, r ? r : make_handle(port, d, read_only, block));
}

void catalog_open_direct(struct port *port, struct block *b) {
  struct catalog *c;
  const struct vdisk *d = b->owner;
  catalog_enter(port, false, &c);
  b->direct = true;
  call_shards(port, vdisk_first(d), vdisk_end(d, port->store->shard_count), open_direct, b);
  catalog_leave(c, 0);
}

/* Who reads several parts past their shards is under way in the first one of them, and goes on to
 * others, which he finds by the handle: so this is asked before anything of it goes, also if the
 * volume stays open for others. */
static bool is_read_directly(const struct block *b) {
  for (uint32_t i = 0; i < b->part_count; i++)
    if (b->parts[i].direct && direct_is_busy(b->parts[i].direct)) return true;
  return false;
}

static int close_volume(struct port *port, struct block *b) {
  struct vdisk *d = b->owner;
  struct block **at = &d->open->handles;
  bool last = *at == b && !b->next; /* else it may be the others' */
  if (last && is_read_directly(b)) return -EBUSY;
  int r = d->open->openers == 1 ? close_parts(port, d) : 0;
  if (r) return r;
  while (*at != b) at = &(*at)->next;
  *at = b->next;
  d->open->writers -= !b->read_only;
  free(b);
  forget_opener(d);
  return 0;
}

/* ---- Files ----------------------------------------------------------------------------------- */

struct block_file {
  struct backing *backing;
  struct volume *volume;
  struct block *handle;
  uint32_t shard;
  uint16_t slot; /* of the device */
};

static int attach_file(struct core *core, uint32_t shard, void *arg) {
  struct block_file *f = arg;
  struct volume_config config = {.file = f->slot,
                                 .read_only = f->backing->read_only,
                                 .size_bytes = round_down(f->backing->bytes, BLOCK_BYTES),
                                 .block_bytes = f->handle->block_bytes};
  const struct device_ops *ops = core->device->ops;
  int r = ops->attach(core->device, f->slot, f->backing);
  if (r) return r == -EINVAL ? -EOPNOTSUPP : r; /* an engine that knows no files */
  r = shard_volume_open(core->shards[shard].shard, &config, &f->volume);
  if (r) ops->attach(core->device, f->slot, NULL);
  return r;
}

static int detach_file(struct core *core, uint32_t shard, void *arg) {
  struct block_file *f = arg;
  int r = shard_volume_close(core->shards[shard].shard, f->volume);
  if (!r) core->device->ops->attach(core->device, f->slot, NULL);
  return r;
}

static int open_backing(const char *file, bool read_only, const struct logger *logger,
                        struct backing **backing) {
  if (strncmp(file, "fd:", 3) != 0) {
    struct backing_open how = {.read_only = read_only};
    return backing_open_path(backing, file, &how, logger);
  }
  char *end;
  long fd = strtol(file + 3, &end, 10);
  if (file[3] < '0' || file[3] > '9' || *end || fd > INT32_MAX) return -EINVAL;
  return backing_open_fd(backing, (int)fd, read_only, logger);
}

static int open_file(struct port *port, struct block_file *f, const char *file, bool read_only,
                     uint32_t block_bytes) {
  struct store *s = port->store;
  int r = open_backing(file, read_only, &s->logger, &f->backing);
  if (r) return r;
  f->handle->block_bytes = block_bytes;
  f->handle->read_only = read_only;
  f->handle->owner = f;
  atomic_init(&f->handle->size_bytes, round_down(f->backing->bytes, BLOCK_BYTES));
  r = call_shards(port, f->shard, f->shard + 1, attach_file, f);
  if (r)
    backing_close(f->backing);
  else
    fill_part(s, &f->handle->parts[0], f->shard, f->volume);
  return r;
}

int catalog_open_file(struct port *port, const char *file, bool read_only, uint32_t block_bytes,
                      uint32_t shard, struct block **block) {
  struct store *s = port->store;
  struct catalog *c;
  uint32_t i = 0;
  int r = catalog_enter(port, false, &c);
  while (i < BLOCK_FILES_MAX && c->files[i]) i++;
  struct block_file *f = i < BLOCK_FILES_MAX ? calloc(1, sizeof *f) : NULL;
  if (i == BLOCK_FILES_MAX) r = -EMFILE;
  if (!r && (!f || !(f->handle = make_block(1)))) r = -ENOMEM;
  if (!r) {
    f->slot = (uint16_t)(s->layout->backing_count + i);
    f->shard = shard == NO_SHARD ? i % s->shard_count : shard;
    r = open_file(port, f, file, read_only, block_bytes);
  }
  if (r) {
    if (f) free(f->handle);
    free(f);
    return catalog_leave(c, r);
  }
  c->files[i] = f;
  *block = f->handle;
  return catalog_leave(c, 0);
}

static int close_file(struct port *port, struct block *b, struct block_file **at) {
  struct block_file *f = *at;
  int r = call_shards(port, f->shard, f->shard + 1, detach_file, f);
  if (r) return r;
  backing_close(f->backing);
  free(b);
  free(f);
  *at = NULL;
  return 0;
}

int catalog_close_block(struct port *port, struct block *b) {
  struct catalog *c;
  int r = catalog_enter(port, false, &c);
  if (r) return r;
  for (uint32_t i = 0; i < BLOCK_FILES_MAX; i++)
    if (c->files[i] && c->files[i] == b->owner)
      return catalog_leave(c, close_file(port, b, &c->files[i]));
  return catalog_leave(c, close_volume(port, b));
}

/* ---- A store that is given up ---------------------------------------------------------------- */

void catalog_abandon_blocks(struct catalog *c, struct port *port) {
  for (uint32_t i = 0; i < BLOCK_FILES_MAX; i++)
    if (c->files[i]) (void)close_file(port, c->files[i]->handle, &c->files[i]);
  for (uint32_t i = 0; i < c->table_size; i++)
    for (struct vdisk *d = c->table[i]; d; d = d->next)
      while (d->open && d->open->handles && close_volume(port, d->open->handles) == 0) {
      }
}
