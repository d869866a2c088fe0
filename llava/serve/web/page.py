"""The page: what is on it and where; what happens when something is pressed stands in `handlers`."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from llava.serve.web import cards
from llava.serve.web.demo import Demo
from llava.serve.web.examples import Example
from llava.serve.web.handlers import Card, Handlers, Parts
from llava.serve.web.media import IMAGE, MB, VIDEO
from llava.serve.web.settings import Choice, Setting

STATIC = Path(__file__).parent / "static"
TITLE = "Which visual tokens count?"
HOUR = 3600  # seconds after which uploads and conversations are forgotten
NO_METHOD = ("no method", "")
HINT = (
    '<p class="hint">A budget is a count (64), a fraction (0.11) or <code>preset 64</code>. Options are the method\'s '
    "own, with spaces between, e.g. <code>layer=3 pivots_visual=8</code>; <code>python -m llava.methods</code> lists "
    "them. <code>visionzip+dart</code> is one method after another.</p>"
)


def build(demo: Demo, examples: Mapping[str, Example], defaults: Setting, shared: Sequence[str] = ()) -> gr.Blocks:
    """Return the page.

    Args:
        demo: the model behind it.
        examples: images and videos to pick from, by name.
        defaults: what is filled in at first.
        shared: words of the command line that say which model runs here.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(HOUR, HOUR)) as page:
        gr.HTML(_static("header.html"))
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="controls", scale=0, min_width=300):
                tabs, kind, boxes, gallery = _media(demo, examples, defaults.example)
                question = gr.Textbox(
                    defaults.question,
                    label="Question",
                    lines=2,
                    max_lines=4,
                    max_length=demo.limits.question,
                    elem_id="question",
                )
                methods, budgets, options = _methods(demo, defaults)
                with gr.Row(elem_id="buttons"):
                    ask = gr.Button("Ask", variant="primary", elem_id="ask", min_width=90)
                    stop = gr.Button("Stop", elem_id="stop", min_width=60)
                    new = gr.Button("Start anew", elem_id="new", min_width=90)
            with gr.Column(elem_id="results", scale=1, min_width=300):
                place = gr.HTML("", elem_id="place")  # Gradio writes the place in the queue over it
                message = gr.HTML("", elem_id="message")
                empty = gr.HTML(_static("empty.html"), elem_id="empty")
                layers = gr.HTML(cards.layers(demo.n_layers), elem_id="layers", visible=False)
                with gr.Row(elem_id="cards"):
                    columns = [_card() for _ in range(demo.limits.methods + 1)]
                reproduce = gr.HTML("", elem_id="reproduce")
        held = examples[defaults.example].kind
        own = {name: gr.State(defaults.example if name == held else "") for name in (IMAGE, VIDEO)}
        parts = Parts(
            tabs=tabs,
            kind=kind,
            image=boxes[IMAGE],
            video=boxes[VIDEO],
            image_example=own[IMAGE],
            video_example=own[VIDEO],
            question=question,
            methods=methods,
            budgets=budgets,
            options=options,
            talk=gr.State(None, time_to_live=HOUR),
            message=message,
            layers=layers,
            reproduce=reproduce,
            empty=empty,
            cards=columns,
        )
        handlers = Handlers(demo, examples, defaults, shared, parts)
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        running = gr.on(
            [ask.click, question.submit],
            handlers.ask,
            parts.typed,
            parts.results,
            trigger_mode="once",
            concurrency_limit=1,
            show_progress="full",
            show_progress_on=place,
            api_visibility="private",
        )
        # What computes nothing does not wait behind questions, and works when the queue is full.
        quiet["queue"] = False
        stop.click(handlers.stop, parts.talk, parts.results, cancels=[running], **quiet)
        new.click(handlers.clear, parts.talk, parts.results, cancels=[running], **quiet)
        gallery.click(handlers.pick, gallery, parts.picked, **quiet)
        for name, box in boxes.items():
            gr.on([box.upload, box.clear], lambda: "", None, own[name], **quiet)
        page.load(handlers.fill, None, parts.filled, **quiet)
    return page


def looks() -> dict[str, Any]:
    """Return the arguments of `launch` that give the page its theme, styles and script; all of them local."""
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return {"theme": theme, "css": _static("page.css"), "head": f"<script>{_static('page.js')}</script>"}


def _media(demo: Demo, examples: Mapping[str, Example], chosen: str) -> tuple[Any, Any, dict[str, Any], Any]:
    """Tabs with the boxes for an image and a video, which of them is open, and the examples."""
    first, limits = examples[chosen].kind, demo.limits
    start = {kind: str(examples[chosen].file) if kind == first else None for kind in (IMAGE, VIDEO)}
    kind = gr.Textbox(first, visible=False, elem_id="kind")
    with gr.Tabs(selected=first, elem_id="media") as tabs:
        with gr.Tab("Image", id=IMAGE) as image_tab:
            image = _path_image()(
                start[IMAGE],
                type="filepath",
                format="png",
                sources=["upload", "clipboard"],
                label="Image",
                height=230,
                buttons=[],
                elem_id="image",
            )
        with gr.Tab("Video", id=VIDEO, visible=VIDEO in demo.kinds) as video_tab:
            video = gr.Video(
                start[VIDEO],
                sources=["upload"],
                label="Video",
                height=230,
                buttons=[],
                loop=True,
                elem_id="video",
            )
            size, length = limits.video_bytes / MB, limits.video_seconds
            gr.HTML(f'<p class="hint">Up to {length:.0f} s and {size:.0f} MB: MP4, WebM, MOV, AVI, GIF.</p>')
    for name, tab in ((IMAGE, image_tab), (VIDEO, video_tab)):
        tab.select(None, None, kind, js=f"() => {name!r}", show_progress="hidden", api_visibility="private")
    gallery = gr.Dataset(
        components=[gr.Image(visible=False, type="filepath", render=False)],
        samples=[[str(example.picture)] for example in examples.values()],
        label="Examples",
        type="index",
        elem_id="examples",
    )
    return tabs, kind, {IMAGE: image, VIDEO: video}, gallery


def _path_image() -> Any:
    """Return Gradio's image box, which here hands on the path of an upload as it is.

    Gradio's own opens and converts the file before `Demo.open_upload` can look at its size, and is rude about files
    that are no images. Made without its metaclass, which would write a stub file beside this one.
    """
    attributes = {"is_template": True, "preprocess": lambda self, uploaded: uploaded and uploaded.path}
    return ABCMeta.__new__(type(gr.Image), "PathImage", (gr.Image,), {**attributes, "__module__": __name__})


def _methods(demo: Demo, defaults: Setting) -> tuple[list[Any], list[Any], list[Any]]:
    """Boxes for methods, budgets and options."""
    names = [NO_METHOD, *((name, name) for name in demo.methods())]
    choices = [*defaults.choices, *[Choice("")] * demo.limits.methods][: demo.limits.methods]
    methods, budgets = [], []
    gr.HTML('<div class="pair-head"><span>Methods to compare</span><span>Tokens kept</span></div>')
    for number, choice in enumerate(choices, 1):
        with gr.Row(elem_classes="pair"):
            methods.append(
                gr.Dropdown(
                    names,
                    value=choice.method,
                    label=f"Method {number}",
                    show_label=False,
                    container=False,
                    allow_custom_value=True,
                    scale=3,
                    min_width=120,
                    elem_id=f"method-{number}",
                )
            )
            budgets.append(
                gr.Textbox(
                    choice.budget,
                    label=f"Tokens kept by method {number}",
                    show_label=False,
                    container=False,
                    placeholder="default",
                    max_lines=1,
                    scale=1,
                    min_width=70,
                    elem_id=f"budget-{number}",
                )
            )
    with gr.Accordion("More options", open=False):
        gr.HTML(HINT)
        options = [
            gr.Textbox(
                choice.options,
                label=f"Options of method {number}",
                max_lines=1,
                max_length=demo.limits.options,
                elem_id=f"options-{number}",
            )
            for number, choice in enumerate(choices, 1)
        ]
    return methods, budgets, options


def _card() -> Card:
    with gr.Column(elem_classes="card", visible=False, min_width=200) as box:
        return Card(box, gr.HTML(), gr.HTML())


def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")
