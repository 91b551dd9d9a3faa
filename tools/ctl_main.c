/* ctl_main.c - shard-ctl: looks after a store from the command line.
 *
 * shard-ctl COMMAND WHERE [WORDS] [--options]; --store=WHERE may stand for WHERE. `volume` and
 * `host`, which have options of their own, must be the first word. */
#include "tools/args.h"
#include "tools/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOOL "shard-ctl"

static const struct ctl_command commands[] = {
    {"format", "", "make a store (--size, --shards, --prealloc, --log-size, --force)", 0, 0,
     ctl_format},
    {"info", "", "what the store is and how full", 0, 0, ctl_info},
    {"ls", "", "list all blobs: id and bytes", 0, 0, ctl_ls},
    {"put", "ID [FILE]", "store a file, or stdin, as a blob (--durable, --if-absent)", 1, 2,
     ctl_put},
    {"get", "ID [FILE]", "read a blob into a file, or stdout (--offset, --bytes)", 1, 2, ctl_get},
    {"rm", "ID", "delete a blob", 1, 1, ctl_rm},
    {"stat", "ID", "size of a blob", 1, 1, ctl_stat},
    {"check", "", "read everything, verify every checksum; a line for each finding", 0, 0,
     ctl_check},
    {"salvage", "TARGET", "copy all that still verifies into a new store (--files: into files)", 1,
     1, ctl_salvage},
    {"vacuum", "", "move blobs down and give space back to the file system", 0, 0, ctl_vacuum},
    {"stats", "", "counters of the store and its cores", 0, 0, ctl_stats},
    {"flush", "", "open, flush, close", 0, 0, ctl_flush},
    {"leftovers", "",
     "WHERE: /dev/shm: what killed daemons left (--force: away with stores' that are gone)", 0, 0,
     ctl_leftovers},
    {"grow", "", "make the store larger (--add-size or --add-device)", 0, 0, ctl_grow},
    {NULL, NULL, NULL, 0, 0, NULL},
};

static const char *remedy(int error) {
  switch (error) {
  case EEXIST:
    return "add --force to overwrite it, or take another place";
  case EBUSY:
    return "another process has it open: close that one first";
  case EMEDIUMTYPE:
    return "not a store, or parts of different stores";
  case ENOTSUP:
    return "a newer or unknown format: use a newer shard-ctl";
  case EBADMSG:
    return "damaged: look with check --scrub, copy what is intact with salvage";
  case EACCES:
    return "no permission: run as the owner";
  case EROFS:
    return "only reading is possible";
  case ENOSPC:
    return "full: delete something and flush, or grow the store";
  case EINVAL:
    return "an option or argument is out of range (a shard has at least 16 MiB)";
  case ENOSYS:
    return "not in this build";
  case ETIMEDOUT:
    return "nothing went on for ten seconds: look with check --scrub";
  default:
    return NULL;
  }
}

int ctl_fail(const char *what, int64_t error) {
  int e = error < 0 ? (int)-error : (int)error;
  const char *text = remedy(e);
  fprintf(stderr, "%s: %s: %s%s%s\n", TOOL, what, strerror(e), text ? ": " : "", text ? text : "");
  return CTL_FAILED;
}

int ctl_open(struct ctl_session *s, const struct ctl_options *o, bool read_only) {
  struct sr_open_options open = SR_OPEN_OPTIONS_INIT;
  *s = (struct ctl_session){0};
  open.read_only = read_only;
  if (read_only && o->damaged) open.damaged = SR_DAMAGED_SKIP;
  open.no_background = true; /* a command is over before it would pay */
  open.core_count = 1;
  int r = sr_store_open(o->store, &open, &s->store);
  if (r < 0) return ctl_fail(o->store, r);
  r = sr_port_open(s->store, NULL, &s->port);
  return r < 0 ? ctl_close(s, ctl_fail(o->store, r)) : CTL_OK;
}

int ctl_close(struct ctl_session *s, int status) {
  sr_port_close(s->port);
  int r = sr_store_close(s->store);
  *s = (struct ctl_session){0};
  if (r < 0) {
    int failed = ctl_fail("close", r);
    return status == CTL_OK ? failed : status;
  }
  return status;
}

int ctl_id(const struct ctl_options *o, struct sr_id *id) {
  if (sr_id_parse(o->words[0], id) == 0) return CTL_OK;
  fprintf(stderr, "%s: \"%s\" is no id; legal: 1 to 32 hexadecimal digits\n", TOOL, o->words[0]);
  return CTL_USAGE;
}

int ctl_print_json(struct js *root) {
  int r = js_write(root, stdout);
  js_free(root);
  return r < 0 ? ctl_fail("output", r) : CTL_OK;
}

const char *ctl_human_bytes(uint64_t bytes, char text[32]) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double v = (double)bytes;
  int u = 0;
  while (u < 5 && v >= 1024) v /= 1024, u++;
  snprintf(text, 32, u == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v, units[u]);
  return text;
}

void ctl_help_commands(const char *prefix, const struct ctl_command *table) {
  for (const struct ctl_command *c = table; c->name; c++) {
    char left[80];
    snprintf(left, sizeof(left), "%s%s WHERE%s%s", prefix, c->name, *c->words ? " " : "", c->words);
    printf("  %-22s  %s\n", left, c->help);
  }
}

static void help(const struct arg *table) {
  puts("shard-ctl COMMAND WHERE [options]: looks after a Shardring store.\n"
       "WHERE is a directory, or devices joined by commas; --store=WHERE means the same.\n");
  ctl_help_commands("", commands);
  puts("  volume COMMAND WHERE    virtual disks: see shard-ctl volume --help\n"
       "  host COMMAND            a running shard-host: see shard-ctl host --help\n");
  args_help(table);
  puts("\nExit status: 0 done, 1 failed or something was found, 2 the command line is wrong.");
}

static const struct ctl_command *find_command(const char *prefix, const struct ctl_command *table,
                                              const char *name) {
  for (const struct ctl_command *c = table; c->name; c++)
    if (strcmp(c->name, name) == 0) return c;
  fprintf(stderr, "%s: unknown command \"%s%s\"; there are:", TOOL, prefix, name);
  for (const struct ctl_command *c = table; c->name; c++) fprintf(stderr, " %s", c->name);
  fprintf(stderr, "%s (see %s %s--help)\n", *prefix ? "" : " volume host", TOOL, prefix);
  return NULL;
}

int ctl_dispatch(const char *prefix, const struct ctl_command *table, struct ctl_options *o,
                 const char **words, int count) {
  const struct ctl_command *c = find_command(prefix, table, words[0]);
  int at = 1;
  if (!c) return CTL_USAGE;
  if (!o->store && at < count) o->store = words[at++];
  const char *blank = *c->words ? " " : "";
  if (!o->store) {
    fprintf(stderr, "%s: %s%s needs the place of a store: %s %s%s WHERE%s%s\n", TOOL, prefix,
            c->name, TOOL, prefix, c->name, blank, c->words);
    return CTL_USAGE;
  }
  o->word_count = count - at;
  if (o->word_count < c->words_min || o->word_count > c->words_max) {
    fprintf(stderr, "%s: too %s words; it is: %s %s%s WHERE%s%s\n", TOOL,
            o->word_count < c->words_min ? "few" : "many", TOOL, prefix, c->name, blank, c->words);
    return CTL_USAGE;
  }
  for (int i = 0; i < o->word_count; i++) o->words[i] = words[at + i];
  return c->run(o);
}

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "volume") == 0) return ctl_volume_main(argc - 1, argv + 1);
  if (argc > 1 && strcmp(argv[1], "host") == 0) return ctl_host_main(argc - 1, argv + 1);
  struct ctl_options o = {.bytes = UINT64_MAX};
  bool version = false;
  const uint64_t mib = 1048576, most = UINT64_C(1) << 50;
  const struct arg table[] = {
      {"store", ARG_TEXT, &o.store, .help = "where the store lies"},
      {"json", ARG_FLAG, &o.json, .help = "write JSON to stdout"},
      {"size", ARG_SIZE, &o.size_bytes, 16 * mib, most, 4096, .help = "format: bytes of the store"},
      {"shards", ARG_NUMBER, &o.shards, 1, SR_SHARDS_MAX, .help = "format; default: one a core"},
      {"prealloc", ARG_CHOICE, &o.prealloc, .choices = "default|full|sparse", .help = "format"},
      {"log-size", ARG_SIZE, &o.log_bytes, mib, 1024 * mib, 4096,
       .help = "format: manifest log of one shard"},
      {"force", ARG_FLAG, &o.force, .help = "format: overwrite an older store; leftovers: remove"},
      {"offset", ARG_SIZE, &o.offset, 0, SR_BLOB_BYTES_MAX, .help = "get: begin here",
       .given = &o.offset_given},
      {"bytes", ARG_SIZE, &o.bytes, 0, SR_BLOB_BYTES_MAX, .help = "get: so many; default: all",
       .given = &o.bytes_given},
      {"durable", ARG_FLAG, &o.durable, .help = "put, rm: survives any crash on its own"},
      {"if-absent", ARG_FLAG, &o.if_absent, .help = "put: refuse if the id exists"},
      {"no-checksum", ARG_FLAG, &o.no_checksum, .help = "put: store none; get: do not verify"},
      {"add-size", ARG_SIZE, &o.add_bytes, 4096, most, 4096, .help = "grow: so many bytes more"},
      {"add-device", ARG_TEXT, &o.add_device, .help = "grow: a further device or file"},
      {"checksums", ARG_FLAG, &o.checksums,
       .help = "flush: first wait until all that snapshots have got its checksums"},
      {"scrub", ARG_FLAG, &o.scrub,
       .help = "check: every byte that counts, in spite of damage; a remedy for each finding"},
      {"damaged", ARG_FLAG, &o.damaged,
       .help = "info, ls, stat, get, stats: open with what is intact"},
      {"files", ARG_FLAG, &o.files, .help = "salvage: a file for each blob and volume"},
      {"version", ARG_FLAG, &version, .help = ""},
      {"help", ARG_FLAG, &o.help, .help = ""},
      {NULL, 0, NULL, .help = NULL},
  };
  const char *words[4];
  int count = args_parse(TOOL, table, argc, argv, words, 4);
  if (count < 0) return CTL_USAGE;
  if (version) return printf("%s %s\n", TOOL, sr_version()), CTL_OK;
  if (o.help) return help(table), CTL_OK;
  if (count == 0) {
    fprintf(stderr, "%s: what shall be done? See %s --help\n", TOOL, TOOL);
    return CTL_USAGE;
  }
  if (strcmp(words[0], "volume") == 0 || strcmp(words[0], "host") == 0) {
    fprintf(stderr, "%s: %s must be the first word: see %s %s --help\n", TOOL, words[0], TOOL,
            words[0]);
    return CTL_USAGE;
  }
  return ctl_dispatch("", commands, &o, words, count);
}
