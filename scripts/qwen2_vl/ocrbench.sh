#!/usr/bin/env bash
# OCRBench, points of 1000, with Qwen2-VL: ocrbench.sh RATIO MAX_NUM [--options]; the released rule looks at the ratio only
# CKPT= checkpoint, e.g. Qwen/Qwen2-VL-7B-Instruct (default: embedded), METHOD= dart (default) or another, none for no pruning. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" ocrbench "$@"
