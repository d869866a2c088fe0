#!/usr/bin/env bash
# MSVD-QA, zero-shot, with Video-LLaVA; local metrics (GPT-judged: python -m llava.eval judge --help): msvd.sh RATIO MAX_NUM [--options], e.g. 0.5
# CKPT= checkpoint, e.g. LanguageBind/Video-LLaVA-7B-hf, METHOD= dart (default) or another, none for no pruning. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" msvd_qa "$@"
