#!/usr/bin/env bash
# Runs the tests and the benches of mllm4rec's kernels on this machine's card. It needs no Rust and no network.
#
#   run.sh                     everything: tests, then all benches
#   run.sh tests [NAME…]       the tests; NAME is kernels, nccl (groups of one card, again and again), model or parity
#   run.sh bench [GROUP…]      the benches; GROUP is ceilings, nf4, attention, rows, scan, retriever, top, captioner or ranker
#   run.sh look                what is there: card, driver, libraries, Python packages
#   run.sh help                this text
#
# Fewer and shorter turns take less time: `ROUNDS=5 TURN_MS=100 run.sh bench nf4 attention`. What the card can do at most is
# measured with every group, but for a minute without a pause only with all benches or with `ceilings`.
#
# Everything that comes out goes to the folder $OUT (./out): tests-NAME.log, results.json, results.md (with groups
# results-GROUP….json and .md), bench.log, look.txt, and summary.txt with a line for every step. A step that fails stops none of
# the others, and the benches write their results after every case: a run that is cut short keeps what it had.
#
#   OUT=folder             where to write
#   PYTHON=program         a Python with torch; else the first of python3 and python that has it
#   TESTS_SECONDS=180      the most that the tests of one name may take
#   PART_SECONDS=40        the most that those of one module of the kernels may take on a card, each in a process of its own
#   NCCL_ROUNDS=1000       groups of one card that are opened one after the other
#   NCCL_SECONDS=400       the most that they may take
#   BENCH_SECONDS=1800     the most that the benches may take
#   ROUNDS=7 TURN_MS=300   turns of every contestant, and how long one is
#   SUSTAINED_S=60         seconds of the product without a pause
#   LAYERS=32              layers of the ranker; all contestants of it hold their weights at the same time
#   MLLM4REC_TEST_DEVICE   cuda, or emulated: the CPU runs the device code, slowly, in small shapes and without times.
#                          Not set: cuda if there is a driver.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${OUT:-out}
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
summary=$out/summary.txt
failures=0

say() { printf '%s\n' "$*"; }

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }

# The folder with the programs: this one, or what the archive beside this script holds.
unpack() {
    tree=$here
    [ -d "$tree/bin" ] && return 0
    tree=$here/mllm4rec-gpu
    [ -d "$tree/bin" ] && return 0
    if [ ! -e "$here/mllm4rec-gpu.tar.gz" ]; then
        say "put mllm4rec-gpu.tar.gz beside run.sh"
        return 1
    fi
    if [ ! -w "$here" ]; then
        tree=$(mktemp -d)/mllm4rec-gpu
    fi
    tar -xzf "$here/mllm4rec-gpu.tar.gz" -C "$(dirname "$tree")" || {
        say "cannot unpack $here/mllm4rec-gpu.tar.gz"
        return 1
    }
}

# The first Python with torch.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python}; do
        if timeout 120 "$candidate" -c 'import torch' > /dev/null 2>&1; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# The folders of CUDA's libraries, separated by colons: those that torch brings, and the toolkit's.
find_libraries() {
    local folders=""
    if [ -n "$python" ]; then
        folders=$("$python" - << 'END'
import glob, sys
print(":".join(dict.fromkeys(folder for path in sys.path if path for folder in sorted(glob.glob(path + "/nvidia/*/lib")))))
END
        )
    fi
    # The toolkit's only where these lack something: two of one library would be loaded.
    local toolkit folder
    IFS=: read -ra found <<< "$folders"
    for folder in "${found[@]}"; do
        [ -e "$folder/libcublasLt.so.13" ] && say "$folders" && return
    done
    for toolkit in /usr/local/cuda/lib64 /usr/local/cuda-13*/lib64; do
        [ -d "$toolkit" ] && folders=$folders:$toolkit
    done
    say "${folders#:}"
}

# Whether the driver of a card is there.
has_driver() { [ -n "$(find_driver)" ] || ldconfig -p 2> /dev/null | grep 'libcuda\.so\.1' > /dev/null; }

find_driver() {
    local folder
    IFS=: read -ra folders <<< "${LD_LIBRARY_PATH:-}"
    for folder in "${folders[@]}" /usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/lib/wsl/lib; do
        if [ -n "$folder" ] && [ -e "$folder/libcuda.so.1" ]; then
            say "$folder"
            return 0
        fi
    done
    return 1
}

set_up() {
    unpack || exit 1
    python=$(find_python) || python=""
    local libraries driver
    libraries=$(find_libraries)
    driver=$(find_driver) || driver=""
    export MLLM4REC_CUDA_LIBS=${MLLM4REC_CUDA_LIBS:-$libraries}
    local path=$MLLM4REC_CUDA_LIBS:$driver:${LD_LIBRARY_PATH:-}
    path=$(tr -s : <<< "$path")
    path=${path#:}
    export LD_LIBRARY_PATH=${path%:}
    export MLLM4REC_FIXTURES=$tree/fixtures
    [ -d "$tree/python" ] && export PYTHONPATH=$tree/python${PYTHONPATH:+:$PYTHONPATH}
    if [ -z "${MLLM4REC_TEST_DEVICE:-}" ]; then
        if has_driver && { ! command -v nvidia-smi > /dev/null || nvidia-smi -L 2> /dev/null | grep GPU > /dev/null; }; then
            MLLM4REC_TEST_DEVICE=cuda
        else
            say "THERE IS NO CUDA DRIVER (libcuda.so.1), OR IT SEES NO CARD: the CPU runs the device code, in small shapes and without times."
            MLLM4REC_TEST_DEVICE=emulated
        fi
    fi
    export MLLM4REC_TEST_DEVICE
}

# step NAME LOG SECONDS PROGRAM…: runs a program and notes how it ended.
step() {
    local name=$1 log=$2 seconds=$3 begin=$SECONDS code how
    shift 3
    say "== $name: ${*##*/}"
    timeout --kill-after=10 "$seconds" "$@" > "$log" 2>&1 < /dev/null
    code=$?
    case $code in
        0) how=passed ;;
        124 | 137) how="FAILED (took more than $seconds s)" ;;
        *) how="FAILED (exit code $code)" ;;
    esac
    [ $code -eq 0 ] || failures=$((failures + 1))
    local line
    line=$(printf '%-28s %-10s %5d s  %s' "$name" "$MLLM4REC_TEST_DEVICE" $((SECONDS - begin)) "$how")
    say "$line" | tee -a "$summary"
    if [ $code -ne 0 ]; then
        say "   the end of ${log##*/}:"
        tail -n 15 "$log" | sed 's/^/   | /'
    fi
}

look() {
    local log=$out/look.txt
    {
        date -u '+%Y-%m-%d %H:%M UTC'
        [ -f "$tree/made.txt" ] && cat "$tree/made.txt"
        uname -srm
        if command -v nvidia-smi > /dev/null; then
            nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.draw,power.limit --format=csv
        else
            say "there is no nvidia-smi"
        fi
        say "device of the tests: $MLLM4REC_TEST_DEVICE"
        say "libraries: ${MLLM4REC_CUDA_LIBS:-none found}"
        say "Python with torch: ${python:-none found}"
        if [ -n "$python" ]; then
            "$python" -m pip list 2> /dev/null | grep -iE '^(torch|triton|bitsandbytes|transformers|peft|safetensors|numpy) '
        fi
        command -v c++ > /dev/null || say "there is no C++ compiler: the emulator cannot be tested"
    } > "$log" 2>&1
    cat "$log"
}

# Parts of the tests in processes of their own: what one kernel does to the card does not reach the others. Those of the card
# come first.
parts() {
    [ "$1" = kernels ] || return 0
    say cuda::card
    "$tree/bin/kernels-tests" --list 2> /dev/null | sed -n 's/^\([a-z0-9_]*\)::.*: test$/\1/p' | sort -u
}

# Groups of one card, one after the other: NCCL opens, sums, aborts, and gives back what it took.
groups_of_one() {
    MLLM4REC_NCCL_ROUNDS=${NCCL_ROUNDS:-1000} step "tests nccl" "$out/tests-nccl.log" "${NCCL_SECONDS:-400}" \
        "$tree/bin/kernels-tests" collective::nccl::tests::card:: --test-threads=1 --show-output
    grep -E '^test result|^skipped|^free bytes|\.\.\. FAILED' "$out/tests-nccl.log" | sort -u | tee -a "$summary"
}

tests() {
    local names=("$@") name args part
    if [ $# -eq 0 ]; then
        names=(kernels model parity)
        [ "$MLLM4REC_TEST_DEVICE" = cuda ] && names=(kernels nccl model parity)
    fi
    for name in "${names[@]}"; do
        if [ "$name" = nccl ]; then
            groups_of_one
            continue
        fi
        args=(--test-threads=1 --show-output)
        if [ "$MLLM4REC_TEST_DEVICE" = cuda ]; then
            # What is about the emulator, or the host alone, was seen where this was packed.
            args+=(--skip emulat --skip census --skip recorder::tests::random)
            export CUDA_LAUNCH_BLOCKING=1 # an error then shows at the kernel that made it
        fi
        # The emulator compiles the device code with the C++ compiler of the machine.
        command -v c++ > /dev/null || args+=(--skip emulat)
        if [ ! -x "$tree/bin/$name-tests" ]; then
            say "there are no tests called $name: kernels, nccl, model or parity"
            failures=$((failures + 1))
            continue
        fi
        if [ "$MLLM4REC_TEST_DEVICE" = cuda ] && [ "$name" = kernels ]; then
            : > "$out/tests-$name.log"
            for part in $(parts "$name"); do
                step "tests $name $part" "$out/part.log" "${PART_SECONDS:-40}" \
                    "$tree/bin/$name-tests" "$part::" "${args[@]}"
                cat "$out/part.log" >> "$out/tests-$name.log"
            done
            rm -f "$out/part.log"
        else
            step "tests $name" "$out/tests-$name.log" "${TESTS_SECONDS:-180}" "$tree/bin/$name-tests" "${args[@]}"
        fi
        unset CUDA_LAUNCH_BLOCKING
        grep -E '^test result|^skipped|\.\.\. FAILED' "$out/tests-$name.log" | sort -u | head -n 40 | tee -a "$summary"
    done
}

bench() {
    local name=results args=(gpu --project "$tree/project")
    if [ $# -gt 0 ]; then
        name=results-$(IFS=-; say "$*")
        args+=(--only "$(IFS=,; say "$*")")
    fi
    if [ "$MLLM4REC_TEST_DEVICE" = emulated ]; then
        args+=(--device emulated --tiny)
    else
        args+=(--rounds "${ROUNDS:-7}" --turn-ms "${TURN_MS:-300}")
        args+=(--sustained-s "${SUSTAINED_S:-60}" --layers "${LAYERS:-32}")
    fi
    [ -n "$python" ] && args+=(--python "$python")
    args+=(--json "$out/$name.json" --markdown "$out/$name.md")
    step "bench ${*:-all}" "$out/bench.log" "${BENCH_SECONDS:-1800}" "$tree/bin/mllm4rec-bench" "${args[@]}"
    tail -n 1 "$out/bench.log" | tee -a "$summary"
}

what=${1:-all}
[ $# -gt 0 ] && shift
case $what in
    help | --help | -h)
        usage
        exit 0
        ;;
    all | tests | bench | look) set_up ;;
    *)
        usage
        exit 64
        ;;
esac
look
case $what in
    all)
        tests
        bench
        ;;
    tests) tests "$@" ;;
    bench) bench "$@" ;;
esac
if [ $failures -gt 0 ]; then
    say "$failures FAILED; see $out"
    exit 1
fi
[ "$what" = look ] || say "all passed; see $out"
