/* losses.h - what a recovery in spite of damage knows to be missing. Private to the manifest.
 *
 * Two kinds: blobs of a partition whose checkpoint is gone may be absent; and where changes are
 * missing in the log, every blob of the partitions that they may concern may be older than it
 * should be, or deleted since, unless a later change of it is there. The same of clusters. */
#ifndef SHARDS_LOSSES_H
#define SHARDS_LOSSES_H

#include "shards/manifest_internal.h"

struct losses {
  bool partition[INDEX_PARTITIONS]; /* a blob that is not found may have been there */
  bool old[INDEX_PARTITIONS];       /* a blob that is found may be an old one */
  struct index *certain;            /* ids that changed behind the last lost change */
  struct map *certain_clusters;     /* the same of clusters: `zero` is set */
  bool searched;                    /* checkpoints were searched for: they may be old ones */
  bool unknown;                     /* how many changes are lost */
};

#endif
