#include "optim/state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void create(sh_slices *s, const sh_params *p) {
  *s = (sh_slices){.n = p->n, .slice = sh_calloc((size_t)p->n + 1, sizeof *s->slice)};
}

void sh_slices_whole(sh_slices *s, const sh_params *p) {
  create(s, p);
  for (int i = 0; i < p->n; i++)
    if (p->row[i].tie < 0) s->slice[i] = (sh_slice){.rows = p->row[i].local[0], .at = p->row[i].offset};
  s->floats = p->block;
}

void sh_slices_of(sh_slices *s, const sh_params *p, const int64_t *first, const int64_t *last) {
  create(s, p);
  for (int i = 0; i < p->n; i++) {
    const sh_param *r = &p->row[i];
    int64_t from = first[i] > r->offset ? first[i] : r->offset, end = r->offset + r->size;
    int64_t to = last[i] < end ? last[i] : end, width = r->local[1];
    if (r->tie >= 0 || from >= to) continue;
    assert((from - r->offset) % width == 0 && (to - from) % width == 0);
    s->slice[i] = (sh_slice){.row = (from - r->offset) / width, .rows = (to - from) / width, .at = s->floats};
    s->floats += (to - from + 15) / 16 * 16;
  }
}

void sh_slices_copy(sh_slices *s, const sh_slices *from) {
  *s = *from;
  s->slice = sh_malloc(((size_t)from->n + 1) * sizeof *s->slice);
  memcpy(s->slice, from->slice, (size_t)from->n * sizeof *s->slice);
}

void sh_slices_destroy(sh_slices *s) {
  free(s->slice);
  *s = (sh_slices){0};
}
