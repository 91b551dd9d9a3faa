#include "api/vhost/memory.h"
