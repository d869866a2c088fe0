#!/usr/bin/env bash
# SEED-Bench, accuracy on images and video frames, and the upload, with LLaVA-NeXT (1.6): seed.sh RATIO MAX_NUM [--options]; the released NeXT rule ignores both and keeps 320
# CKPT= checkpoint, e.g. liuhaotian/llava-v1.6-vicuna-7b (default: embedded), METHOD= dart (default) or another, none for no pruning. All options: python -m llava.eval --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../evaluate.sh" seed_bench "$@"
