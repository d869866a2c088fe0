"""Conversation templates: how turns become the one string a model was trained on."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from llava.errors import BadInput

IMAGE_MARKER, VIDEO_MARKER = "<image>", "<video>"

Turn = tuple[str, str | None]


@dataclass(frozen=True)
class Template:
    """How one family of language models marks who speaks.

    Args:
        name: what `--conv-mode` calls it.
        opening: stands before the first turn.
        question: what stands before and after each user message.
        answer: what stands before and after each answer.
        stop: the text of the token that ends an answer.
        user, assistant: names of the speakers, for a screen.
    """

    name: str
    opening: str
    question: tuple[str, str]
    answer: tuple[str, str]
    stop: str
    user: str = "USER"
    assistant: str = "ASSISTANT"

    def render(self, turns: Sequence[Turn]) -> str:
        """Return the text of a conversation; an answer of None leaves the prompt open for the model to continue."""
        parts = [self.opening]
        for question, answer in turns:
            parts += [self.question[0], question, self.question[1]]
            if answer is not None:
                parts += [self.answer[0], answer, self.answer[1]]
        return "".join(parts)


VICUNA_V1 = Template(
    name="vicuna_v1",
    opening=(
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
    ),
    question=("USER: ", " ASSISTANT:"),
    answer=(" ", "</s>"),
    stop="</s>",
)
"""LLaVA-1.5 and LLaVA-NeXT on Vicuna (official code, `conv_vicuna_v1`)."""

MISTRAL_INSTRUCT = Template(
    name="mistral_instruct",
    opening="",
    question=("[INST] ", " [/INST]"),
    answer=(" ", " </s>"),
    stop="</s>",
)
"""LLaVA-NeXT on Mistral (official code, `conv_mistral_instruct`)."""

LLAVA_LLAMA_3 = Template(
    name="llava_llama_3",
    opening=(
        "<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision assistant. "
        "You are able to understand the visual content that the user provides, "
        "and assist the user with a variety of tasks using natural language.<|eot_id|>"
    ),
    question=(
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    answer=("", "<|eot_id|>"),
    stop="<|eot_id|>",
)
"""LLaVA-NeXT on Llama 3 (official code, `conv_llava_llama_3`, through Llama 3's chat template)."""

CHATML_DIRECT = Template(
    name="chatml_direct",
    opening="<|im_start|>system\nAnswer the questions.<|im_end|>",
    question=("<|im_start|>user\n", "<|im_end|><|im_start|>assistant\n"),
    answer=("", "<|im_end|>"),
    stop="<|im_end|>",
)
"""LLaVA-NeXT on Yi 34B (official code, `conv_chatml_direct`)."""

LLAVA_V1 = Template(
    name="llava_v1",
    opening=(
        "A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions. "
    ),
    question=("USER: ", " ASSISTANT:"),
    answer=(" ", "</s>"),
    stop="</s>",
)
"""Video-LLaVA (official code, `conv_llava_v1`)."""

CHATML = Template(
    name="chatml",
    opening="",
    question=("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    answer=("", "<|im_end|>\n"),
    stop="<|im_end|>",
    user="user",
    assistant="assistant",
)
"""ChatML without a system turn; families give it their name."""

QWEN3_VL = replace(CHATML, name="qwen3_vl")
"""Qwen3-VL (its chat template): ChatML without a system turn."""

QWEN2_VL = replace(QWEN3_VL, name="qwen2_vl", opening="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
"""Qwen2-VL and Qwen2.5-VL (their chat template): ChatML with the default system turn."""

TEMPLATES = {
    template.name: template
    for template in (VICUNA_V1, LLAVA_V1, MISTRAL_INSTRUCT, LLAVA_LLAMA_3, CHATML_DIRECT, QWEN2_VL, QWEN3_VL)
}


def template_of(vocabulary: Container[str], decoder: str) -> Template:
    """Return LLaVA's template for a language model.

    Args:
        vocabulary: the tokenizer's tokens: some templates are known by their own tokens.
        decoder: `model_type` of the text model.
    """
    for known, token in ((LLAVA_LLAMA_3, "<|start_header_id|>"), (CHATML_DIRECT, "<|im_start|>")):
        if token in vocabulary:
            return known
    return MISTRAL_INSTRUCT if decoder == "mistral" else VICUNA_V1


def template(name: str) -> Template:
    """Return the template of that name.

    Raises:
        BadInput: unknown name; the message lists the known ones.
    """
    if name not in TEMPLATES:
        raise BadInput(f"Unknown conversation mode '{name}'. Known: {', '.join(sorted(TEMPLATES))}.")
    return TEMPLATES[name]


def mark_images(turns: Sequence[Turn], n_images: int, end: str = "\n") -> list[Turn]:
    """Return the turns with one image marker per image, as LLaVA puts them: each on its own line before the first text.

    Markers that the texts already hold are left where the user put them.

    Args:
        end: what stands after each marker.

    Raises:
        BadInput: the texts hold some markers, but not as many as there are images.
    """
    return _marked(turns, n_images, IMAGE_MARKER, "images", end)


def mark_videos(turns: Sequence[Turn], n_videos: int, end: str = "\n") -> list[Turn]:
    """Return the turns with one video marker per video, in the same way as `mark_images`.

    Raises:
        BadInput: the texts hold some markers, but not as many as there are videos. Without videos, `<video>` is text.
    """
    return _marked(turns, n_videos, VIDEO_MARKER, "videos", end) if n_videos else list(turns)


def _marked(turns: Sequence[Turn], n_given: int, marker: str, what: str, end: str) -> list[Turn]:
    marked = sum(question.count(marker) for question, _ in turns)
    if marked == n_given:
        return list(turns)
    if marked:
        raise BadInput(
            f"The text has {marked} {marker} markers but there are {n_given} {what}: "
            f"write one {marker} for each of them, or none at all to have them put first."
        )
    (question, answer), *rest = turns
    return [(f"{marker}{end}" * n_given + question, answer), *rest]
