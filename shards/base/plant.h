/* plant.h - faults that can be planted, one at a time, to show that the simulator finds them: a
 * checker that has found nothing planted proves nothing. With the build option `plants` only;
 * without it PLANTED() is false for the compiler and nothing of this is in the program. */
#ifndef SHARDS_BASE_PLANT_H
#define SHARDS_BASE_PLANT_H

#include <stdbool.h>

/* name, what is wrong then */
#define PLANTS(X)                                                                                  \
  X(skip_data_flush, "a root is written without flushing the files before it")                     \
  X(root_before_log, "a shard reports its seal before its frames are written")                     \
  X(commit_without_flush, "a commit frame is written without the flush before it")                 \
  X(root_without_fua, "the root is written without FUA")                                           \
  X(commit_without_fua, "the commit frame is written without FUA")                                 \
  X(ack_before_commit, "a durable request is answered before its commit")                          \
  X(reuse_one_epoch_early, "freed blocks are given out when their epoch is sealed")                \
  X(reuse_under_readers, "freed blocks are given out while somebody reads them")                   \
  X(skip_frame_checksum, "a frame of the log is believed without its checksum")                    \
  X(forget_a_shard, "the merge forgets what the last shard said")                                  \
  X(replay_past_the_tail, "frames that nothing proves are replayed")                               \
  X(skip_verification, "frames count without a look at the data that they name")                   \
  X(trust_the_tail, "what only its checksums prove is not written again by an open")               \
  X(trust_what_is_plain, "no commit frame is written behind what cannot be verified")              \
  X(begin_behind_a_witness, "a checkpoint begins behind a witness, before which a root may end")   \
  X(split_a_batch, "frames of a batch in one shard count one by one")                              \
  X(accept_an_old_root, "the oldest valid root is taken, not the newest")                          \
  X(lose_a_wake_up, "a sender does not wake a core that sleeps")                                   \
  X(open_without_a_shard, "an open in which a shard's flush failed writes a root all the same")    \
  X(keep_the_incarnation, "an open does not take a new incarnation")                               \
  X(head_too_far, "the log's head moves to the newest checkpoint, not the oldest")                 \
  X(free_checkpoint_early, "a superseded checkpoint is freed before the root that replaces it")    \
  X(forget_deletes, "a delete changes the index and not the log")                                  \
  X(writes_out_of_order, "two writes of one id take effect as their data come in")                 \
  X(ignore_failed_flush, "a failed flush of a file is taken for a good one")                       \
  X(ignore_failed_log_write, "a failed write to the log is taken for a good one")                  \
  X(skip_data_checksum, "data are returned without a look at their checksum")                      \
  X(leak_failed_put, "a put that fails keeps its blocks")                                          \
  X(commit_covers_batches, "a commit of one shard covers its part of a batch")                     \
  X(gate_left_open, "a flush seals while a batch makes its changes")                               \
  X(tear_a_batch, "of a batch the shards that have not failed go into the root")                   \
  X(serve_before_root, "a flush is over before the root that alone makes it count")                \
  X(survive_a_failure, "what was left is used though a flush of the process before had failed")    \
  X(trust_a_later_flush, "a commit trusts a flush that came after another shard's failed one")     \
  KILL_PLANTS(X)                                                                                   \
  VOLUME_PLANTS(X)

/* Those of killed processes: only the scenarios with kills find them. */
#define PLANT_FIRST_OF_KILLS PLANT_survive_half_a_change
#define KILL_PLANTS(X)                                                                             \
  X(survive_half_a_change, "what was left in the middle of a change of shards is used")            \
  X(release_out_of_order, "a buffer is given up before those before it are on disk")               \
  X(forget_while_writing, "a buffer that survives is given up when its write starts")              \
  X(own_name_too_soon, "frames before the first root have the new process's name")                 \
  X(use_what_is_unsettled, "what was freed behind the last root is used before the next")          \
  X(trust_the_root, "an open goes on from a root that may be in the device's cache alone")         \
  X(survivors_of_another_open, "what an earlier process left is used whatever the root says")

/* The first one of volumes: from it on only the scenario with volumes finds them. */
#define PLANT_FIRST_OF_VOLUMES PLANT_apply_before_data
#define VOLUME_PLANTS(X)                                                                           \
  X(apply_before_data, "a write to a volume changes the map while its data is on its way")         \
  X(overlapping_writes, "writes to one block of a volume do not wait for each other")              \
  X(give_up_busy_places, "a discard gives up a place that a write is on its way to")               \
  X(free_discards_at_once, "discarded clusters are given out before the discard is durable")       \
  X(forget_zeros, "zeros in a clone do not hide what lies below")                                  \
  X(forget_lower_data, "the first write of a part of a block forgets what lies below")             \
  X(freeze_without_drain, "a snapshot does not wait for writes in flight")                         \
  X(sync_skips_data, "the flush of a volume does not cover what was overwritten in place")         \
  X(clone_alone, "a clone survives without the snapshot in another shard that it lies on")         \
  X(records_without_batch, "changes of records in many shards count shard by shard")               \
  X(merge_at_once, "a merge begins before the removal that allows it is durable")                  \
  X(wait_as_reader, "a write that waits for space keeps freed space from coming back")             \
  X(names_alone, "a name is taken whose giving up in another shard may get lost")                  \
  X(trust_the_cache, "what a killed process overwrote in place is taken for durable")              \
  X(overwrite_before_void, "data is overwritten before its checksums are void on disk")            \
  X(keep_checksums, "an overwrite in place leaves the checksums on disk as they are")              \
  X(forget_the_void, "checksums are saved before the ones before are void on disk")                \
  X(discards_keep_checksums, "a discard leaves the checksums on disk as they are")                 \
  X(sum_beside_writes, "checksums that were lost are made beside writes")                          \
  X(believe_a_mismatch, "data that a write brings while it is read is called damaged")

enum plant {
  PLANT_NONE,
#define PLANT_ENUM(name, what) PLANT_##name,
  PLANTS(PLANT_ENUM)
#undef PLANT_ENUM
      PLANT_COUNT,
  /* The simulator knows no threads of readers; tests/api/test_block_pread.c finds this one: what
   * was said of where blocks lie is not taken back. */
  PLANT_keep_what_was_said = PLANT_COUNT,
  /* Found by tests/api/test_get_direct.c: a read of a blob past its core is believed though the
   * space may have become somebody else's. */
  PLANT_look_only_once
};

#ifdef SHARDRING_PLANTS
extern enum plant plant_chosen; /* by the simulator, before anything runs */
#define PLANTED(name) (plant_chosen == PLANT_##name)
#else
#define PLANTED(name) false
#endif

#endif
