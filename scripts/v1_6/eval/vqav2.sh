#!/usr/bin/env bash
# VQAv2 test-dev, writes the upload for the EvalAI server (vqav2_val is scored here), with LLaVA-NeXT (1.6): vqav2.sh RATIO MAX_NUM [--options]; the released NeXT rule ignores both and keeps 320
# CKPT= checkpoint, e.g. liuhaotian/llava-v1.6-vicuna-7b (default: embedded), METHOD= dart (default) or another, none for no pruning. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../evaluate.sh" vqav2 "$@"
