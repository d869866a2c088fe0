#!/usr/bin/env bash
# Builds the source archive and, from it, the wheel into dist/, installs the wheel into an empty environment and uses it
# from an empty folder: python, llava-chat, llava-eval, llava-web. Some minutes, mostly for installing torch.
#   WHEEL_ENV=PATH   the environment (default: a new one, removed at the end)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root="$PWD" work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
environment="${WHEEL_ENV:-$work/environment}"
say() { printf 'wheel_test: %s\n' "$*" >&2; }

python3 -m venv "$work/builder"
"$work/builder/bin/python" -m pip install --quiet --disable-pip-version-check build
rm -rf dist
"$work/builder/bin/python" -m build --outdir dist . >"$work/build.log" 2>&1 || { tail -n 20 "$work/build.log" >&2; exit 1; }
say "built: $(cd dist && du -h --apparent-size ./*.whl ./*.tar.gz | tr '\n\t' '  ')"

[ -x "$environment/bin/python" ] || python3 -m venv "$environment"
say "installing the wheel into $environment ..."
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt dist/*.whl
"$environment/bin/python" -m pip check || say "pip check finds the above (a CPU build of torch may leave such lines)"

mkdir "$work/elsewhere" && cd "$work/elsewhere"
PATH="$environment/bin:$PATH"
unset PYTHONPATH
python - <<'PY'
import sys
from pathlib import Path

import llava
from PIL import Image

home = Path(llava.__file__).parent
assert "site-packages" in home.parts, home
assert (home / "py.typed").is_file()
model, processor = llava.load()
inputs = processor([processor.prompt("Is there a red circle in the image?")], [[Image.new("RGB", (336, 336), "red")]])
with llava.DART(keep=128)(model) as pruning:
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
print(processor.decode(output[:, inputs["input_ids"].shape[1] :])[0], "|", pruning.last.line())
sizes = {
    folder.name: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc") / 1e6
    for folder in (home, home / "assets", home.parent)
}
print("wheel_test: installed: {llava:.1f} MB, the embedded model {assets:.1f} MB of it; with torch and all other packages "
      "{site-packages:.0f} MB".format(**sizes), file=sys.stderr)
PY
for command in llava-chat llava-eval llava-web; do
    "$command" --help >help.txt
    grep -q "usage: " help.txt
    say "$command --help works"
done
if llava-eval pope 2>told.txt; then say "llava-eval found data where there is none"; exit 1; fi
grep -q "Missing data" told.txt
llava-eval pope --data "$root/playground/data/eval/pope/mini" --keep 64 --limit 3 --output results
say "llava-eval answered questions: $(ls results/*.json)"
cp "$root"/playground/data/eval/textvqa/mini/train_images/00b71993652b176b.jpg picture.jpg
answer="$(llava-chat --image-file picture.jpg -p "What is written on the sign?" --max-new-tokens 6)"
test -n "$answer"
say "llava-chat answered: $answer"
say "done: $root/dist"
