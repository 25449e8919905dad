#!/bin/sh
# tests/layers.sh [ROOT]: the rules of LAYERS. A file includes only what its folder may, the order is downward, and
# <mpi.h>, <hdf5.h> and ScaLAPACK appear only under mpi/, tests/ and in include/shoal/shoal_mpi.h; public headers but
# that one can be compiled alone, as C and as C++, without them.
cd "${1:-$(dirname "$0")/..}" || exit 1
find include src mpi jobs -name '*.[ch]' -o -name '*.def' | sort >"${TMPDIR:-/tmp}/shoal-layers.$$"
awk -v list="${TMPDIR:-/tmp}/shoal-layers.$$" '
function complain(text) { print file ":" line ": " text; bad++ }

# The folder of LAYERS a path lies in: the longest one that is a prefix.
function folder_of(path,    f, best) {
  best = ""
  for (f in allowed) if (index(path, f "/") == 1 && length(f) > length(best)) best = f
  return best
}

# Where an include "x/y.h" leads: public headers, mpi/, or below src/. Names without a slash stay in the folder.
function target_of(name) {
  if (name !~ /\//) return own "/" name
  if (name ~ /^shoal\//) return "include/" name
  if (name ~ /^mpi\//) return name
  return "src/" name
}

function may(target,    words, n, i, w) {
  n = split(allowed[own], words, " ")
  for (i = 1; i <= n; i++) {
    w = words[i]
    if (w == "public" && index(target, "include/shoal/") == 1 && target != "include/shoal/shoal_mpi.h") return 1
    if (w == "public_mpi" && target == "include/shoal/shoal_mpi.h") return 1
    if (w ~ /\.h$/ && (target == "src/" w || target == w)) return 1
    if (w !~ /\.h$/ && (index(target, "src/" w "/") == 1 || index(target, w "/") == 1)) return 1
  }
  return 0
}

# LAYERS itself: each word must name an earlier folder, so there are no circles.
FILENAME == "LAYERS" && !/^#/ && NF {
  file = "LAYERS"; line = FNR
  words = ""
  for (i = 2; i <= NF; i++) {
    w = $i
    sub(/\/[^\/]*\.h$/, "", w)
    if (w != "public" && w != "public_mpi" && !("src/" w in allowed) && !(w in allowed))
      complain($1 " may include " $i ", which does not stand above it")
    words = words " " $i
  }
  allowed[$1] = words
  next
}

END {
  while ((getline file < list) > 0) {
    files++
    own = folder_of(file)
    line = 0
    if (own == "") { complain("its folder does not stand in LAYERS"); continue }
    free = own == "mpi" || file == "include/shoal/shoal_mpi.h"
    while ((getline text < file) > 0) {
      line++
      if (!free && text ~ /^[ \t]*#[ \t]*include[ \t]*[<"](mpi|hdf5|H5[A-Za-z]*|scalapack|blacs|pblas)\.h[>"]/)
        complain("MPI, HDF5 and ScaLAPACK belong under mpi/: " text)
      if (!free && text ~ /(^|[^A-Za-z0-9_])(Cblacs_[a-z]+|blacs_[a-z]+_|p[sd](gemm|syrk|syev|trsm|potr|getr|gesv)[a-z]*_|H5[A-Z][a-z]+_[a-z]+|MPI_[A-Z][a-z]+[A-Za-z_]*)[ \t]*\(/ && text !~ /^[ \t]*(\/?\*|\/\/)/)
        complain("MPI, HDF5 and ScaLAPACK are called only under mpi/: " text)
      if (text !~ /^[ \t]*#[ \t]*include[ \t]*"/) continue
      name = text
      sub(/^[^"]*"/, "", name); sub(/".*$/, "", name)
      if (name == "build_info.h") continue
      target = target_of(name)
      to = folder_of(target)
      if (to == "") complain("cannot tell the folder of \"" name "\"")
      else if (to != own && !may(target)) complain(own " may not include \"" name "\"")
    }
    close(file)
  }
  print "layers: " files " files, " bad + 0 " violations"
  exit bad || !files ? 1 : 0
}' LAYERS
status=$?
languages=c
echo | ${CC:-cc} -fsyntax-only -x c++ - 2>/dev/null && languages='c c++'
for header in include/shoal/*.h; do # public headers stand alone
  case $header in *shoal_mpi.h | *'*'*) continue ;; esac
  for language in $languages; do
    echo "#include \"$header\"" | ${CC:-cc} -I. -Iinclude -Wall -Werror -fsyntax-only -x $language - || status=1
  done
done
rm -f "${TMPDIR:-/tmp}/shoal-layers.$$"
exit $status
