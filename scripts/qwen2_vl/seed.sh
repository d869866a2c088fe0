#!/usr/bin/env bash
# SEED-Bench, accuracy on images and video frames, and the upload, with Qwen2-VL: seed.sh RATIO MAX_NUM [--options]; the released rule looks at the ratio only
# CKPT= checkpoint, e.g. Qwen/Qwen2-VL-7B-Instruct (default: embedded), METHOD= dart (default) or another, none for no pruning. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" seed_bench "$@"
