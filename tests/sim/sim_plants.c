/* sim_plants.c - see sim_plants.h. */
#include "tests/sim/sim_plants.h"

#include <stdio.h>
#include <string.h>

#include "shards/base/plant.h"

static const struct {
  const char *name, *what;
} plants[] = {{"none", "nothing is planted"},
#define PLANT_TEXT(name, what) {#name, what},
              PLANTS(PLANT_TEXT)
#undef PLANT_TEXT
};

#ifdef SHARDRING_PLANTS
enum plant plant_chosen = PLANT_NONE;

bool plant_choose(const char *name) {
  for (int i = 0; i < PLANT_COUNT; i++)
    if (strcmp(name, plants[i].name) == 0) {
      plant_chosen = (enum plant)i;
      return true;
    }
  return false;
}

bool plant_is_of_volumes(void) { return plant_chosen >= PLANT_FIRST_OF_VOLUMES; }
bool plant_is_of_kills(void) {
  return plant_chosen >= PLANT_FIRST_OF_KILLS && plant_chosen < PLANT_FIRST_OF_VOLUMES;
}
#else
bool plant_is_of_volumes(void) { return false; }
bool plant_is_of_kills(void) { return false; }
bool plant_choose(const char *name) { return strcmp(name, plants[0].name) == 0; }
#endif

void plant_list(void) {
  for (int i = PLANT_NONE + 1; i < PLANT_COUNT; i++)
    printf("%-24s %s\n", plants[i].name, plants[i].what);
}
