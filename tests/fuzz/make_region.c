/* make_region.c - corpus of the recover target: a real manifest is worked on, and what it has
 * written is taken apart into pieces (region_pieces.h). */
#include <stdio.h>
#include <stdlib.h>

#include "shards/log.h"
#include "tests/fuzz/make_corpus.h"
#include "tests/fuzz/region_pieces.h"
#include "tests/fuzz/use_manifest.h"

#define ALL_OF_FRAME                                                                               \
  (REPAIR_OWNER | REPAIR_CHECKSUM | REPAIR_CHAIN | REPAIR_POSITION | REPAIR_INCARNATION)

static struct draft out;

struct work {
  struct pieces p;
  struct root *root;
  struct manifest_config config;
  struct manifest *m;
  uint32_t ids;
};

/* ---- Working ------------------------------------------------------------------------------ */

static void start(struct work *w) {
  memset(w, 0, sizeof *w);
  pieces_open(&w->p);
  w->root = fuzz_alloc(sizeof *w->root);
  check(pieces_root(&w->p, w->root));
  w->config = (struct manifest_config){.region = &w->p.region,
                                       .device = use_device(&w->p.region),
                                       .hash_key = {pieces_hash_key[0], pieces_hash_key[1]},
                                       .shard_count = 1,
                                       .incarnation = PIECES_INCARNATION,
                                       .clock = clock_monotonic,
                                       .logger = fuzz_silent};
  memcpy(w->config.uuid, pieces_uuid, sizeof w->config.uuid);
  char why[100];
  check(manifest_recover(&w->m, &w->config, w->root, why, sizeof why) == 0);
}

static void finish(struct work *w) {
  manifest_destroy(w->m);
  w->config.device->ops->destroy(w->config.device);
  pieces_close(&w->p);
  free(w->root);
}

static void put(struct work *w, uint32_t id, uint64_t bytes, uint8_t flags) {
  check(use_put(w->m, &w->config, (struct blob_id){id * UINT64_C(0x9e3779b97f4a7c15), id}, bytes,
                flags) == 0);
}

static void puts_of_all_kinds(struct work *w) {
  static const uint64_t sizes[] = {1, 4096, 10000, 0, 70000, 300};
  for (uint32_t i = 0; i < array_size(sizes); i++) put(w, w->ids++, sizes[i], i == 5);
}

/* ---- Taking apart ------------------------------------------------------------------------- */

static void begin_piece(enum piece_kind kind, uint8_t repair, uint64_t place, size_t length) {
  draft_number(&out, kind, 1);
  draft_number(&out, repair, 1);
  draft_number(&out, place, 2);
  draft_number(&out, length, 2);
}

/* Frames from a position as long as they follow each other; where they end. */
static uint64_t emit_frames(struct work *w, uint64_t position, uint64_t end) {
  uint32_t chain = 0;
  while (position < end) {
    struct frame f;
    const char *why, *buf = pieces_block(&w->p, log_place(position, PIECES_LOG_BLOCKS));
    if (frame_decode_header(&f, buf, &why) || f.position != position ||
        !frame_checksum_matches(buf, frame_blocks(f.payload_bytes)))
      break;
    if (chain && f.chain != chain) break;
    size_t length = FRAME_HEADER_BYTES + f.payload_bytes;
    begin_piece(PIECE_FRAME, ALL_OF_FRAME, 0, length);
    draft_bytes(&out, buf, length);
    position = log_next(position, frame_blocks(f.payload_bytes), f.flags, PIECES_LOG_BLOCKS);
    chain = f.checksum;
  }
  return position;
}

/* To where the first frame of the log lies, or would. */
static void emit_walker(struct work *w, const struct root_shard *r) {
  struct frame f = {.sequence = r->sequence, .chain = r->chain};
  const char *why, *buf = pieces_block(&w->p, log_place(r->log_head, PIECES_LOG_BLOCKS));
  if (r->log_head < r->log_tail) check(frame_decode_header(&f, buf, &why) == 0);
  begin_piece(PIECE_WALKER, 0, 0, 20);
  draft_number(&out, r->log_head, 8);
  draft_number(&out, f.sequence, 8);
  draft_number(&out, f.chain, 4);
}

static void emit_checkpoints(struct work *w, const struct root_shard *r) {
  const char *at = pieces_block(&w->p, r->dir_block);
  uint32_t count, extents;
  memcpy(&count, at + 16, 4);
  for (at += 24; count > 0; count--, at += 40 + 16 * (size_t)extents) {
    uint64_t bytes;
    memcpy(&bytes, at + 24, 8);
    memcpy(&extents, at + 36, 4);
    for (uint32_t i = 0; i < extents; i++) {
      struct extent e;
      memcpy(&e, at + 40 + 16 * (size_t)i, sizeof e);
      for (; e.blocks > 0 && bytes > 0; e.block++, e.blocks--) {
        size_t n = min_u64(bytes, BLOCK_BYTES);
        begin_piece(PIECE_RAW, 0, e.block, n);
        draft_bytes(&out, pieces_block(&w->p, e.block), n);
        bytes -= n;
      }
    }
  }
  begin_piece(PIECE_DIRECTORY, REPAIR_OWNER | REPAIR_CHECKSUM, r->dir_block, r->dir_bytes);
  draft_bytes(&out, pieces_block(&w->p, r->dir_block), r->dir_bytes);
}

static void emit_root(struct work *w, const struct root_shard *r, uint8_t repair) {
  begin_piece(PIECE_ROOT, repair, 0, 72);
  draft_number(&out, r->log_head, 8);
  draft_number(&out, r->log_tail, 8);
  draft_number(&out, r->sequence, 8);
  draft_number(&out, r->chain, 4);
  draft_number(&out, r->dir_checksum, 4);
  draft_number(&out, r->dir_block, 8);
  draft_number(&out, r->dir_bytes, 8);
  draft_number(&out, r->zeroed_blocks, 8);
  draft_number(&out, r->blobs, 8);
  draft_number(&out, w->root->epoch, 8);
}

/* Put together again it is what it was. */
static void check_pieces(struct work *w) {
  struct pieces p;
  struct feed f = {out.bytes + 1, out.count - 1};
  struct root *root = fuzz_alloc(sizeof *root);
  struct manifest *m;
  struct manifest_config config = w->config;
  char why[200] = "";
  pieces_open(&p);
  pieces_take(&p, &f);
  check(pieces_root(&p, root));
  config.region = &p.region;
  config.read_only = true;
  int r = manifest_recover(&m, &config, root, why, sizeof why);
  if (r) fprintf(stderr, "%s\n", why);
  check(r == 0);
  check(manifest_verify(m) == manifest_verify(w->m));
  manifest_destroy(m);
  free(root);
  pieces_close(&p);
}

/* All that the root names, and what follows behind its tail. */
static void emit(struct work *w, const char *name) {
  const struct root_shard *r = &w->root->shards[0];
  static const uint8_t flags[] = {1, 3, 4, 8, 12};
  static uint32_t count;
  out.count = 0;
  draft_number(&out, flags[count++ % array_size(flags)], 1);
  if (r->dir_block) emit_checkpoints(w, r);
  emit_walker(w, r);
  uint64_t end = emit_frames(w, r->log_head, r->log_tail);
  check(end == r->log_tail);
  emit_root(w, r, REPAIR_CHAIN | (r->dir_block ? REPAIR_OWNER : 0));
  emit_frames(w, end, end + PIECES_LOG_BLOCKS - (end - r->log_head));
  check_pieces(w);
  corpus_add("recover", name, out.bytes, out.count);
}

/* ---- Stores ------------------------------------------------------------------------------ */

static void make_small(void) {
  struct work w;
  start(&w);
  use_flush(w.m, &w.config, w.root);
  emit(&w, "empty");
  put(&w, w.ids++, 100, 0);
  use_commit(w.m, &w.config);
  emit(&w, "commit");
  puts_of_all_kinds(&w);
  use_delete(w.m, &w.config, (struct blob_id){0, 0});
  use_flush(w.m, &w.config, w.root);
  emit(&w, "flushed");
  puts_of_all_kinds(&w);
  use_commit(w.m, &w.config);
  puts_of_all_kinds(&w);
  use_commit(w.m, &w.config);
  emit(&w, "commits_behind_tail");
  use_checkpoint(w.m, &w.config, w.root);
  emit(&w, "checkpoint");
  puts_of_all_kinds(&w);
  use_flush(w.m, &w.config, w.root);
  puts_of_all_kinds(&w);
  use_commit(w.m, &w.config);
  emit(&w, "checkpoint_and_log");
  finish(&w);
}

/* Round the ring, so that a frame skips its end. */
static void make_wrapped(void) {
  struct work w;
  start(&w);
  use_flush(w.m, &w.config, w.root);
  for (uint32_t i = 0; i < 3 * PIECES_LOG_BLOCKS / 2; i++) {
    put(&w, i % 5, 5000 + i, 0);
    use_commit(w.m, &w.config);
    if (i % 32 == 31) use_checkpoint(w.m, &w.config, w.root);
  }
  emit(&w, "wrapped");
  finish(&w);
}

/* Clusters and records: in the log, in checkpoints, and moved behind them. */
static void make_volumes(void) {
  struct work w;
  start(&w);
  use_flush(w.m, &w.config, w.root);
  use_clusters(w.m, 11, 0, 0, 5);
  use_record(w.m, (struct blob_id){1, 1}, 40);
  use_commit(w.m, &w.config);
  emit(&w, "volumes_commit");
  use_clusters(w.m, 12, 3, 60, 4);
  use_clusters(w.m, 11, 0, 4, 3);
  use_record(w.m, (struct blob_id){1, 2}, 133);
  use_flush(w.m, &w.config, w.root);
  emit(&w, "volumes_flushed");
  use_checkpoint(w.m, &w.config, w.root);
  emit(&w, "volumes_checkpoint");
  use_move(w.m, 11, 12, 0, 0x5e);
  use_record(w.m, (struct blob_id){1, 1}, 0);
  use_flush(w.m, &w.config, w.root);
  use_move(w.m, 12, 13, 3, UINT64_C(3) << 61);
  use_commit(w.m, &w.config);
  emit(&w, "volumes_moved");
  use_sums(w.m, 12, 0);
  use_commit(w.m, &w.config);
  use_checkpoint(w.m, &w.config, w.root);
  use_move(w.m, 12, 13, 0, 2);
  use_sums(w.m, 13, 0);
  use_flush(w.m, &w.config, w.root);
  emit(&w, "volumes_sums");
  finish(&w);
}

void corpus_region(void) {
  make_small();
  make_wrapped();
  make_volumes();
}
