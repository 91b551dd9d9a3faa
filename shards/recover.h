/* recover.h - what recovery and recovery in spite of damage share. Private to the manifest. */
#ifndef SHARDS_RECOVER_H
#define SHARDS_RECOVER_H

#include "shards/manifest_internal.h"

#define WINDOW_BLOCKS    1024u /* read at once */
#define HOLE_SCAN_BLOCKS 256u  /* more than any frame */
_Static_assert(WINDOW_BLOCKS > FRAME_BLOCKS_MAX && HOLE_SCAN_BLOCKS > FRAME_BLOCKS_MAX, "a frame");

/* Reads the ring by position, through a window. */
struct log_reader {
  const struct manifest *m;
  char *window;                /* WINDOW_BLOCKS */
  bool rewrites;               /* what counts and may be in the device's cache alone */
  bool mismatch;               /* the last frame did not count, for its data */
  uint64_t verified_bytes;     /* of data behind what is proven */
  char *data;                  /* of recover_tail.c; NULL until it is needed */
  uint64_t first, blocks;      /* positions in the window */
  uint64_t incarnation, epoch; /* of the root */
  bool root_lost;              /* a frame that follows was written when a newer root was durable */
};
/* Where in the chain of frames. */
struct walk {
  uint64_t position, sequence;
  uint32_t chain;
  bool chained; /* chain and sequence of the frame before are known */
};

/* The blocks at a position, as many as asked for and as there are before the ring's end. */
const char *reader_get(struct log_reader *r, uint64_t position, uint64_t blocks, int *error);
/* The frame at a position, whole and sound in itself; NULL and *what otherwise. */
const char *read_frame(struct log_reader *r, uint64_t position, struct frame *f, const char **what,
                       int *error);
/* The same, and it follows the frame before: moves w on. */
const char *next_in_chain(struct log_reader *r, struct walk *w, struct frame *f, const char **what,
                          int *error);
/* Walks on as long as frames of this incarnation follow; *proven grows to the last position that
 * one of them says to be durable. w ends behind the last good frame. 0, or -errno: what cannot be
 * read is no torn tail. */
int find_proven(struct log_reader *r, struct walk *w, uint64_t incarnation, uint64_t limit,
                uint64_t *proven);
/* All before w counts. 1: so does the frame at w, since it is one of this incarnation, verifiable,
 * and the data that it names match (or it has none). 0: it does not. -EIO: data cannot be read;
 * -ENOMEM. If r->rewrites, it is written again. */
int counts_by_itself(struct log_reader *r, const struct walk *w, uint64_t incarnation,
                     uint64_t limit);
/* At the chain's end: a commit frame that would follow but for a single bit. A torn write does not
 * look like that, so it is no torn tail. */
bool is_damaged_commit(struct log_reader *r, const struct walk *w, uint64_t incarnation);
/* Room in the index for what the root says there is. */
int recover_make_room(struct manifest *m);
/* Applies an entry of the log. 0, -EBADMSG and *what, -ENOMEM. */
int recover_apply_entry(struct manifest *m, const struct entry *e, uint64_t sequence,
                        const char **what);
/* recover_survived.c: changes from m->sequence on that config.survived has. 0, or an error and why.
 */
int recover_survived(struct manifest *m, char *why, size_t why_bytes);
/* Claims the blocks of all that is named. */
int recover_claim_all(struct manifest *m, char *why, size_t why_bytes);

/* recover_map.c. Applies an entry of the log that is no blob's, as far as no checkpoint covers it.
 * 0 or -ENOMEM. */
int recover_apply_volume(struct manifest *m, const struct entry *e, uint64_t sequence);
/* Whether such an entry can be one of this checkpoint: NULL, or what is wrong with it. *newest: no
 * later checkpoint has it. */
const char *recover_volume_fits(const struct manifest *m, const struct checkpoint *c,
                                const struct entry *e, bool *newest);
/* Takes it: 0 or -ENOMEM. */
int recover_load_volume(struct manifest *m, const struct entry *e);
/* Whether there is already something in its place. */
bool recover_has_volume(const struct manifest *m, const struct entry *e);
/* Layers that the log has made and emptied. */
void recover_drop_empty_layers(struct manifest *m);
/* Claims what clusters take. 0, or -EBADMSG and why. */
int recover_claim_clusters(struct manifest *m, char *why, size_t why_bytes);
/* The same in spite of damage, of those that are certain or of the others: what belongs to others
 * as well is reported and left out. 0 or -ENOMEM. */
int recover_claim_damaged(struct manifest *m, bool certain);
/* Reports layers and records that may not be what they should. */
void recover_report_volumes(struct manifest *m);

/* Reports that frames from a position on are bad; changes: so many are lost with them. */
void recover_report_log(const struct manifest *m, uint64_t position, uint64_t blocks,
                        uint64_t changes, int error, const char *what);
/* recover_damaged.c: checkpoints, log and claims, with all damage reported. 0 or -ENOMEM. */
int recover_damaged(struct manifest *m, const struct root *root);

#endif
