#include "dist/plan.h"

#include <assert.h>
#include <string.h>

#include "dist/build.h"

/* Arrays alive, by place; a new one takes the lowest gap that holds it. */
typedef struct span {
  int64_t first, last;
} span;

typedef struct planner {
  const sh_model *m;
  const sh_plan_shape *shape;
  sh_plan *plan;
  span *alive;
  int n;
  int64_t live;
  int *group;       /* [ncalls] last call of the dropped group a call is in, or -1 */
  int *last_reader; /* [nslots] */
  int *producer;    /* [nslots] */
} planner;

static int64_t take(planner *p, int64_t floats) {
  int64_t size = (floats > 0 ? floats + 15 : 16) / 16 * 16, place = 0;
  int at = 0;
  while (at < p->n && p->alive[at].first - place < size) place = p->alive[at++].last;
  memmove(p->alive + at + 1, p->alive + at, sizeof(span) * (size_t)(p->n - at));
  p->alive[at] = (span){place, place + size};
  p->n++;
  p->live += size;
  if (place + size > p->plan->floats) p->plan->floats = place + size;
  if (p->live > p->plan->live) p->plan->live = p->live;
  return place;
}

static void give(planner *p, int64_t place) {
  int at = 0;
  while (p->alive[at].first != place) at++;
  p->live -= p->alive[at].last - place;
  p->n--;
  memmove(p->alive + at, p->alive + at + 1, sizeof(span) * (size_t)(p->n - at));
}

static void give_if(planner *p, int64_t place) {
  if (place >= 0) give(p, place);
}

static int64_t take_slot(planner *p, int slot) { return take(p, p->shape->rows[slot] * p->m->slot[slot].width); }

static int64_t take_tape(planner *p, int call) {
  const sh_layer *l = &p->m->call[call].layer;
  return take(p, l->ops->tape(l, p->shape->T, p->shape->B));
}

/* Last call of the group that starts at `first`, or first - 1 where none starts. */
static int group_end(const sh_model *m, int first) {
  const sh_layer *l = &m->call[first].layer;
  int last = first;
  if (m->recompute == SH_RECOMPUTE_NONE) return first - 1;
  if (m->recompute == SH_RECOMPUTE_ATTENTION) return sh_has_attention(l) ? first : first - 1;
  while (last + 1 < m->ncalls && !strcmp(m->call[last + 1].layer.name, l->name)) last++;
  return last;
}

/* A slot that only calls up to `last` read dies with their group. */
static bool is_inner(const planner *p, int slot, int last) {
  return p->last_reader[slot] <= last && slot != p->m->output;
}

/* Whether dropping the group would free anything. */
static bool worth_dropping(const planner *p, int first, int last) {
  bool any = false;
  for (int i = first; i <= last; i++) {
    const sh_call *k = &p->m->call[i];
    any |= k->layer.ops->tape(&k->layer, 64, 1) > 0;
    for (int s = 0; s < k->nout; s++) any |= is_inner(p, k->out[s], last);
  }
  return any;
}

static void drop(planner *p, int first, int last) {
  for (int i = first; i <= last; i++) {
    const sh_call *k = &p->m->call[i];
    p->group[i] = last;
    for (int s = 0; s < k->nout; s++)
      p->plan->dropped[k->out[s]] = is_inner(p, k->out[s], last) && !p->plan->passing[k->out[s]];
  }
}

static void read_calls(planner *p) {
  const sh_model *m = p->m;
  for (int s = 0; s < m->nslots; s++) p->last_reader[s] = -1;
  for (int i = 0; i < m->ncalls; i++) {
    const sh_call *k = &m->call[i];
    const sh_layer_ops *ops = k->layer.ops;
    for (int s = 0; s < k->nin; s++) {
      p->last_reader[k->in[s]] = i;
      if (ops->input_dies) p->plan->passing[k->in[s]] = p->shape->train && k->in[s] != m->output;
    }
    for (int s = 0; s < k->nout; s++) {
      p->producer[k->out[s]] = i;
      p->plan->passing[k->out[s]] = p->shape->train && ops->remade;
    }
  }
}

/* A group is dropped when another follows. */
static void make_groups(planner *p) {
  const sh_model *m = p->m;
  int first = -1, last = -1;
  for (int i = 0; i < m->ncalls; i++) p->group[i] = -1;
  for (int i = 0; i < m->ncalls && p->shape->train; i++) {
    int end = group_end(m, i);
    if (end < i) continue;
    if (worth_dropping(p, i, end)) {
      if (last >= 0) drop(p, first, last);
      first = i, last = end;
    }
    i = end;
  }
}

/* What dies with a group's forward: tapes, and slots that nobody else reads. */
static void end_group(planner *p, int last) {
  for (int i = last; i >= 0 && p->group[i] == last; i--) {
    const sh_call *k = &p->m->call[i];
    give(p, p->plan->tape[i]);
    for (int s = 0; s < k->nout; s++)
      if (p->plan->dropped[k->out[s]]) give(p, p->plan->value[k->out[s]]);
  }
}

/* What dies with the forward of call i, its last reader: passing slots in training, all others in inference. */
static void end_inputs(planner *p, int i) {
  const sh_call *k = &p->m->call[i];
  for (int s = 0; s < k->nin; s++) {
    int slot = k->in[s];
    if (p->last_reader[slot] != i || slot == p->m->output) continue;
    if (p->shape->train && !p->plan->passing[slot]) continue;
    give(p, p->plan->value[slot]);
    p->last_reader[slot] = -1; /* a call may read it twice */
  }
}

static void forward(planner *p) {
  const sh_model *m = p->m;
  for (int i = 0; i < m->ncalls; i++) {
    const sh_call *k = &m->call[i];
    for (int s = 0; s < k->nout; s++) p->plan->value[k->out[s]] = take_slot(p, k->out[s]);
    if (p->shape->train) p->plan->tape[i] = take_tape(p, i);
    end_inputs(p, i);
    if (p->group[i] == i) end_group(p, i);
  }
}

/* Places of a dropped group's second life; returns its first call. */
static int revive(planner *p, int last) {
  int first = last;
  while (first > 0 && p->group[first - 1] == last) first--;
  for (int i = first; i <= last; i++) {
    const sh_call *k = &p->m->call[i];
    for (int s = 0; s < k->nout; s++)
      if (p->plan->dropped[k->out[s]] || p->plan->passing[k->out[s]])
        p->plan->again[k->out[s]] = take_slot(p, k->out[s]);
    p->plan->tape_again[i] = take_tape(p, i);
  }
  return first;
}

/* Passing inputs of call i that were gathered and are not there. */
static void remake(planner *p, int i) {
  const sh_call *k = &p->m->call[i];
  for (int s = 0; s < k->nin; s++) {
    int slot = k->in[s], maker = p->producer[slot];
    if (!p->m->call[maker].layer.ops->remade || p->plan->again[slot] >= 0) continue;
    assert(p->plan->remake[i] < 0); /* one a call */
    p->plan->again[slot] = take_slot(p, slot);
    p->plan->remake[i] = maker;
  }
}

static void backward(planner *p) {
  const sh_model *m = p->m;
  sh_plan *q = p->plan;
  for (int i = m->ncalls - 1; i >= 0; i--) {
    const sh_call *k = &m->call[i];
    if (p->group[i] == i) q->rerun[i] = revive(p, i);
    remake(p, i);
    for (int s = 0; s < k->nin; s++)
      if (q->grad[k->in[s]] < 0) q->grad[k->in[s]] = take_slot(p, k->in[s]);
    give(p, q->tape_again[i]);
    for (int s = 0; s < k->nout; s++) {
      int slot = k->out[s];
      give_if(p, q->again[slot]);
      give_if(p, q->grad[slot]);
    }
  }
}

static int64_t *none(sh_arena *a, int n) {
  return memset(SH_ARENA_NEW(a, int64_t, n), -1, sizeof(int64_t) * (size_t)n);
}

void sh_plan_make(const sh_model *m, const sh_plan_shape *shape, sh_arena *arena, sh_plan *plan) {
  *plan = (sh_plan){.value = none(arena, m->nslots), .tape = none(arena, m->ncalls)};
  plan->again = none(arena, m->nslots), plan->tape_again = none(arena, m->ncalls), plan->grad = none(arena, m->nslots);
  plan->dropped = SH_ARENA_ZNEW(arena, bool, m->nslots);
  plan->passing = SH_ARENA_ZNEW(arena, bool, m->nslots);
  plan->rerun = SH_ARENA_NEW(arena, int, m->ncalls);
  plan->remake = SH_ARENA_NEW(arena, int, m->ncalls);
  for (int i = 0; i < m->ncalls; i++) plan->rerun[i] = plan->remake[i] = -1;
  sh_arena_mark mark = sh_arena_save(arena);
  planner p = {.m = m, .shape = shape, .plan = plan};
  p.alive = SH_ARENA_NEW(arena, span, 2 * m->nslots + m->ncalls);
  p.group = SH_ARENA_NEW(arena, int, m->ncalls);
  p.last_reader = SH_ARENA_NEW(arena, int, m->nslots);
  p.producer = SH_ARENA_NEW(arena, int, m->nslots);
  read_calls(&p);
  make_groups(&p);
  forward(&p);
  if (shape->train) {
    for (int s = 0; s < m->nslots; s++) plan->again[s] = plan->passing[s] ? -1 : plan->value[s];
    memcpy(plan->tape_again, plan->tape, sizeof(int64_t) * (size_t)m->ncalls);
    backward(&p);
  }
  sh_arena_release(arena, mark);
}
