/* core/hash.h: checksums (XXH3-64) of data blocks. */
#ifndef SH_CORE_HASH_H
#define SH_CORE_HASH_H
#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>
static inline uint64_t sh_hash(const void *data, size_t bytes) { return XXH3_64bits(data, bytes); }
/* Order-dependent combination of two digests. */
static inline uint64_t sh_hash_join(uint64_t a, uint64_t b) {
  uint64_t pair[2] = {a, b};
  return XXH3_64bits(pair, sizeof pair);
}
#endif
