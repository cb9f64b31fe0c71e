#!/usr/bin/env bash
# Runs configs/movielens.toml on a coordinator and some workers of this machine, of which one is killed every so many seconds (and
# started again), and prints what came out: figures, and digests of both models. See docs/results/reliability.md.
#
#   tools/killed-training/run.sh PATH/TO/ml-latest-small WORKERS [SECONDS_BETWEEN_KILLS [MORE OF submit...]]
set -euo pipefail
cd "$(dirname "$0")/../.."
data=$1 workers=$2 every=${3:-0}
shift $(($# < 3 ? $# : 3))
program=${CARGO_TARGET_DIR:-target}/release/mllm4rec
root=$(mktemp -d) port=$((7100 + RANDOM % 800))
declare -a pids=()
trap 'kill "${pids[@]}" "${coordinator:-}" 2>/dev/null || true; wait; rm -rf "$root"' EXIT

"$program" coordinator --root "$root" --listen "127.0.0.1:$port" 2>"$root.coordinator.log" & coordinator=$!
sleep 1
start() { "$program" worker --coordinator "http://127.0.0.1:$port" --threads 1 2>"$root.worker-$1.log" & pids[$1]=$!; }
for ((i = 0; i < workers; i++)); do start "$i"; done
# A shard of all 610 users takes longer than a worker lives.
"$program" submit configs/movielens.toml --set "dataset.path=$data" --set dataset.shard_users=64 \
    --coordinator "http://127.0.0.1:$port" --wait "$@" & job=$!
kills=0 began=$SECONDS last=$SECONDS
while kill -0 "$job" 2>/dev/null; do
    sleep 1
    if ((every > 0 && SECONDS - last >= every)); then
        victim=$((kills % workers))
        kill -9 "${pids[$victim]}" 2>/dev/null || true
        wait "${pids[$victim]}" 2>/dev/null || true
        start "$victim"
        kills=$((kills + 1)) last=$SECONDS
    fi
done
wait "$job"
echo "$workers workers, $kills kills, $((SECONDS - began)) s"
find "$root/models" -name '*model.safetensors' -exec sha256sum {} \; | sed "s|$root/||"
