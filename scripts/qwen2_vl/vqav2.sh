#!/usr/bin/env bash
# VQAv2 test-dev, writes the upload for the EvalAI server (vqav2_val is scored here), with Qwen2-VL: vqav2.sh RATIO MAX_NUM [--options]; the released rule looks at the ratio only
# CKPT= checkpoint, e.g. Qwen/Qwen2-VL-7B-Instruct (default: embedded), METHOD= dart (default) or another, none for no pruning. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" vqav2 "$@"
