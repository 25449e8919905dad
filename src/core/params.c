#include "core/params.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"

void sh_params_create(sh_params *p, int part, int parts) { *p = (sh_params){.part = part, .parts = parts}; }

void sh_params_destroy(sh_params *p) {
  if (p->value) sh_pages_free(p->value, (size_t)p->block * sizeof(float));
  if (p->grad) sh_pages_free(p->grad, (size_t)p->block * sizeof(float));
  free(p->row);
  *p = (sh_params){0};
}

int sh_params_add(sh_params *p, const sh_param *row) {
  assert(!p->value && row->ndim >= 1 && row->ndim <= 2 && sh_params_find(p, row->name) < 0);
  if (p->n == p->capacity) {
    p->capacity = p->capacity ? 2 * p->capacity : 64;
    p->row = sh_realloc(p->row, sizeof(sh_param) * (size_t)p->capacity);
  }
  sh_param *r = &p->row[p->n];
  *r = *row;
  if (r->ndim == 1) r->dim[1] = 1;
  if (r->split < 0) r->nseg = 0;
  return p->n++;
}

static int64_t first_unit(int64_t units, int part, int parts) { return units * part / parts; }

sh_status sh_params_finish(sh_params *p) {
  int64_t at = 0;
  for (int i = 0; i < p->n; i++) {
    sh_param *r = &p->row[i];
    r->local[0] = r->dim[0], r->local[1] = r->dim[1];
    if (r->split >= 0) {
      int64_t mine = 0;
      for (int s = 0; s < r->nseg; s++) {
        if (r->seg[s].units % p->parts)
          return sh_fail(SH_ERR_USAGE, "%s: %lld units cannot be dealt to parallel.tensor = %d", r->name,
                         (long long)r->seg[s].units, p->parts);
        mine += r->seg[s].units / p->parts * r->seg[s].width;
      }
      r->local[r->split] = mine;
    }
    r->size = r->local[0] * r->local[1];
    if (r->tie >= 0) {
      r->offset = p->row[r->tie].offset;
    } else {
      r->offset = at;
      at += (r->size + 15) / 16 * 16;
    }
  }
  p->block = at;
  size_t bytes = (size_t)(at ? at : 16) * sizeof(float);
  p->value = memset(sh_pages_alloc(bytes), 0, bytes);
  p->grad = memset(sh_pages_alloc(bytes), 0, bytes);
  return SH_OK;
}

int sh_param_rects(const sh_params *p, int index, sh_rect out[SH_PARAM_SEGMENTS]) {
  const sh_param *r = &p->row[index];
  if (r->split < 0) {
    out[0] = (sh_rect){.count = {r->dim[0], r->dim[1]}};
    return 1;
  }
  int64_t local = 0;
  for (int s = 0; s < r->nseg; s++) {
    const sh_segment *g = &r->seg[s];
    int64_t a = first_unit(g->units, p->part, p->parts), b = first_unit(g->units, p->part + 1, p->parts);
    sh_rect rect = {.count = {r->dim[0], r->dim[1]}};
    rect.start[r->split] = g->offset + a * g->width;
    rect.count[r->split] = (b - a) * g->width;
    rect.local_start[r->split] = local;
    local += (b - a) * g->width;
    out[s] = rect;
  }
  return r->nseg;
}

float sh_init_value(const sh_init *init, uint32_t seed, uint32_t site, uint32_t name_hash, int64_t row,
                    int64_t column) {
  if (init->kind == SH_INIT_ZERO) return 0;
  /* A value has a Philox block of its own: row and column are the sample and the element, the name is the time. */
  sh_philox r = sh_random4(seed, site, name_hash, row, (uint32_t)column, (uint32_t)(column >> 32));
  if (init->kind == SH_INIT_UNIFORM) return (float)(init->a + (init->b - init->a) * (double)sh_uniform(r.v[0]));
  float z[4];
  sh_normal2(r.v[0], r.v[1], z);
  if (init->kind == SH_INIT_NORMAL) return (float)init->a * z[0];
  sh_normal2(r.v[2], r.v[3], z + 2);
  for (int k = 0; k < 4; k++)
    if (z[k] > -2 && z[k] < 2) return (float)init->a * z[k];
  return (float)init->a * z[0];
}

void sh_params_init(sh_params *p, uint32_t seed) {
  for (int i = 0; i < p->n; i++) {
    const sh_param *r = &p->row[i];
    if (r->tie >= 0) continue;
    uint32_t hash = sh_name_hash(r->name);
    sh_rect rects[SH_PARAM_SEGMENTS];
    int n = sh_param_rects(p, i, rects);
    float *value = sh_param_value(p, i);
    for (int q = 0; q < n; q++)
      for (int64_t a = 0; a < rects[q].count[0]; a++)
        for (int64_t b = 0; b < rects[q].count[1]; b++)
          value[(rects[q].local_start[0] + a) * r->local[1] + rects[q].local_start[1] + b] = sh_init_value(
              &r->init, seed, SH_SITE(SH_SITE_INIT, 0), hash, rects[q].start[0] + a, rects[q].start[1] + b);
  }
}

int sh_params_find(const sh_params *p, const char *name) {
  for (int i = 0; i < p->n; i++)
    if (!strcmp(p->row[i].name, name)) return i;
  return -1;
}

int64_t sh_params_count(const sh_params *p) {
  int64_t n = 0;
  for (int i = 0; i < p->n; i++)
    if (p->row[i].tie < 0) n += p->row[i].dim[0] * p->row[i].dim[1];
  return n;
}
