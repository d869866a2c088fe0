#!/usr/bin/env bash
# POPE (mean F1 of three splits) with the image side of Video-LLaVA: pope.sh RATIO MAX_NUM [--options], e.g. 0.5 128
# CKPT= checkpoint, e.g. LanguageBind/Video-LLaVA-7B-hf, METHOD= dart (default) or another. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" pope "$@"
