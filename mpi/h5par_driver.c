/* mpi/h5par_driver.c: an HDF5 file driver that cannot fail.
 *
 * HDF5 does not survive a failed write: after a full disk H5Fclose fails, and the library crashes when the process ends
 * (seen with 1.10.8); over MPI-IO the ranks hang in a collective. So HDF5 writes its headers into pages in memory, and
 * sh_h5_close writes the pages with calls whose failure is ours to handle. Array bytes never come through here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "mpi/h5par_internal.h"

typedef struct driver_file {
  H5FD_t public; /* must be first */
  sh_h5_pages *store;
  haddr_t eoa, eof;
} driver_file;

typedef struct driver_info {
  sh_h5_pages *store;
} driver_info;

static hid_t driver_id = H5I_INVALID_HID;

static sh_h5_page *page_at(sh_h5_pages *store, int64_t at, bool create) {
  if (store->last < store->n && store->page[store->last].at == at) return &store->page[store->last];
  for (int i = 0; i < store->n; i++)
    if (store->page[i].at == at) return store->last = i, &store->page[i];
  if (!create) return NULL;
  if (store->n == store->capacity) {
    store->capacity = store->capacity ? 2 * store->capacity : 64;
    store->page = sh_realloc(store->page, (size_t)store->capacity * sizeof *store->page);
  }
  store->last = store->n;
  store->page[store->n] = (sh_h5_page){.at = at, .data = sh_calloc(2, SH_H5_PAGE)};
  return &store->page[store->n++];
}

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t access, haddr_t maxaddr) {
  (void)name, (void)flags, (void)maxaddr;
  const driver_info *info = H5Pget_driver_info(access);
  if (!info) return NULL;
  driver_file *file = sh_calloc(1, sizeof *file);
  file->store = info->store;
  return &file->public;
}

static herr_t driver_close(H5FD_t *h) {
  free(h);
  return 0;
}

static int driver_compare(const H5FD_t *a, const H5FD_t *b) {
  const sh_h5_pages *x = ((const driver_file *)a)->store, *y = ((const driver_file *)b)->store;
  return x < y ? -1 : x > y;
}

static herr_t driver_query(const H5FD_t *h, unsigned long *flags) {
  (void)h;
  *flags = H5FD_FEAT_AGGREGATE_METADATA;
  return 0;
}

static haddr_t driver_get_eoa(const H5FD_t *h, H5FD_mem_t type) {
  (void)type;
  return ((const driver_file *)h)->eoa;
}

static herr_t driver_set_eoa(H5FD_t *h, H5FD_mem_t type, haddr_t address) {
  (void)type;
  driver_file *file = (driver_file *)h;
  file->eoa = address;
  file->store->end = (int64_t)address;
  return 0;
}

static haddr_t driver_get_eof(const H5FD_t *h, H5FD_mem_t type) {
  (void)type;
  return ((const driver_file *)h)->eof;
}

static herr_t driver_read(H5FD_t *h, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t size, void *buffer) {
  (void)type, (void)transfer;
  sh_h5_pages *store = ((driver_file *)h)->store;
  unsigned char *to = buffer;
  while (size > 0) {
    size_t skip = (size_t)(address % SH_H5_PAGE), n = SH_H5_PAGE - skip < size ? SH_H5_PAGE - skip : size;
    const sh_h5_page *page = page_at(store, (int64_t)(address / SH_H5_PAGE), false);
    if (page)
      memcpy(to, page->data + skip, n);
    else
      memset(to, 0, n);
    to += n, address += n, size -= n;
  }
  return 0;
}

static herr_t driver_write(H5FD_t *h, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t size,
                           const void *buffer) {
  (void)type, (void)transfer;
  driver_file *file = (driver_file *)h;
  const unsigned char *from = buffer;
  if (address + size > file->eof) file->eof = address + size;
  while (size > 0) {
    size_t skip = (size_t)(address % SH_H5_PAGE), n = SH_H5_PAGE - skip < size ? SH_H5_PAGE - skip : size;
    unsigned char *at = page_at(file->store, (int64_t)(address / SH_H5_PAGE), true)->data + skip;
    memcpy(at, from, n);
    memset(at + SH_H5_PAGE, 1, n);
    from += n, address += n, size -= n;
  }
  return 0;
}

static herr_t driver_truncate(H5FD_t *h, hid_t transfer, hbool_t closing) {
  (void)transfer, (void)closing;
  driver_file *file = (driver_file *)h;
  file->eof = file->eoa;
  return 0;
}

static const H5FD_class_t driver_class = {
#if H5_VERSION_GE(1, 13, 2)
    .version = H5FD_CLASS_VERSION,
    .value = (H5FD_class_value_t)600,
#endif
    .name = "shoal-pages",
    .maxaddr = (haddr_t)INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(driver_info),
    .open = driver_open,
    .close = driver_close,
    .cmp = driver_compare,
    .query = driver_query,
    .get_eoa = driver_get_eoa,
    .set_eoa = driver_set_eoa,
    .get_eof = driver_get_eof,
    .read = driver_read,
    .write = driver_write,
    .truncate = driver_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

bool sh_h5_pages_driver(hid_t access, sh_h5_pages *store) {
  if (driver_id < 0 || H5Iis_valid(driver_id) <= 0) driver_id = H5FDregister(&driver_class);
  driver_info info = {store};
  return driver_id >= 0 && H5Pset_driver(access, driver_id, &info) >= 0;
}

static int write_all(int fd, const unsigned char *data, int64_t bytes, int64_t at) {
  while (bytes > 0) {
    ssize_t n = pwrite(fd, data, (size_t)bytes, (off_t)at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? errno : EIO;
    data += n, bytes -= n, at += n;
  }
  return 0;
}

/* A page may hold array bytes beside headers: only what HDF5 wrote reaches the file. */
static int page_flush(const sh_h5_page *page, int fd) {
  const unsigned char *mark = page->data + SH_H5_PAGE;
  for (int i = 0; i < SH_H5_PAGE;) {
    int end = i;
    while (end < SH_H5_PAGE && mark[end]) end++;
    int why = end > i ? write_all(fd, page->data + i, end - i, page->at * SH_H5_PAGE + i) : 0;
    if (why) return why;
    i = end > i ? end : i + 1;
  }
  return 0;
}

int sh_h5_pages_flush(const sh_h5_pages *store, int fd) {
  if (ftruncate(fd, (off_t)store->end) != 0) return errno;
  for (int i = 0; i < store->n; i++) {
    int why = page_flush(&store->page[i], fd);
    if (why) return why;
  }
  return 0;
}

void sh_h5_pages_free(sh_h5_pages *store) {
  for (int i = 0; i < store->n; i++) free(store->page[i].data);
  free(store->page);
  *store = (sh_h5_pages){0};
}
