#!/usr/bin/env bash
# MME, perception + cognition, with LLaVA-NeXT (1.6): mme.sh RATIO MAX_NUM [--options]; the released NeXT rule ignores both and keeps 320
# CKPT= checkpoint, e.g. liuhaotian/llava-v1.6-vicuna-7b (default: embedded), METHOD= dart (default), random, none. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../evaluate.sh" mme "$@"
