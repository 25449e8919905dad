#include "core/breathe.h"

#include <stddef.h>

void (*sh_breathe_hook)(void) = NULL;
