/* sim_plants.h - choosing a planted fault by name; see shards/base/plant.h. */
#ifndef TESTS_SIM_PLANTS_H
#define TESTS_SIM_PLANTS_H

#include <stdbool.h>

/* False: no such fault, or this build has none. */
bool plant_choose(const char *name);
/* The chosen one is of volumes. */
bool plant_is_of_volumes(void);
/* The chosen one is of killed processes. */
bool plant_is_of_kills(void);
/* One line each: name and what is wrong then. */
void plant_list(void);

#endif
