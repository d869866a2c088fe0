#!/usr/bin/env bash
# MM-Vet, writes the result file for the GPT-4 grader, with MiniCPM-V 2.6: mmvet.sh RATIO MAX_NUM [--options], e.g. 0.778 128
# CKPT= checkpoint, e.g. openbmb/MiniCPM-V-2_6 (default: embedded), METHOD= dart (default) or another, none for no pruning. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" mm_vet "$@"
