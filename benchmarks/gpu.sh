#!/usr/bin/env bash
# All that needs a GPU, in one command of under ten minutes: build for this GPU, test, sanitize, measure.
#
#   benchmarks/gpu.sh [build] [test] [sanitize] [bench] [triton]     the stages that are named; without names all
#
# Needs nvcc, a C++ compiler, and a Python that has torch with CUDA and what pyproject.toml names; no network. Wheels in
# .whl/ are installed for the run. Results go to $OUT, else benchmarks/results/<gpu>/; logs to $OUT, else build/gpu/logs/.
# A stage that fails or runs out of time does not keep the later ones from running, but for build.
#
#   GPU_SECONDS=570         for everything            CUDAARCHS=90            another architecture than this GPU's
#   GPU_BENCH_ARGS="..."    more for the bench        GPU_TEST_ARGS="..."     more for pytest
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

total=${GPU_SECONDS:-570}
python=${PYTHON:-python3}
work=$PWD/build/gpu
logs=${OUT:-$work/logs}
mkdir -p "$work" "$logs"

# Wheels that were brought along come before what is installed.
if compgen -G '.whl/*.whl' >/dev/null; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$work/site" .whl/*.whl ||
    exit 2
fi
if ! command -v nvcc >/dev/null && [ -x /usr/local/cuda/bin/nvcc ]; then export CUDACXX=${CUDACXX:-/usr/local/cuda/bin/nvcc}; fi
export PYTHONPATH="$work/python:$work/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

left() { echo $((total - SECONDS)); }

# stage NAME LIMIT COMMAND...: run it within its limit and what is left of the whole, with a log; returns its exit status.
failed=()
stage() {
  local name=$1 limit=$2 begun=$SECONDS status
  shift 2
  if (($(left) < limit)); then limit=$(left); fi
  if ((limit < 10)); then
    echo "== $name: no time left" | tee -a "$logs/$name.log"
    failed+=("$name")
    return 1
  fi
  printf '\n== %s (%ss so far, at most %ss)\n' "$name" "$SECONDS" "$limit"
  LIMIT=$limit timeout --kill-after=10 "$limit" "$@" 2>&1 | tee "$logs/$name.log"
  status=${PIPESTATUS[0]}
  if ((status == 124 || status == 137)); then echo "== $name: stopped after ${limit}s" | tee -a "$logs/$name.log"; fi
  if ((status != 0)); then failed+=("$name"); fi
  echo "== $name: exit status $status, $((SECONDS - begun))s"
  return "$status"
}

architecture() {
  if [ -n "${CUDAARCHS:-}" ]; then
    echo "$CUDAARCHS"
  else
    "$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())'
  fi
}

# A copy of the Python sources gets a native module of its own.
build() {
  local arch
  arch=$(architecture) || {
    echo "no CUDA device was found"
    return 1
  }
  rm -rf "$work/python" && cp -r python "$work/" && rm -f "$work"/python/warpdraw/_C.*so || return
  cmake -S . -B "$work/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DWARPDRAW_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="$arch" \
    -DPython_EXECUTABLE="$(command -v "$python")" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" \
    -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$work/python/warpdraw" >"$logs/configure.log" ||
    {
      tail -n 20 "$logs/configure.log"
      return 1
    }
  cmake --build "$work/cmake" || return
  "$python" -c '
import torch, warpdraw
print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
for backend in warpdraw.backends():
    print(f"{backend.name}: {backend.available}, {backend.reason}")'
}

# gpu_tests WHICH: those whose names have WHICH, one after the other. Warnings of another torch than the pinned one are none of their business.
gpu_tests() {
  # shellcheck disable=SC2086
  "$python" -m pytest -o addopts=-ra -q -m gpu -k "$1" -W default -p no:cacheprovider --continue-on-collection-errors --maxfail=25 \
    --durations=8 tests ${GPU_TEST_ARGS:-}
}

run_tests() { gpu_tests "not triton"; }

# Apart and last: Triton compiles a kernel for each set of arguments, seconds each. What is compiled is kept.
test_triton() { gpu_tests triton; }

sanitize() {
  local checker tool help status=0
  checker=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
  if [ -z "$checker" ]; then
    echo "compute-sanitizer was not found: not run"
    return 0
  fi
  # Only kernels of this project, where the tool can choose: torch's own take long and are not ours to mend.
  local only=()
  help=$("$checker" --help 2>&1)
  case $help in
    *--kernel-name*) only=(--kernel-name kns=warpdraw) ;;
    *--kernel-regex*) only=(--kernel-regex kns=warpdraw) ;;
  esac
  for tool in memcheck racecheck synccheck; do
    printf '\n-- %s\n' "$tool"
    # Without torch's cache of memory each tensor is an allocation of its own, whose ends are watched.
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout --kill-after=5 $(((LIMIT - 10) / 3)) "$checker" --tool "$tool" --error-exitcode 9 \
      --print-limit 20 "${only[@]}" "$python" -m pytest -o addopts=-ra -q -W default -p no:cacheprovider -m gpu \
      tests/test_gpu.py -k test_for_a_sanitizer 2>&1 | tail -n 60
    local one=${PIPESTATUS[0]}
    echo "-- $tool: exit status $one"
    if ((one != 0)); then status=1; fi
  done
  return "$status"
}

bench() {
  local folder seconds
  folder=${OUT:-benchmarks/results/$("$python" -c '
import re, torch
print(re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-"))')} || return
  mkdir -p "$folder"
  # Peers and their kernels take a while to load, and the last place that is begun is finished.
  seconds=$((LIMIT - 50))
  if ((seconds > 280)); then seconds=280; fi
  if ((seconds < 20)); then seconds=20; fi
  # shellcheck disable=SC2086
  "$python" -m warpdraw bench gpu --seconds "$seconds" --json "$folder/gpu.json" ${GPU_BENCH_ARGS:-}
}

export -f architecture build gpu_tests run_tests test_triton sanitize bench
export work logs python

wanted=("$@")
if ((${#wanted[@]} == 0)); then wanted=(build test sanitize bench triton); fi
for name in "${wanted[@]}"; do
  case $name in
    build) stage build 270 bash -c build || exit 1 ;;
    test) stage test 210 bash -c run_tests ;;
    sanitize) stage sanitize 120 bash -c sanitize ;;
    bench) stage bench 360 bash -c bench ;;
    triton) stage triton 570 bash -c test_triton ;;
    *)
      echo "gpu.sh: expected build, test, sanitize, bench or triton, got '$name'" >&2
      exit 2
      ;;
  esac
done

if ((${#failed[@]} > 0)); then
  printf '\nfailed: %s\n' "${failed[*]}"
  exit 1
fi
printf '\nall stages passed in %ss\n' "$SECONDS"
