/* data/report.h: the data report, computed from a set's content, stored as attributes of the file. */
#ifndef SH_DATA_REPORT_H
#define SH_DATA_REPORT_H

#include "data/dataset.h"
#include "mpi/h5par.h"
#include "shoal/data.h"

/* Everything that follows from the content alone; the fields of shoal prepare stay 0. */
void sh_report_make(const sh_dataset_content *c, sh_data_report *r);

sh_status sh_report_store(sh_h5 *f, const sh_data_report *r);
sh_status sh_report_load(sh_h5 *f, sh_data_report *r);

#endif
