/* host_work.h - a few threads that carry out requests, each with a port of its own, so that a slow
 * one does not keep others waiting: slow requests never have all threads. */
#ifndef TOOLS_HOST_WORK_H
#define TOOLS_HOST_WORK_H

#include "tools/host.h"

/* Belongs to whoever submits it, but between submit and finished. */
struct host_job {
  struct host_job *next;
  /* Instead of the command, if it is set. */
  void (*run)(struct host *h);
  struct host_command command;
  char *reply; /* made by host_answer(); whoever takes the finished job frees it */
  int error;
  void *owner;
};

struct host_work;
/* workers: 2 to 32. -EMFILE: no port is left. */
int host_work_start(struct host_work **work, struct host *h, uint32_t workers);
/* Waits for all that was submitted; what is finished then can still be taken. */
void host_work_stop(struct host_work *work);
void host_work_free(struct host_work *work);

/* One thread submits and takes. */
void host_work_submit(struct host_work *work, struct host_job *job);
/* An eventfd that is readable when something has finished; NULL when nothing (more) is. */
int host_work_fd(const struct host_work *work);
struct host_job *host_work_finished(struct host_work *work);

#endif
