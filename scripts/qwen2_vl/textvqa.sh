#!/usr/bin/env bash
# TextVQA, soft accuracy, with Qwen2-VL: textvqa.sh RATIO MAX_NUM [--options], e.g. 0.778; the released rule looks at the ratio only
# CKPT= checkpoint, e.g. Qwen/Qwen2-VL-7B-Instruct, METHOD= dart (default) or another; --max-pixels 2408448 as in the released runs
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" textvqa "$@"
