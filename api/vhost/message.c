#include "api/vhost/message.h"
