#!/usr/bin/env bash
# evaluate.sh BENCHMARK [RATIO [MAX_NUM]] [--options]: one benchmark with the released arguments, next to the unpruned run.
# CKPT= checkpoint (default: the embedded model), METHOD= dart (default), random or none. Used by scripts/*/eval/*.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
words=("$1" --compare --method "${METHOD:-dart}" ${CKPT:+--model-path "$CKPT"}); shift
for option in --reduction-ratio --max-num-tokens; do
    [[ $# -gt 0 && $1 != -[-a-zA-Z]* ]] && { words+=("$option=$1"); shift; }
done
exec python -m llava.eval "${words[@]}" "$@"
