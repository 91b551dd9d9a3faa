/* ctl_volume_limit.c - volume limit: rates of a volume, of a group, of the whole store. One thread.
 *
 * What is not named stays as it is; --unlimited takes everything away first. */
#include "tools/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int usage(const char *text) {
  fprintf(stderr, "shard-ctl: volume limit: %s\n", text);
  return CTL_USAGE;
}

/* What refill_ms brings at that rate. CTL_OK or CTL_USAGE. */
static int fill(struct sr_bucket *b, uint64_t rate, uint64_t burst, uint64_t refill_ms) {
  uint64_t tokens;
  if (!rate) return burst ? usage("a burst needs its rate, --iops or --bps") : CTL_OK;
  if (!refill_ms) refill_ms = 1000;
  if (__builtin_mul_overflow(rate, refill_ms, &tokens))
    return usage("rate times --refill-ms is beyond all limits");
  if (tokens < 1000)
    return usage("less than one request or byte comes back in --refill-ms: make it longer");
  *b = (struct sr_bucket){tokens / 1000, burst, refill_ms};
  return CTL_OK;
}

static int check_words(const struct ctl_options *o) {
  const struct ctl_volume_options *v = &o->volume;
  bool rates = v->iops || v->bps;
  if (o->word_count ? v->everything : !v->group == !v->everything)
    return usage("exactly one of NAME, --group=G, --all");
  if (v->group && v->no_group) return usage("--group and --no-group exclude each other");
  if (v->no_group && !o->word_count) return usage("--no-group needs the NAME of a volume");
  if (v->refill_ms && !rates) return usage("--refill-ms needs --iops or --bps");
  bool member = o->word_count && (v->group || v->no_group);
  if (!rates && !v->unlimited && !member && !v->iops_burst && !v->bps_burst)
    return usage("nothing to do: --iops=N, --bps=SIZE, --unlimited, --group=G, --no-group");
  return CTL_OK;
}

/* The limits as they are; with --unlimited none. */
static int present_limits(const struct ctl_options *o, struct sr_port *port, struct sr_limits *l,
                          char group[64]) {
  const struct ctl_volume_options *v = &o->volume;
  *l = (struct sr_limits)SR_LIMITS_INIT;
  int r = o->word_count ? sr_volume_limits(port, o->words[0], l, group)
          : v->group    ? sr_group_limits(port, v->group, l)
                        : sr_store_limits(port, l);
  if (r == -ENOENT && !o->word_count) r = 0; /* the group's first limits */
  if (r < 0) return r;
  if (v->unlimited) l->bytes = l->ops = (struct sr_bucket){0};
  if (!o->word_count) return 0;
  l->group = v->no_group ? NULL : v->group ? v->group : *group ? group : NULL;
  return 0;
}

static int set(const struct ctl_options *o, struct sr_port *port) {
  const struct ctl_volume_options *v = &o->volume;
  struct sr_limits l;
  char group[64] = "";
  const char *whom = o->word_count ? o->words[0] : v->group ? v->group : "the store";
  int r = present_limits(o, port, &l, group);
  if (r < 0) return ctl_volume_fail(whom, r);
  int status = fill(&l.ops, v->iops, v->iops_burst, v->refill_ms);
  if (status == CTL_OK) status = fill(&l.bytes, v->bps, v->bps_burst, v->refill_ms);
  if (status != CTL_OK) return status;
  r = o->word_count ? sr_volume_limit(port, whom, &l)
      : v->group    ? sr_group_limit(port, whom, &l)
                    : sr_store_limit(port, &l);
  if (r == -EINVAL || r == -ENAMETOOLONG) {
    fprintf(stderr,
            "shard-ctl: %s: a limit or a group's name is out of range: names of groups are "
            "1 to 63 bytes\n",
            whom);
    return CTL_FAILED;
  }
  if (r < 0) return ctl_volume_fail(whom, r);
  return ctl_volume_done(o, port, o->word_count ? whom : NULL);
}

int ctl_volume_limit(const struct ctl_options *o) {
  struct ctl_session s;
  int status = check_words(o);
  if (status == CTL_OK) status = ctl_open(&s, o, false);
  return status != CTL_OK ? status : ctl_close(&s, set(o, s.port));
}
