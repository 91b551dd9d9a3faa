/* sim_store.c - see sim_store.h. */
#include "tests/sim/sim_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char sim_last_error[512];

static uint64_t slots_blocks(const struct geometry *g) {
  return FORMAT_ROOT_SLOTS * 2 * root_copy_blocks(g->shards);
}

/* Which disk a shard lies on. */
static uint32_t disk_of_shard(const struct geometry *g, uint32_t shard) {
  if (g->shape == SHAPE_DIRECTORY) return shard + 1;
  return g->shape == SHAPE_TWO_DEVICES ? shard % 2 : 0;
}

void geometry_disks(struct geometry *g, uint64_t blocks[SIM_DISKS_MAX]) {
  g->disk_count = g->shape == SHAPE_DIRECTORY     ? g->shards + 1
                  : g->shape == SHAPE_TWO_DEVICES ? 2
                                                  : 1;
  for (uint32_t i = 0; i < g->disk_count; i++)
    blocks[i] = 2 * FORMAT_IDENTITY_BLOCKS + (i == 0 ? slots_blocks(g) : 0);
  for (uint32_t s = 0; s < g->shards; s++) blocks[disk_of_shard(g, s)] += g->region_blocks;
}

static void fill_identity(struct identity *id, const struct geometry *g, struct sim_io *io,
                          uint32_t disk) {
  memset(id, 0, sizeof *id);
  id->version = FORMAT_VERSION;
  id->generation = 1;
  memset(id->uuid, 0x51, sizeof id->uuid);
  id->hash_key[0] = UINT64_C(0x243f6a8885a308d3);
  id->hash_key[1] = UINT64_C(0x13198a2e03707344);
  id->shard_count = g->shards;
  id->backing_index = disk;
  id->backing_count = g->disk_count;
  id->backing_blocks = io->disks[disk].blocks;
  id->log_blocks = g->log_blocks;
  uint64_t at = FORMAT_IDENTITY_BLOCKS;
  if (disk == 0) {
    id->root_block = at;
    id->root_slot_blocks = 2 * root_copy_blocks(g->shards);
    at += slots_blocks(g);
  }
  for (uint32_t s = 0; s < g->shards; s++) {
    if (disk_of_shard(g, s) != disk) continue;
    id->segments[id->segment_count++] =
        (struct format_segment){.shard = s, .first_block = at, .blocks = g->region_blocks};
    at += g->region_blocks;
  }
}

void sim_format(struct sim_io *io, const struct geometry *g) {
  static struct identity id;
  static struct root root;
  void *buf = aligned_alloc(BLOCK_BYTES, FORMAT_IDENTITY_BLOCKS << BLOCK_SHIFT);
  check(buf != NULL && slots_blocks(g) / FORMAT_ROOT_SLOTS <= FORMAT_IDENTITY_BLOCKS);
  for (uint32_t i = 0; i < g->disk_count; i++) {
    fill_identity(&id, g, io, i);
    identity_encode(&id, buf);
    sim_disk_write(&io->disks[i], 0, buf, FORMAT_IDENTITY_BLOCKS);
    sim_disk_write(&io->disks[i], io->disks[i].blocks - FORMAT_IDENTITY_BLOCKS, buf,
                   FORMAT_IDENTITY_BLOCKS);
  }
  memset(&root, 0, sizeof root);
  root.epoch = root.incarnation = 1;
  root.shard_count = g->shards;
  for (uint32_t s = 0; s < g->shards; s++) {
    root.shards[s].sequence = 1;
    root.shards[s].zeroed_blocks = g->zeroed ? g->region_blocks : 0;
  }
  uint64_t slot = slots_blocks(g) / FORMAT_ROOT_SLOTS;
  root_encode(&root, id.uuid, buf);
  sim_disk_write(&io->disks[0], FORMAT_IDENTITY_BLOCKS + root_slot_of_epoch(root.epoch) * slot, buf,
                 slot);
  free(buf);
}

bool sim_flush_after;

static void keep_line(void *arg, int level, const char *text) {
  (void)arg;
  if (getenv("SIM_LOG")) fprintf(stderr, "  [%d] %s\n", level, text);
  if (level == 0) snprintf(sim_last_error, sizeof sim_last_error, "%s", text);
}

int sim_open(struct sr_store **store, struct sim_io *io, const struct open_how *how) {
  struct backing *backings[SIM_DISKS_MAX];
  struct store_config config = {.core_count = how->cores,
                                .engine_ops = &device_sim,
                                .clock = &io->clock,
                                .stepped = true,
                                .survivors_place = how->memory ? &how->memory->place : NULL,
                                .works_max = how->works_max,
                                .live_save_ns = how->live_save_ns,
                                .frame_target_bytes = how->frame_target_bytes,
                                .checkpoint_group_bytes = how->checkpoint_group_bytes,
                                .no_pin = true,
                                .no_background = !how->background,
                                .read_only = how->read_only,
                                .flush_after = sim_flush_after,
                                .queue_depth = 64,
                                .arena_bytes = 256u << 10,
                                .seed = 1,
                                .logger = {keep_line, NULL},
                                .local_finished = local_finished};
  sim_last_error[0] = 0;
  sim_backings(io, backings);
  int r = layout_open_backings(&config.layout, backings, io->disk_count, how->read_only,
                               &config.logger);
  if (r) return r;
  struct store *s;
  r = store_open(&s, "simulated", &config);
  if (r)
    layout_close(config.layout);
  else
    *store = (struct sr_store *)s;
  return r;
}

void sim_fail(struct sim_io *io) {
  io->faults.gone = true;
  io->moment = NULL;
  io->delay_ns_max = 1;
}

/* Spread over hashes; any number of ids. */
struct sr_id sim_id(uint32_t id) {
  return (struct sr_id){UINT64_C(0x5bd1e995), id};
}
int64_t sim_number(struct sr_id id) {
  return id.hi == UINT64_C(0x5bd1e995) && id.lo < MODEL_IDS_MAX ? (int64_t)id.lo : -1;
}
