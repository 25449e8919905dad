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
# shellcheck disable=SC2086 # lists of files without blanks
if [ "${1:-}" = --fix ]; then
  exec $tool -i $files
fi
bad=$($tool --dry-run $files 2>&1 | sed -n 's/^\([^: ]*\):[0-9]*:[0-9]*: warning: .*/\1/p' | sort -u)
for f in $bad; do echo "$f: not formatted (tests/format.sh --fix)"; done
echo "format: $(echo "$files" | wc -l) files, $(echo "$bad" | grep -c .) not formatted"
[ -z "$bad" ]
