#include "support/whole.h"

#include <stdlib.h>

#include "core/arena.h"

int64_t *whole_places(const sh_params *p, int i) {
  const sh_param *row = &p->row[i];
  int64_t *place = sh_malloc(sizeof *place * (size_t)(row->size + 1));
  sh_rect rect[SH_PARAM_SEGMENTS];
  int n = sh_param_rects(p, i, rect);
  for (int k = 0; k < n; k++)
    for (int64_t y = 0; y < rect[k].count[0]; y++)
      for (int64_t x = 0; x < rect[k].count[1]; x++)
        place[(rect[k].local_start[0] + y) * row->local[1] + rect[k].local_start[1] + x] =
            (rect[k].start[0] + y) * row->dim[1] + rect[k].start[1] + x;
  return place;
}

void whole_add(const sh_params *p, int i, const float *part, float *whole) {
  int64_t *place = whole_places(p, i);
  for (int64_t k = 0; k < p->row[i].size; k++) whole[place[k]] += part[k];
  free(place);
}

void whole_take(const sh_params *p, int i, const float *whole, float *part) {
  int64_t *place = whole_places(p, i);
  for (int64_t k = 0; k < p->row[i].size; k++) part[k] = whole[place[k]];
  free(place);
}
