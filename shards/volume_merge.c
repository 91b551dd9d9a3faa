/* volume_merge.c - OP_LAYER_MERGE: what a layer has that nobody but the one above it needs moves up
 * into that one. Owned by the shard's thread. */
#include "shards/volume_internal.h"

#include <errno.h>

int merge_some(struct shard *s, struct shard_op *op) {
  (void)s;
  (void)op;
  return -ENOSYS; /* not there yet */
}
