/* Places of a pass: what is alive together does not overlap, what recompute drops is not there, and memory is linear in
 * tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "dist/build.h"
#include "train/resume.h"

static const char *const models[] = {"hstu", "sasrec", "fuxi-alpha", "fuxi-beta"};
static const char *const modes[] = {"none", "attention", "layer"};
enum { MODELS = 4, MODES = 3, D = 48, TOKENS = 960, SEQUENCES = 10 };

static sh_model model_of(int model, int mode, int layers) {
  sh_config c;
  sh_model m;
  sh_config_defaults(&c);
  snprintf(c.model.name, sizeof c.model.name, "%s", models[model]);
  snprintf(c.model.recompute, sizeof c.model.recompute, "%s", modes[mode]);
  c.model.width = D, c.model.heads = 2, c.model.layers = layers;
  assert_int_equal(sh_model_create(&m, &c.model, NULL, false), SH_OK);
  return m;
}

static sh_plan plan_of(const sh_model *m, int64_t T, int64_t B, bool train, sh_arena *a) {
  sh_plan plan;
  int64_t *rows = SH_ARENA_NEW(a, int64_t, m->nslots);
  for (int s = 0; s < m->nslots; s++) rows[s] = T;
  sh_plan_make(m, &(sh_plan_shape){.T = T, .B = B, .train = train, .rows = rows}, a, &plan);
  return plan;
}

static int64_t pass_floats(int model, int mode, int layers, int64_t T, int64_t B) {
  sh_arena a;
  sh_arena_init(&a, "plan");
  sh_model m = model_of(model, mode, layers);
  int64_t floats = sh_model_pass_floats(&m, T, B, &a);
  sh_model_destroy(&m);
  sh_arena_free(&a);
  return floats;
}

/* A pass as it is run, every float of the block marked with the array that may use it now. */
typedef struct board {
  const sh_model *m;
  const sh_plan *plan;
  int32_t *owner; /* [floats] */
} board;

static void claim(board *b, int64_t place, int64_t n, int32_t who) {
  assert_true(place >= 0 && place % 16 == 0 && place + n <= b->plan->floats);
  for (int64_t i = place; i < place + n; i++) b->owner[i] = who;
}
static void still(const board *b, int64_t place, int64_t n, int32_t who, const char *what) {
  for (int64_t i = place; i < place + n; i++)
    if (b->owner[i] != who) fail_msg("%s: float %lld of array %d belongs to %d", what, (long long)i, who, b->owner[i]);
}

static int64_t slot_floats(const board *b, int slot) { return (int64_t)TOKENS * b->m->slot[slot].width; }
static int64_t tape_floats(const board *b, int i) {
  const sh_layer *l = &b->m->call[i].layer;
  return l->ops->tape(l, TOKENS, SEQUENCES);
}

/* Numbers of arrays: values 1 .., gradients from 10000, tapes from 20000. */
enum { GRAD = 10000, TAPE = 20000 };

static void run_forward(board *b, int i, const int64_t *value, const int64_t *tape) {
  const sh_call *k = &b->m->call[i];
  for (int s = 0; s < k->nout; s++) claim(b, value[k->out[s]], slot_floats(b, k->out[s]), 1 + k->out[s]);
  if (tape) claim(b, tape[i], tape_floats(b, i), TAPE + i);
  for (int s = 0; s < k->nin; s++)
    still(b, value[k->in[s]], slot_floats(b, k->in[s]), 1 + k->in[s], "input in forward");
}

static void run_backward(board *b) {
  const sh_plan *q = b->plan;
  for (int i = b->m->ncalls - 1; i >= 0; i--) {
    const sh_call *k = &b->m->call[i];
    for (int r = q->rerun[i]; r >= 0 && r <= i; r++) run_forward(b, r, q->again, q->tape_again);
    for (int s = 0; s < k->nin; s++) {
      bool first = true;
      for (int later = i + 1; later < b->m->ncalls; later++)
        for (int n = 0; n < b->m->call[later].nin; n++) first &= b->m->call[later].in[n] != k->in[s];
      if (first) claim(b, q->grad[k->in[s]], slot_floats(b, k->in[s]), GRAD + k->in[s]);
    }
    still(b, q->tape_again[i], tape_floats(b, i), TAPE + i, "tape in backward");
    for (int s = 0; s < k->nin; s++) {
      still(b, q->again[k->in[s]], slot_floats(b, k->in[s]), 1 + k->in[s], "input in backward");
      still(b, q->grad[k->in[s]], slot_floats(b, k->in[s]), GRAD + k->in[s], "gradient of an input");
    }
    for (int s = 0; s < k->nout; s++) {
      still(b, q->again[k->out[s]], slot_floats(b, k->out[s]), 1 + k->out[s], "output in backward");
      if (k->out[s] != b->m->output)
        still(b, q->grad[k->out[s]], slot_floats(b, k->out[s]), GRAD + k->out[s], "gradient of an output");
    }
  }
}

static void test_nothing_overlaps(void **state) {
  (void)state;
  for (int k = 0; k < MODELS * MODES * 2; k++) {
    bool train = k % 2;
    sh_arena a;
    sh_arena_init(&a, "plan");
    sh_model m = model_of(k / 2 % MODELS, k / 2 / MODELS, 4);
    sh_plan plan = plan_of(&m, TOKENS, SEQUENCES, train, &a);
    board b = {.m = &m, .plan = &plan, .owner = SH_ARENA_ZNEW(&a, int32_t, plan.floats)};
    for (int i = 0; i < m.ncalls; i++) run_forward(&b, i, plan.value, train ? plan.tape : NULL);
    still(&b, plan.value[m.output], slot_floats(&b, m.output), 1 + m.output, "output");
    if (train) run_backward(&b);
    sh_model_destroy(&m);
    sh_arena_free(&a);
  }
}

/* Placing wastes little. */
static void test_close_to_what_is_alive(void **state) {
  (void)state;
  for (int k = 0; k < MODELS * MODES; k++) {
    sh_arena a;
    sh_arena_init(&a, "plan");
    sh_model m = model_of(k % MODELS, k / MODELS, 8);
    sh_plan plan = plan_of(&m, TOKENS, SEQUENCES, true, &a);
    double waste = (double)plan.floats / (double)plan.live;
    printf("  %-10s %-9s %6.1f floats of a token and width, %.3f of what is alive\n", models[k % MODELS],
           modes[k / MODELS], (double)plan.floats / (TOKENS * D), waste);
    assert_true(waste >= 1 && waste < 1.1);
    sh_model_destroy(&m);
    sh_arena_free(&a);
  }
}

/* With recompute = layer a block more is one slot more; with attention it is less than without. */
static void test_a_block_more(void **state) {
  (void)state;
  for (int m = 0; m < MODELS; m++) {
    int64_t more[MODES];
    for (int r = 0; r < MODES; r++)
      more[r] = pass_floats(m, r, 6, TOKENS, SEQUENCES) - pass_floats(m, r, 5, TOKENS, SEQUENCES);
    assert_int_equal(more[2], TOKENS * D);
    assert_true(more[2] < more[1] && 5 * more[1] < 4 * more[0]);
  }
}

/* Longer sequences or more of them: as many times the memory as tokens. */
static void test_linear_in_tokens(void **state) {
  (void)state;
  for (int k = 0; k < MODELS * MODES; k++) {
    int m = k % MODELS, r = k / MODELS;
    double one = (double)pass_floats(m, r, 3, 4096, 4), longer = (double)pass_floats(m, r, 3, 8192, 4);
    double wider = (double)pass_floats(m, r, 3, 8192, 8);
    assert_true(longer / one > 1.9 && longer / one < 2.1 && wider / one > 1.9 && wider / one < 2.1);
  }
}

/* A checkpoint does not care. */
static void test_resume_with_another_mode(void **state) {
  (void)state;
  sh_config now, stored;
  sh_config_defaults(&now), sh_config_defaults(&stored);
  snprintf(now.model.recompute, sizeof now.model.recompute, "layer");
  assert_int_equal(sh_resume_same_model(&now, &stored, "file"), SH_OK);
  now.model.width++;
  assert_int_equal(sh_resume_same_model(&now, &stored, "file"), SH_ERR_DATA);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_nothing_overlaps),
      cmocka_unit_test(test_close_to_what_is_alive),
      cmocka_unit_test(test_a_block_more),
      cmocka_unit_test(test_linear_in_tokens),
      cmocka_unit_test(test_resume_with_another_mode),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
