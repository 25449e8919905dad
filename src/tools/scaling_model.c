#include "tools/scaling_model.h"

#include <math.h>
#include <stddef.h>

const char *const sh_kind_name[SH_KINDS] = {"dense", "ids", "rows", "row grads", "tensor", "loss"};

enum { FLOAT = 4, ID = 8 };

/* Through both samples; neither less than nothing for no tokens, nor falling. */
static double line(double t0, double y0, double t1, double y1, double t) {
  double slope = t0 > t1 ? (y0 - y1) / (t0 - t1) : y0 / t0;
  slope = fmin(fmax(slope, 0), y0 / t0);
  return fmax(y0 + slope * (t - t0), 0);
}

/* Distinct rows grow as a power of tokens, up to all rows. */
static double power(double t0, double y0, double t1, double y1, double t, double most) {
  double exponent = t0 > t1 && y0 > y1 && y1 > 0 ? log(y0 / y1) / log(t0 / t1) : t0 > t1 ? 0 : 1;
  return fmin(y0 * pow(t / t0, fmin(exponent, 1)), most);
}

double sh_scaling_rows(const sh_work *w, double tokens) {
  const sh_work_sample *a = &w->sample[0], *b = &w->sample[1];
  return power(a->tokens, a->rows, b->tokens, b->rows, tokens, w->items);
}

double sh_scaling_inputs(const sh_work *w, double tokens) {
  const sh_work_sample *a = &w->sample[0], *b = &w->sample[1];
  return power(a->tokens, a->inputs, b->tokens, b->inputs, tokens, w->items);
}

double sh_scaling_share(const sh_work *w, double tokens, double data) {
  return fmin(tokens, fmax(tokens / data, w->longest));
}

static double seconds_at(const sh_work *w, int work, double tokens) {
  const sh_work_sample *a = &w->sample[0], *b = &w->sample[1];
  return line(a->tokens, a->seconds[work], b->tokens, b->seconds[work], tokens);
}

static double ranks_of(const sh_scaling_case *c) { return c->nodes * c->per_node; }
static double data_of(const sh_scaling_case *c) { return ranks_of(c) / c->tensor; }

/* Seconds of each part of the work of a rank alone on its core: tokens are shared by data ranks, and within a group but
 * for reading the batch; the optimisers' sweeps are shared as what they sweep. */
static void own_work(const sh_work *w, const sh_scaling_case *c, double *seconds) {
  double group = sh_scaling_share(w, c->tokens, data_of(c)), own = group / c->tensor;
  for (int i = 0; i < SH_WORKS; i++) seconds[i] = seconds_at(w, i, i == SH_WORK_LOAD ? group : own);
  seconds[SH_WORK_DENSE] = w->sample[0].seconds[SH_WORK_DENSE] * c->block / c->block_alone / (c->zero ? data_of(c) : 1);
  double touched = c->sweep ? 1 : sh_scaling_rows(w, c->tokens) / w->sample[0].rows;
  seconds[SH_WORK_TABLE] = w->sample[0].seconds[SH_WORK_TABLE] * touched / ranks_of(c);
}

/* Ranks of a node beyond its cores take turns, which costs something besides the wait; with fewer, memory and clock are
 * shared with those that work. */
static double sharing(const sh_machine *m, const sh_work *w, const sh_scaling_case *c) {
  double used = c->per_node * c->threads, share = used / m->cores;
  double beside = m->cores > 1 ? fmin((used - 1) / (m->cores - 1), 1) : 1;
  return (share > 1 ? share * w->turns : 1) * (1 + beside * (w->busy - 1)) * w->threads / c->threads;
}

/* What a rank sends in a step of one kind, and where. */
typedef struct traffic {
  double parts;                 /* one after another */
  double near_count, far_count; /* messages */
  double near, far;             /* bytes */
  double touched;               /* bytes that arithmetic on what came reads and writes */
} traffic;

/* Bytes dealt evenly to all ranks, in `lists` messages to each other rank. */
static traffic to_all(const sh_scaling_case *c, double bytes, double lists, double parts) {
  double P = ranks_of(c), near = c->per_node - 1, far = P - c->per_node;
  return (traffic){.parts = parts,
                   .near_count = lists * near,
                   .far_count = lists * far,
                   .near = bytes * near / P,
                   .far = bytes * far / P};
}

/* Sums of gradients go in two levels: inside a node, then between nodes with what one rank of the node would send
 * (docs/ARCHITECTURE.md, "Parallelism"); bf16 goes straight to owners. ZeRO's values go back as fp32. */
/* Ranks of a node that sum among themselves first, as mpi/request.c finds them: an aligned power of two. */
static double near_of(double ranks) {
  double near = 1;
  while (fmod(ranks, 2 * near) == 0) near *= 2;
  return near;
}

static traffic dense_traffic(const sh_scaling_case *c, double floats, double buckets) {
  double d = data_of(c), near = c->per_node < c->tensor ? 1 : near_of(c->per_node / c->tensor), blocks = d / near;
  double there = c->half ? 2 : FLOAT, back = c->zero || !c->half ? FLOAT : 2;
  double spread = c->half ? 1 : near; /* of a node's ranks over which far bytes are divided on the way there */
  return (traffic){.parts = buckets * ((near > 1) + (blocks > 1)) * 2,
                   .near_count = 2 * buckets * (near - 1),
                   .far_count = 2 * buckets * (blocks - 1),
                   .near = floats * (there + back) * (c->half ? (near - 1) / d : (near - 1) / near),
                   .far = floats *
                          (c->half ? (there + back) * (d - near) / d : (there + back) * (blocks - 1) / blocks / spread),
                   .touched = d > 1 ? 2 * FLOAT * floats : 0};
}

static double halvings(double n) { return n > 1 ? ceil(log2(n)) : 0; }

/* `count` collectives of a few bytes over the world, and with the full softmax the tiles' hidden states and gradients.
 */
static traffic loss_traffic(const sh_scaling_case *c, double own) {
  enum { SMALL = 2, OF_TILE = 6 }; /* agreement and norm; two gathers, three sums of statistics, one of gradients */
  double P = ranks_of(c), tiles = c->tile_tokens > 0 ? ceil(own / fmax(floor(c->tile_tokens / P), 1)) : 0;
  double n = P > 1 ? SMALL + OF_TILE * tiles : 0, sent = P > 1 && tiles > 0 ? 2 * FLOAT * own * c->width * (P - 1) : 0;
  double far = (P - c->per_node) / fmax(P - 1, 1);
  return (traffic){.parts = n * halvings(P),
                   .near_count = n * halvings(c->per_node),
                   .far_count = n * halvings(c->nodes),
                   .near = sent * (1 - far),
                   .far = sent * far};
}

/* A group's ranks are neighbours: inside a node while it has room for them. */
static traffic tensor_traffic(const sh_scaling_case *c, double group) {
  double bytes = FLOAT * (group * c->tensor_floats + 2 * c->partial * (c->tensor - 1) / c->tensor);
  bool inside = fmod(c->per_node, c->tensor) == 0; /* else some group straddles two nodes */
  traffic t = {.parts = c->tensor > 1 ? c->tensor_calls * halvings(c->tensor) : 0};
  *(inside ? &t.near : &t.far) = bytes;
  *(inside ? &t.near_count : &t.far_count) = t.parts;
  return t;
}

typedef struct cost {
  double core, wait; /* seconds: of a core; of the wire beyond that */
} cost;

static cost cost_of(const sh_machine *m, const sh_scaling_case *c, double slower, const traffic *t) {
  const sh_link *far = &m->far, *near = &m->near;
  double n = t->near_count + t->far_count, latency = n > 0 ? (t->far_count > 0 ? far : near)->latency : 0;
  double wire = t->parts * latency + t->near_count * near->gap + t->far_count * far->gap;
  double core = slower * (t->near_count * near->gap + t->far_count * far->gap + t->touched / m->memory_one);
  if (t->near > 0) wire += t->near / near->bandwidth, core += slower * t->near * near->cpu;
  if (t->far > 0) wire += c->per_node * t->far / far->bandwidth, core += slower * t->far * far->cpu;
  return (cost){core, fmax(wire - core, 0)};
}

/* Waiting passes while the rank computes for `window` seconds, of which it leaves what is left for the next kind. */
static void add_kind(sh_prediction *p, sh_kind k, const traffic *t, cost x, double *window, bool overlap) {
  double hidden = overlap && window ? fmin(x.wait, fmax(*window, 0)) : 0;
  if (window) *window -= hidden;
  p->kind[k].bytes += t->near + t->far;
  p->kind[k].exposed += x.core + x.wait - hidden;
  p->kind[k].hidden += hidden;
}

static void communicate(sh_prediction *p, const sh_machine *m, const sh_work *w, const sh_scaling_case *c,
                        double slower) {
  double P = ranks_of(c), group = sh_scaling_share(w, c->tokens, data_of(c)), own = group / c->tensor;
  double rows = sh_scaling_rows(w, own), inputs = fmin(sh_scaling_inputs(w, own), rows), row = FLOAT * c->width;
  double load = p->work[SH_WORK_LOAD], forward = p->work[SH_WORK_FORWARD] + p->work[SH_WORK_LOSS];
  double backward = p->work[SH_WORK_BACKWARD], update = p->work[SH_WORK_TABLE], all = forward + backward;
  if (P == 1) return;
#define KIND(kind, made, window)                                                                                       \
  do {                                                                                                                 \
    traffic t_ = made;                                                                                                 \
    add_kind(p, kind, &t_, cost_of(m, c, slower, &t_), window, c->overlap);                                            \
  } while (0)
  traffic merged = to_all(c, inputs * row, 1, 1), late = to_all(c, (rows - inputs) * row, 1, 1);
  KIND(SH_KIND_ROWS, merged, &load);
  KIND(SH_KIND_ROWS, late, &forward);
  merged.touched = 3 * inputs * row, late.touched = 3 * (rows - inputs) * row; /* owners add what came */
  KIND(SH_KIND_ROW_GRADS, late, &backward);
  KIND(SH_KIND_ROW_GRADS, merged, NULL);
  if (data_of(c) >
      1) { /* the last bucket leaves when backward is over; with ZeRO half of the way is after the update */
    double tail = c->last_bucket / c->block, back = c->zero ? .5 : 0;
    traffic t = dense_traffic(c, c->block * (1 - tail) * (1 - back), (c->buckets - 1) * (1 - back));
    KIND(SH_KIND_DENSE, t, &backward);
    KIND(SH_KIND_DENSE, dense_traffic(c, c->last_bucket * (1 - back), 1 - back), NULL);
    if (c->zero) KIND(SH_KIND_DENSE, dense_traffic(c, c->block * back, c->buckets * back), &update);
  }
  all = fmin(all, forward + backward); /* what is left of both */
  KIND(SH_KIND_IDS, to_all(c, ID * rows, 4, 4), &all);
  if (c->tensor > 1) KIND(SH_KIND_TENSOR, tensor_traffic(c, group), NULL);
  KIND(SH_KIND_LOSS, loss_traffic(c, own), NULL);
#undef KIND
}

static double alone(const sh_work *w, const sh_scaling_case *c) {
  sh_scaling_case one = *c;
  double seconds[SH_WORKS], sum = 0;
  one.nodes = one.per_node = one.tensor = 1, one.block = c->block_alone;
  own_work(w, &one, seconds);
  for (int i = 0; i < SH_WORKS; i++) sum += seconds[i];
  return sum * w->threads / c->threads;
}

sh_prediction sh_scaling_predict(const sh_machine *m, const sh_work *w, const sh_scaling_case *c) {
  sh_prediction p = {.limit = "compute"};
  double slower = sharing(m, w, c), most;
  own_work(w, c, p.work);
  for (int i = 0; i < SH_WORKS; i++) p.compute += p.work[i] *= slower;
  communicate(&p, m, w, c, fmax(c->per_node * c->threads / m->cores, 1));
  p.step = most = p.compute;
  for (int k = 0; k < SH_KINDS; k++) {
    p.step += p.kind[k].exposed;
    if (p.kind[k].exposed > most) most = p.kind[k].exposed, p.limit = sh_kind_name[k];
  }
  p.tokens_per_second = c->tokens / p.step;
  p.efficiency = alone(w, c) / (ranks_of(c) * p.step);
  return p;
}
