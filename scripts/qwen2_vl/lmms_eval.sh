#!/usr/bin/env bash
# lmms-eval's benchmarks with Qwen2-VL: lmms_eval.sh True RATIO prunes with DART (False: no pruning), e.g. True 0.778
# CKPT= checkpoint (default Qwen/Qwen2-VL-7B-Instruct), TASKS= lmms-eval's names (default pope), METHOD= (default dart)
set -euo pipefail
SETUP_EXTRAS=lmms source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
arguments="pretrained=${CKPT:-Qwen/Qwen2-VL-7B-Instruct},method=none"
[[ ${1:-True} == True ]] && arguments="${arguments%none}${METHOD:-dart},reduction_ratio=${2:?give the ratio, e.g. 0.778}"
exec python -m lmms_eval --model llava_dart --model_args "$arguments" --tasks "${TASKS:-pope}" "${@:3}"
