#!/usr/bin/env bash
# Lint and test; fails if either does. Arguments go to pytest. Example: bash scripts/test.sh tests/reduction -k golden
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SETUP_EXTRAS="dev eval video report"
. scripts/setup.sh
lint=0
python -m ruff check . || lint=$?
python -m pytest "$@"
exit "$lint"
