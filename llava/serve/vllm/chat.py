"""A conversation template as the Jinja text that vLLM's `--chat-template` takes, for checkpoints that bring none."""

from __future__ import annotations

import json

from llava.model.conversation import Template


def chat_template(template: Template) -> str:
    """Return a template that renders chat messages as this package renders turns, one line of Jinja.

    Images stand before the text of their message, as vLLM puts them there. A system message takes the place of the
    template's own opening words.
    """
    opening, question, answer = template.opening, template.question, template.answer
    end = opening[len(opening.rstrip()) :]
    user = f"{{{{ {_text(question[0])} + message['content'] + {_text(question[1])} }}}}"
    assistant = f"{{{{ {_text(answer[0])} + message['content'] + {_text(answer[1])} }}}}"
    return (
        "{{ bos_token }}"
        "{% if messages[0]['role'] == 'system' %}"
        f"{{{{ messages[0]['content'] + {_text(end)} }}}}"
        f"{{% else %}}{{{{ {_text(opening)} }}}}{{% endif %}}"
        "{% for message in messages %}"
        f"{{% if message['role'] == 'user' %}}{user}"
        f"{{% elif message['role'] == 'assistant' %}}{assistant}{{% endif %}}"
        "{% endfor %}"
    )


def _text(text: str) -> str:
    """A string literal of Jinja, which has Python's."""
    return json.dumps(text, ensure_ascii=False)
