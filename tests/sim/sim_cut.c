/* sim_cut.c - what a power cut may leave, and images of disks to look at it; see sim_disk.h. One
 * thread. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_disk_internal.h"

/* ---- Power cuts -------------------------------------------------------------------------------
 */

static void add_atom(struct cut *cut, const struct sim_disk *d, uint64_t block, struct page *page,
                     bool in_flight, uint64_t write) {
  uint8_t changes = page_diff(d->durable[block], page);
  for (uint32_t i = 0; i < cut->count; i++)
    if (cut->atoms[i].disk == d->number && cut->atoms[i].block == block)
      changes |= cut->atoms[i].changes | page_diff(cut->atoms[i].page, page);
  if (!changes) {
    page_unref(page);
    return;
  }
  if (cut->count == cut->room) {
    cut->room = cut->room ? 2 * cut->room : 64;
    cut->atoms = realloc(cut->atoms, cut->room * sizeof *cut->atoms);
    check(cut->atoms != NULL);
  }
  cut->atoms[cut->count++] = (struct atom){.disk = d->number,
                                           .block = block,
                                           .page = page,
                                           .changes = changes,
                                           .in_flight = in_flight,
                                           .write = write};
}

void sim_cut_take(struct cut *cut, const struct sim_io *io) {
  check(cut->count == 0);
  for (uint32_t i = 0; i < io->disk_count; i++) {
    const struct sim_disk *d = &io->disks[i];
    for (uint32_t k = 0; k < d->cached_count; k++)
      add_atom(cut, d, d->cached[k].block, page_ref(d->cached[k].page), false, d->cached[k].order);
  }
  uint64_t write = io->order;
  for (const struct sim_device *dev = io->devices; dev; dev = dev->next)
    for (uint32_t i = 0; i < dev->count; i++) {
      const struct io *w = dev->requests[i].io;
      if (w->op != IO_WRITE) continue;
      write++;
      for (uint64_t k = 0; k < w->bytes >> BLOCK_SHIFT; k++)
        add_atom(cut, dev->files[w->file], (w->offset >> BLOCK_SHIFT) + k, page_of(block_of(w, k)),
                 true, write);
    }
}

void sim_cut_clear(struct cut *cut) {
  for (uint32_t i = 0; i < cut->count; i++) page_unref(cut->atoms[i].page);
  cut->count = 0;
}

void sim_cut_free(struct cut *cut) {
  sim_cut_clear(cut);
  free(cut->atoms);
  *cut = (struct cut){0};
}

/* ---- Kills ---- */

/* A mask of sectors for each block: all, none, any, or those before some point. */
static void kill_write(struct sim_disk *d, const struct io *w, struct random *r,
                       bool whole_blocks) {
  uint32_t style = (uint32_t)random_up_to(r, 6); /* 0, 1: not; 2, 3: all; 4: any; 5: a prefix */
  uint64_t count = w->bytes >> BLOCK_SHIFT, prefix = random_up_to(r, count * 8 + 1);
  uint64_t order = d->io->order++;
  for (uint64_t k = 0; k < count; k++) {
    uint64_t block = (w->offset >> BLOCK_SHIFT) + k;
    uint32_t keep = style < 2 ? 0 : 0xff;
    if (style == 4) keep = (uint8_t)random_next(r);
    if (style == 5) keep = k < prefix / 8 ? 0xff : k > prefix / 8 ? 0 : (1u << prefix % 8) - 1;
    if (whole_blocks && keep) keep = 0xff;
    if (!keep || block >= d->blocks) continue;
    struct page *whole = page_of(block_of(w, k));
    disk_store(d, block, page_merge(d->now[block], whole, (uint8_t)keep), false, order);
    page_unref(whole);
  }
}

void sim_kill(struct sim_io *io, struct random *r, bool whole_blocks) {
  struct {
    struct sim_disk *disk;
    const struct io *write;
  } list[1024];
  uint32_t n = 0;
  for (const struct sim_device *dev = io->devices; dev; dev = dev->next)
    for (uint32_t i = 0; i < dev->count; i++) {
      const struct io *w = dev->requests[i].io;
      if (w->op != IO_WRITE) continue;
      check(n < array_size(list));
      list[n].disk = dev->files[w->file];
      list[n++].write = w;
    }
  for (; n > 0; n--) {
    uint32_t i = (uint32_t)random_up_to(r, n);
    kill_write(list[i].disk, list[i].write, r, whole_blocks);
    list[i] = list[n - 1];
  }
}

/* ---- Images ---- */

void sim_image_create(struct sim_io *image, const struct sim_io *of, uint64_t seed) {
  sim_io_init(image, seed);
  image->calm = true;
  image->changes = UINT64_MAX;
  image->disk_count = of->disk_count;
  for (uint32_t i = 0; i < of->disk_count; i++)
    sim_disk_create(image, i, of->disks[i].blocks, true);
}

void sim_image_set(struct sim_io *image, const struct sim_io *of, const struct cut *cut,
                   const uint8_t *keep) {
  for (uint32_t i = 0; i < image->disk_count; i++) {
    struct sim_disk *d = &image->disks[i];
    disk_take_back(d);
    if (image->changes == of->changes) continue;
    memcpy(d->base, of->disks[i].durable, d->blocks * sizeof *d->base);
    memcpy(d->now, of->disks[i].durable, d->blocks * sizeof *d->now);
  }
  image->changes = of->changes;
  image->polls = 0;
  for (uint32_t i = 0; i < cut->count; i++) {
    const struct atom *a = &cut->atoms[i];
    if (!(keep[i] & a->changes)) continue;
    struct sim_disk *d = &image->disks[a->disk];
    uint8_t all = (keep[i] & a->changes) == a->changes ? 0xff : keep[i];
    disk_set_now(d, a->block, page_merge(d->now[a->block], a->page, all));
  }
}

uint64_t sim_image_hash(const struct sim_io *image, const struct sim_io *of) {
  uint64_t hash = 0;
  for (uint32_t i = 0; i < image->disk_count; i++) {
    const struct sim_disk *d = &image->disks[i];
    hash ^= of->disks[i].hash;
    for (uint32_t k = 0; k < d->touched_count; k++) {
      uint64_t b = d->touched[k];
      hash ^= page_hash_at(d->base[b], d->number, b) ^ page_hash_at(d->now[b], d->number, b);
    }
  }
  return hash;
}

void sim_power_on(struct sim_io *io, const struct sim_io *image) {
  check(!io->devices);
  for (uint32_t i = 0; i < io->disk_count; i++) {
    struct sim_disk *d = &io->disks[i];
    for (uint32_t k = 0; k < d->cached_count; k++) page_unref(d->cached[k].page);
    d->cached_count = 0;
    for (uint64_t b = 0; b < d->blocks; b++) {
      struct page *p = image->disks[i].now[b];
      if (p == d->durable[b] && p == d->now[b]) continue;
      disk_set_now(d, b, page_ref(p));
      disk_set_durable(d, b, page_ref(p));
    }
  }
}
