/* bench_stop.h - the first SIGINT or SIGTERM asks a run to end early: what is in flight is waited
 * for, the report says what there is, the store is closed. The second one does what it always does.
 *
 * No handler runs, and no system call of anybody's is interrupted: the signals are blocked in all
 * threads but one, which waits for them. What comes within a moment of the first one is the same
 * one: timeout(1) signals both the process and its group. Whoever runs for long asks
 * bench_stop_signal() now and then. */
#ifndef TOOLS_BENCH_STOP_H
#define TOOLS_BENCH_STOP_H

#include <sys/types.h>

/* Main thread, before any other thread is started; again in a child after fork() that wants the
 * same. Other children have both signals as they were. */
void bench_stop_watch(void);
/* SIGINT or SIGTERM if the run is to end; 0. Any thread. */
int bench_stop_signal(void);
/* "SIGINT"; "" if there was none. */
const char *bench_stop_name(void);
/* From now on signals go to this child, too; 0: to none. */
void bench_stop_child(pid_t child);

#endif
