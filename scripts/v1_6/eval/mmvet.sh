#!/usr/bin/env bash
# MM-Vet, writes the result file for the GPT-4 grader, with LLaVA-NeXT (1.6): mmvet.sh RATIO MAX_NUM [--options]; the released NeXT rule ignores both and keeps 320
# CKPT= checkpoint, e.g. liuhaotian/llava-v1.6-vicuna-7b (default: embedded), METHOD= dart (default) or another, none for no pruning. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../evaluate.sh" mm_vet "$@"
