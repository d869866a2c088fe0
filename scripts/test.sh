#!/usr/bin/env bash
# Lint, check types and test; fails if any does. Arguments go to pytest. Example: bash scripts/test.sh tests/reduction
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SETUP_EXTRAS="dev eval video report web"
. scripts/setup.sh
failed=0
python -m ruff check . || failed=$?
python -m mypy || failed=$?
python -m pytest "$@"
exit "$failed"
