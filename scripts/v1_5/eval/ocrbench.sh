#!/usr/bin/env bash
# OCRBench, points of 1000, with LLaVA-1.5: ocrbench.sh RATIO MAX_NUM [--options], e.g. 0.778 128
# CKPT= checkpoint (default: embedded), METHOD= dart (default) or another, none for no pruning. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../evaluate.sh" ocrbench "$@"
