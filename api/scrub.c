/* scrub.c - scrubbing: start, status, stop, by calls on every core. */
#include <errno.h>

#include "api/internal.h"

static int on_cores(struct sr_port *p, store_call_fn *fn, void *arg) {
  const struct store *s = port_of(p)->store;
  int r = 0;
  for (uint32_t c = 0; !r && c < s->core_count; c++) r = store_call(port_of(p), c, fn, arg);
  return r;
}

static int start_core(struct core *core, void *arg) { return core_scrub_start(core, arg); }

static int stop_core(struct core *core, void *arg) {
  (void)arg;
  core_scrub_stop(core);
  return 0;
}

static int add_core(struct core *core, void *arg) {
  core_scrub_totals(core, arg);
  return 0;
}

int sr_scrub_start(struct sr_port *p, const struct sr_scrub_options *options) {
  struct sr_scrub_options o;
  struct scrub_totals t = {.passes = UINT64_MAX};
  int r = port_refused(p);
  if (!r) r = options_copy(&o, sizeof o, options);
  if (!r) r = on_cores(p, add_core, &t);
  if (!r && t.running) r = -EBUSY;
  if (r) return r;
  struct scrub_request q = {o.bytes_per_second, o.continuous};
  r = on_cores(p, start_core, &q);
  if (r) (void)sr_scrub_stop(p);
  return r;
}

int sr_scrub_status(struct sr_port *p, struct sr_scrub_status *status) {
  struct scrub_totals t = {.passes = UINT64_MAX};
  int r = port_refused(p);
  if (!r && !status) r = -EINVAL;
  if (!r) r = on_cores(p, add_core, &t);
  if (r) return r;
  *status = (struct sr_scrub_status){.running = t.running > 0,
                                     .passes = t.passes,
                                     .done_bytes = t.done_bytes,
                                     .total_bytes = t.total_bytes,
                                     .checked_blobs = t.blobs,
                                     .damaged_blobs = t.damaged_blobs,
                                     .unverified_blobs = t.unverified_blobs,
                                     .checked_blocks = t.blocks,
                                     .damaged_blocks = t.damaged_blocks,
                                     .damaged_metadata = t.damaged_metadata,
                                     .unreadable = t.unreadable};
  return 0;
}

int sr_scrub_stop(struct sr_port *p) {
  int r = port_refused(p);
  return r ? r : on_cores(p, stop_core, NULL);
}
