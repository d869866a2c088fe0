#!/usr/bin/env bash
# MME, perception + cognition, with MiniCPM-V 2.6: mme.sh RATIO MAX_NUM [--options], e.g. 0.778 128; the rule looks at the ratio only
# CKPT= checkpoint, e.g. openbmb/MiniCPM-V-2_6 (default: embedded), METHOD= dart (default), random, none. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../evaluate.sh" mme "$@"
