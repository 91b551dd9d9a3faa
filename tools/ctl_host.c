/* ctl_host.c - shard-ctl host: asks a running shard-host through its control socket. One thread.
 * docs/host-control.md has the protocol; what a request may have is checked over there. */
#include "tools/ctl_host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/control/client.h"
#include "tools/args.h"

#define TOOL "shard-ctl"

enum { PAGE = 1000 };

struct host_options {
  const char *control, *name, *socket, *serial, *group;
  const char *words[2];
  int word_count;
  bool json, help, file, force, remove, read_only, no_attach, attach, striped, volume, off, all,
      unlimited, no_group, share, durable_given, durable;
  bool queues_given, size_given, shard_given, mode_given, queue_size_given;
  uint64_t queues, queue_size, size_bytes, shard, group_id, block;
  const char *mode;
  int cache;
  uint64_t iops, iops_burst, bps, bps_burst, refill_ms;
};

/* ---- The connection -------------------------------------------------------------------------- */

static int failed(const char *about, const char *why) {
  fprintf(stderr, "%s: %s: %s\n", TOOL, about, why);
  return CTL_FAILED;
}

static int open_socket(struct control_client **client, const char *path) {
  int r = control_open(client, path, 0);
  if (!r) return CTL_OK;
  return failed(path, r == -ENAMETOOLONG ? "longer than 107 bytes"
                      : r == -ENOENT || r == -ECONNREFUSED
                          ? "no shard-host listens there: start one, or name its socket with "
                            "--control=PATH"
                          : strerror(-r));
}

/* Takes the request. The reply if it is a good one, else NULL after a message. */
static struct js *ask(struct control_client *client, const char *about, struct js *request) {
  struct js *reply = NULL;
  char why[600];
  if (control_ask(client, request, &reply, why, sizeof(why)) < 0) failed(about, why);
  return reply;
}

/* ---- Requests -------------------------------------------------------------------------------- */

static struct js *begin(const char *what) {
  struct js *request = control_request(what);
  js_count(request, "id", 1);
  return request;
}

static int usage(const char *text) {
  fprintf(stderr, "%s: host %s\n", TOOL, text);
  return CTL_USAGE;
}

static void add_durable(const struct host_options *o, struct js *request) {
  if (o->durable_given) js_bool(request, "durable", o->durable);
}

static void add_disk(const struct host_options *o, struct js *request) {
  if (o->name) js_text(request, "name", o->name);
  if (o->socket) js_text(request, "socket", o->socket);
  if (o->serial) js_text(request, "serial", o->serial);
  if (o->mode_given) js_count(request, "mode", strtoul(o->mode, NULL, 8));
  if (o->group_id) js_count(request, "group_id", o->group_id);
  if (o->queues_given) js_count(request, "queues", o->queues);
  if (o->queue_size_given) js_count(request, "queue_size", o->queue_size);
  if (o->read_only) js_bool(request, "read_only", true);
  if (o->share) js_bool(request, "share", true);
  if (o->cache) {
    char word[32];
    js_text(request, "cache",
            args_choice("write-back|write-through|ephemeral", o->cache, word, sizeof(word)));
  }
}

static void make_attach(const struct host_options *o, struct js *r) {
  js_text(r, o->file ? "file" : "volume", o->words[0]);
  add_disk(o, r);
}
static void make_detach(const struct host_options *o, struct js *r) {
  js_text(r, "name", o->words[0]);
  if (o->force) js_bool(r, "force", true);
  if (o->remove) js_bool(r, "remove", true);
  add_durable(o, r);
}
static void make_clone(const struct host_options *o, struct js *r) {
  js_text(r, "snapshot", o->words[0]);
  js_text(r, "volume", o->words[1]);
  if (o->no_attach) js_bool(r, "attach", false);
  if (o->size_given) js_count(r, "size_bytes", o->size_bytes);
  if (o->shard_given) js_count(r, "shard", o->shard);
  if (!o->no_attach) add_disk(o, r);
  add_durable(o, r);
}
static void add_size(struct js *r, const char *word) {
  uint64_t bytes = 0;
  args_size(word, &bytes); /* checked before: check_words() */
  js_count(r, "size_bytes", bytes);
}
static void make_create(const struct host_options *o, struct js *r) {
  js_text(r, "volume", o->words[0]);
  add_size(r, o->words[1]);
  if (o->block) js_count(r, "block_bytes", o->block);
  if (o->striped) js_bool(r, "striped", true);
  if (o->shard_given) js_count(r, "shard", o->shard);
  if (o->attach) {
    js_bool(r, "attach", true);
    add_disk(o, r);
  }
  add_durable(o, r);
}
static void make_remove(const struct host_options *o, struct js *r) {
  js_text(r, "volume", o->words[0]);
  add_durable(o, r);
}
static void make_stat(const struct host_options *o, struct js *r) {
  js_text(r, o->volume ? "volume" : "name", o->words[0]);
}
static void make_resize(const struct host_options *o, struct js *r) {
  js_text(r, "volume", o->words[0]);
  add_size(r, o->words[1]);
  if (o->force) js_bool(r, "force", true);
  add_durable(o, r);
}
static void make_snapshot(const struct host_options *o, struct js *r) {
  js_text(r, "volume", o->words[0]);
  js_text(r, "snapshot", o->words[1]);
  add_durable(o, r);
}
static void make_drain(const struct host_options *o, struct js *r) {
  if (o->off) js_bool(r, "on", false);
}
static void make_nothing(const struct host_options *o, struct js *r) { (void)o, (void)r; }

/* rate a second, as a bucket that refill_ms fills. */
static void add_bucket(struct js *r, const char *key, uint64_t rate, uint64_t burst,
                       uint64_t refill_ms) {
  uint64_t tokens;
  if (!rate) return;
  if (!refill_ms) refill_ms = 1000;
  if (__builtin_mul_overflow(rate, refill_ms, &tokens)) tokens = UINT64_MAX;
  struct js *b = js_add(r, key, js_object());
  js_count(b, "size", tokens / 1000);
  js_count(b, "one_time_burst", burst);
  js_count(b, "refill_ms", refill_ms);
}
static void make_limit(const struct host_options *o, struct js *r) {
  if (o->word_count) js_text(r, "volume", o->words[0]);
  if (o->group) js_text(r, "group", o->group);
  if (o->all) js_bool(r, "all", true);
  if (o->no_group) js_bool(r, "no_group", true);
  if (o->unlimited) js_bool(r, "unlimited", true);
  add_bucket(r, "ops", o->iops, o->iops_burst, o->refill_ms);
  add_bucket(r, "bytes", o->bps, o->bps_burst, o->refill_ms);
  add_durable(o, r);
}

/* ---- Lists, and lines as they are ------------------------------------------------------------ */

/* All pages of a list as one. */
static int print_pages(struct control_client *client, const struct host_options *o,
                       const char *command, const char *key) {
  struct js *whole = js_object(), *all = js_add(whole, key, js_array());
  char after[256] = "";
  bool more = true;
  while (more) {
    struct js *request = begin(command);
    js_text(request, "after", after);
    js_count(request, "max", PAGE);
    struct js *page = ask(client, command, request);
    const struct js *list = page ? js_member(page, key) : NULL;
    for (size_t i = 0; i < js_size(list); i++) {
      char place[32];
      snprintf(place, sizeof(place), "%zu", i);
      const struct js *one = js_find(list, place);
      snprintf(after, sizeof(after), "%s", js_text_of(js_member(one, "name")));
      js_add(all, NULL, js_copy(one));
    }
    more = page && js_size(list) > 0 && js_number_of(js_member(page, "more")) != 0;
    if (!page) {
      js_free(whole);
      return CTL_FAILED;
    }
    js_free(page);
  }
  const struct host_reply reply = {command, o->json, whole};
  int status = ctl_host_print(&reply);
  js_free(whole);
  return status;
}

/* A request in JSON, as it is; the reply as it comes. */
static int send_raw(struct control_client *client, const struct host_options *o) {
  struct js *reply;
  char why[256];
  if (control_ask_line(client, o->words[0], &reply, why, sizeof(why)) < 0)
    return failed("raw", why);
  int status = control_is_ok(reply) ? CTL_OK : CTL_FAILED;
  int printed = ctl_print_json(reply);
  return printed == CTL_OK ? status : printed;
}

/* ---- The command line ------------------------------------------------------------------------ */

static const struct host_command_line {
  const char *name, *words, *help, *what;
  int words_min, words_max;
  void (*make)(const struct host_options *o, struct js *request);
} commands[] = {
    {"attach", "VOLUME", "make a disk of it; prints its socket (--name, --socket, --file ...)",
     "attach", 1, 1, make_attach},
    {"detach", "NAME", "--force: also while a monitor is connected; --remove: its volume, too",
     "detach", 1, 1, make_detach},
    {"clone", "SNAP VOLUME", "a clone, attached at once (--no-attach: not)", "clone", 2, 2,
     make_clone},
    {"create", "VOLUME SIZE", "an empty volume (--attach: as a disk)", "create", 2, 2, make_create},
    {"rm", "VOLUME", "remove a volume that is no disk", "remove", 1, 1, make_remove},
    {"list", "", "disks", "list", 0, 0, NULL},
    {"volumes", "", "volumes, whether they are disks or not", "volumes", 0, 0, NULL},
    {"stat", "NAME", "all about a disk; --volume: about a volume", "stat", 1, 1, make_stat},
    {"limit", "[VOLUME]", "rates of a volume, or of --group=G, or --all", "limit", 0, 1,
     make_limit},
    {"resize", "VOLUME SIZE", "and tell its guest", "resize", 2, 2, make_resize},
    {"snapshot", "VOLUME SNAP", "keep what it is now", "snapshot", 2, 2, make_snapshot},
    {"flush", "", "what has completed survives any crash", "flush", 0, 0, make_nothing},
    {"store", "", "space and health of the store", "store", 0, 0, make_nothing},
    {"drain", "", "attach nothing any more, detach what is idle (--off: as usual again)", "drain",
     0, 0, make_drain},
    {"upgrade", "", "how another daemon takes its place while guests run: the command", "ping", 0,
     0, make_nothing},
    {"ping", "", "is it there, and which", "ping", 0, 0, make_nothing},
    {"raw", "JSON", "send this request", NULL, 1, 1, NULL},
    {NULL, NULL, NULL, NULL, 0, 0, NULL},
};

static int run(const struct host_command_line *c, const struct host_options *o) {
  struct control_client *client;
  int status = open_socket(&client, o->control);
  if (status != CTL_OK) return status;
  if (!c->what) {
    status = send_raw(client, o);
  } else if (!c->make) {
    status = print_pages(client, o, c->what, strcmp(c->what, "list") == 0 ? "disks" : "volumes");
  } else {
    struct js *request = begin(c->what);
    c->make(o, request);
    struct js *root = ask(client, o->word_count ? o->words[0] : c->name, request);
    const struct host_reply reply = {c->name, o->json, root};
    status = !root                             ? CTL_FAILED
             : strcmp(c->name, "upgrade") == 0 ? ctl_host_explain_upgrade(&reply)
                                               : ctl_host_print(&reply);
    if (root) js_free(root);
  }
  control_close(client);
  return status;
}

static int check_words(const struct host_command_line *c, struct host_options *o,
                       const char **words, int count) {
  uint64_t bytes;
  if (count - 1 < c->words_min || count - 1 > c->words_max) {
    fprintf(stderr, "%s: too %s words; it is: %s host %s%s%s\n", TOOL,
            count - 1 < c->words_min ? "few" : "many", TOOL, c->name, *c->words ? " " : "",
            c->words);
    return CTL_USAGE;
  }
  o->word_count = count - 1;
  for (int i = 0; i < o->word_count; i++) o->words[i] = words[i + 1];
  if (strstr(c->words, "SIZE") && args_size(o->words[1], &bytes) < 0)
    return usage("needs a size, as 10G (suffixes k, M, G, T)");
  if (o->mode_given && (strspn(o->mode, "01234567") != strlen(o->mode) || strlen(o->mode) > 4))
    return usage("--mode: octal digits, as 0660");
  return CTL_OK;
}

static void help(const struct arg *table) {
  char left[80];
  puts("shard-ctl host COMMAND [options]: asks a running shard-host.\n");
  for (const struct host_command_line *c = commands; c->name; c++) {
    snprintf(left, sizeof(left), "%s%s%s", c->name, *c->words ? " " : "", c->words);
    printf("  %-22s  %s\n", left, c->help);
  }
  puts("");
  args_help(table);
  puts("\nExit status: 0 done, 1 failed, 2 the command line is wrong.");
}

static int dispatch(struct host_options *o, const char **words, int count) {
  for (const struct host_command_line *c = commands; c->name; c++) {
    if (strcmp(c->name, words[0]) != 0) continue;
    int status = check_words(c, o, words, count);
    return status == CTL_OK ? run(c, o) : status;
  }
  fprintf(stderr, "%s: unknown command \"host %s\"; there are:", TOOL, words[0]);
  for (const struct host_command_line *c = commands; c->name; c++) fprintf(stderr, " %s", c->name);
  fprintf(stderr, " (see %s host --help)\n", TOOL);
  return CTL_USAGE;
}

int ctl_host_main(int argc, char **argv) {
  struct host_options o = {.control = "/run/shardring/control"};
  const uint64_t most = UINT64_C(1) << 50, bursts = UINT64_C(1) << 60;
  const struct arg table[] = {
      {"control", ARG_TEXT, &o.control, .help = "its socket; default /run/shardring/control"},
      {"json", ARG_FLAG, &o.json, .help = "write the reply as JSON to stdout"},
      {"name", ARG_TEXT, &o.name, .help = "attach: of the disk; default: that of the volume"},
      {"file", ARG_FLAG, &o.file, .help = "attach: a file of the daemon's --file-dir, no volume"},
      {"socket", ARG_TEXT, &o.socket, .help = "attach: name in the socket directory"},
      {"mode", ARG_TEXT, &o.mode, .help = "attach: permissions of the socket, as 0660",
       .given = &o.mode_given},
      {"group-id", ARG_NUMBER, &o.group_id, 1, UINT32_MAX - 1, .help = "attach: its group"},
      {"queues", ARG_NUMBER, &o.queues, 1, 64, .help = "attach: default 1",
       .given = &o.queues_given},
      {"queue-size", ARG_NUMBER, &o.queue_size, 2, 1024, .help = "attach: at most; default 256",
       .given = &o.queue_size_given},
      {"read-only", ARG_FLAG, &o.read_only, .help = "attach: guests cannot write"},
      {"share", ARG_FLAG, &o.share, .help = "attach: though somebody else has it open for writing"},
      {"cache", ARG_CHOICE, &o.cache, .choices = "write-back|write-through|ephemeral",
       .help = "attach: when a completed write is safe"},
      {"serial", ARG_TEXT, &o.serial, .help = "attach: what the guest sees as serial number"},
      {"no-attach", ARG_FLAG, &o.no_attach, .help = "clone: a volume, no disk"},
      {"attach", ARG_FLAG, &o.attach, .help = "create: a disk, too"},
      {"size", ARG_SIZE, &o.size_bytes, 512, SR_VOLUME_BYTES_MAX, 512,
       .help = "clone: larger than the snapshot", .given = &o.size_given},
      {"block", ARG_NUMBER, &o.block, 512, 4096, .help = "create: logical block; default 512"},
      {"striped", ARG_FLAG, &o.striped, .help = "create: over all shards"},
      {"shard", ARG_NUMBER, &o.shard, 0, SR_SHARDS_MAX - 1, .help = "create, clone: lie on it",
       .given = &o.shard_given},
      {"force", ARG_FLAG, &o.force,
       .help = "detach: disconnect the monitor; resize: throw data away"},
      {"remove", ARG_FLAG, &o.remove, .help = "detach: remove the volume"},
      {"volume", ARG_FLAG, &o.volume, .help = "stat: of a volume"},
      {"off", ARG_FLAG, &o.off, .help = "drain: as usual again"},
      {"durable", ARG_FLAG, &o.durable,
       .help = "flush before answering; default: all but clone and detach; --durable=0: never",
       .given = &o.durable_given},
      {"iops", ARG_NUMBER, &o.iops, 1, UINT64_C(1) << 40, .help = "limit: requests a second"},
      {"iops-burst", ARG_NUMBER, &o.iops_burst, 1, bursts, .help = "limit: so many more, once"},
      {"bps", ARG_SIZE, &o.bps, 1, most, .help = "limit: bytes a second"},
      {"bps-burst", ARG_SIZE, &o.bps_burst, 1, bursts, .help = "limit: so many more, once"},
      {"refill-ms", ARG_NUMBER, &o.refill_ms, 1, UINT64_C(1) << 32,
       .help = "limit: how long what was used takes to come back; default 1000"},
      {"unlimited", ARG_FLAG, &o.unlimited, .help = "limit: none but what else is given here"},
      {"group", ARG_TEXT, &o.group, .help = "limit: put VOLUME into it; or the group's own"},
      {"no-group", ARG_FLAG, &o.no_group, .help = "limit: take VOLUME out of its group"},
      {"all", ARG_FLAG, &o.all, .help = "limit: all volumes together"},
      {"help", ARG_FLAG, &o.help, .help = ""},
      {NULL, 0, NULL, .help = NULL},
  };
  const char *words[3];
  int count = args_parse(TOOL, table, argc, argv, words, 3);
  if (count < 0) return CTL_USAGE;
  if (o.help) return help(table), CTL_OK;
  if (count == 0) return usage("COMMAND: what shall be done? See shard-ctl host --help");
  return dispatch(&o, words, count);
}
