/* shoal/doctor.h: is this machine fit to train? */
#ifndef SHOAL_DOCTOR_H
#define SHOAL_DOCTOR_H

#include <stdio.h>

#include "shoal/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sh_world;

/* Print one line a check ("ok", "note" or "bad") on rank 0 and return SH_ERR_INTERNAL when a check is bad. `folder` is
 * where runs will be written. Collective over the world. */
sh_status sh_doctor(struct sh_world *w, const char *folder, FILE *out);

#ifdef __cplusplus
}
#endif
#endif
