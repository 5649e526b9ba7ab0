#!/usr/bin/env bash
# Runs the engine of the fast group convolution under AddressSanitizer and UndefinedBehaviorSanitizer, and under
# valgrind where it is installed: no read or write outside a buffer, for shapes that end anywhere in a vector.
#
#     benchmarks/check_engine_memory.sh [python]        # GROUPS_TO_CHECK="C4" for one of them
#
# The engine is compiled with a small program of its own, no Python and no torch: every buffer is as large as the
# engine is promised, and no larger.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${1:-python3}"
compiler="${CXX:-c++}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
source=eqgan/nn/fourier/source

build() { # name, flags...
  local name="$1"
  shift
  local common=(-std=c++17 -O1 -g -ffp-contract=fast -pthread -Wno-psabi -I"$source" -I"$work" "$@")
  local objects=()
  for isa in "${!flags[@]}"; do
    # shellcheck disable=SC2086
    "$compiler" "${common[@]}" ${flags[$isa]} -DKERNEL="kernel_$isa" -c "$source/kernel.cpp" -o "$work/$name$isa.o"
    objects+=("$work/$name$isa.o")
  done
  "$compiler" "${common[@]}" "${with[@]}" benchmarks/check_engine_memory.cpp "$source/engine.cpp" "${objects[@]}" \
    -o "$work/$name"
}

declare -A flags=([plain]="")
with=()
if [ "$(uname -m)" = x86_64 ]; then
  flags[avx2]="-mavx2 -mfma"
  flags[avx512]="-mavx512f -mavx512vl -mavx512dq -mavx512bw -mavx2 -mfma"
  flags[avx512_bf16]="${flags[avx512]} -mavx512bf16"
  with=(-DWITH_AVX2 -DWITH_AVX512 -DWITH_AVX512_BF16)
fi
for group in ${GROUPS_TO_CHECK:-C2 C4 D4}; do
  "$python" - "$group" "$work" <<'PYTHON'
import sys
from pathlib import Path

from eqgan.groups import POINT_GROUPS, intertwiner_index, window_action
from eqgan.groups.fourier import group_fourier
from eqgan.groups.representation import regular, trivial
from eqgan.nn.fourier.emit import group_header

group, folder = POINT_GROUPS[sys.argv[1]], Path(sys.argv[2])
(folder / "group.h").write_text(group_header(group_fourier(group)))
lines = [f"static const int order = {group.order};"]
for size in range(1, 6):
    moved = window_action(group, size)
    pairs = [n for cell in moved.ravel().tolist() for n in divmod(cell, size)]
    entries = [u * size * size + int(cell) for u, row in enumerate(moved) for cell in row]
    lifting = intertwiner_index(regular(group), trivial(group), size)[0].ravel().tolist()
    for kind, table in (("shift", pairs), ("entry", entries), ("lifting_entry", lifting)):
        lines.append(f"static const int32_t {kind}{size}[] = {{{', '.join(map(str, table))}}};")
for kind in ("shift", "entry", "lifting_entry"):
    row = ", ".join(f"{kind}{size}" for size in range(1, 6))
    lines.append(f"static const int32_t *const {kind}s[] = {{{row}}};")
(folder / "tables.h").write_text("\n".join(lines) + "\n")
PYTHON
  build sanitized -fsanitize=address,undefined -fno-sanitize-recover=all
  "$work/sanitized"
  echo "$group: sanitizers silent"
  if command -v valgrind >/dev/null; then
    # which knows no AVX-512
    declare -A all=()
    for isa in "${!flags[@]}"; do all[$isa]="${flags[$isa]}"; done
    full=("${with[@]}")
    unset "flags[avx512]" "flags[avx512_bf16]"
    [ ${#with[@]} -gt 0 ] && with=(-DWITH_AVX2)
    build plainly
    valgrind --quiet --error-exitcode=1 "$work/plainly" 12
    echo "$group: valgrind silent"
    with=("${full[@]}")
    for isa in "${!all[@]}"; do flags[$isa]="${all[$isa]}"; done
  fi
done
