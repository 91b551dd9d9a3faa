/* bench_models.h - what the workloads of our users ask for, as functions of a seed: nothing here
 * knows of stores. Any thread; whoever has one of these structs owns it. */
#ifndef TOOLS_BENCH_MODELS_H
#define TOOLS_BENCH_MODELS_H

#include <stdbool.h>
#include <stdint.h>

/* ---- --workload=kv: the mixes of YCSB (Cooper et al., "Benchmarking Cloud Serving Systems with
 * YCSB", SoCC 2010) that need neither scans nor inserts, in percent. Its keys are zipfian with the
 * constant 0.99, and what is popular is scattered over all of them (bench_distribution.h). */
#define YCSB_CHOICES "a|b|c|f"
enum ycsb { YCSB_A, YCSB_B, YCSB_C, YCSB_F };
struct ycsb_mix {
  uint32_t read, update, modify; /* modify: read, then update */
};
struct ycsb_mix ycsb_mix_of(enum ycsb which);

/* ---- --workload=analytics: files as Apache Parquet lays them out. 4 bytes of magic; column chunks
 * one after the other, at any byte; the footer, which tells where they are; its length and the
 * magic again, 8 bytes. A reader asks for the last 8 bytes, then for the footer, then for the
 * columns that its query needs. Sizes of chunks are a function of the file's number and the seed.
 */
#define SCAN_TAIL_BYTES 8u
#define SCAN_HEAD_BYTES 4u
#define SCAN_CHUNKS_MAX 64u
struct scan_shape {
  uint64_t footer_bytes;
  uint64_t chunk_min,
      chunk_max;   /* each size as likely as any other; the last one is what is left */
  uint32_t chunks; /* that a scan reads, 1 to SCAN_CHUNKS_MAX */
};
struct scan_range {
  uint64_t offset, bytes;
};
/* The least that a file may have: room for a chunk. */
uint64_t scan_file_bytes_min(const struct scan_shape *s);
/* That of the footer, without the tail. */
struct scan_range scan_footer(const struct scan_shape *s, uint64_t file_bytes);
/* Which chunks a scan reads, in the order of the file, each set of them as likely as any other: how
 * many, which is less than s->chunks only if the file has not as many. */
uint32_t scan_choose(const struct scan_shape *s, uint64_t file_bytes, uint64_t number,
                     uint64_t seed, uint64_t *random, struct scan_range chosen[SCAN_CHUNKS_MAX]);

/* ---- --workload=lambda: what a small virtual machine reads of its image while it starts. About
 * 6.5 % of an image is ever read (Brooker et al., "On-demand Container Loading in AWS Lambda",
 * USENIX ATC 2023; 6.4 % in Harter et al., "Slacker", FAST 2016), each block once, as the guest
 * keeps it. In runs of 4 KiB (half of them), 8 KiB (a quarter) ... 128 KiB; some parts of the image
 * far more often than others: chunks of 512 KiB are zipfian with the constant 0.99, and each run
 * goes on where the last one of its chunk has ended. */
#define BOOT_PER_MILLE   65u
#define BOOT_BLOCK_BYTES 4096u
#define BOOT_RUN_BYTES   131072u
#define BOOT_CHUNK_BYTES 524288u
/* A function of the size and the seed; *reads is the caller's to free. How many, or -ENOMEM. */
int64_t boot_plan(uint64_t image_bytes, uint64_t seed, struct scan_range **reads);

#endif
