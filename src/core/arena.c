#include "core/arena.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shoal/status.h"

struct sh_region {
  sh_region *below;
  size_t size, used; /* payload bytes; the header takes the first 64 */
};

enum { HEADER = 64, SMALL = 1 << 16 };
static const size_t huge = (size_t)2 << 20;
static atomic_int_fast64_t requests;

static void out_of_memory(size_t bytes) {
  fprintf(stderr, "shoal: out of memory: %.1f MiB could not be had\n", (double)bytes / 1048576.0);
  _exit(SH_ERR_INTERNAL); /* mpirun and srun end the other ranks */
}

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

void *sh_pages_alloc(size_t bytes) {
  size_t size = round_up(bytes ? bytes : 1, huge);
  atomic_fetch_add(&requests, 1);
  void *p = aligned_alloc(huge, size);
  if (!p) out_of_memory(size);
  madvise(p, size, MADV_HUGEPAGE);
  return p;
}

void sh_pages_free(void *p, size_t bytes) {
  (void)bytes;
  free(p);
}

static sh_region *region_new(size_t payload) {
  size_t size = payload + HEADER;
  sh_region *r;
  if (size >= huge) {
    size = round_up(size, huge);
    r = sh_pages_alloc(size);
  } else {
    size = round_up(size, SMALL);
    atomic_fetch_add(&requests, 1);
    r = aligned_alloc(64, size);
    if (!r) out_of_memory(size);
  }
  *r = (sh_region){.size = size - HEADER};
  return r;
}

void sh_arena_init(sh_arena *a, const char *name) { *a = (sh_arena){.name = name}; }

void *sh_arena_alloc(sh_arena *a, size_t bytes) {
  bytes = round_up(bytes ? bytes : 1, 64);
  if (!a->head || a->head->used + bytes > a->head->size) {
    size_t want = a->want > bytes ? a->want : bytes;
    if (a->head && want < a->head->size) want = a->head->size;
    sh_region *r = region_new(want);
    r->below = a->head;
    a->head = r;
    a->want = 0;
  }
  void *p = (char *)a->head + HEADER + a->head->used;
  a->head->used += bytes;
  a->used += bytes;
  if (a->used > a->peak) a->peak = a->used;
  return p;
}

void *sh_arena_zalloc(sh_arena *a, size_t bytes) { return memset(sh_arena_alloc(a, bytes), 0, bytes); }

void sh_arena_free(sh_arena *a) {
  while (a->head) {
    sh_region *below = a->head->below;
    free(a->head);
    a->head = below;
  }
  a->used = 0;
}

/* An empty arena that once held more than its one region can gets a larger one at the next allocation: after that it
 * never asks the system again. */
static void settle(sh_arena *a) {
  if (a->used > 0 || !a->head || (!a->head->below && a->head->size >= a->peak)) return;
  size_t want = a->peak + a->peak / 4;
  sh_arena_free(a);
  a->want = want;
}

void sh_arena_reset(sh_arena *a) {
  a->used = 0;
  settle(a);
  if (a->head) a->head->used = 0;
}

void sh_arena_reserve(sh_arena *a, size_t bytes) {
  if (a->used > 0 || (a->head && !a->head->below && a->head->size >= bytes)) return;
  sh_arena_free(a);
  if (a->want < bytes + bytes / 4) a->want = bytes + bytes / 4; /* room to grow; untouched, it is only addresses */
}

sh_arena_mark sh_arena_save(const sh_arena *a) {
  return (sh_arena_mark){.head = a->head, .head_used = a->head ? a->head->used : 0, .used = a->used};
}

void sh_arena_release(sh_arena *a, sh_arena_mark mark) {
  while (a->head != mark.head && a->head->below) {
    sh_region *below = a->head->below;
    free(a->head);
    a->head = below;
  }
  if (a->head) a->head->used = a->head == mark.head ? mark.head_used : 0;
  a->used = mark.used;
  settle(a);
}

int64_t sh_alloc_count(void) { return (int64_t)atomic_load(&requests); }

void *sh_malloc(size_t bytes) {
  atomic_fetch_add(&requests, 1);
  void *p = malloc(bytes ? bytes : 1);
  if (!p) out_of_memory(bytes);
  return p;
}

void *sh_calloc(size_t n, size_t bytes) {
  atomic_fetch_add(&requests, 1);
  void *p = calloc(n ? n : 1, bytes ? bytes : 1);
  if (!p) out_of_memory(n * bytes);
  return p;
}

void *sh_realloc(void *p, size_t bytes) {
  atomic_fetch_add(&requests, 1);
  void *q = realloc(p, bytes ? bytes : 1);
  if (!q) out_of_memory(bytes);
  return q;
}

char *sh_strdup(const char *s) { return strcpy(sh_malloc(strlen(s) + 1), s); }
