/* service.h - what else lives on a core besides shards: whoever serves queues in memory that it
 * shares with others, such as a guest's. All of it on the core's thread.
 *
 * A service looks at its queues in every step, before the step's requests are started, and is
 * asked once more before the core sleeps. What is to wake the core then has a watch. */
#ifndef RUNTIME_SERVICE_H
#define RUNTIME_SERVICE_H

#include "shards/base/base.h"

struct core;

struct core_service {
  struct core_service *next;                  /* the core's */
  bool (*step)(struct core_service *service); /* true: there was something to do */
  /* The end of the step, when what has finished was handed out: tell others, once. */
  void (*finish)(struct core_service *service);
  /* From now on only watches wake the core. False: there is something to do after all. */
  bool (*prepare_sleep)(struct core_service *service);
};
void core_service_add(struct core *core, struct core_service *service);
void core_service_remove(struct core *core, struct core_service *service);

/* A descriptor, such as an eventfd: ready() after each write to it, soon, and at once if the core
 * sleeps. It is not read (edge-triggered). ready() must not add or remove watches. */
struct core_watch {
  int fd;
  void (*ready)(struct core_watch *watch);
};
/* -ENOSPC, -ENOMEM, -EPERM (a descriptor of which nobody can wait for anything). */
int core_watch_add(struct core *core, struct core_watch *watch);
/* The descriptor is still open. */
void core_watch_remove(struct core *core, struct core_watch *watch);

/* ---- core.c's ---- */

struct core_services {
  struct core_service *first;
  int epoll_fd; /* -1: nothing has been watched yet */
  uint32_t watches, turn;
};
void core_services_init(struct core_services *s);
void core_services_finish(struct core_services *s);
bool core_services_step(struct core_services *s);
void core_services_end_step(struct core_services *s);
bool core_services_may_sleep(struct core_services *s);
/* Runs ready() of those that are. */
void core_watches_look(struct core_services *s);

#endif
