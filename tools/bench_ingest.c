/* bench_ingest.c - --workload=ingest: a stream of new blobs that is flushed now and then. The load
 * is
 * --rw=put with --flush-every; here is what it leaves behind. Main thread. */
#include "tools/bench.h"

int bench_run_ingest(struct bench *b, struct bench_result *res) {
  struct sr_space s;
  struct bench_figures *f = &res->figures;
  int r = bench_run_store(b, res), e = sr_space(b->port, &s);
  if (e < 0) return r < 0 ? r : bench_fail("space", e);
  uint64_t used = s.total_bytes - s.free_bytes;
  bench_figure(f, "blobs", (double)s.blobs, "", NULL);
  bench_figure(f, "live", (double)s.live_bytes, "bytes", "what blobs hold, all of the store");
  bench_figure(f, "used", (double)used, "bytes", "what they take");
  bench_figure(f, "used for a live byte", s.live_bytes ? (double)used / (double)s.live_bytes : 0,
               "", NULL);
  bench_figure(f, "metadata", (double)s.metadata_bytes, "bytes", NULL);
  return r;
}
