/* progress.c - see progress.h. */
#include "tools/progress.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define BAR_WIDTH   32
#define BAR_SHORT   10 /* with a note behind it */
#define REDRAW_NS   UINT64_C(100000000)
#define LINE_NS     UINT64_C(500000000)
#define PATIENCE_NS UINT64_C(300000000) /* work shorter than this shows no bar at all */

int progress_mode = PROGRESS_AUTO;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool progress_shows(void) {
  if (progress_mode != PROGRESS_AUTO) return progress_mode == PROGRESS_ALWAYS;
  return isatty(STDERR_FILENO);
}

void progress_begin(struct progress *p, const char *label) {
  *p = (struct progress){.label = label, .shown = progress_shows() ? 0 : -1};
  p->lines = p->shown == 0 && !isatty(STDERR_FILENO);
  p->start_ns = p->last_ns = now_ns();
}

void progress_note(struct progress *p, const char *note) { p->note = note; }

/* A line that is longer than the terminal is wide would leave its beginning behind. */
static int columns(void) {
  struct winsize size;
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 256;
}

void progress_step(struct progress *p, uint64_t done, uint64_t total) {
  if (p->shown < 0 || total == 0) return;
  uint64_t now = now_ns();
  if (now - p->last_ns < (p->lines ? LINE_NS : REDRAW_NS) || now - p->start_ns < PATIENCE_NS)
    return;
  p->last_ns = now;
  double part = done >= total ? 1 : (double)done / (double)total;
  double spent = (double)(now - p->start_ns) / 1e9;
  double left = part > 0 ? spent / part - spent : 0;
  char bar[BAR_WIDTH + 1], line[256];
  int width = p->note ? BAR_SHORT : BAR_WIDTH;
  for (int i = 0; i < width; i++) bar[i] = i < (int)(part * width) ? '#' : '.';
  bar[width] = 0;
  snprintf(line, sizeof(line), "%-*s [%s] %3d %%  %.0f s left%s%s", p->note ? 1 : 12, p->label, bar,
           (int)(part * 100), left, p->note ? "  " : "", p->note ? p->note : "");
  if (p->lines)
    fprintf(stderr, "%s\n", line);
  else
    fprintf(stderr, "\r\033[K%.*s", columns() - 1, line);
  p->shown = 1;
}

void progress_end(struct progress *p) {
  if (p->shown > 0 && !p->lines) fputs("\r\033[K", stderr);
  p->shown = -1;
}

void progress_callback(void *arg, uint64_t done_bytes, uint64_t total_bytes) {
  progress_step(arg, done_bytes, total_bytes);
}
