#!/usr/bin/env bash
# Builds the documentation into site/: open site/index.html, or with its search: python -m http.server -d site.
# Arguments go to mkdocs build. Once installed it needs no network, nor do the pages.
#   DOCS_ENV=PATH   the environment (default .venv-docs at the repository root; made if absent, 100 MB: it reads the
#                   sources and needs neither torch nor this package installed)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
environment="${DOCS_ENV:-$PWD/.venv-docs}"
python="$environment/bin/python"
sum="$(cat pyproject.toml constraints.txt | cksum)"
if [ "$(cat "$environment/.docs-installed" 2>/dev/null)" != "$sum" ]; then
    "$python" -m pip --version >/dev/null 2>&1 || python3 -m venv "$environment"
    printf 'docs: installing MkDocs into %s ...\n' "$environment" >&2
    "$python" - <<'PY' >"$environment/docs.txt"
import pathlib, re
print(*re.findall(r'"([^"]+)"', re.search(r"^docs = \[(.*)\]", pathlib.Path("pyproject.toml").read_text(), re.M)[1]), sep="\n")
PY
    "$python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt -r "$environment/docs.txt"
    echo "$sum" >"$environment/.docs-installed"
fi
export NO_MKDOCS_2_WARNING=1    # an advertisement for MkDocs' successors
"$python" -m mkdocs build --strict --quiet --config-file scripts/docs/mkdocs.yml "$@"
printf 'docs: built, open site/index.html\n' >&2
