/* manifest_map.c - changes of volumes: clusters of layers, and records, with their log entries.
 * Owned by the shard's thread; see manifest.h and manifest_internal.h. */
#include <errno.h>

#include "shards/manifest_internal.h"

struct map *manifest_map(struct manifest *m) {
  (void)m;
  return NULL;
}
int manifest_reserve_map(struct manifest *m, uint32_t clusters, bool frees) {
  (void)m;
  (void)clusters;
  (void)frees;
  return -ENOSYS;
}
void manifest_cancel_map(struct manifest *m, uint32_t clusters) {
  (void)m;
  (void)clusters;
}
uint64_t manifest_set_clusters(struct manifest *m, struct layer *layer, uint64_t leaf,
                               uint64_t which, const struct cluster clusters[LEAF_CLUSTERS],
                               uint32_t reserved) {
  (void)layer;
  (void)leaf;
  (void)which;
  (void)clusters;
  (void)reserved;
  return m->sequence;
}
uint64_t manifest_move_clusters(struct manifest *m, struct layer *from, uint64_t which_from,
                                struct layer *to, uint64_t which_to, uint64_t leaf,
                                const struct cluster clusters[LEAF_CLUSTERS], uint32_t reserved) {
  (void)from;
  (void)to;
  (void)which_from;
  (void)which_to;
  (void)leaf;
  (void)clusters;
  (void)reserved;
  return m->sequence;
}
uint64_t manifest_note_data(struct manifest *m) { return m->sequence; }
int manifest_reserve_record(struct manifest *m, struct blob_id key, uint32_t bytes) {
  (void)m;
  (void)key;
  (void)bytes;
  return -ENOSYS;
}
void manifest_cancel_record(struct manifest *m, uint32_t bytes) {
  (void)m;
  (void)bytes;
}
uint64_t manifest_put_record(struct manifest *m, struct blob_id key, const void *data,
                             uint32_t bytes) {
  (void)key;
  (void)data;
  (void)bytes;
  return m->sequence;
}
const struct records *manifest_records(const struct manifest *m) {
  (void)m;
  return NULL;
}
