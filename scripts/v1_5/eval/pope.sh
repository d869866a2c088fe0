#!/usr/bin/env bash
# POPE (mean F1 of three splits) with LLaVA-1.5: pope.sh RATIO MAX_NUM [--options], e.g. 0.778 128
# CKPT= checkpoint (default: embedded), METHOD= dart (default), random, none. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../evaluate.sh" pope "$@"
