/* disk_look.c - holds the volumes of a store against a ledger: the list of names says at which
 * states the disks are; then every byte of each is read. One thread. */
#include "tests/crash/look.h"

#include <stdlib.h>
#include <string.h>

#define LIST 16u

struct disks_looking {
  struct look *look;
  uint64_t seed;
  struct disks disks; /* what holds */
  struct sr_port *port;
  struct found_disk *found;
  struct sr_volume_info infos[DISKS]; /* of those that were found */
  bool unsure[DISKS];
  uint8_t *buf;
};

/* ---- States -------------------------------------------------------------------------------------
 */

static void note_info(struct disks_looking *k, const struct sr_volume_info *info) {
  uint32_t d, state;
  if (!disk_of_name(info->name, &d, &state)) {
    look_find(k->look, "a volume that nobody made: %s", info->name);
    return;
  }
  if (k->found[d].state)
    look_find(k->look, "disk %u is at states %u and %u", d, state, k->found[d].state);
  k->found[d].state = state;
  k->infos[d] = *info;
  k->look->disks++;
}

static void look_at_info(struct disks_looking *k, uint32_t d) {
  const struct sr_volume_info *info = &k->infos[d];
  bool striped = info->stripe_bytes != 0;
  if (info->size_bytes == DISK_BYTES && info->block_bytes == SECTOR_BYTES &&
      info->snapshot == (disk_kind(d) == DISK_SNAPSHOT) && striped == k->disks.disks[d].striped)
    return;
  look_find(k->look, "%s is another volume: %llu bytes, snapshot %d, blocks %u, stripes %u",
            info->name, (unsigned long long)info->size_bytes, info->snapshot, info->block_bytes,
            info->stripe_bytes);
}

static void list_disks(struct disks_looking *k) {
  struct sr_volume_info infos[LIST];
  char after[SR_VOLUME_NAME_BYTES_MAX + 1] = "";
  int n;
  while ((n = sr_volume_list(k->port, after, infos, LIST)) > 0) {
    for (int i = 0; i < n; i++) note_info(k, &infos[i]);
    memcpy(after, infos[n - 1].name, sizeof after);
  }
  if (n < 0) look_find(k->look, "list of volumes: %s", strerror(-n));
}

static bool state_allowed(const struct row *row, uint32_t state) {
  if (state) return row_allows(row, state) && !(state == row->base && row->base_none);
  return (row->base_none && row->durable <= row->floor) ||
         (row->none > row->floor && row->none >= row->durable);
}

static bool look_at_state(struct disks_looking *k, uint32_t d) {
  const struct row *row = &k->disks.disks[d].row;
  uint32_t state = k->found[d].state;
  if (state_allowed(row, state)) return state != 0;
  look_find(k->look,
            "disk %u is at state %u (0: not there); issued %u, done %u, durable %u, the last that "
            "removes it %u, before that %u of %u%s",
            d, state, row->issued, row->done, row->durable, row->none, row->base, row->floor,
            row->base_none ? " (not there)" : "");
  return false;
}

/* ---- Contents -----------------------------------------------------------------------------------
 */

static void find_unit(struct disks_looking *k, uint32_t d, uint32_t u, const struct content *c,
                      const char *wrong) {
  const struct disk_unit *unit = &k->disks.disks[d].units[u];
  const struct row *row = &unit->row;
  look_find(k->look,
            "disk %u at %u, unit %u: %s%s: disk %u, unit %u, version %u; issued %u, done %u, "
            "durable %u, the last zeros %u, born %u of disk %u, %u to %u%s, before that %u of %u%s",
            d, k->found[d].state, u, wrong ? wrong : "not allowed", c->zeros ? " (zeros)" : "",
            c->disk, c->unit, c->version, row->issued, row->done, row->durable, row->none,
            unit->born, unit->origin.disk, unit->origin.first, unit->origin.last,
            unit->origin.zeros ? " or zeros" : "", row->base, row->floor,
            row->base_none ? " (zeros)" : "");
}

static bool look_at_content(struct disks_looking *k, uint32_t d, uint32_t u,
                            const struct content *c, const char *wrong) {
  const struct disk_unit *unit = &k->disks.disks[d].units[u];
  if (!wrong && (k->unsure[d] || unit_allows(unit, d, u, c))) return true;
  find_unit(k, d, u, c, wrong);
  return false;
}

static void look_at_unit(struct disks_looking *k, uint32_t d, uint32_t u) {
  const uint8_t *buf = k->buf + unit_offset(u);
  struct content *c = &k->found[d].units[u];
  bool whole = !k->look->torn_sectors || disk_kind(d) == DISK_SNAPSHOT;
  const char *wrong = unit_read(k->seed, u, buf, c);
  if (whole || !wrong) {
    look_at_content(k, d, u, c, wrong);
    return;
  }
  for (uint32_t at = 0; at < unit_bytes(u); at += SECTOR_BYTES) {
    wrong = sector_read(k->seed, u, at / SECTOR_BYTES, buf + at, c);
    if (!look_at_content(k, d, u, c, wrong)) return;
  }
  k->look->torn++;
}

/* As it is opened by those who use it: a disk to write to, if the store can be written to. */
static int read_disk(struct disks_looking *k, uint32_t d) {
  struct sr_block_options options = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *block;
  char name[DISK_NAME_MAX];
  disk_name(d, k->found[d].state, name);
  options.read_only = k->look->read_only || disk_kind(d) == DISK_SNAPSHOT;
  int r = sr_volume_open(k->port, name, &options, &block);
  if (r) return r;
  int64_t n = sr_volume_read(k->port, block, k->buf, 0, DISK_BYTES);
  r = sr_volume_close(k->port, block);
  return n == DISK_BYTES ? r : n < 0 ? (int)n : -1;
}

static void look_at_disk(struct disks_looking *k, uint32_t d) {
  bool there = look_at_state(k, d), unsure = k->unsure[d];
  k->unsure[d] = true; /* unless its contents are read */
  if (!there) return;
  if (!unsure) look_at_info(k, d);
  int r = read_disk(k, d);
  if (r) {
    look_find(k->look, "disk %u at %u: cannot be read: %s", d, k->found[d].state, strerror(-r));
    return;
  }
  k->unsure[d] = unsure;
  k->look->bytes += DISK_BYTES;
  for (uint32_t u = 0; u < DISK_UNITS; u++) look_at_unit(k, d, u);
}

/* Nothing has been written to a clone's unit: it is what the snapshot is, if that is still there.
 */
static void look_at_origin(struct disks_looking *k, uint32_t d) {
  const struct disk *disk = &k->disks.disks[d], *from = &k->disks.disks[disk->from];
  if (k->unsure[d] || k->unsure[disk->from] || k->look->torn_sectors) return;
  if (disk_kind(d) != DISK_CLONE || disk->from_born != from->born) return;
  if (!k->found[d].state || k->found[disk->from].state < from->born) return;
  for (uint32_t u = 0; u < DISK_UNITS; u++) {
    const struct content *c = &k->found[d].units[u], *of = &k->found[disk->from].units[u];
    if (c->zeros || (c->disk == d && c->version > disk->units[u].born)) continue;
    if (of->zeros || of->disk != c->disk || of->version != c->version)
      look_find(k->look, "disk %u, unit %u is not what its snapshot %u has", d, u, disk->from);
  }
}

void look_at_disks(struct look *look, const struct ledger *l, struct sr_port *port,
                   struct found_disk found[DISKS]) {
  uint64_t before = look->findings;
  struct disks_looking *k = calloc(1, sizeof *k);
  uint32_t states[DISKS];
  k->look = look;
  k->seed = l->seed;
  k->port = port;
  k->found = found;
  k->buf = aligned_alloc(4096, (DISK_BYTES + 4095) / 4096 * 4096);
  memcpy(&k->disks, &l->disks, sizeof k->disks);
  memset(found, 0, DISKS * sizeof found[0]);
  list_disks(k);
  for (uint32_t d = 0; d < DISKS; d++) states[d] = found[d].state;
  if (look->later) disks_between(&k->disks, look->later, states, k->unsure);
  for (uint32_t d = 0; d < DISKS; d++) look_at_disk(k, d);
  for (uint32_t d = 0; d < DISKS; d++) look_at_origin(k, d);
  if (look->findings == before) disks_compare(&k->disks, found, &look->unpromised, &look->lost);
  free(k->buf);
  free(k);
}
