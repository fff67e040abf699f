"""What each client wants to read to use a gateway; pure: the live catalogue in, a file's text out.

A key is never written where a client can take it from the environment (``HELEXA_KEY``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

KEY_VARIABLE = "HELEXA_KEY"
NO_KEY = "any"
"""Sent where the gateway asks for none: most clients insist on one."""


@dataclass(frozen=True, slots=True)
class Model:
    """An entry of ``/v1/models``, as far as clients care; tokens and USD per million tokens."""

    id: str
    context: int | None = None
    output: int | None = None
    tools: bool = False
    reasoning: bool = False
    vision: bool = False
    cost: Json | None = None

    @classmethod
    def of(cls, entry: Json) -> Model:
        """Read a listed model; what it does not say is unknown."""
        limit = entry.get("limit") or {}
        return cls(
            id=str(entry["id"]),
            context=limit.get("context"),
            output=limit.get("output"),
            tools=bool(entry.get("tool_call")),
            reasoning=bool(entry.get("reasoning")),
            vision="vision" in (entry.get("capabilities") or ()),
            cost=entry.get("cost"),
        )


@dataclass(frozen=True, slots=True)
class Setup:
    """What a configuration is written from.

    Args:
        base: Of the gateway, without ``/v1``.
        key: Given by whoever asks; None where the gateway wants none.
        models: All that can chat.
        model: The one to begin with; one of ``models``.
        program: Path of ``helexa`` here, for editors that start ``helexa acp``.
    """

    base: str
    key: str | None
    models: Sequence[Model]
    model: Model
    program: str = "helexa"

    @property
    def url(self) -> str:
        """Base URL of the OpenAI dialects."""
        return f"{self.base}/v1"

    @property
    def written_key(self) -> str:
        """For clients that read no variables."""
        return self.key or NO_KEY


def opencode(setup: Setup) -> str:
    """``opencode.json``; it knows no limits but those written here."""
    models = {model.id: _opencode_model(model) for model in setup.models}
    key = f"{{env:{KEY_VARIABLE}}}" if setup.key else NO_KEY
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "helexa",
        "options": {"baseURL": setup.url, "apiKey": key},
        "models": models,
    }
    return _json(
        {
            "$schema": "https://opencode.ai/config.json",
            "provider": {"helexa": provider},
            "model": f"helexa/{setup.model.id}",
            "small_model": f"helexa/{setup.model.id}",
        }
    )


def _opencode_model(model: Model) -> Json:
    out: Json = {"name": model.id, "tool_call": model.tools, "reasoning": model.reasoning}
    out["attachment"] = model.vision
    if model.context and model.output:
        out["limit"] = {"context": model.context, "output": model.output}
    if model.cost:
        names = ("input", "output", "cache_read", "cache_write")
        out["cost"] = {"input": 0, "output": 0} | {k: model.cost[k] for k in names
                                                    if model.cost.get(k) is not None}  # fmt: skip
    return out


def codex(setup: Setup) -> str:
    """``~/.codex/config.toml``."""
    model = setup.model
    lines = [
        f"model = {_quoted(model.id)}",
        'model_provider = "helexa"',
        *([f"model_context_window = {model.context}"] if model.context else []),
        "",
        "[model_providers.helexa]",
        'name = "helexa"',
        f"base_url = {_quoted(setup.url)}",
        'wire_api = "responses"',
        *([f'env_key = "{KEY_VARIABLE}"'] if setup.key else []),
    ]
    return "\n".join(lines) + "\n"


def zed(setup: Setup) -> str:
    """Members of Zed's ``settings.json``: the models for its own agent, and ours."""
    available = [
        {
            "name": model.id,
            "display_name": model.id,
            "max_tokens": model.context or 8192,
            **({"max_output_tokens": model.output} if model.output else {}),
            "capabilities": {
                "tools": model.tools,
                "images": model.vision,
                "parallel_tool_calls": model.tools,
                "prompt_cache_key": True,
            },
        }
        for model in setup.models
    ]
    provider = {"api_url": setup.url, "available_models": available}
    default = {"provider": "helexa", "model": setup.model.id}
    return _json(
        {
            "language_models": {"openai_compatible": {"helexa": provider}},
            "agent": {"default_model": default},
            "agent_servers": {"helexa": {"type": "custom", **_acp(setup)}},
        }
    )


def jetbrains(setup: Setup) -> str:
    """``acp.json`` of JetBrains' AI Assistant, where a key stands among the variables."""
    server = _acp(setup)
    if setup.key:
        server["env"]["HELEXA_ACP_API_KEY"] = setup.key
    return _json({"agent_servers": {"helexa": server}})


def _acp(setup: Setup) -> Json:
    """How an editor starts ``helexa acp``."""
    env = {"HELEXA_ACP_BASE_URL": setup.url, "HELEXA_ACP_MODEL": setup.model.id}
    return {"command": setup.program, "args": ["acp"], "env": env}


def claude_code(setup: Setup) -> str:
    """``~/.claude/settings.json``."""
    model = setup.model
    env = {
        "ANTHROPIC_BASE_URL": setup.base,
        "ANTHROPIC_AUTH_TOKEN": setup.written_key,
        "ANTHROPIC_MODEL": model.id,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": model.id,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": model.id,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": model.id,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    if model.output:
        env["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(model.output)
    return _json({"model": model.id, "env": env})


def aider(setup: Setup) -> str:
    """``.aider.conf.yml``; its limits are in the file that ``aider-models`` writes."""
    lines = {
        "openai-api-base": setup.url,
        "openai-api-key": setup.written_key,
        "model": f"openai/{setup.model.id}",
        "weak-model": f"openai/{setup.model.id}",
        "model-metadata-file": ".aider.model.metadata.json",
    }
    # A JSON string is a YAML string.
    return "".join(f"{name}: {_quoted(value)}\n" for name, value in lines.items())


def aider_models(setup: Setup) -> str:
    """``.aider.model.metadata.json``, in litellm's terms."""
    entries: Json = {}
    for model in setup.models:
        entry: Json = {"litellm_provider": "openai", "mode": "chat"}
        if model.context and model.output:
            entry["max_tokens"] = entry["max_output_tokens"] = model.output
            entry["max_input_tokens"] = model.context
        for name in ("input", "output"):
            if model.cost and model.cost.get(name) is not None:
                entry[f"{name}_cost_per_token"] = model.cost[name] / 1_000_000
        entries[f"openai/{model.id}"] = entry
    return _json(entries)


def qwen_code(setup: Setup) -> str:
    """``~/.qwen/settings.json``."""
    auth = {"selectedType": "openai", "apiKey": setup.written_key, "baseUrl": setup.url}
    return _json({"security": {"auth": auth}, "model": {"name": setup.model.id}})


def pi(setup: Setup) -> str:
    """``~/.pi/agent/models.json``."""
    provider = {
        "baseUrl": setup.url,
        "api": "openai-completions",
        "apiKey": KEY_VARIABLE if setup.key else NO_KEY,  # read as a variable's name if it is one
        "models": [_pi_model(model) for model in setup.models],
    }
    return _json({"providers": {"helexa": provider}})


def _pi_model(model: Model) -> Json:
    out: Json = {"id": model.id, "reasoning": model.reasoning}
    out["input"] = ["text", "image"] if model.vision else ["text"]
    if model.context and model.output:
        out |= {"contextWindow": model.context, "maxTokens": model.output}
    if model.cost:
        names = {"input": "input", "output": "output",
                 "cacheRead": "cache_read", "cacheWrite": "cache_write"}  # fmt: skip
        out["cost"] = {theirs: model.cost.get(ours) or 0 for theirs, ours in names.items()}
    return out


def llm(setup: Setup) -> str:
    """``extra-openai-models.yaml`` of simonw's ``llm``; its key is ``llm keys set helexa``."""
    blocks = []
    for model in setup.models:
        lines = [
            f"- model_id: {_quoted(model.id)}",
            f"  model_name: {_quoted(model.id)}",
            f"  api_base: {_quoted(setup.url)}",
            *(["  api_key_name: helexa"] if setup.key else []),
            "  supports_schema: true",
            *(["  supports_tools: true"] if model.tools else []),
            *(["  vision: true"] if model.vision else []),
        ]
        blocks.append("\n".join(lines) + "\n")
    return "".join(blocks)


def langchain(setup: Setup) -> str:
    """A module with a chat model."""
    lines = [
        "import os",
        "",
        "from langchain_openai import ChatOpenAI",
        "",
        "model = ChatOpenAI(",
        f"    model={_quoted(setup.model.id)},",
        f"    base_url={_quoted(setup.url)},",
        f"    api_key={_key_expression()},",
        *([f"    max_tokens={setup.model.output},"] if setup.model.output else []),
        "    stream_usage=True,",
        ")",
    ]
    return "\n".join(lines) + "\n"


def openai_sdk(setup: Setup) -> str:
    """A module with a client and the model's name."""
    url, key = _quoted(setup.url), _key_expression()
    return (
        "import os\n\nimport openai\n\n"
        f"MODEL = {_quoted(setup.model.id)}\n"
        f"client = openai.OpenAI(base_url={url}, api_key={key})\n"
    )


def anthropic_sdk(setup: Setup) -> str:
    """A module with a client and the model's name."""
    url, key = _quoted(setup.base), _key_expression()
    return (
        "import os\n\nimport anthropic\n\n"
        f"MODEL = {_quoted(setup.model.id)}\n"
        f"client = anthropic.Anthropic(base_url={url}, auth_token={key}, api_key=None)\n"
    )


def _key_expression() -> str:
    return f'os.environ.get("{KEY_VARIABLE}", "{NO_KEY}")'


def _quoted(text: str) -> str:
    """As JSON, TOML, YAML and Python all write a string."""
    return json.dumps(text, ensure_ascii=False)


def _json(value: Json) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One client's configuration.

    Args:
        goes_to: Where it belongs, for the note that goes with it.
        write: Makes its text.
        keeps_key: The key itself is written, so the file is its owner's only.
        reads_key: Else the variables that it is read from.
    """

    goes_to: str
    write: Callable[[Setup], str]
    keeps_key: bool = False
    reads_key: str = KEY_VARIABLE


RECIPES: dict[str, Recipe] = {
    "opencode": Recipe("opencode.json of the project, or ~/.config/opencode/", opencode),
    "codex": Recipe("~/.codex/config.toml", codex),
    "zed": Recipe(
        "~/.config/zed/settings.json, merged into it",
        zed,
        reads_key="HELEXA_API_KEY for Zed's own agent and HELEXA_ACP_API_KEY for helexa's",
    ),
    "jetbrains": Recipe("~/.jetbrains/acp.json, merged into it", jetbrains, keeps_key=True),
    "claude-code": Recipe("~/.claude/settings.json, merged into it", claude_code, keeps_key=True),
    "aider": Recipe(".aider.conf.yml of the project", aider, keeps_key=True),
    "aider-models": Recipe(".aider.model.metadata.json of the project", aider_models),
    "qwen-code": Recipe("~/.qwen/settings.json", qwen_code, keeps_key=True),
    "pi": Recipe("~/.pi/agent/models.json", pi),
    "llm": Recipe('extra-openai-models.yaml in `dirname "$(llm logs path)"`', llm),
    "langchain": Recipe("a Python module", langchain),
    "openai": Recipe("a Python module", openai_sdk),
    "anthropic": Recipe("a Python module", anthropic_sdk),
}
