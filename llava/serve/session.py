"""One conversation with a pruned model, independent of any screen: history, images, videos, streaming, timings."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import TextStreamer

from llava.errors import BadInput, LlavaError
from llava.model.conversation import IMAGE_MARKER, VIDEO_MARKER, Turn
from llava.model.images import load_image


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Args:
        temperature: 0 takes the most likely token; above, tokens are drawn.
        top_p: draw from the most likely tokens that have this much probability together; None draws from all.
        num_beams: width of beam search; 1 is none.
        max_new_tokens: longest answer.
    """

    temperature: float = 0.0
    top_p: float | None = None
    num_beams: int = 1
    max_new_tokens: int = 512

    def arguments(self) -> dict[str, Any]:
        """Return keyword arguments of `generate()`; what a checkpoint's own generation config says is overridden."""
        draws = self.temperature > 0
        return {
            "do_sample": draws,
            "temperature": self.temperature if draws else None,
            "top_p": self.top_p if draws else None,
            "top_k": None,
            "num_beams": self.num_beams,
            "max_new_tokens": self.max_new_tokens,
        }


@dataclass(frozen=True)
class Answer:
    """What came back.

    Args:
        text: the answer, stripped.
        prompt: full text given to the model.
        n_tokens: generated tokens, the end-of-sequence token included.
        first_token_seconds: from the question to the first token; None with beams, where no token is final early.
        seconds: from the question to the last token.
    """

    text: str
    prompt: str
    n_tokens: int
    first_token_seconds: float | None
    seconds: float

    def line(self) -> str:
        """Return the timings in words."""
        first = f"first token {_short_time(self.first_token_seconds)}, " if self.first_token_seconds is not None else ""
        return f"{first}{self.n_tokens} tokens in {_short_time(self.seconds)}"


class Interrupted(LlavaError):
    """The answer was given up before its end, because nobody wants it any more."""


class Conversation:
    """Turns, images and videos so far; `ask` answers the next question with the whole history in the prompt.

    What is computed of the images is computed once, if the model is pruned with a store (`Pruning(..., reuse=Reuse())`;
    the method may be `NoReduction`): later turns find them by content and compute their words only.

    Args:
        model, processor: as `llava.load` returns them, the model pruned or not.
        sampling: how tokens are chosen.
    """

    def __init__(self, model: Any, processor: Any, sampling: Sampling | None = None):
        self.model = model
        self.processor = processor
        self.sampling = sampling or Sampling()
        self.turns: list[Turn] = []
        self.images: list[Image.Image] = []
        self.videos: list[Any] = []
        self._new_images, self._new_videos = 0, 0

    def add_image(self, source: str | Path | Image.Image) -> None:
        """Show one more image with the next question.

        Raises:
            BadInput: it cannot be opened.
        """
        self.images.append(load_image(source))
        self._new_images += 1

    def add_video(self, source: Any) -> None:
        """Show one more video with the next question; its frames are decoded at once.

        Raises:
            BadInput: it cannot be decoded, or the model takes no videos.
        """
        self.videos.append(self.processor.open_video(source))
        self._new_videos += 1

    def clear(self) -> None:
        """Forget all turns, images and videos."""
        self.turns, self.images, self.videos = [], [], []
        self._new_images, self._new_videos = 0, 0

    def ask(
        self,
        question: str,
        on_text: Callable[[str], None] | None = None,
        wanted: Callable[[], bool] | None = None,
    ) -> Answer:
        """Answer the next question and add it to the history; on an error the history stays as it was.

        Args:
            question: its text.
            on_text: called with each finished piece of the answer (not with beams).
            wanted: asked before the prefill and after every token (not with beams) whether to go on.

        Raises:
            Interrupted: `wanted` said no.
            BadInput: the question holds an image marker of its own, or the conversation has become too long.
            LlavaError: the device ran out of memory.
        """
        if IMAGE_MARKER in question:
            raise BadInput(f"A question cannot contain {IMAGE_MARKER}: add images with --image-file or /image.")
        if self.videos and VIDEO_MARKER in question:
            raise BadInput(f"A question cannot contain {VIDEO_MARKER}: add videos with --video-file or /video.")
        started = time.perf_counter()
        end = self.processor.marker_end
        marked = f"{IMAGE_MARKER}{end}" * self._new_images + f"{VIDEO_MARKER}{end}" * self._new_videos + question
        prompt = self.processor.prompt([*self.turns, (marked, None)], len(self.images), len(self.videos))
        inputs = self.processor([prompt], [self.images], [self.videos])
        length = inputs["input_ids"].shape[1]
        self._check_length(length)
        streamer = _Streamer(self.processor.tokenizer, on_text, wanted) if self.sampling.num_beams == 1 else None
        try:
            with torch.inference_mode():
                output = self.model.generate(**inputs, **self.sampling.arguments(), streamer=streamer)
        except torch.OutOfMemoryError as error:
            raise LlavaError(
                f"The device has not enough memory for {length} prompt tokens: start anew (/clear) or use fewer images."
            ) from error
        new_ids = output[:, length:]
        seconds = time.perf_counter() - started
        text = self.processor.decode(new_ids)[0]
        self.turns.append((marked, text))
        self._new_images, self._new_videos = 0, 0
        first = streamer.first_token_at - started if streamer and streamer.first_token_at else None
        return Answer(text, prompt, new_ids.shape[1], first, seconds)

    def _check_length(self, length: int) -> None:
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and length + self.sampling.max_new_tokens > limit:
            raise BadInput(
                f"The conversation has {length} tokens and the answer may have {self.sampling.max_new_tokens}, but the "
                f"model has {limit} positions: start anew (/clear), use fewer images or a smaller --max-new-tokens."
            )


class _Streamer(TextStreamer):
    """Hands finished text to a function, notes when the first token came, and ends what is no longer wanted."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None] | None, wanted: Callable[[], bool] | None = None):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.on_text, self.wanted = on_text, wanted
        self.first_token_at: float | None = None
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if self.wanted is not None and not self.wanted():
            raise Interrupted("The answer was given up before its end.")
        if self._prompt_seen and self.first_token_at is None:
            self.first_token_at = time.perf_counter()
        self._prompt_seen = True
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if self.on_text is not None and text:
            self.on_text(text)


def _short_time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
