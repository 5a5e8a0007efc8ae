#!/usr/bin/env bash
# Collects, with pip, the wheels that a rented GPU machine without a network lacks for finetop and bench/gpu_kit.py.
#
#     bench/gpu_wheels.sh [FOLDER]                          default: build/gpu-wheels
#     PYTHON=python3.12 bench/gpu_wheels.sh FOLDER          any Python whose pip is 23.2 or newer; 3.12 is best
#     THERE="torch==2.11.0 ..." CUDA=130 bench/gpu_wheels.sh FOLDER
#
# It resolves what pyproject.toml asks for together with what is on the machine (THERE), for its Python and glibc, and
# fetches only what THERE and its own dependencies do not bring. bitsandbytes is reduced to the CPU's library and the one
# for the machine's CUDA. What each wheel weighs is printed, and the sum with a copy of this checkout; exit code 1 where
# that is more than LIMIT MiB. On the machine, from the checkout:
#
#     python3 -m pip install --no-index --no-deps --no-compile --target /tmp/site FOLDER/*.whl
#     PYTHONPATH=/tmp/site python3 bench/gpu_kit.py all --out results
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$root/build/gpu-wheels}
python=${PYTHON:-python3}
there=${THERE:-torch==2.11.0 transformers==5.17.0 peft accelerate nvidia-ml-py pyarrow sacrebleu pytest pip}
more=${MORE:-trl==1.16.0}        # beside what finetop needs: for the comparison; MORE=" " leaves it out
cuda=${CUDA:-130}
version=${PYTHON_VERSION:-3.12}
limit=${LIMIT:-64}

tags=()
for minor in $(seq 5 "${GLIBC_MINOR:-39}"); do tags+=(--platform "manylinux_2_${minor}_x86_64"); done
for name in manylinux2014 manylinux2010 manylinux1; do tags+=(--platform "${name}_x86_64"); done
target=(--only-binary=:all: --python-version "$version" --implementation cp "${tags[@]}")

mkdir -p "$folder"
rm -f "$folder"/*.whl
report=$(mktemp)
trap 'rm -f "$report"' EXIT

mapfile -t needs < <("$python" "$root/bench/gpu/wheels.py" needs "$root/pyproject.toml")
echo "resolving ${#needs[@]} requirements beside: $there" >&2
# shellcheck disable=SC2086
"$python" -m pip install --quiet --dry-run --ignore-installed --report "$report" --target "$folder/none" \
    "${target[@]}" $there "${needs[@]}" $more
# shellcheck disable=SC2086
mapfile -t lacking < <("$python" "$root/bench/gpu/wheels.py" lacking "$report" $there)
"$python" -m pip download --quiet --no-deps "${target[@]}" --dest "$folder" "${lacking[@]}"
"$python" "$root/bench/gpu/wheels.py" reduce "$folder" "$cuda"
"$python" "$root/bench/gpu/wheels.py" weigh "$folder" "$root" "$limit"
