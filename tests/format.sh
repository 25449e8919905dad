#!/bin/sh
# tests/format.sh: every C file is as clang-format 14 writes it. `tests/format.sh --fix` rewrites them.
cd "$(dirname "$0")/.." || exit 1
tool=$(command -v clang-format-14 || command -v clang-format) || {
  echo "format: clang-format is not installed"
  exit 77
}
case "$($tool --version)" in
*"version 14."*) ;;
*)
  echo "format: $($tool --version) found, version 14 expected: other versions format differently"
  exit 77
  ;;
esac
files=$(find include src mpi jobs tests -name '*.[ch]' | sort)
# shellcheck disable=SC2086 # a list of files without blanks
if [ "${1:-}" = --fix ]; then
  exec $tool -i $files
fi
bad=0
for f in $files; do
  $tool "$f" | cmp -s - "$f" || {
    echo "$f: not formatted (tests/format.sh --fix)"
    bad=$((bad + 1))
  }
done
echo "format: $(echo "$files" | wc -l) files, $bad not formatted"
[ $bad = 0 ]
