#!/usr/bin/env bash
# The arms of a sweep on several GPUs of one machine, one arm on a GPU at a time. In the images it is
# /usr/local/bin/wmtp-sweep-gpus.
#
#   wmtp-sweep-gpus GPUS SWEEP.yaml --output DIR [options of `wmtp sweep`]
#
# Every arm sees one GPU (CUDA_VISIBLE_DEVICES), which it calls `cuda:0`. A GPU that becomes free takes the next arm.
# Afterwards the table is made; the exit code is 1 if an arm failed or is not finished. The same command
# resumes: finished arms are skipped, interrupted ones continue from their last checkpoint. On SIGTERM the arms
# save a checkpoint first.
set -euo pipefail

if [ $# -lt 4 ]; then
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
gpus=$1
shift
# The directory of the sweep's runs, which --collect reads.
output=""
for ((i = 1; i < $#; i++)); do
    [ "${!i}" != --output ] || { j=$((i + 1)) && output=${!j}; }
done
if [ -z "$output" ]; then
    echo "wmtp-sweep-gpus: give --output DIR" >&2
    exit 2
fi
cores=$(nproc)
export RAYON_NUM_THREADS=${RAYON_NUM_THREADS:-$((cores > gpus ? cores / gpus : 1))}

mkdir -p "$output"
jobs=$(mktemp "$output/jobs.XXXXXX")
trap 'rm -f "$jobs"' EXIT
wmtp sweep "$@" --emit jobs > "$jobs"

# A session of its own: a signal to its group reaches xargs and the arms. xargs numbers its slots from 0.
setsid xargs --arg-file="$jobs" --delimiter='\n' --max-args=1 --max-procs="$gpus" \
    --process-slot-var=CUDA_VISIBLE_DEVICES sh -c &
group=$!
stop() {
    kill -TERM -- "-$group" 2> /dev/null || true
    # Until the last arm has saved its checkpoint.
    while kill -0 -- "-$group" 2> /dev/null; do sleep 0.2; done
    exit 143
}
trap stop TERM INT
status=0
wait "$group" || status=$?
[ "$status" = 0 ] || echo "wmtp-sweep-gpus: an arm failed" >&2
wmtp sweep "$@" --collect "$output" || status=$?
[ "$status" = 0 ] || exit 1
