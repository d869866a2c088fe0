#!/usr/bin/env bash
# TextVQA, soft accuracy, with LLaVA-1.5: textvqa.sh RATIO MAX_NUM [--options], e.g. 0.778 128
# CKPT= checkpoint (default: embedded), METHOD= dart (default), random, none. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../evaluate.sh" textvqa "$@"
