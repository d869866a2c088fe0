#!/usr/bin/env bash
# VQAv2 test-dev, writes the upload for the EvalAI server (vqav2_val is scored here), with MiniCPM-V 2.6: vqav2.sh RATIO MAX_NUM [--options], e.g. 0.778 128
# CKPT= checkpoint, e.g. openbmb/MiniCPM-V-2_6 (default: embedded), METHOD= dart (default) or another, none for no pruning. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" vqav2 "$@"
