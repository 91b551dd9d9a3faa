/* cpu_quota.h - how many CPUs' worth of time the cgroup grants this process.
 *
 * Any thread; reads a few small files; no state. */
#ifndef RUNTIME_CPU_QUOTA_H
#define RUNTIME_CPU_QUOTA_H

#include <stdint.h>

/* The smallest quota of this process's cgroup and all above it, in whole CPUs, rounded up, at
 * least 1; 0: there is none, or none can be read. Version 2 (cpu.max) and version 1
 * (cpu.cfs_quota_us over cpu.cfs_period_us) at their usual mount points under
 * <sysroot>/sys/fs/cgroup. sysroot: stands for /, "" in real life. */
uint32_t cpu_quota_read(const char *sysroot);

#endif
