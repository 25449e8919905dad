/* core/hash.h: checksums (XXH3-64) of data blocks. */
#ifndef SH_CORE_HASH_H
#define SH_CORE_HASH_H
#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>
static inline uint64_t sh_hash(const void *data, size_t bytes) { return XXH3_64bits(data, bytes); }
#endif
