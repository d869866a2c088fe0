#!/usr/bin/env bash
# VizWiz test, writes the upload for the EvalAI server (vizwiz_val is scored here), with LLaVA-1.5: vizwiz.sh RATIO MAX_NUM [--options], e.g. 0.778 128
# CKPT= checkpoint (default: embedded), METHOD= dart (default) or another, none for no pruning. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../evaluate.sh" vizwiz "$@"
