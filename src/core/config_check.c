/* Conflicts between keys. Each check names the keys, their values and what would be right. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h"

#define CONFLICT(...) return sh_fail(SH_ERR_USAGE, "configuration: " __VA_ARGS__)
#define LL(x)         (long long)(x)

static bool is(const char *value, const char *name) { return !strcmp(value, name); }

static sh_status check_heads(const sh_conf_model *m) {
  int64_t share = m->width / m->heads;
  bool whole = m->width % m->heads == 0, sasrec = is(m->name, "sasrec");
  if (!whole && (m->dqk == 0 || m->dv == 0 || sasrec))
    CONFLICT("model.width = %lld is not a multiple of model.heads = %lld%s", LL(m->width), LL(m->heads),
             sasrec ? "" : "; set model.dqk and model.dv, or change one of them");
  if (sasrec && ((m->dqk && m->dqk != share) || (m->dv && m->dv != share)))
    CONFLICT("sasrec: model.dqk and model.dv are width / heads = %lld; found %lld and %lld, expected 0", LL(share),
             LL(m->dqk), LL(m->dv));
  return SH_OK;
}

static sh_status check_model(const sh_conf_model *m) {
  SH_TRY(check_heads(m));
  if (!is(m->name, "hstu") && m->concat_ua) CONFLICT("model.concat_ua needs model.name = hstu, found %s", m->name);
  if (!is(m->name, "fuxi-alpha") && m->ffn_single_stage)
    CONFLICT("model.ffn_single_stage needs model.name = fuxi-alpha, found %s", m->name);
  if (!is(m->name, "fuxi-beta") && !is(m->time_function, "pow"))
    CONFLICT("model.time_function = %s needs model.name = fuxi-beta, found %s", m->time_function, m->name);
  if (!is(m->name, "sasrec") && !is(m->ffn_activation, "relu"))
    CONFLICT("model.ffn_activation = %s needs model.name = sasrec, found %s", m->ffn_activation, m->name);
  if (!is(m->name, "hstu") && (double)m->width * m->ffn_multiple < 1)
    CONFLICT("model.ffn_multiple = %g leaves no hidden unit at model.width = %lld", m->ffn_multiple, LL(m->width));
  return SH_OK;
}

static sh_status check_data(const sh_config *c) {
  const sh_conf_data *d = &c->data;
  if (is(d->split, "temporal") && d->valid_quantile >= d->test_quantile)
    CONFLICT("data.valid_quantile = %g is not below data.test_quantile = %g", d->valid_quantile, d->test_quantile);
  if (is(d->split, "temporal") && (d->valid_quantile <= 0 || d->test_quantile >= 1))
    CONFLICT("temporal split: data.valid_quantile = %g and data.test_quantile = %g leave no events to train or test on",
             d->valid_quantile, d->test_quantile);
  if (d->min_history > c->model.max_len)
    CONFLICT("data.min_history = %lld is above model.max_len = %lld: no sequence is left", LL(d->min_history),
             LL(c->model.max_len));
  return SH_OK;
}

static sh_status check_train(const sh_config *c) {
  if (!c->train.out[0]) CONFLICT("train.out is empty, expected the folder of the run");
  return SH_OK;
}

static sh_status check_batch(const sh_config *c) {
  const sh_conf_batch *b = &c->batch;
  if (b->tokens > 0 && b->tokens < c->model.max_len)
    CONFLICT("batch.tokens = %lld does not hold one sequence of model.max_len = %lld", LL(b->tokens),
             LL(c->model.max_len));
  if (b->tokens == 0 && b->accumulate > b->users)
    CONFLICT("batch.accumulate = %lld micro-batches cannot be made of batch.users = %lld sequences", LL(b->accumulate),
             LL(b->users));
  if (is(c->loss.sampler, "popularity") && !is(c->loss.name, "shared"))
    CONFLICT("loss.sampler = popularity needs loss.name = shared, found %s", c->loss.name);
  return SH_OK;
}

static sh_status check_optim(const sh_config *c) {
  const sh_conf_optim *o = &c->optim;
  bool constant = is(o->schedule, "constant");
  if (!constant && o->lr_end > o->lr)
    CONFLICT("optim.lr_end = %g is above optim.lr = %g; schedule %s goes down", o->lr_end, o->lr, o->schedule);
  if (!constant && c->train.steps > 0 && o->warmup >= c->train.steps)
    CONFLICT("optim.warmup = %lld leaves no step for schedule %s within train.steps = %lld", LL(o->warmup), o->schedule,
             LL(c->train.steps));
  if (c->table.adagrad_initial > 0 && !is(c->table.optim, "adagrad"))
    CONFLICT("table.adagrad_initial needs table.optim = adagrad, found %s", c->table.optim);
  if (c->table.shards & (c->table.shards - 1))
    CONFLICT("table.shards = %lld is not a power of two; near ones are %lld and %lld", LL(c->table.shards),
             LL(exp2(floor(log2((double)c->table.shards)))), LL(exp2(ceil(log2((double)c->table.shards)))));
  return SH_OK;
}

static sh_status check_run(const sh_config *c) {
  if (c->train.patience > 0 && c->train.eval_every == 0)
    CONFLICT("train.patience = %lld counts evaluations, but train.eval_every = 0 makes none", LL(c->train.patience));
  const char *at = strchr(c->eval.metric, '@');
  long long k = at ? strtoll(at + 1, NULL, 10) : 1;
  if (c->eval.top < k) CONFLICT("eval.metric = %s looks below eval.top = %lld", c->eval.metric, LL(c->eval.top));
  return SH_OK;
}

static sh_status check_parallel(const sh_config *c) {
  const sh_conf_parallel *p = &c->parallel;
  if (p->tensor > 1 && c->model.heads % p->tensor)
    CONFLICT("model.heads = %lld cannot be dealt to parallel.tensor = %lld", LL(c->model.heads), LL(p->tensor));
  if (c->table.shards < 16 * p->table)
    CONFLICT("table.shards = %lld is below 16 x parallel.table = %lld", LL(c->table.shards), LL(p->table));
  return SH_OK;
}

sh_status sh_config_check(const sh_config *c) {
  SH_TRY(check_data(c));
  SH_TRY(check_model(&c->model));
  SH_TRY(check_batch(c));
  SH_TRY(check_train(c));
  SH_TRY(check_optim(c));
  SH_TRY(check_run(c));
  return check_parallel(c);
}
