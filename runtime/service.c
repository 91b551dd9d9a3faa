/* service.c - see service.h. A core has one epoll set, whose descriptor ends the sleep of its
 * device. A core that is busy looks at it now and then. */
#include "runtime/service.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "runtime/core.h"

#define STEPS_PER_LOOK 16u
#define EVENTS_MAX     64

void core_services_init(struct core_services *s) { *s = (struct core_services){.epoll_fd = -1}; }

void core_services_finish(struct core_services *s) {
  check(!s->first);
  check(s->watches == 0);
  if (s->epoll_fd >= 0) close(s->epoll_fd);
  s->epoll_fd = -1;
}

void core_service_add(struct core *core, struct core_service *service) {
  service->next = core->services.first;
  core->services.first = service;
}

void core_service_remove(struct core *core, struct core_service *service) {
  struct core_service **at = &core->services.first;
  while (*at != service) at = &(*at)->next;
  *at = service->next;
}

bool core_services_step(struct core_services *s) {
  bool worked = false;
  if (s->watches && ++s->turn % STEPS_PER_LOOK == 0) core_watches_look(s);
  for (struct core_service *v = s->first, *next; v; v = next) {
    next = v->next;
    worked |= v->step(v);
  }
  return worked;
}

void core_services_end_step(struct core_services *s) {
  for (struct core_service *v = s->first; v; v = v->next) v->finish(v);
}

bool core_services_may_sleep(struct core_services *s) {
  bool may = true;
  for (struct core_service *v = s->first; v; v = v->next) may &= v->prepare_sleep(v);
  return may;
}

/* ---- Watches -------------------------------------------------------------------------------- */

void core_watches_look(struct core_services *s) {
  struct epoll_event events[EVENTS_MAX];
  int n;
  do {
    n = epoll_wait(s->epoll_fd, events, EVENTS_MAX, 0);
    for (int i = 0; i < n; i++) {
      struct core_watch *watch = events[i].data.ptr;
      watch->ready(watch);
    }
  } while (n == EVENTS_MAX);
}

int core_watch_add(struct core *core, struct core_watch *watch) {
  struct core_services *s = &core->services;
  struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = watch};
  if (s->epoll_fd < 0) {
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll_fd < 0) return -errno;
    core->device->ops->sleep_on(core->device, s->epoll_fd);
  }
  if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, watch->fd, &event) < 0) return -errno;
  s->watches++;
  return 0;
}

void core_watch_remove(struct core *core, struct core_watch *watch) {
  check(epoll_ctl(core->services.epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL) == 0);
  core->services.watches--;
}
