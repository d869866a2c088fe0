#!/usr/bin/env bash
# All that wants a GPU, in one command that fits ten minutes and may be repeated: gpu.sh [FOLDER=results/gpu]
# Surgery invariants on CUDA (sdpa; flash_attention_2 where installed), 7B-shape prefill timing, llava-nano's training continued.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out="${1:-results/gpu}"; mkdir -p "$out"; failed=0
python -c "import torch, sys; sys.exit(not torch.cuda.is_available())" || { echo "No CUDA device: nothing to do here." >&2; exit 2; }
python -m pytest -q tests/model/test_gpu.py --junitxml "$out/invariants.xml" || failed=1
for kernel in sdpa flash_attention_2; do
    [ $kernel = sdpa ] || python -c "import flash_attn" 2>/dev/null || continue
    python -m llava.bench prefill --shape llava-1.5-7b --tokens 2880 --keep 320 --device cuda \
        --attn-implementation $kernel --output "$out/prefill-7b-$kernel.json" || failed=1
done
python -m llava.train run --folder "$out/train-nano" --output "$out/llava-nano" --workers 8 --minutes "${TRAIN_MINUTES:-6}" || failed=1
exit $failed
