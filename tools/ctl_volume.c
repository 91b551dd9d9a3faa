/* ctl_volume.c - shard-ctl volume: its command line, and the commands that only look: ls, stat,
 * diff. One thread. What changes volumes lies in the other ctl_volume_*.c.
 *
 * Every change is durable before the command ends well; after an error nothing has changed but
 * where a command's help says so. */
#include "tools/args.h"
#include "tools/ctl.h"
#include "tools/volume_json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOOL         "shard-ctl"
#define LIST_ENTRIES 64u

/* ---- Words for errors and results ------------------------------------------------------------ */

struct saying {
  int error;
  const char *what, *remedy;
};
static const struct saying sayings[] = {
    {ENOENT, "there is no such volume", "volume ls lists all"},
    {EEXIST, "the name is taken", "take another one, or rename or remove the volume that has it"},
    {EINVAL, "a malformed name, or a value that is impossible here",
     "names are 1 to 255 bytes of UTF-8 without control characters and '/', and do not begin with "
     "'#'; sizes are whole logical blocks of up to 64T"},
    {ENAMETOOLONG, "the name is too long", "at most 255 bytes"},
    {EROFS, "a snapshot never changes", "make a clone of it and change that"},
    {EBUSY, "it is in use, or something lies on it",
     "close what uses it; volume ls shows what lies on what"},
    {ENOSPC, "the store is full", "remove something, or grow the store"},
    {ENOTEMPTY, "there is data beyond the new end", "--force throws it away"},
    {EXDEV, "the snapshot does not lie below the volume", "volume stat shows what it lies on"},
    {EBADMSG, "damaged", "look with check --scrub"},
    {EIO, "the device failed", "look at the system's log, then with check --scrub"},
    {ENOSYS, "not in this build", "use a newer shard-ctl"},
};

int ctl_volume_fail(const char *name, int64_t error) {
  int e = error < 0 ? (int)-error : (int)error;
  for (size_t i = 0; i < sizeof(sayings) / sizeof(sayings[0]); i++)
    if (sayings[i].error == e) {
      fprintf(stderr, "%s: %s: %s: %s\n", TOOL, name, sayings[i].what, sayings[i].remedy);
      return CTL_FAILED;
    }
  return ctl_fail(name, error);
}

/* Nothing that was written is lost without a word. */
static int finish_text(void) {
  return fflush(stdout) || ferror(stdout) ? ctl_fail("output", -EIO) : CTL_OK;
}

/* ---- A volume as JSON -------------------------------------------------------------------------
 */

static int read_volume(struct sr_port *port, const char *name, struct sr_volume_info *v,
                       struct sr_limits *limits) {
  char group[64];
  *limits = (struct sr_limits)SR_LIMITS_INIT;
  int r = sr_volume_stat(port, name, v);
  return r < 0 ? r : sr_volume_limits(port, name, limits, group);
}

int ctl_volume_json(struct sr_port *port, const char *name, struct js **json) {
  struct sr_volume_info v;
  struct sr_limits limits;
  int r = read_volume(port, name, &v, &limits);
  if (r == 0) *json = volume_json(&v, &limits);
  return r;
}

int ctl_volume_done(const struct ctl_options *o, struct sr_port *port, const char *name) {
  struct js *json;
  int r = sr_flush(port);
  if (r < 0) return ctl_fail("flush", r);
  if (!o->json || !name) return CTL_OK;
  r = ctl_volume_json(port, name, &json);
  return r < 0 ? ctl_volume_fail(name, r) : ctl_print_json(json);
}

/* ---- ls ----------------------------------------------------------------------------------------
 */

struct listing {
  struct sr_volume_info *all;
  uint32_t count, room;
};

static int list_volumes(struct sr_port *port, struct listing *l) {
  char after[sizeof(l->all->name)] = "";
  int n;
  do {
    if (l->room - l->count < LIST_ENTRIES) {
      uint32_t room = l->room ? l->room * 2 : LIST_ENTRIES;
      struct sr_volume_info *all = realloc(l->all, room * sizeof(*all));
      if (!all) return -ENOMEM;
      l->all = all;
      l->room = room;
    }
    n = sr_volume_list(port, after, l->all + l->count, LIST_ENTRIES);
    if (n <= 0) return n;
    l->count += (uint32_t)n;
    snprintf(after, sizeof(after), "%s", l->all[l->count - 1].name);
  } while (true);
}

static int by_id(const void *left, const void *right) {
  uint64_t a = ((const struct sr_volume_info *)left)->id, b;
  b = (*(const struct sr_volume_info *const *)right)->id;
  return a < b ? -1 : a > b;
}
static int two_by_id(const void *left, const void *right) {
  return by_id(*(const struct sr_volume_info *const *)left, right);
}

/* Pointers into the list in the order of ids, to find parents. NULL: out of memory. */
static const struct sr_volume_info **order_by_id(const struct listing *l) {
  const struct sr_volume_info **order = malloc((l->count + 1) * sizeof(*order));
  for (uint32_t i = 0; order && i < l->count; i++) order[i] = l->all + i;
  if (order) qsort(order, l->count, sizeof(*order), two_by_id);
  return order;
}

/* The snapshot that a volume lies on: its name, or "#id" when it has been removed. */
static const char *parent_name(const struct listing *l, const struct sr_volume_info **order,
                               uint64_t id, char text[32]) {
  const struct sr_volume_info key = {.id = id};
  const struct sr_volume_info **found =
      id ? bsearch(&key, order, l->count, sizeof(*order), by_id) : NULL;
  if (found) return (*found)->name;
  snprintf(text, 32, "#%" PRIu64, id);
  return id ? text : "-";
}

static int print_list(const struct ctl_options *o, const struct listing *l) {
  const struct sr_volume_info **order = order_by_id(l);
  struct js *root = o->json ? js_object() : NULL;
  struct js *volumes = root ? js_add(root, "volumes", js_array()) : NULL;
  char text[32];
  if (!order) return ctl_fail("ls", -ENOMEM);
  if (!root) puts("KIND SIZE_BYTES USED_BYTES SHARED_BYTES NAME LIES_ON");
  for (uint32_t i = 0; i < l->count; i++) {
    const struct sr_volume_info *v = l->all + i;
    const char *parent = parent_name(l, order, v->parent_id, text);
    if (root) {
      struct js *one = js_add(volumes, NULL, volume_json(v, NULL));
      if (v->parent_id) js_text(one, "parent", parent);
      continue;
    }
    printf("%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %s %s\n",
           v->snapshot    ? "snapshot"
           : v->parent_id ? "clone"
                          : "volume",
           v->size_bytes, v->used_bytes, v->shared_bytes, v->name, parent);
  }
  free(order);
  return root ? ctl_print_json(root) : finish_text();
}

static int volume_ls(const struct ctl_options *o) {
  struct ctl_session s;
  struct listing l = {0};
  int status = ctl_open(&s, o, true);
  if (status != CTL_OK) return status;
  int r = list_volumes(s.port, &l);
  status = r < 0 ? ctl_volume_fail("ls", r) : print_list(o, &l);
  free(l.all);
  return ctl_close(&s, status);
}

/* ---- stat --------------------------------------------------------------------------------------
 */

static void print_bucket(const char *label, const struct sr_bucket *b) {
  if (b->size)
    printf("%-9s %" PRIu64 " every %" PRIu64 " ms, and %" PRIu64 " once\n", label, b->size,
           b->refill_ms, b->one_time_burst);
}

static int print_volume(struct sr_port *port, const struct sr_volume_info *v,
                        const struct sr_limits *limits) {
  char size[32], used[32], shared[32], number[32];
  struct sr_volume_info parent = {0};
  snprintf(number, sizeof(number), "#%" PRIu64, v->parent_id);
  printf("name      %s (#%" PRIu64 ", a %s)\n", v->name, v->id,
         v->snapshot    ? "snapshot"
         : v->parent_id ? "clone"
                        : "volume");
  printf("size      %s (%" PRIu64 " bytes, in blocks of %" PRIu32 ")\n",
         ctl_human_bytes(v->size_bytes, size), v->size_bytes, v->block_bytes);
  printf("data      %s of its own, %s in what it lies on\n", ctl_human_bytes(v->used_bytes, used),
         ctl_human_bytes(v->shared_bytes, shared));
  if (v->stripe_bytes)
    printf("place     striped over all shards, %" PRIu32 " bytes each\n", v->stripe_bytes);
  else
    printf("place     shard %" PRIu32 "\n", v->shard);
  if (v->parent_id)
    printf("lies on   %s, %" PRIu32 " layer%s deep\n",
           sr_volume_stat(port, number, &parent) == 0 ? parent.name : number, v->depth,
           v->depth == 1 ? "" : "s");
  printf("carries   %" PRIu32 "\n", v->children);
  if (*v->group) printf("group     %s\n", v->group);
  print_bucket("bytes", &limits->bytes);
  print_bucket("requests", &limits->ops);
  return finish_text();
}

static int volume_stat(const struct ctl_options *o) {
  struct ctl_session s;
  struct sr_volume_info v;
  struct sr_limits limits;
  int status = ctl_open(&s, o, true);
  if (status != CTL_OK) return status;
  int r = read_volume(s.port, o->words[0], &v, &limits);
  if (r < 0)
    status = ctl_volume_fail(o->words[0], r);
  else
    status = o->json ? ctl_print_json(volume_json(&v, &limits)) : print_volume(s.port, &v, &limits);
  return ctl_close(&s, status);
}

/* ---- diff --------------------------------------------------------------------------------------
 */

struct diff {
  struct js *ranges; /* NULL: to stdout */
  uint64_t data_bytes, zero_bytes;
};

static int diff_range(void *arg, const struct sr_volume_range *range) {
  struct diff *d = arg;
  *(range->zeros ? &d->zero_bytes : &d->data_bytes) += range->bytes;
  if (d->ranges) {
    struct js *one = js_add(d->ranges, NULL, js_object());
    js_count(one, "offset_bytes", range->offset_bytes);
    js_count(one, "bytes", range->bytes);
    js_bool(one, "zeros", range->zeros);
    return 0;
  }
  printf("%" PRIu64 " %" PRIu64 " %s\n", range->offset_bytes, range->bytes,
         range->zeros ? "zeros" : "data");
  return ferror(stdout) ? -EPIPE : 0;
}

static int volume_diff(const struct ctl_options *o) {
  struct ctl_session s;
  struct diff d = {0};
  const char *from = strcmp(o->words[0], "-") == 0 ? NULL : o->words[0], *to = o->words[1];
  struct js *root = o->json ? js_object() : NULL;
  int status = ctl_open(&s, o, true);
  if (root) d.ranges = js_add(root, "ranges", js_array());
  if (status == CTL_OK) {
    struct sr_volume_info v;
    bool no_from = from && sr_volume_stat(s.port, from, &v) == -ENOENT;
    int r = sr_volume_diff(s.port, from, to, diff_range, &d);
    if (r < 0) {
      status = ctl_volume_fail(no_from ? from : to, r);
    } else if (root) {
      js_count(root, "data_bytes", d.data_bytes);
      js_count(root, "zero_bytes", d.zero_bytes);
      status = ctl_print_json(root);
      root = NULL;
    } else {
      status = finish_text();
    }
    status = ctl_close(&s, status);
  }
  if (root) js_free(root);
  return status;
}

/* ---- The command line -------------------------------------------------------------------------
 */

static const struct ctl_command commands[] = {
    {"create", "NAME", "make one (--size, --block, --striped, --stripe, --shard)", 1, 1,
     ctl_volume_create},
    {"ls", "", "list volumes, snapshots and clones", 0, 0, volume_ls},
    {"stat", "NAME", "all about one", 1, 1, volume_stat},
    {"rm", "NAME", "remove one; what others need of it stays", 1, 1, ctl_volume_rm},
    {"rename", "NAME NEW", "", 2, 2, ctl_volume_rename},
    {"resize", "NAME SIZE", "smaller only without data there, or with --force", 2, 2,
     ctl_volume_resize},
    {"snapshot", "NAME SNAP", "keep what it is now as SNAP", 2, 2, ctl_volume_snapshot},
    {"clone", "SNAP NAME", "a writable volume that begins as SNAP (--size, --shard)", 2, 2,
     ctl_volume_clone},
    {"rollback", "NAME SNAP", "make it what SNAP, which it lies on, is", 2, 2, ctl_volume_rollback},
    {"flatten", "NAME", "copy into it what it shares", 1, 1, ctl_volume_flatten},
    {"diff", "FROM TO", "ranges that differ; FROM may be - for a volume of zeros", 2, 2,
     volume_diff},
    {"limit", "[NAME]", "rates of a volume, or of --group=G, or --all (see the options)", 0, 1,
     ctl_volume_limit},
    {"export", "NAME FILE", "to a sparse file; to - or with --since or --stream as a stream", 2, 2,
     ctl_volume_export},
    {"import", "NAME FILE", "a new volume of a file or stream; or a stream --onto a volume", 2, 2,
     ctl_volume_import},
    {NULL, NULL, NULL, 0, 0, NULL},
};

static void help(const struct arg *table) {
  puts("shard-ctl volume COMMAND WHERE [options]: virtual disks in a Shardring store.\n"
       "NAME may be #ID wherever a volume that is there is meant.\n");
  ctl_help_commands("volume ", commands);
  puts("");
  args_help(table);
  puts("\nExit status: 0 done, 1 failed, 2 the command line is wrong.");
}

int ctl_volume_main(int argc, char **argv) {
  struct ctl_options o = {0};
  struct ctl_volume_options *v = &o.volume;
  const uint64_t most = UINT64_C(1) << 50, bursts = UINT64_C(1) << 60;
  const struct arg table[] = {
      {"store", ARG_TEXT, &o.store, .help = "where the store lies"},
      {"json", ARG_FLAG, &o.json, .help = "write JSON to stdout"},
      {"size", ARG_SIZE, &v->size_bytes, 512, SR_VOLUME_BYTES_MAX, 512,
       .help = "create: of the disk; clone, import: larger than what it begins as",
       .given = &v->size_given},
      {"block", ARG_CHOICE, &v->block, .choices = "512|4096",
       .help = "create, import: logical block"},
      {"striped", ARG_FLAG, &v->striped, .help = "create, import: over all shards"},
      {"stripe", ARG_SIZE, &v->stripe_bytes, 65536, 1 << 30, 65536,
       .help = "the same, in stripes of this size, a power of two; default 1M"},
      {"shard", ARG_NUMBER, &v->shard, 0, SR_SHARDS_MAX - 1,
       .help = "create, clone, import: lie on this one", .given = &v->shard_given},
      {"integrity", ARG_CHOICE, &v->integrity, .choices = "sealed|off|on",
       .help = "create, clone, import: checksums of what snapshots have (default), or of all"},
      {"force", ARG_FLAG, &o.force, .help = "resize: throw away what is behind the new end"},
      {"iops", ARG_NUMBER, &v->iops, 1, UINT64_C(1) << 40, .help = "limit: requests a second"},
      {"iops-burst", ARG_NUMBER, &v->iops_burst, 1, bursts,
       .help = "limit: so many more at the beginning, once"},
      {"bps", ARG_SIZE, &v->bps, 1, most, .help = "limit: bytes a second"},
      {"bps-burst", ARG_SIZE, &v->bps_burst, 1, bursts,
       .help = "limit: so many more at the beginning, once"},
      {"refill-ms", ARG_NUMBER, &v->refill_ms, 1, UINT64_C(1) << 32,
       .help = "limit: how long what was used takes to come back; default 1000"},
      {"unlimited", ARG_FLAG, &v->unlimited, .help = "limit: none but what else is given here"},
      {"group", ARG_TEXT, &v->group,
       .help = "limit NAME: put it into this group; without NAME: the group's own limits"},
      {"no-group", ARG_FLAG, &v->no_group, .help = "limit NAME: take it out of its group"},
      {"all", ARG_FLAG, &v->everything, .help = "limit: all volumes of the store together"},
      {"since", ARG_TEXT, &v->since, .help = "export: a stream of what differs from this snapshot"},
      {"stream", ARG_FLAG, &v->stream, .help = "export: a stream, also into a file"},
      {"raw", ARG_FLAG, &v->raw,
       .help = "export: bytes, also to -; import: whatever it looks like"},
      {"onto", ARG_FLAG, &v->onto, .help = "import: a stream made with --since, into a volume"},
      {"base", ARG_TEXT, &v->base,
       .help = "import --onto: the snapshot below it that is what the stream begins at"},
      {"damaged", ARG_FLAG, &o.damaged, .help = "ls, stat, diff, export: open with what is intact"},
      {"help", ARG_FLAG, &o.help, .help = ""},
      {NULL, 0, NULL, .help = NULL},
  };
  const char *words[4];
  int count = args_parse(TOOL, table, argc, argv, words, 4);
  if (count < 0) return CTL_USAGE;
  if (o.help) return help(table), CTL_OK;
  if (count == 0) {
    fprintf(stderr, "%s: what shall be done with volumes? See %s volume --help\n", TOOL, TOOL);
    return CTL_USAGE;
  }
  return ctl_dispatch("volume ", commands, &o, words, count);
}
