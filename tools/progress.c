/* progress.c - see progress.h. */
#include "tools/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define BAR_WIDTH   32
#define REDRAW_NS   UINT64_C(100000000)
#define PATIENCE_NS UINT64_C(300000000) /* work shorter than this shows no bar at all */

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void progress_begin(struct progress *p, const char *label) {
  *p = (struct progress){.label = label, .shown = isatty(STDERR_FILENO) ? 0 : -1};
  p->start_ns = p->last_ns = now_ns();
}

void progress_step(struct progress *p, uint64_t done, uint64_t total) {
  if (p->shown < 0 || total == 0) return;
  uint64_t now = now_ns();
  if (now - p->last_ns < REDRAW_NS || now - p->start_ns < PATIENCE_NS) return;
  p->last_ns = now;
  double part = done >= total ? 1 : (double)done / (double)total;
  double spent = (double)(now - p->start_ns) / 1e9;
  double left = part > 0 ? spent / part - spent : 0;
  char bar[BAR_WIDTH + 1];
  for (int i = 0; i < BAR_WIDTH; i++) bar[i] = i < (int)(part * BAR_WIDTH) ? '#' : '.';
  bar[BAR_WIDTH] = 0;
  fprintf(stderr, "\r\033[K%-12s [%s] %3d %%  %.0f s left", p->label, bar, (int)(part * 100), left);
  p->shown = 1;
}

void progress_end(struct progress *p) {
  if (p->shown > 0) fputs("\r\033[K", stderr);
  p->shown = -1;
}

void progress_callback(void *arg, uint64_t done_bytes, uint64_t total_bytes) {
  progress_step(arg, done_bytes, total_bytes);
}
