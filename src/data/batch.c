#include "data/batch.h"

#include <stddef.h>
#include <string.h>

const sh_feature *sh_batch_feature(const sh_batch *b, const char *name) {
  for (int i = 0; i < b->nfeatures; i++)
    if (!strcmp(b->feature[i].name, name)) return &b->feature[i];
  return NULL;
}
