/* dist/models.h: the registry of models, as the builder sees it; the list itself is model/models.def. */
#ifndef SH_DIST_MODELS_H
#define SH_DIST_MODELS_H

#include "dist/build.h"

typedef sh_status (*sh_model_build)(sh_model *m, const sh_conf_model *conf);

/* NULL when no model has the name. Defined in model/models.c. */
sh_model_build sh_model_find(const char *name);

#endif
