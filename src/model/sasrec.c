/* SASRec: x = sqrt(D) E[item] + P, blocks of sasrec_attention -> sasrec_ffn; no final norm (the loss normalises to
 * length 1). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "dist/build.h"
#include "nn/embed_input.h"
#include "nn/sasrec.h"

sh_status sh_build_sasrec(sh_model *m, const sh_conf_model *conf);

sh_status sh_build_sasrec(sh_model *m, const sh_conf_model *conf) {
  int D = (int)conf->width, H = (int)conf->heads, N = (int)(conf->max_len + conf->extra_positions);
  int parts = m->params.parts;
  sh_sasrec_conf block = {.D = D,
                          .H = H,
                          /* a multiple given as a quotient of widths may lie a rounding below the integer */
                          .F = (int)(conf->ffn_multiple * D + 1e-6),
                          .N = N,
                          .eps = (float)(conf->norm_eps > 0 ? conf->norm_eps : 1e-8),
                          .attention_dropout = conf->attention_dropout,
                          .ffn_dropout = conf->linear_dropout,
                          .gelu = !strcmp(conf->ffn_activation, "gelu")};
  sh_embed_input_conf input = {
      .D = D, .N = N, .dropout = conf->dropout, .pos_init = {.kind = SH_INIT_TRUNC_NORMAL, .a = sqrt(1.0 / D)}};
  if (D % H) return sh_fail(SH_ERR_USAGE, "model.heads = %d must divide model.width = %d for sasrec", H, D);
  if ((conf->dqk && conf->dqk != D / H) || (conf->dv && conf->dv != D / H))
    return sh_fail(SH_ERR_USAGE, "model.dqk = %lld, model.dv = %lld: sasrec's heads are width / heads = %d wide",
                   (long long)conf->dqk, (long long)conf->dv, D / H);
  if (block.F < 1)
    return sh_fail(SH_ERR_USAGE, "model.ffn_multiple = %g of width %d leaves no hidden column", conf->ffn_multiple, D);
  if (H % parts) return sh_fail(SH_ERR_USAGE, "model.heads = %d cannot be dealt to parallel.tensor = %d", H, parts);
  if (block.F % parts)
    return sh_fail(SH_ERR_USAGE,
                   "hidden width %d (model.ffn_multiple x model.width) cannot be dealt to parallel.tensor = %d",
                   block.F, parts);
  int x = sh_build_input(m, &sh_embed_input_ops, "input", &input);
  for (int i = 0; i < conf->layers; i++) {
    char name[SH_PARAM_NAME];
    snprintf(name, sizeof name, "block.%d", i);
    int h = sh_build_slot(m, D, "%s.h", name), next = sh_build_slot(m, D, "%s.out", name);
    x = sh_build_enter(m, name, x);
    sh_build_call(m, &sh_sasrec_attention_ops, name, &block, 1, &x, 1, &h);
    h = sh_build_enter(m, name, sh_build_leave(m, name, h));
    sh_build_call(m, &sh_sasrec_ffn_ops, name, &block, 1, &h, 1, &next);
    x = sh_build_leave(m, name, next);
  }
  sh_build_output(m, x);
  return SH_OK;
}
