#!/usr/bin/env bash
# All that wants a GPU, in parts that fit ten minutes each and may be repeated: gpu.sh [FOLDER=results/gpu] [PART...]
# check:   surgery invariants on CUDA (sdpa; flash_attention_2 where installed).
# measure: LLaVA-NeXT-7B shape: prefill under every method, parts, decoding, memory; LLaVA-1.5-7B shape: sweep over
#          lengths and batch sizes (an interrupted sweep is continued). Kernels: sdpa, eager, flash_attention_2.
# pipeline: whole questions of the same shape, 18 about one image, as released against as here, compiled path included.
# train:   llava-nano's training, continued from its checkpoint in FOLDER (TRAIN_MINUTES for each stage, default 4).
# Without PART: all of them, one after the other. Measurements that are there and complete are not made again.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out="${1:-results/gpu}"; shift || true
for part in "$@"; do
    case $part in check | measure | pipeline | train) ;; *) echo "Unknown part '$part': check, measure, pipeline or train." >&2; exit 2 ;; esac
done
python -c "import torch, sys; sys.exit(not torch.cuda.is_available())" || { echo "This Python has no torch with a CUDA device: nothing to do here." >&2; exit 2; }
mkdir -p "$out"; failed=0
kernels="sdpa eager"; python -c "import flash_attn" 2>/dev/null && kernels="$kernels flash_attention_2"
next=(--shape llava-next-7b --tokens 2880 --keep 320 --device cuda)
some=dart,random,fastv,visionzip,divprune

bench() { # bench NAME COMMAND OPTIONS...: one measurement, one file; a failure does not stop the others
    local file="$out/$1.json"; shift
    if [ "$1" != sweep ] && [ -f "$file" ] && ! grep -q '"complete": false' "$file"; then echo "Measured already: $file"; return; fi
    python -m llava.bench "$@" --output "$file" || failed=1
}

check() { python -m pytest -q tests/model/test_gpu.py --junitxml "$out/invariants.xml" || failed=1; }

measure() {
    bench prefill-next-7b-sdpa prefill "${next[@]}" --methods all --repeats 5 --warmup 1
    bench memory-next-7b memory "${next[@]}" --methods $some
    bench decode-next-7b decode "${next[@]}" --methods $some --new-tokens 64 --repeats 3 --warmup 1
    bench parts-next-7b parts "${next[@]}" --methods $some --repeats 3 --warmup 1
    for kernel in $kernels; do
        [ "$kernel" = sdpa ] ||
            bench "prefill-next-7b-$kernel" prefill "${next[@]}" --methods $some --repeats 3 --attn-implementation "$kernel"
    done
    bench prefill-7b-sdpa prefill --shape llava-1.5-7b --tower clip-l --tokens 576 --keep 64 --methods $some --device cuda
    bench sweep-7b sweep --shape llava-1.5-7b --tokens 576,1024,1600,2304,2880 --keep 320 --batch 1,4,8,16 \
        --methods dart,random --repeats 3 --device cuda
}

pipeline() {
    bench pipeline-next-7b pipeline --shape llava-next-7b --method dart --keep 320 --images 1 --repeats 3 --warmup 2 \
        --device cuda
}

train() {
    local train=(python -m llava.train run --workers 8 --minutes "${TRAIN_MINUTES:-4}")
    if "${train[@]}" --folder "$out/train-nano" --output "$out/llava-nano"; then
        [ ! -f "$out/llava-nano/model.safetensors" ] || [ -d "$out/grown" ] ||
            python -m llava.train grow --checkpoint "$out/train-nano" --output "$out/grown" || failed=1
        [ ! -d "$out/grown" ] || "${train[@]}" --start "$out/grown" --curriculum wide --folder "$out/train-wide" \
            --output "$out/llava-nano-wide" || failed=1
    else
        failed=1
    fi
}

[ $# -gt 0 ] || set -- check measure pipeline train
for part in "$@"; do "$part"; done
exit $failed
