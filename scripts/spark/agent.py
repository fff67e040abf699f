"""The tools of coding agents: files and commands, in the many spellings that clients use."""

from __future__ import annotations

from agent_phrasings import NAMES, SAID
from signatures import Argument, Parameter, Request, Tool
from split import Draw
from values import code, filler, path, phrase, sentence, word
from words import COMMANDS, COMMON, EXTENSIONS

PATH_KEYS = (
    "path",
    "path",
    "file_path",
    "filePath",
    "filename",
    "file",
    "target_file",
    "file_name",
)
FOLDER_KEYS = ("path", "path", "dir", "directory", "folder", "dir_path", "relative_path")
EDIT_KEYS = (("old_text", "new_text"), ("old_string", "new_string"), ("oldString", "newString"),
             ("old_str", "new_str"), ("search", "replace"), ("find", "replace"), ("old", "new"),
             ("before", "after"), ("old_text", "new_text"))  # fmt: skip
CONTENT_KEYS = ("content", "content", "text", "contents", "data", "file_text")
COMMAND_KEYS = ("command", "command", "command", "cmd", "script")
PATTERN_KEYS = ("pattern", "query", "regex", "text", "search")
SPARE = (("limit", "integer"), ("offset", "integer"), ("timeout", "number"),
         ("encoding", "string"), ("include", "string"), ("ignore", "array"),
         ("replaceAll", "boolean"),
         ("recursive", "boolean"), ("replace_all", "boolean"), ("workdir", "string"))  # fmt: skip


def quoted(draw: Draw, text: str, often: float = 0.5) -> str:
    return draw.pick(('"{}"', "'{}'", "`{}`", '"{}"')).format(text) if draw.chance(often) else text


def keys(draw: Draw, family: str) -> tuple[str, ...]:
    if family in ("read", "delete"):
        return (draw.pick(PATH_KEYS),)
    if family == "write":
        return draw.pick(PATH_KEYS), draw.pick(CONTENT_KEYS)
    if family == "edit":
        return (draw.pick(PATH_KEYS), *draw.pick(EDIT_KEYS))
    if family == "run":
        return (draw.pick(COMMAND_KEYS),)
    if family == "list":
        return (draw.pick(FOLDER_KEYS),)
    if family == "glob":
        return (draw.pick(PATTERN_KEYS[:2]),)
    return draw.pick(PATTERN_KEYS), draw.pick(FOLDER_KEYS[:4])


def spell(draw: Draw, words: str) -> str:
    """A tool's name as one client or another writes it: read_file, ReadFile, mcp__fs__read."""
    parts = words.split()
    style = draw.rng.random()
    if style < 0.62:
        return "_".join(parts)
    if style < 0.74:
        return parts[0] + "".join(part.capitalize() for part in parts[1:])
    if style < 0.88:
        return "".join(part.capitalize() for part in parts)
    if style < 0.92:
        return "-".join(parts)
    server = draw.pick(("fs", "files", "shell", "workspace", draw.pick(COMMON)))
    return f"mcp__{server}__{'_'.join(parts)}"


def agent_tool(draw: Draw, family: str) -> Tool:
    """A tool of the family; its first parameters are the ones a request fills."""
    name = draw.pick(NAMES[family] if draw.chance(0.6) else NAMES[family][:1])
    parameters = [Parameter(key, "string") for key in dict.fromkeys(keys(draw, family))]
    if family in ("write", "edit", "search") and draw.chance(0.15):
        parameters.reverse()
    if family in ("search", "list") and draw.chance(0.35):
        optional = [p.key in FOLDER_KEYS for p in parameters]
        parameters = [
            Parameter(p.key, "string", not o) for p, o in zip(parameters, optional, strict=True)
        ]
    if family == "run" and draw.chance(0.2):
        parameters.append(Parameter("description", "string", draw.chance(0.6)))
    elif family == "run" and draw.chance(0.05):
        parameters = [Parameter("command", "array")]
    if draw.chance(0.35):
        taken = {p.key for p in parameters}
        spare = [(key, kind) for key, kind in SPARE if key not in taken]
        chosen = draw.several(spare, draw.between(1, 3))
        parameters += [Parameter(key, kind, required=False) for key, kind in chosen]
    return Tool(spell(draw, name), tuple(name.split()), tuple(parameters))


def agent_values(draw: Draw, family: str) -> list[tuple[str, str]]:
    """The (said, sent) values of a request, in the order of its wordings."""
    if family in ("read", "delete"):
        where = path(draw)
        return [(quoted(draw, where, 0.12), where)]
    if family == "list":
        where = path(draw, file=False)
        return [(quoted(draw, where, 0.12), where)]
    if family == "run":
        command = draw.pick(COMMANDS)
        if draw.chance(0.45):
            command = f"{draw.pick(COMMANDS).split()[0]} {draw.pick((path, word))(draw)}"
        return [(command, command)]
    if family == "glob":
        pattern = draw.pick(("*.{e}", "**/*.{e}", "{w}*", "*{w}*", "src/**/*.{e}", "{w}.{e}"))
        pattern = pattern.format(e=draw.pick(EXTENSIONS), w=draw.pick(COMMON))
        return [(quoted(draw, pattern, 0.2), pattern)]
    text = draw.pick((word, word, phrase, code))(draw)
    if family == "search":
        where = path(draw, file=draw.chance(0.3))
        return [(quoted(draw, text, 1.0 if " " in text else 0.4), text), (where, where)]
    where = path(draw)
    if family == "edit":
        other = draw.pick((word, word, phrase, code))(draw)
        often = 1.0 if " " in text + other and draw.chance(0.7) else 0.3
        mark = draw.pick(('"{}"', "'{}'", "`{}`", '"{}"')) if draw.chance(often) else "{}"
        return [(where, where), (mark.format(text), text), (mark.format(other), other)]
    if draw.chance(0.3):
        text = sentence(draw)
    return [(where, where), (quoted(draw, text, 0.7), text)]


def agent_request(draw: Draw, families: list[str], tools: dict[str, Tool]) -> Request:
    """Draw a request to one of the tools, in words, with the arguments of the right call."""
    family = draw.pick(families)
    found = tools[family]
    values = agent_values(draw, family)
    said = draw.pick(SAID[family]).format(*(value for value, _ in values)) + draw.pick(
        ("", "", ".", "")
    )
    names = [p.key for p in found.parameters[: len(values)]]
    ordered = order(family, names, [sent for _, sent in values])
    arguments = [Argument(key, sent, sent) for key, sent in zip(names, ordered, strict=True)]
    if found.parameters[0].kind == "array":
        arguments = [Argument(names[0], "", ["bash", "-lc", values[0][1]])]
    if any(p.key == "description" and p.required for p in found.parameters):
        arguments.append(Argument("description", "", f"Run {values[0][1]}"))
    return Request(said, found, tuple(arguments))


def order(family: str, names: list[str], sent: list[str]) -> list[str]:
    """Put the values in the order in which the tool declares its parameters."""
    first = {"write": PATH_KEYS, "edit": PATH_KEYS, "search": PATTERN_KEYS}.get(family)
    turned = first is not None and names[0] not in first
    return list(reversed(sent)) if turned else sent


def bystanders(draw: Draw) -> list[Tool]:
    """Tools that agents carry and that no request here is for."""
    known = {
        "todo write": (("todos", "array"),),
        "update plan": (("plan", "array"), ("explanation", "string")),
        "web fetch": (("url", "string"), ("prompt", "string")),
        "task": (("description", "string"), ("prompt", "string")),
        "ask user": (("question", "string"),),
        "todo read": (),
        "exit plan mode": (("plan", "string"),),
    }
    tools = []
    for name in draw.several(list(known), draw.between(1, 3)):
        parameters = tuple(Parameter(key, kind) for key, kind in known[name])
        tools.append(Tool(spell(draw, name), tuple(name.split()), parameters))
    return tools


def numbered(draw: Draw) -> str:
    """Lines as `cat -n` shows them."""
    form = draw.pick(("{n:6d}\t{t}", "{n:6d}\t{t}", "{n}: {t}", "{n:05d}| {t}"))
    kinds = (sentence, phrase, code, word)
    texts = [draw.pick(kinds)(draw) for _ in range(draw.between(1, 4))]
    return "\n".join(form.format(n=n, t=t) for n, t in enumerate(texts, 1))


def listing(draw: Draw) -> str:
    """What such a tool answers: a line or two of text."""
    if draw.chance(0.25):
        return numbered(draw)
    if draw.chance(0.3):
        return draw.pick(
            ("ok", "done", "File written", "1 replacement made", "(no output)", "success")
        )
    if draw.chance(0.3):
        return draw.pick(("\n", " ")).join(path(draw) for _ in range(draw.between(1, 5)))
    if draw.chance(0.5):
        return filler(draw, draw.between(1, 3) if draw.chance(0.9) else draw.between(4, 10))
    return draw.pick((sentence, phrase, code))(draw)
