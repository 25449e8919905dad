#include <string.h>

#include "dist/build.h"
#include "dist/models.h"

#define MODEL(name, function) sh_status function(sh_model *m, const sh_conf_model *conf);
#include "model/models.def"
#undef MODEL

sh_model_build sh_model_find(const char *name) {
#define MODEL(known, function)                                                                                         \
  if (!strcmp(name, known)) return function;
#include "model/models.def"
#undef MODEL
  return NULL;
}
