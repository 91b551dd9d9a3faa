/* use_manifest.h - what must hold of a manifest that was recovered, whatever from; and that it goes
 * on working. */
#ifndef TESTS_FUZZ_USE_MANIFEST_H
#define TESTS_FUZZ_USE_MANIFEST_H

#include "shards/manifest.h"
#include "tests/fuzz/fuzz.h"

/* Each block has one owner at most, all that have one are in range and used, nothing leaks; each
 * blob is found by its id and is in itself consistent, as are clusters and records. Returns a
 * digest of all of them, in whatever order. */
uint64_t manifest_verify(struct manifest *m);
/* The same but for what the manifest itself takes: after a recovery in spite of damage. */
uint64_t manifest_verify_blobs(struct manifest *m);
/* Flushes (steps 1), changes and commits (2), and checkpoints (3) m, which is not read-only and on
 * a device that completes when polled, and recovers from what is on disk then: always what was in
 * memory. config, root: those m was recovered with; root becomes the last durable one. */
void manifest_use(struct manifest *m, const struct manifest_config *config, struct root *root,
                  uint32_t steps);
/* The steps of it, for the corpus. use_put: 0, -EAGAIN or -ENOSPC. */
int use_put(struct manifest *m, const struct manifest_config *config, struct blob_id id,
            uint64_t bytes, uint8_t flags);
void use_delete(struct manifest *m, const struct manifest_config *config, struct blob_id id);
/* As far as there is room. */
void use_clusters(struct manifest *m, uint64_t layer, uint64_t leaf, uint32_t first,
                  uint32_t count);
void use_move(struct manifest *m, uint64_t from, uint64_t to, uint64_t leaf, uint64_t which);
void use_sums(struct manifest *m, uint64_t layer, uint64_t leaf); /* of all that it has */
void use_record(struct manifest *m, struct blob_id key, uint32_t bytes);
void use_commit(struct manifest *m, const struct manifest_config *config);
void use_flush(struct manifest *m, const struct manifest_config *config, struct root *root);
void use_checkpoint(struct manifest *m, const struct manifest_config *config, struct root *root);
/* The device that it wants, with the region's backings attached. */
struct device *use_device(const struct region *region);

#endif
