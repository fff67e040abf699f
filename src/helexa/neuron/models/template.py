"""What a chat template gives away about its model, read without rendering it.

Only code counts: a name in a comment, in a string or in the text between the tags is not a
variable the template reads. Markers are looked for in everything but comments.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

MARKERS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
    ("<|channel>thought", "<channel|>"),
    ("<reasoning>", "</reasoning>"),
)
SWITCHES = ("enable_thinking", "thinking")
IMAGES = (
    "<|image_pad|>", "<image>", "<|image|>", "[IMG]", "<start_of_image>", "<|image_start|>",
    "<image_soft_token>", "<|vision_start|>", "image_url",
)  # fmt: skip

_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_CODE = re.compile(r"\{%(.*?)%\}|\{\{(.*?)\}\}", re.DOTALL)
_LOOP = re.compile(r"\{%-?\s*for\s+\w+\s+in\s+\w*messages\b")
_REFUSES_SYSTEM = re.compile(r"raise_exception\([^)]*(?:[Ss]ystem|roles)", re.DOTALL)
_ASKS_ROLE = re.compile(r"""role\b['"\]]*\s*(?:==|in\b)""")
_SHOWS_SYSTEM = re.compile(r"""['"]system['"]|\{\{[^}]*(?:\.role\b|\[['"]role['"]\])""")
_TEXT = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)


class TemplateTraits(msgspec.Struct, frozen=True):
    """Capabilities as the template shows them.

    Args:
        tools: It renders the tools of a request.
        markers: Opening and closing marker of reasoning, when both occur.
        switch: The variable that turns thinking on or off.
        images: It has a place for images; whether the model can see is another question.
    """

    tools: bool = False
    markers: tuple[str, str] | None = None
    switch: str | None = None
    images: bool = False


def read_template(source: str) -> TemplateTraits:
    """What ``source`` (Jinja) shows; pure, linear in its length."""
    text = _COMMENT.sub("", source)
    code = " ".join(_TEXT.sub("''", a or b) for a, b in _CODE.findall(text))
    markers = next((m for m in MARKERS if all(part in text for part in m)), None)
    return TemplateTraits(
        tools=_reads(code, "tools"),
        markers=markers,
        switch=next((name for name in SWITCHES if _reads(code, name)), None) if markers else None,
        images=any(mark in text for mark in IMAGES),
    )


@lru_cache(maxsize=64)
def system_first(source: str) -> bool:
    """Whether a template wants one system message, in front: it refuses any other, or would
    leave it out, because its loop over the conversation picks other roles and not that one."""
    text = _COMMENT.sub("", source)
    if _REFUSES_SYSTEM.search(text):
        return True
    loop = _LOOP.search(text)
    if loop is None or not _ASKS_ROLE.search(text, loop.end()):
        return False
    return _SHOWS_SYSTEM.search(text, loop.end()) is None


def _reads(code: str, name: str) -> bool:
    """Whether ``name`` is used as a variable: not an attribute, not a keyword argument."""
    return re.search(rf"(?<![\w.]){name}\b(?!\s*=[^=])", code) is not None
