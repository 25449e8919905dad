/* core/params.h: the parameter table, the one list of a model's dense parameters.
 *
 * Each layer appends rows; the table assigns offsets in one block of floats. Initialisation, gradient reduction, the
 * optimiser, norms, checkpoint hyperslabs, export and the printed summary are loops over this table.
 *
 * A parameter has a global shape. Along its split axis it is a list of segments, each dealt to the tensor axis in whole
 * units (HSTU's Wuvqk has four segments, unit = one head), so a rank's part is a short list of rectangles.
 */
#ifndef SH_CORE_PARAMS_H
#define SH_CORE_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/arena.h"
#include "shoal/status.h"

typedef enum sh_init_kind {
  SH_INIT_ZERO,
  SH_INIT_NORMAL,       /* std a */
  SH_INIT_TRUNC_NORMAL, /* std a, the first of 4 draws inside +-2 std, else draw 0 */
  SH_INIT_UNIFORM       /* [a, b) */
} sh_init_kind;
typedef struct sh_init {
  sh_init_kind kind;
  double a, b;
} sh_init;

/* How a gradient behaves over the tensor axis when the parameter itself is not split. */
typedef enum sh_tensor_grad {
  SH_TGRAD_SPLIT,  /* split parameter: each rank owns its part's gradient */
  SH_TGRAD_SAME,   /* replicated, every rank computes the same gradient */
  SH_TGRAD_PARTIAL /* replicated, the gradient is the sum over the axis (bias tables shared by heads) */
} sh_tensor_grad;

/* The smallest piece an optimiser must see whole. */
typedef enum sh_grain { SH_GRAIN_ELEMENT, SH_GRAIN_ROW, SH_GRAIN_MATRIX } sh_grain;

typedef struct sh_segment {
  int64_t offset; /* first index along the split axis */
  int64_t units;  /* dealt as evenly as units allow: part p of n gets units [p*units/n, (p+1)*units/n) */
  int64_t width;  /* indices of one unit */
} sh_segment;

enum { SH_PARAM_SEGMENTS = 6, SH_PARAM_NAME = 64 };

typedef struct sh_param {
  char name[SH_PARAM_NAME]; /* "block.0.uvqk": unique in the table */
  int ndim;                 /* 1 or 2 */
  int64_t dim[2];           /* global shape, row major; dim[1] = 1 when ndim = 1 */
  int split;                /* axis dealt to the tensor axis, or -1 */
  int nseg;
  sh_segment seg[SH_PARAM_SEGMENTS]; /* cover dim[split] exactly, in order */
  sh_tensor_grad tgrad;
  sh_grain grain;
  sh_init init;
  bool decay; /* weight decay applies */
  int tie;    /* row it shares storage with, or -1 */
  /* Filled in by sh_params_finish: */
  int64_t local[2]; /* this part's shape: its rectangles side by side along the split axis */
  int64_t offset;   /* first float in the block; a multiple of 16 */
  int64_t size;     /* floats: local[0] * local[1] */
} sh_param;

/* A rectangle of a parameter in global coordinates and where it lies in the local part. */
typedef struct sh_rect {
  int64_t start[2], count[2]; /* global */
  int64_t local_start[2];     /* in the local array of shape local[] */
} sh_rect;

typedef struct sh_params {
  int n, capacity;
  sh_param *row;
  int part, parts;     /* this rank's place on the tensor axis */
  int64_t block;       /* floats in one block, padding included */
  float *value, *grad; /* [block] each; padding floats are zero */
} sh_params;

void sh_params_create(sh_params *p, int part, int parts);
void sh_params_destroy(sh_params *p);

/* Append a row (copied) and return its index. A shape without `split` may leave nseg 0. */
int sh_params_add(sh_params *p, const sh_param *row);

/* Fix offsets and allocate value and grad (zeroed). Fails when units cannot be dealt to `parts`. */
sh_status sh_params_finish(sh_params *p);

/* Draw every value from (seed, name, global element): the same on every grid. */
void sh_params_init(sh_params *p, uint32_t seed);

/* The rectangles of this part; returns how many (1 .. SH_PARAM_SEGMENTS). */
int sh_param_rects(const sh_params *p, int index, sh_rect out[SH_PARAM_SEGMENTS]);

int sh_params_find(const sh_params *p, const char *name); /* index or -1 */

static inline float *sh_param_value(const sh_params *p, int i) { return p->value + p->row[i].offset; }
static inline float *sh_param_grad(const sh_params *p, int i) { return p->grad + p->row[i].offset; }

/* Elements of the whole model's dense parameters, ties and padding not counted. */
int64_t sh_params_count(const sh_params *p);

/* One initial value of a named array at a global element index, as sh_params_init and tables draw it. */
float sh_init_value(const sh_init *init, uint32_t seed, uint32_t site, uint32_t name_hash, int64_t row, int64_t column);

#endif
