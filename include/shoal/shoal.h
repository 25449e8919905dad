/* shoal/shoal.h: the whole public interface but the one header with MPI types (shoal_mpi.h). */
#ifndef SHOAL_SHOAL_H
#define SHOAL_SHOAL_H

#include "shoal/bench.h"
#include "shoal/checkpoint.h"
#include "shoal/data.h"
#include "shoal/doctor.h"
#include "shoal/names.h"
#include "shoal/scaling.h"
#include "shoal/status.h"
#include "shoal/synth.h"
#include "shoal/train.h"
#include "shoal/version.h"

#endif
