/* plugin.c - volumes of a store, open here or by a daemon, as exports of nbdkit: parameters,
 * nbdkit's calls, error texts. nbdkit calls from any of its threads, several at a time also for one
 * connection. Only this file knows nbdkit. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "api/nbdkit/backend.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#define PREFERRED_BYTES  4096u
#define MAXIMUM_BYTES    (32u << 20)
#define CACHE_STEP_BYTES (4u << 20) /* what one look into the map covers */
#define PATIENCE_S       60u        /* docs/nbd.md names it */

/* ---- Parameters --------------------------------------------------------------------------------
 */

static struct {
  char *store, *control, *directory;
  const char *volume, *prefix, *cores; /* nbdkit keeps the strings */
  uint32_t queue_depth, patience_s;
  bool read_only, share;
} config = {.patience_s = PATIENCE_S};
static const struct backend_ops *ops = &backend_store;
static struct backend *backend;

/* nbdkit leaves its directory when it goes to the background. */
static char *absolute(const char *where) {
  char *result = strdup("");
  for (const char *at = where; result; at++) {
    const char *end = strchrnul(at, ',');
    char *part = strndup(at, (size_t)(end - at)), *path = NULL, *longer = NULL;
    bool is_path = strncmp(at, "fd:", 3) && strncmp(at, "mem:", 4);
    if (part) path = is_path ? nbdkit_absolute_path(part) : strdup(part);
    if (path && asprintf(&longer, "%s%s%s", result, *result ? "," : "", path) < 0) longer = NULL;
    free(part);
    free(path);
    free(result);
    result = longer;
    at = end;
    if (!*at) break;
  }
  return result;
}

static int set_store(const char *value) {
  if (config.store) {
    nbdkit_error("store= is given twice; several devices are joined by commas");
    return -1;
  }
  config.store = absolute(value);
  if (config.store) return 0;
  nbdkit_error("store=%s: out of memory", value);
  return -1;
}

static int set_control(const char *value) {
  free(config.control);
  free(config.directory);
  config.control = nbdkit_absolute_path(value);
  config.directory = nbdkit_absolute_path("."); /* nbdkit leaves it */
  return config.control && config.directory ? 0 : -1;
}

static int set_bool(bool *to, const char *value) {
  int b = nbdkit_parse_bool(value);
  *to = b > 0;
  return b < 0 ? -1 : 0;
}

static int on_config(const char *key, const char *value) {
  if (!strcmp(key, "store")) return set_store(value);
  if (!strcmp(key, "control")) return set_control(value);
  if (!strcmp(key, "volume")) return config.volume = value, 0;
  if (!strcmp(key, "prefix")) return config.prefix = value, 0;
  if (!strcmp(key, "cores")) return config.cores = value, 0;
  if (!strcmp(key, "queue_depth"))
    return nbdkit_parse_uint32_t("queue_depth", value, &config.queue_depth);
  if (!strcmp(key, "read_only")) return set_bool(&config.read_only, value);
  if (!strcmp(key, "share")) return set_bool(&config.share, value);
  if (!strcmp(key, "patience")) return nbdkit_parse_uint32_t(key, value, &config.patience_s);
  nbdkit_error("unknown parameter '%s'; there are store, control, volume, prefix, cores, "
               "queue_depth, read_only, share and patience",
               key);
  return -1;
}

#define CONFIG_HELP                                                                                \
  "store=<WHERE>      The store: a directory, or devices joined by commas.\n"                      \
  "control=<PATH>     Instead: the control socket of the shard-host that has it open.\n"           \
  "volume=<NAME>      The only volume to serve; default: clients choose by export name.\n"         \
  "prefix=<TEXT>      Serve only volumes whose names begin so.\n"                                  \
  "cores=<LIST>       CPUs that the store runs on, as in 0-3,8; default: chosen.\n"                \
  "queue_depth=<N>    Device requests in flight for each core; default 256.\n"                     \
  "read_only=<BOOL>   Open the store read-only: others may read it meanwhile.\n"                   \
  "share=<BOOL>       control=: serve for writing also what a virtual machine writes.\n"           \
  "patience=<S>       control=: wait for a shard-host that has gone so long; default 60."

static int config_complete(void) {
  if (!config.store == !config.control) {
    nbdkit_error("exactly one of store=WHERE and control=PATH: which store is to be served?");
    return -1;
  }
  if (config.control && (config.cores || config.queue_depth)) {
    nbdkit_error("cores= and queue_depth= go with store=: with control= they are shard-host's");
    return -1;
  }
  if (config.store && config.share) {
    nbdkit_error("share= goes with control=");
    return -1;
  }
  if (config.patience_s > 86400) {
    nbdkit_error("patience=%" PRIu32 ": seconds, up to 86400", config.patience_s);
    return -1;
  }
  if (config.control) ops = &backend_host;
  if (config.volume && config.prefix) {
    nbdkit_error("volume= names one volume, prefix= many: give one of the two");
    return -1;
  }
  if (!config.prefix) config.prefix = "";
  return 0;
}

/* ---- Errors ------------------------------------------------------------------------------------
 */

static const char *advice(int error) {
  switch (error) {
  case -ENOENT:
    return "";
  case -EMEDIUMTYPE:
    return "; it is no store, or not all of its parts are named";
  case -EBADMSG:
    return "; damaged: run shard-ctl check --scrub";
  case -ENOSPC:
    return "; the store is full: remove something, or shard-ctl grow";
  case -EINVAL:
    return "; requests must be whole logical blocks inside the disk: "
           "--filter=blocksize makes them so";
  case -EROFS:
    return "; it is read-only: clone the snapshot, or leave out read_only= and -r";
  case -ECONNREFUSED:
    return "; shard-host does not answer: is it running?";
  case -EIO:
    if (ops == &backend_host)
      return "; shard-host refused it (its device failed, the store is full) or has gone";
    return "; the device failed, or writing has stopped after a failed flush: look at the "
           "device, then restart";
  default:
    return "";
  }
}

/* What a client of NBD gets to see; other numbers would reach it as EINVAL. */
static int visible(int error) {
  switch (error) {
  case -EBADMSG:
    return EIO;
  case -EROFS:
    return EPERM;
  case -ENOMEM:
  case -ENOSPC:
  case -EINVAL:
  case -EOPNOTSUPP:
  case -ESHUTDOWN:
    return -error;
  default:
    return EIO;
  }
}

__attribute__((cold, noinline)) static int failed(const struct disk *d, const char *what,
                                                  uint32_t count, uint64_t offset, int error) {
  nbdkit_error("%s: %s of %" PRIu32 " bytes at %" PRIu64 ": %s%s", ops->disk_info(d)->name, what,
               count, offset, strerror(-error), advice(error));
  nbdkit_set_error(visible(error));
  return -1;
}

/* ---- The store ---------------------------------------------------------------------------------
 */

static void log_line(void *arg, enum sr_log_level level, const char *line) {
  (void)arg;
  if (level == SR_LOG_INFO)
    nbdkit_debug("%s", line);
  else
    nbdkit_error("%s", line);
}

/* Threads do not live through a fork, so only now. */
static int after_fork(void) {
  const struct backend_options options = {.store = config.store,
                                          .cores = config.cores,
                                          .queue_depth = config.queue_depth,
                                          .control = config.control,
                                          .directory = config.directory,
                                          .share = config.share,
                                          .patience_ms = config.patience_s * 1000,
                                          .read_only = config.read_only,
                                          .log = log_line};
  int r = ops->open(&backend, &options);
  if (!r) return 0;
  if (config.control)
    nbdkit_error("control=%s: %s%s", config.control, strerror(-r),
                 r == -ENOENT || r == -ECONNREFUSED
                     ? "; no shard-host listens there: start one, or name its control socket"
                     : advice(r));
  else
    nbdkit_error("store=%s: %s%s", config.store, strerror(-r),
                 r == -ENOENT   ? "; shard-ctl format makes one"
                 : r == -EBUSY  ? "; another process has it open: stop that, or let both read only "
                                  "(read_only=true)"
                 : r == -EROFS  ? "; give read_only=true"
                 : r == -EINVAL ? "; is cores= or queue_depth= out of range?"
                                : advice(r));
  return -1;
}

static void cleanup(void) {
  int r = ops->close(backend);
  if (r)
    nbdkit_error("closing %s: %s%s", config.store ? config.store : config.control, strerror(-r),
                 advice(r));
  backend = NULL;
}

static void unload(void) {
  free(config.store);
  free(config.control);
  free(config.directory);
}

static void dump_plugin(void) { printf("shardring_version=%s\n", sr_version()); }

/* ---- Exports -----------------------------------------------------------------------------------
 */

static int add_export(void *arg, const struct sr_volume_info *info) {
  char text[80];
  snprintf(text, sizeof text, "%s, %" PRIu64 " bytes",
           info->snapshot ? "snapshot, read-only" : "volume", info->size_bytes);
  return nbdkit_add_export(arg, info->name, text);
}

static int list_exports(int read_only, int is_tls, struct nbdkit_exports *exports) {
  (void)read_only, (void)is_tls;
  if (config.volume) return nbdkit_add_export(exports, config.volume, NULL);
  int r = ops->list(backend, config.prefix, add_export, exports);
  if (r < 0) nbdkit_error("listing volumes: %s%s", strerror(-r), advice(r));
  return r ? -1 : 0;
}

struct only {
  char name[SR_VOLUME_NAME_BYTES_MAX + 1];
  int count;
};

static int count_export(void *arg, const struct sr_volume_info *info) {
  struct only *only = arg;
  memcpy(only->name, info->name, sizeof only->name);
  return ++only->count > 1;
}

/* Who names none means the only one. */
static const char *default_export(int read_only, int is_tls) {
  struct only only = {.count = 0};
  (void)read_only, (void)is_tls;
  if (config.volume) return config.volume;
  int r = ops->list(backend, config.prefix, count_export, &only);
  return r == 0 && only.count == 1 ? nbdkit_strdup_intern(only.name) : "";
}

static bool is_served(const char *name) {
  if (!*name) {
    nbdkit_error(
        "no export name was given, and there is not exactly one volume: ask for one, as in "
        "nbd://host/NAME; nbdinfo --list shows them");
    return false;
  }
  if (config.volume ? !strcmp(name, config.volume)
                    : !strncmp(name, config.prefix, strlen(config.prefix)))
    return true;
  nbdkit_error("export %s is not served here: %s%s only", name,
               config.volume ? "" : "names that begin with ",
               config.volume ? config.volume : config.prefix);
  return false;
}

static const char *open_advice(int error) {
  bool host = ops == &backend_host;
  if (error == -ENOENT && host) return "; shard-ctl host volumes shows what there is";
  if (error == -ENOENT) return "; shard-ctl volume ls shows what there is";
  if (error == -EBUSY && host)
    return "; a virtual machine or another server has it open for writing: detach it there, or "
           "let both write (share=true), or serve it read-only (-r)";
  if (error == -EEXIST && host) return "; something is at the place of its socket";
  if (error == -EACCES && host)
    return "; may this user connect to the sockets in the daemon's --socket-dir?";
  if (error == -ENAMETOOLONG && host)
    return "; the path of the daemon's sockets has more than 107 bytes from here";
  return advice(error);
}

static void *on_open(int read_only) {
  const char *name = nbdkit_export_name();
  struct disk *disk;
  if (!name) return NULL;
  if (!*name && config.volume) name = config.volume;
  if (!is_served(name)) {
    nbdkit_set_error(ENOENT);
    return NULL;
  }
  int r = ops->disk_open(backend, name, read_only, &disk);
  if (!r) return disk;
  nbdkit_error("%s: %s%s", name, strerror(-r), open_advice(r));
  nbdkit_set_error(-r);
  return NULL;
}

static void on_close(void *handle) { ops->disk_close(handle); }

static int64_t get_size(void *handle) { return (int64_t)ops->disk_info(handle)->size_bytes; }
static const char *export_description(void *handle) { return ops->disk_info(handle)->description; }
static int block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum) {
  *minimum = ops->disk_info(handle)->block_bytes;
  *preferred = PREFERRED_BYTES;
  *maximum = MAXIMUM_BYTES;
  return 0;
}

static int can_write(void *handle) { return !ops->disk_info(handle)->read_only; }
static int yes(void *handle) { return (void)handle, 1; }
static int no(void *handle) { return (void)handle, 0; }
static int can_fua(void *handle) { return (void)handle, NBDKIT_FUA_NATIVE; }
static int can_cache(void *handle) { return (void)handle, NBDKIT_CACHE_NATIVE; }

/* ---- Requests ----------------------------------------------------------------------------------
 */

static int on_read(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags) {
  (void)flags;
  int r = ops->disk_read(handle, buf, count, offset);
  return r ? failed(handle, "read", count, offset, r) : 0;
}

static int on_write(void *handle, const void *buf, uint32_t count, uint64_t offset,
                    uint32_t flags) {
  int r = ops->disk_write(handle, buf, count, offset, flags & NBDKIT_FLAG_FUA);
  return r ? failed(handle, "write", count, offset, r) : 0;
}

/* Zeros take no space here. Who does not allow that wants it allocated: nbdkit writes them then, or
 * says that it is not fast. */
static int on_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags) {
  if (!(flags & NBDKIT_FLAG_MAY_TRIM)) {
    nbdkit_set_error(EOPNOTSUPP);
    return -1;
  }
  int r = ops->disk_zero(handle, count, offset, flags & NBDKIT_FLAG_FUA);
  return r ? failed(handle, "write zeroes", count, offset, r) : 0;
}

static int on_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags) {
  int r = ops->disk_discard(handle, count, offset, flags & NBDKIT_FLAG_FUA);
  return r ? failed(handle, "trim", count, offset, r) : 0;
}

static int on_flush(void *handle, uint32_t flags) {
  (void)flags;
  int r = ops->disk_flush(handle);
  return r ? failed(handle, "flush", 0, 0, r) : 0;
}

/* There is no cache of data to fill. What can be had beforehand is the map: the first read of each
 * part of a clone asks whoever has the snapshot. */
static int on_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags) {
  uint32_t unit = ops->disk_info(handle)->block_bytes;
  _Alignas(PREFERRED_BYTES) char block[PREFERRED_BYTES];
  (void)flags;
  for (uint64_t at = offset / unit * unit, end = offset + count; at < end;) {
    int r = ops->disk_read(handle, block, unit, at);
    if (r) return failed(handle, "cache", count, offset, r);
    at = (at / CACHE_STEP_BYTES + 1) * CACHE_STEP_BYTES;
  }
  return 0;
}

/* ---- Extents -----------------------------------------------------------------------------------
 */

struct extents_sink {
  struct nbdkit_extents *extents;
  uint64_t at;
  bool one, failed;
};

static int add_extent(struct extents_sink *x, uint64_t end, uint32_t type) {
  if (nbdkit_add_extent(x->extents, x->at, end - x->at, type)) x->failed = true;
  x->at = end;
  return x->failed || x->one;
}

static int add_data(void *arg, const struct sr_volume_range *range) {
  struct extents_sink *x = arg;
  if (range->offset_bytes > x->at) {
    int stop = add_extent(x, range->offset_bytes, NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO);
    if (stop) return 1;
  }
  return add_extent(x, range->offset_bytes + range->bytes, 0);
}

static int on_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                      struct nbdkit_extents *extents) {
  struct extents_sink x = {.extents = extents, .at = offset, .one = flags & NBDKIT_FLAG_REQ_ONE};
  int r = ops->disk_ranges(handle, count, offset, add_data, &x);
  if (r < 0) return failed(handle, "block status", count, offset, r);
  if (r == 0 && x.at < offset + count)
    add_extent(&x, offset + count, NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO);
  return x.failed ? -1 : 0;
}

static struct nbdkit_plugin plugin = {
    .name = "shardring",
    .longname = "Shardring volumes",
    .version = SHARDRING_VERSION,
    .description = "Serves the volumes of a Shardring store.",
    .magic_config_key = "store",
    .config = on_config,
    .config_complete = config_complete,
    .config_help = CONFIG_HELP,
    .dump_plugin = dump_plugin,
    .after_fork = after_fork,
    .cleanup = cleanup,
    .unload = unload,
    .list_exports = list_exports,
    .default_export = default_export,
    .open = on_open,
    .close = on_close,
    .get_size = get_size,
    .export_description = export_description,
    .block_size = block_size,
    .can_write = can_write,
    .can_flush = yes,
    .can_trim = yes,
    .can_zero = yes,
    .can_fast_zero = yes,
    .can_extents = yes,
    .can_multi_conn = yes,
    .can_fua = can_fua,
    .can_cache = can_cache,
    .is_rotational = no,
    .pread = on_read,
    .pwrite = on_write,
    .flush = on_flush,
    .trim = on_trim,
    .zero = on_zero,
    .cache = on_cache,
    .extents = on_extents,
};

NBDKIT_REGISTER_PLUGIN(plugin)
