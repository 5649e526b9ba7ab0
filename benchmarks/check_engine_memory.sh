#!/usr/bin/env bash
# Runs the engine of the fast group convolution under AddressSanitizer and UndefinedBehaviorSanitizer, and under
# valgrind where it is installed: no read or write outside a buffer, for shapes that end anywhere in a vector.
#
#     benchmarks/check_engine_memory.sh [python]        # GROUPS_TO_CHECK="C4" for one of them
#
# Where a compiler for another processor is named, and what runs its programs here, the engine runs there too and
# its numbers are compared with those of here (on Debian: g++-aarch64-linux-gnu, qemu-user):
#
#     OTHER_CXX=aarch64-linux-gnu-g++ OTHER_RUN="qemu-aarch64 -L /usr/aarch64-linux-gnu" benchmarks/check_engine_memory.sh
#
# The engine is compiled with a small program of its own, no Python and no torch: every buffer is as large as the
# engine is promised, and no larger.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${1:-python3}"
compiler="${CXX:-c++}"
work="$(mktemp -d)"
trap "rm -rf \"$work\"" EXIT
source=eqgan/nn/fourier/source

declare -A flags=(
  [plain]=""
  [avx2]="-mavx2 -mfma"
  [avx512]="-mavx512f -mavx512vl -mavx512dq -mavx512bw -mavx2 -mfma"
)
flags[avx512_bf16]="${flags[avx512]} -mavx512bf16"

build() { # name, compiler, instruction sets, flags...
  local name="$1" command="$2" isas="$3"
  shift 3
  local common=(-std=c++17 -O1 -g -ffp-contract=fast -pthread -DFRESH_SCRATCH=1 -Wno-psabi -I"$source" -I"$work" "$@")
  local objects=() defines=()
  for isa in $isas; do
    # shellcheck disable=SC2086
    "$command" "${common[@]}" ${flags[$isa]} -DKERNEL="kernel_$isa" -c "$source/kernel.cpp" -o "$work/$name$isa.o"
    objects+=("$work/$name$isa.o")
    defines+=("-DWITH_${isa^^}")
  done
  "$command" "${common[@]}" "${defines[@]}" benchmarks/check_engine_memory.cpp "$source/engine.cpp" "${objects[@]}" \
    -o "$work/$name"
}

here=plain
[ "$(uname -m)" = x86_64 ] && here="plain avx2 avx512 avx512_bf16"
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
    lifting = intertwiner_index(regular(group), trivial(group), size)[0].ravel().tolist()
    for kind, table in (("shift", pairs), ("lifting_entry", lifting)):
        lines.append(f"static const int32_t {kind}{size}[] = {{{', '.join(map(str, table))}}};")
for kind in ("shift", "lifting_entry"):
    row = ", ".join(f"{kind}{size}" for size in range(1, 6))
    lines.append(f"static const int32_t *const {kind}s[] = {{{row}}};")
(folder / "tables.h").write_text("\n".join(lines) + "\n")
PYTHON
  if [ -n "${OTHER_CXX:-}" ]; then
    build here "$compiler" plain -O3 # as users have it
    build there "$OTHER_CXX" plain -O3
    "$work/here" 150 told >"$work/here.txt"
    # shellcheck disable=SC2086
    ${OTHER_RUN:-} "$work/there" 150 told >"$work/there.txt"
    "$python" - "$group" "$work" <<'PYTHON'
import sys
from pathlib import Path

group, folder = sys.argv[1], Path(sys.argv[2])
here, there = (
    [[float(word) for word in line.split()[1:]] for line in (folder / name).read_text().splitlines()[:-1]]
    for name in ("here.txt", "there.txt")
)
assert len(here) == len(there) > 100, (len(here), len(there))
worst = [0.0, 0.0]
for (half, ours, size), (_, theirs, _) in zip(here, there, strict=True):
    worst[int(half)] = max(worst[int(half)], abs(ours - theirs) / (size or 1))
assert worst[0] < 1e-6 and worst[1] < 1e-2, worst
print(f"{group}: on the other processor {len(here)} sums the same, to {worst[0]:.0e} (bfloat16 {worst[1]:.0e})")
PYTHON
  fi
  build sanitized "$compiler" "$here" -fsanitize=address,undefined -fno-sanitize-recover=all
  "$work/sanitized"
  echo "$group: sanitizers silent"
  if command -v valgrind >/dev/null; then
    build plainly "$compiler" "${here% avx512*avx512*}" # valgrind knows no AVX-512
    valgrind --quiet --error-exitcode=1 "$work/plainly" 12
    echo "$group: valgrind silent"
  fi
done
