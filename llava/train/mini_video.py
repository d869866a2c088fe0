"""Mini benchmarks on clips: TGIF-QA, MSVD-QA and MSRVTT-QA in Video-ChatGPT's layout, mp4 files of two seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .mini_scenes import SEED, write_json
from .videos import ACTIONS, RATE, SIDE, Clip, sample_clip

CLIPS = 12
QUALITY = 30  # constant rate factor of x264


def write_clip(clip: Clip, path: Path) -> None:
    """Encode a clip as H.264; needs the package `av`."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=RATE, options={"crf": str(QUALITY), "preset": "slow"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for image in clip.frames():
            file.mux(stream.encode(av.VideoFrame.from_image(image)))
        file.mux(stream.encode())


def _write(folder: Path, videos: str, prefix: str, key: int, seed: int) -> int:
    rng = np.random.default_rng([seed, key])
    questions, answers = [], []
    for number in range(CLIPS):
        clip, name = sample_clip(rng, ACTIONS[number % len(ACTIONS)]), f"{prefix}{number}"
        write_clip(clip, folder / videos / f"{name}.mp4")
        question_id = f"v_{number}_0"
        questions.append({"video_name": name, "question": clip.question, "question_id": question_id})
        answers.append({"answer": clip.answer, "type": ACTIONS.index(clip.action), "question_id": question_id})
    write_json(folder / "test_q.json", questions)
    write_json(folder / "test_a.json", answers)
    return len(questions)


def write_tgif_qa(folder: Path, seed: int = SEED) -> int:
    """Write TGIF-QA; returns the questions' number."""
    return _write(folder, "mp4", "tumblr_", 13, seed)


def write_msvd_qa(folder: Path, seed: int = SEED) -> int:
    """Write MSVD-QA (mp4 files: readers try .mp4 first); returns the questions' number."""
    return _write(folder, "videos", "vid", 14, seed)


def write_msrvtt_qa(folder: Path, seed: int = SEED) -> int:
    """Write MSRVTT-QA; returns the questions' number."""
    return _write(folder, "videos/all", "video", 15, seed)
