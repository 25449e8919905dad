/* FuXi-alpha and FuXi-beta: x = sqrt(D) E[item] + P, blocks of fuxi_in -> fuxi_out -> ffn_swiglu; no final norm (the
 * loss normalises to length 1). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dist/build.h"
#include "nn/embed_input.h"
#include "nn/fuxi.h"

sh_status sh_build_fuxi_alpha(sh_model *m, const sh_conf_model *conf);
sh_status sh_build_fuxi_beta(sh_model *m, const sh_conf_model *conf);

static sh_fuxi_conf block_of(const sh_conf_model *conf, int channels) {
  return (sh_fuxi_conf){.channels = channels,
                        .D = (int)conf->width,
                        .H = (int)conf->heads,
                        .dqk = (int)(conf->dqk ? conf->dqk : conf->width / conf->heads),
                        .dv = (int)(conf->dv ? conf->dv : conf->width / conf->heads),
                        .N = (int)(conf->max_len + conf->extra_positions),
                        .eps = (float)(conf->norm_eps > 0 ? conf->norm_eps : 1e-6),
                        .dropout = conf->linear_dropout,
                        .time_bias = conf->time_bias,
                        .time_function = strcmp(conf->time_function, "exp") ? SH_FUXI_POW : SH_FUXI_EXP};
}

static sh_status build(sh_model *m, const sh_conf_model *conf, int channels, bool feed_forward) {
  sh_fuxi_conf block = block_of(conf, channels);
  sh_swiglu_conf ffn = {
      .D = block.D, .F = (int)((double)block.D * conf->ffn_multiple), .eps = block.eps, .dropout = block.dropout};
  sh_embed_input_conf input = {.D = block.D,
                               .N = block.N,
                               .dropout = conf->dropout,
                               .pos_init = {.kind = SH_INIT_NORMAL, .a = sqrt(2.0 / (block.N + block.D))}};
  if (block.H % m->params.parts)
    return sh_fail(SH_ERR_USAGE, "model.heads = %d cannot be dealt to parallel.tensor = %d", block.H, m->params.parts);
  if (feed_forward && ffn.F % m->params.parts)
    return sh_fail(SH_ERR_USAGE,
                   "hidden width %d (model.ffn_multiple x model.width) cannot be dealt to parallel.tensor = %d", ffn.F,
                   m->params.parts);
  if (ffn.F < 1)
    return sh_fail(SH_ERR_USAGE, "model.ffn_multiple = %g of width %d leaves no hidden column", conf->ffn_multiple,
                   block.D);
  int local = block.H / m->params.parts * channels * block.dv;
  int x = sh_build_input(m, &sh_embed_input_ops, "input", &input);
  for (int i = 0; i < conf->layers; i++) {
    char name[SH_PARAM_NAME];
    snprintf(name, sizeof name, "block.%d", i);
    int u = sh_build_slot(m, local, "%s.u", name), c = sh_build_slot(m, local, "%s.c", name);
    int stats = sh_build_slot(m, 1, "%s.stats", name), o = sh_build_slot(m, block.D, "%s.o", name);
    x = sh_build_enter(m, name, x);
    sh_build_call(m, &sh_fuxi_in_ops, name, &block, 1, &x, 3, (int[]){u, c, stats});
    stats = sh_build_span(m, name, stats, false);
    sh_build_call(m, &sh_fuxi_out_ops, name, &block, 4, (int[]){x, u, c, stats}, 1, &o);
    x = sh_build_leave(m, name, o);
    if (!feed_forward) continue;
    int next = sh_build_slot(m, block.D, "%s.out", name);
    x = sh_build_enter(m, name, x);
    sh_build_call(m, &sh_ffn_swiglu_ops, name, &ffn, 1, &x, 1, &next);
    x = sh_build_leave(m, name, next);
  }
  sh_build_output(m, x);
  return SH_OK;
}

sh_status sh_build_fuxi_alpha(sh_model *m, const sh_conf_model *conf) {
  SH_TRY(build(m, conf, SH_FUXI_ALPHA, !conf->ffn_single_stage));
  m->needs_time_runs &= conf->time_bias;
  return SH_OK;
}

sh_status sh_build_fuxi_beta(sh_model *m, const sh_conf_model *conf) {
  SH_TRY(build(m, conf, SH_FUXI_BETA, true));
  m->needs_time_runs = false; /* a function of the times themselves, not of buckets */
  return SH_OK;
}
