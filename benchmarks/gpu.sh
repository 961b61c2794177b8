#!/usr/bin/env bash
# All that wants a GPU, in parts of under ten minutes each; results go to benchmarks/<card>/.
#
#   benchmarks/gpu.sh PART... [--wheels DIR] [--out DIR] [--device cpu]
#
#   1  pytest -m gpu: captured steps, compiled, rounded, diverging; a full memory halves a stack
#   2  bench train at batch 128     3  bench train at batch 16
#   4  figure5 at batch 128, compile off and on
#   5  figure5 at batch 16          6  the same, compiled
#   7  bench scaling at batch 16: what stack_size: auto has to choose from; a narrow model, too
#   8  bench profile at both batch sizes
#
# Parts 2 and 3 have anybody's modules under vmap, too: the rows `generic`.
#
# --wheels DIR  what is missing is installed from there, without a network; else the part is skipped
# --out DIR     in place of benchmarks/<card>
# --device cpu  the same parts with as little work as there can be: tries this script, measures
#               nothing; part 1 tests the stand-ins for a GPU, and nothing is compiled
#
# PYTHON names the interpreter (default .venv/bin/python, else python3), FRACTION what part of
# figure5 is run (default 1; at batch 16 0.5). Ray is not needed. MNIST is looked for in
# VITBENCH_DATA; without it parts 4 to 6 are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

parts=() wheels='' out='' device=cuda
while (($#)); do
    case $1 in
    --wheels) wheels=${2:?--wheels needs a folder} && shift ;;
    --out) out=${2:?--out needs a folder} && shift ;;
    --device) device=${2:?--device needs cpu or cuda} && shift ;;
    [1-8]) parts+=("$1") ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
    esac
    shift
done
((${#parts[@]})) || parts=(1 2 3 4 5 6 7 8)

python=${PYTHON:-.venv/bin/python}
[ -x "$python" ] || python=$(command -v python3)
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
skipped=0 failed=0

skip() {
    echo "SKIPPED part $part: $1" >&2
    skipped=1
}

# Import name -> name of the package. torch is the machine's own.
needed() {
    printf '%s\n' pydantic:pydantic yaml:PyYAML rich:rich safetensors:safetensors \
        packaging:packaging numpy:numpy pandas:pandas pyarrow:pyarrow scipy:scipy \
        sklearn:scikit-learn matplotlib:matplotlib PIL:pillow "$@"
}

# Whether these can be imported, after an attempt to install what cannot.
have() {
    local pair missing=()
    for pair in $(needed "$@"); do
        "$python" -c "import importlib.util as i, sys; sys.exit(i.find_spec('${pair%%:*}') is None)" ||
            missing+=("${pair#*:}")
    done
    ((${#missing[@]})) || return 0
    [ -n "$wheels" ] && "$python" -m pip install -q --no-index --find-links "$wheels" \
        "${missing[@]}" && return 0
    skip "no ${missing[*]}; --wheels names a folder that has them"
    return 1
}

# A benchmark; on a CPU with hardly any work.
bench() {
    local words=("$@" --device "$device")
    [ -z "$out" ] || words+=(--out "$out")
    if [ "$device" = cpu ]; then
        words+=(--rounds 1)
        case $1 in
        figure5) words+=(--quick --fraction 2e-6) ;;
        *) words+=(--quick --images 16) ;;
        esac
    fi
    limited "$python" -m vitbench.bench "${words[@]}"
}

limited() {
    local code=0
    timeout 590 "$@" || code=$?
    ((code == 0)) && return
    echo "FAILED part $part ($code): $*" >&2
    failed=1
}

figure5() { # batch, default fraction, more words
    if [ "$device" = cuda ] && ! "$python" -c '
import sys
from vitbench.data import data_folder
from vitbench.data.sets import mnist
sys.exit(mnist.find(data_folder(None)) is None)'; then
        skip "no MNIST; VITBENCH_DATA names the folder that holds MNIST/raw"
        return
    fi
    local how=("${@:3}")
    [ "$device" = cuda ] || how=()
    bench figure5 --batch-size "$1" --fraction "${FRACTION:-$2}" "${how[@]}"
}

tests() {
    local folder
    folder=${out:-$("$python" -c "
from vitbench.bench.__main__ import default_folder
print(default_folder('$device'))")}
    mkdir -p "$folder"
    local what=(-m gpu tests/training tests/kernels/test_on_gpu.py)
    [ "$device" = cuda ] || what=(tests/training/test_graphed.py tests/training/test_device_steps.py)
    limited "$python" -m pytest -q -p no:cacheprovider "${what[@]}" 2>&1 | tee "$folder/pytest-gpu.txt"
    # What stands behind the pipe has failed in a process of its own.
    ! grep -q '^FAILED part' "$folder/pytest-gpu.txt" || failed=1
}

for part in "${parts[@]}"; do
    echo "== part $part" >&2
    case $part in
    1) have pytest:pytest pytest_timeout:pytest-timeout xdist:pytest-xdist && tests ;;
    2) have timm:timm vit_pytorch:vit-pytorch && bench train --batch-size 128 --rounds 3 --images 19968 ;;
    3) have timm:timm vit_pytorch:vit-pytorch && bench train --batch-size 16 --rounds 3 --images 9984 ;;
    4) have && figure5 128 1 && figure5 128 1 --compile ;;
    5) have && figure5 16 0.5 ;;
    6) have && figure5 16 0.5 --compile ;;
    7) have && bench scaling --batch-size 16 --rounds 3 --images 9984 ;;
    8) have && bench profile --batch-size 16,128 --rounds 3 ;;
    esac || true
done
((failed == 0)) || exit 1
((skipped == 0)) || exit 3
