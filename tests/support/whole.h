/* support/whole.h: between a rank's part of a parameter's array (core/params.h) and the whole one, [dim[0] x dim[1]].
 */
#ifndef SH_TESTS_WHOLE_H
#define SH_TESTS_WHOLE_H

#include "core/params.h"

/* Where in the whole array each element of the part lies: [size of the row]. free() it. */
int64_t *whole_places(const sh_params *p, int i);

void whole_add(const sh_params *p, int i, const float *part, float *whole);  /* the part, to what `whole` holds there */
void whole_take(const sh_params *p, int i, const float *whole, float *part); /* the part, from `whole` */

#endif
