"""What a chat template gives away about its model, read without rendering it.

Only code counts: a name in a comment, in a string or in the text between the tags is not a
variable the template reads. Markers are looked for in everything but comments.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from helexa.neuron.models.jinja import literals, pieces, without_comments, without_strings

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
EFFORTS = ("reasoning_effort", "thinking_effort")
LEVELS = ("low", "medium", "high")
"""What a template that passes its level through is taken for, as its model was trained."""
IMAGES = (
    "<|image_pad|>", "<image>", "<|image|>", "[IMG]", "<start_of_image>", "<|image_start|>",
    "<image_soft_token>", "<|vision_start|>", "image_url",
)  # fmt: skip
AUDIO = ("<|audio|>", "<|audio_bos|>", "[AUDIO]", "<audio_soft_token>", "audio_url", "input_audio")

_PROMPT = "add_generation_prompt"
# What a template may repeat is bounded in every pattern: their time is linear in its length.
_LOOP = re.compile(r"\{%-?\s{0,40}for\s{1,40}\w{1,40}\s{1,40}in\s{1,40}\w{0,40}messages\b")
_REFUSES_SYSTEM = re.compile(r"raise_exception\([^)]{0,400}(?:[Ss]ystem|roles)")
_ASKS_ROLE = re.compile(r"""role\b['"\]]{0,4}\s{0,40}(?:==|in\b)""")
_SHOWS_SYSTEM = re.compile(r"""['"]system['"]|\{\{[^}]{0,400}(?:\.role\b|\[['"]role['"]\])""")
_LEVEL = re.compile(r"[a-z_]{2,12}")


class TemplateTraits(msgspec.Struct, frozen=True):
    """Capabilities as the template shows them.

    Args:
        tools: It renders the tools of a request.
        markers: Opening and closing marker of reasoning, when both occur.
        switch: The variable that turns thinking on or off.
        opens: The generation prompt may end inside the think block, so that an answer holds
            the closing marker only. Without a ``switch`` it always does: thinking is forced.
        effort: The variable that says how hard to think.
        levels: What it may be.
        images: It has a place for images; whether the model can see is another question.
        audio: It has a place for sounds.
    """

    tools: bool = False
    markers: tuple[str, str] | None = None
    switch: str | None = None
    opens: bool = False
    effort: str | None = None
    levels: tuple[str, ...] = ()
    images: bool = False
    audio: bool = False


def read_template(source: str) -> TemplateTraits:
    """What ``source`` (Jinja) shows; pure, linear in its length."""
    found = list(pieces(source))
    text = "".join(piece.content for piece in found)
    codes = [piece.content for piece in found if piece.kind == "code"]
    code = " ; ".join(without_strings(one) for one in codes)
    markers = next((m for m in MARKERS if all(part in text for part in m)), None)
    effort = next((name for name in EFFORTS if _reads(code, name)), None)
    prompt = _generation_prompt([(piece.kind, piece.content) for piece in found])
    return TemplateTraits(
        tools=_reads(code, "tools"),
        markers=markers,
        switch=next((name for name in SWITCHES if _reads(code, name)), None) if markers else None,
        opens=markers is not None and any(_left_open(part, markers) for part in prompt),
        effort=effort,
        levels=() if effort is None else _levels(codes, effort),
        images=any(mark in text for mark in IMAGES),
        audio=any(mark in text for mark in AUDIO),
    )


def _generation_prompt(found: list[tuple[str, str]]) -> list[str]:
    """Every text that the end of the template may write where an answer is asked for."""
    asks = [n for n, (kind, part) in enumerate(found) if kind == "code" and _PROMPT in part]
    written: list[str] = []
    for kind, part in found[asks[-1] :] if asks else []:
        written += literals(part) if kind == "code" else [part]
    return written


def _left_open(written: str, markers: tuple[str, str]) -> bool:
    opened = written.rfind(markers[0])
    return opened >= 0 and markers[1] not in written[opened:]


def _levels(codes: list[str], name: str) -> tuple[str, ...]:
    """The levels that the template compares with; all three where it passes them through."""
    compared = [
        level
        for one in codes
        if name in without_strings(one) and re.search(r"==|!=|\bin\b", without_strings(one))
        for level in literals(one)
        if _LEVEL.fullmatch(level)
    ]
    return tuple(dict.fromkeys(compared)) or LEVELS


@lru_cache(maxsize=64)
def system_first(source: str) -> bool:
    """Whether a template wants one system message, in front: it refuses any other, or would
    leave it out, because its loop over the conversation picks other roles and not that one."""
    text = without_comments(source)
    if _REFUSES_SYSTEM.search(text):
        return True
    loop = _LOOP.search(text)
    if loop is None or not _ASKS_ROLE.search(text, loop.end()):
        return False
    return _SHOWS_SYSTEM.search(text, loop.end()) is None


def _reads(code: str, name: str) -> bool:
    """Whether ``name`` is used as a variable: not an attribute, not a keyword argument."""
    return re.search(rf"(?<![\w.]){name}\b(?!\s{{0,40}}=[^=])", code) is not None
