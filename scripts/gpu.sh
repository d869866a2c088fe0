#!/usr/bin/env bash
# All that wants a GPU, in one command that fits ten minutes and may be repeated: gpu.sh [FOLDER=results/gpu]
# Surgery invariants on CUDA (sdpa; flash_attention_2 where installed), prefill of a LLaVA-NeXT-7B shape under every
# method, and llava-nano's training, continued from its checkpoint in FOLDER (TRAIN_MINUTES, default 5).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out="${1:-results/gpu}"; mkdir -p "$out"; failed=0
python -c "import torch, sys; sys.exit(not torch.cuda.is_available())" || { echo "This Python has no torch with a CUDA device: nothing to do here." >&2; exit 2; }
python -m pytest -q tests/model/test_gpu.py --junitxml "$out/invariants.xml" || failed=1
for kernel in sdpa flash_attention_2; do
    [ $kernel = sdpa ] || python -c "import flash_attn" 2>/dev/null || continue
    python -m llava.bench prefill --shape llava-next-7b --tokens 2880 --keep 320 --methods all --device cuda \
        --attn-implementation $kernel --output "$out/prefill-next-7b-$kernel.json" || failed=1
done
train=(python -m llava.train run --workers 8 --minutes "${TRAIN_MINUTES:-5}")
if "${train[@]}" --folder "$out/train-nano" --output "$out/llava-nano"; then
    [ ! -f "$out/llava-nano/model.safetensors" ] || [ -d "$out/grown" ] ||
        python -m llava.train grow --checkpoint "$out/train-nano" --output "$out/grown" || failed=1
    [ ! -d "$out/grown" ] || "${train[@]}" --start "$out/grown" --curriculum wide --folder "$out/train-wide" \
        --output "$out/llava-nano-wide" || failed=1
else
    failed=1
fi
exit $failed
