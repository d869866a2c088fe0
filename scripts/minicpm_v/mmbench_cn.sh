#!/usr/bin/env bash
# MMBench dev (Chinese), circular accuracy, and the Excel upload, with MiniCPM-V 2.6: mmbench_cn.sh RATIO MAX_NUM [--options], e.g. 0.778 128
# CKPT= checkpoint, e.g. openbmb/MiniCPM-V-2_6 (default: embedded), METHOD= dart (default) or another, none for no pruning. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" mmbench_cn "$@"
