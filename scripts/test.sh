#!/usr/bin/env bash
# Lint and test. Arguments go to pytest. Example: bash scripts/test.sh tests/reduction -k golden
set -euo pipefail
SETUP_EXTRAS="dev"
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python -m ruff check .
exec python -m pytest "$@"
