/* ckpt/verify.c: is a checkpoint whole? Reads every byte once, a block at a time. */
#include <string.h>

#include "ckpt/layout.h"
#include "shoal/checkpoint.h"

sh_status sh_ckpt_verify(const char *path, FILE *out) {
  sh_ck_list list;
  sh_h5 *f;
  char first[1024] = "";
  sh_status result = SH_OK;
  int64_t damaged = 0, blocks = 0;
  double bytes = 0;
  SH_TRY(sh_ck_open(&f, path, &list));
  for (int i = 0; i < list.n; i++) {
    const sh_ck_array *a = &list.array[i];
    int64_t bad = 0;
    sh_status status = sh_ck_check(f, a, &bad);
    blocks += a->nblocks;
    bytes += (double)sh_ck_bytes(a);
    if (status == SH_OK) continue;
    damaged++;
    fprintf(out, "damaged     %s: %lld of %lld blocks\n", a->path, (long long)(bad > 0 ? bad : a->nblocks),
            (long long)a->nblocks);
    if (result == SH_OK) snprintf(first, sizeof first, "%s", sh_error_message());
    result = status;
  }
  if (result == SH_OK)
    fprintf(out, "%s: whole: %d arrays, %lld blocks, %.2f MB, all checksums and the digest agree\n", path, list.n,
            (long long)blocks, 1e-6 * bytes);
  else if (damaged > 1)
    sh_fail(SH_ERR_DATA, "%s (and %lld more arrays)", first, (long long)damaged - 1);
  else
    sh_fail(SH_ERR_DATA, "%s", first);
  sh_ck_list_free(&list);
  sh_h5_close(f, false);
  return result == SH_OK ? SH_OK : SH_ERR_DATA;
}

sh_status sh_checkpoint_verify(const char *path, FILE *out) { return sh_ckpt_verify(path, out); }
