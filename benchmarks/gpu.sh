#!/usr/bin/env bash
# All that needs a GPU, in one command of under ten minutes: build for this GPU, test, sanitize, measure.
#
#   benchmarks/gpu.sh [build] [test] [sanitize] [bench] [triton]     the stages that are named; without names all these
#   benchmarks/gpu.sh profile                                        what Nsight Compute says of the kernels
#   benchmarks/gpu.sh tune      a call of its own: every shape of the kernels is built, and the fastest is found for each size
#   benchmarks/gpu.sh decode                                         whole decode steps of models with random weights
#
# Needs nvcc, a C++ compiler, and a Python that has torch with CUDA and what pyproject.toml names; no network. Wheels in
# .whl/ are installed for the run. Results go to $OUT, else benchmarks/results/<gpu>/; logs to $OUT, else build/gpu/logs/.
# A stage that fails or runs out of time does not keep the later ones from running, but for build.
#
#   GPU_SECONDS=570         for everything            CUDAARCHS=90            another architecture than this GPU's
#   GPU_BENCH_ARGS="..."    more for the bench        GPU_TEST_ARGS="..."     more for pytest
#   GPU_TUNE_ARGS="..."     more for bench tune
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
  # Interrupted and not killed, so that pytest still says what failed.
  LIMIT=$limit timeout --signal=INT --kill-after=10 "$limit" "$@" 2>&1 | tee "$logs/$name.log"
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

# build_into FOLDER OPTION...: a copy of the Python sources gets a native module of its own. What was compiled there before is kept.
build_into() {
  local folder=$1 arch
  shift
  arch=$(architecture) || {
    echo "no CUDA device was found"
    return 1
  }
  mkdir -p "$folder" && rm -rf "$folder/python" && cp -r python "$folder/" && rm -f "$folder"/python/warpdraw/_C.*so || return
  cmake -S . -B "$folder/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release -DWARPDRAW_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="$arch" \
    -DPython_EXECUTABLE="$(command -v "$python")" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" \
    -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$folder/python/warpdraw" "$@" >"$logs/configure.log" ||
    {
      tail -n 20 "$logs/configure.log"
      return 1
    }
  cmake --build "$folder/cmake" || return
  PYTHONPATH="$folder/python:$PYTHONPATH" "$python" -c '
import torch, warpdraw
print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
for backend in warpdraw.backends():
    print(f"{backend.name}: {backend.available}, {backend.reason}")'
}

build() { build_into "$work"; }

# gpu_tests WHICH WORKERS: those whose names have WHICH. Warnings of another torch than the pinned one are none of their business.
gpu_tests() {
  # The kernels' own first, in case the time does not suffice. Several processes, because most of the time is the CPU's:
  # what it draws for comparison, and what is compiled.
  local files=(tests/test_gpu.py) file workers=()
  if "$python" -c 'import xdist' 2>/dev/null; then workers=(--numprocesses "$2" --dist worksteal); fi
  for file in tests/test_*.py; do
    if [ "$file" != tests/test_gpu.py ]; then files+=("$file"); fi
  done
  # shellcheck disable=SC2086
  "$python" -m pytest -o addopts=-ra -q -m gpu -k "$1" -W default -p no:cacheprovider --continue-on-collection-errors --maxfail=25 \
    --durations=8 "${workers[@]}" "${files[@]}" ${GPU_TEST_ARGS:-}
}

run_tests() { gpu_tests "not triton" 4; }

# Apart and last: Triton compiles a kernel for each set of arguments, seconds each. What is compiled is kept.
test_triton() { gpu_tests triton 8; }

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
      tests/test_gpu.py -k "test_for_a_sanitizer and not triton" 2>&1 | tail -n 60
    local one=${PIPESTATUS[0]}
    echo "-- $tool: exit status $one"
    if ((one != 0)); then status=1; fi
  done
  return "$status"
}

# Where the measurements go; makes the folder.
results() {
  local folder
  folder=${OUT:-benchmarks/results/$("$python" -c '
import re, torch
print(re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-"))')} || return
  mkdir -p "$folder" && echo "$folder"
}

# Counters of our kernels at the places of the targets, each launch alone and with cold caches: profile.csv, profile.md.
profile() {
  local ncu places=benchmarks/profile_kernels.py
  ncu=$(command -v ncu || compgen -G '/opt/nvidia/nsight-compute/*/ncu' | sort -V | tail -n 1)
  if [ -z "$ncu" ] && [ -x /usr/local/cuda/bin/ncu ]; then ncu=/usr/local/cuda/bin/ncu; fi
  if [ -z "$ncu" ]; then
    echo "ncu was found neither on the PATH nor in /opt/nvidia/nsight-compute: install Nsight Compute"
    return 1
  fi
  "$ncu" --version | tail -n 1
  rm -f "$logs/profile.csv" "$logs/profile.md"
  if ! "$ncu" --clock-control none --profile-from-start off --nvtx --kernel-name-base demangled \
    --kernel-name regex:warpdraw --metrics "$("$python" $places metrics)" --section WarpStateStats --page raw --csv \
    --print-units base --log-file "$logs/profile.csv" "$python" $places run; then
    echo "ncu or what it watched failed:"
    grep -h '^==' "$logs/profile.csv"
    return 1
  fi
  "$python" $places table "$logs/profile.csv" >"$logs/profile.md" && cat "$logs/profile.md"
}

# seconds_for KEPT MOST: what a measurement may take within its stage, less what it needs before and after.
seconds_for() {
  local seconds=$((LIMIT - $1))
  if ((seconds > $2)); then seconds=$2; fi
  if ((seconds < 20)); then seconds=20; fi
  echo "$seconds"
}

bench() {
  local folder
  folder=$(results) || return
  # Peers and their kernels take a while to load, and the last place that is begun is finished.
  # shellcheck disable=SC2086
  "$python" -m warpdraw bench gpu --seconds "$(seconds_for 50 280)" --json "$folder/gpu.json" ${GPU_BENCH_ARGS:-}
}

build_tune() { build_into "$work-tune" -DWARPDRAW_CUDA_SHAPES=ON; }

tune() {
  local folder
  folder=$(results) || return
  # shellcheck disable=SC2086
  PYTHONPATH="$work-tune/python:$PYTHONPATH" "$python" -m warpdraw bench tune --stages --seconds "$(seconds_for 30 300)" \
    --json "$folder/tune.json" ${GPU_TUNE_ARGS:-}
}

decode() {
  local folder
  folder=$(results) || return
  "$python" -m warpdraw bench decode --seconds "$(seconds_for 60 270)" --json "$folder/decode.json"
}

export -f architecture build_into build gpu_tests run_tests test_triton sanitize results seconds_for bench build_tune tune profile decode
export work logs python

wanted=("$@")
if ((${#wanted[@]} == 0)); then wanted=(build test sanitize bench triton); fi
for name in "${wanted[@]}"; do
  case $name in
    build) stage build 270 bash -c build || exit 1 ;;
    test) stage test 210 bash -c run_tests ;;
    sanitize) stage sanitize 120 bash -c sanitize ;;
    bench) stage bench 360 bash -c bench ;;
    decode) stage decode 330 bash -c decode ;;
    triton) stage triton 570 bash -c test_triton ;;
    profile) stage profile 240 bash -c profile ;;
    tune) stage tune-build 240 bash -c build_tune && stage tune 330 bash -c tune ;;
    *)
      echo "gpu.sh: expected build, test, sanitize, bench, triton, profile, tune or decode, got '$name'" >&2
      exit 2
      ;;
  esac
done

if ((${#failed[@]} > 0)); then
  printf '\nfailed: %s\n' "${failed[*]}"
  exit 1
fi
printf '\nall stages passed in %ss\n' "$SECONDS"
