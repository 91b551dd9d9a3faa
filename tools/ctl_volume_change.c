/* ctl_volume_change.c - the commands that change volumes by one call of the library: create to
 * flatten. One thread. */
#include "tools/args.h"
#include "tools/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

typedef int change_fn(const struct ctl_options *o, struct sr_port *port);

/* Whose fault an error is, of a call with a volume that is there and perhaps a second name. */
static int change_failed(const struct ctl_options *o, struct sr_port *port, int error) {
  struct sr_volume_info v;
  char both[2 * SR_VOLUME_NAME_BYTES_MAX + 16];
  const char *first = o->words[0], *second = o->word_count > 1 ? o->words[1] : NULL;
  if (!second || (error == -ENOENT && sr_volume_stat(port, first, &v) < 0))
    return ctl_volume_fail(first, error);
  if (error == -EEXIST || error == -ENAMETOOLONG || error == -ENOENT)
    return ctl_volume_fail(second, error);
  snprintf(both, sizeof(both), "%s, %s", first, second);
  return ctl_volume_fail(both, error);
}

/* subject: the place of the word that names the result; -1: there is none. */
static int change(const struct ctl_options *o, change_fn *fn, int subject) {
  struct ctl_session s;
  int status = ctl_open(&s, o, false);
  if (status != CTL_OK) return status;
  int r = fn(o, s.port);
  status = r < 0 ? change_failed(o, s.port, r)
                 : ctl_volume_done(o, s.port, subject < 0 ? NULL : o->words[subject]);
  return ctl_close(&s, status);
}

void ctl_volume_spec(const struct ctl_options *o, struct sr_volume_options *spec) {
  const struct ctl_volume_options *v = &o->volume;
  *spec = (struct sr_volume_options)SR_VOLUME_OPTIONS_INIT;
  spec->size_bytes = v->size_bytes;
  spec->block_bytes = v->block ? 4096 : 512;
  spec->striped = v->striped || v->stripe_bytes;
  spec->stripe_bytes = (uint32_t)v->stripe_bytes;
  spec->on_shard = v->shard_given;
  spec->shard = (uint32_t)v->shard;
  spec->integrity = (uint32_t)v->integrity;
}

static int do_create(const struct ctl_options *o, struct sr_port *port) {
  struct sr_volume_options spec;
  ctl_volume_spec(o, &spec);
  return sr_volume_create(port, o->words[0], &spec);
}
int ctl_volume_create(const struct ctl_options *o) {
  if (!o->volume.size_given) {
    fputs("shard-ctl: volume create needs --size=SIZE, 512 to 64T\n", stderr);
    return CTL_USAGE;
  }
  return change(o, do_create, 0);
}

static int do_rm(const struct ctl_options *o, struct sr_port *port) {
  return sr_volume_remove(port, o->words[0]);
}
int ctl_volume_rm(const struct ctl_options *o) { return change(o, do_rm, -1); }

static int do_rename(const struct ctl_options *o, struct sr_port *port) {
  return sr_volume_rename(port, o->words[0], o->words[1]);
}
int ctl_volume_rename(const struct ctl_options *o) { return change(o, do_rename, 1); }

static int do_snapshot(const struct ctl_options *o, struct sr_port *port) {
  return sr_volume_snapshot(port, o->words[0], o->words[1]);
}
int ctl_volume_snapshot(const struct ctl_options *o) { return change(o, do_snapshot, 1); }

static int do_rollback(const struct ctl_options *o, struct sr_port *port) {
  return sr_volume_rollback(port, o->words[0], o->words[1]);
}
int ctl_volume_rollback(const struct ctl_options *o) { return change(o, do_rollback, 0); }

static int do_flatten(const struct ctl_options *o, struct sr_port *port) {
  return sr_volume_flatten(port, o->words[0]);
}
int ctl_volume_flatten(const struct ctl_options *o) { return change(o, do_flatten, 0); }

static int do_clone(const struct ctl_options *o, struct sr_port *port) {
  struct sr_volume_options spec = SR_VOLUME_OPTIONS_INIT;
  spec.size_bytes = o->volume.size_bytes;
  spec.on_shard = o->volume.shard_given;
  spec.shard = (uint32_t)o->volume.shard;
  spec.integrity = (uint32_t)o->volume.integrity;
  return sr_volume_clone(port, o->words[0], o->words[1], &spec);
}
int ctl_volume_clone(const struct ctl_options *o) { return change(o, do_clone, 1); }

/* ---- resize -----------------------------------------------------------------------------------
 */

static int do_resize(const struct ctl_options *o, struct sr_port *port) {
  uint64_t bytes = 0;
  return args_size(o->words[1], &bytes) < 0 ? -EINVAL
                                            : sr_volume_resize(port, o->words[0], bytes, o->force);
}
int ctl_volume_resize(const struct ctl_options *o) {
  uint64_t bytes = 0;
  if (args_size(o->words[1], &bytes) < 0 || bytes == 0 || bytes > SR_VOLUME_BYTES_MAX ||
      bytes % 512) {
    fprintf(stderr,
            "shard-ctl: \"%s\" is no size of a volume; legal: 512 to 64T (suffixes k, M, G, "
            "T), a multiple of 512\n",
            o->words[1]);
    return CTL_USAGE;
  }
  return change(o, do_resize, 0);
}
