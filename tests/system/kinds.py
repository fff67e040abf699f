"""A stack with a model of each kind, and what is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.neuron.system.conftest import until
from tests.pictures import part
from tests.system.rig import CHAT, Stack, StartStack

SEER, EMBEDDER, RERANKER = "tiny/vision", "tiny/embedder", "tiny/reranker"
Json = dict[str, Any]

MODELS = """
[[models]]
id = "{id}"
harness = "llamacpp"
source = "{file}"
"""


def stack_of_kinds(make_stack: StartStack, tiny_models: Path) -> Stack:
    """A gateway over a node with one model of each kind; the one that sees is asleep."""
    files = {
        f"tiny/{kind}": tiny_models / kind / f"{kind}.gguf"
        for kind in ("vision", "embedder", "reranker")
    }
    models = "".join(MODELS.format(id=name, file=file) for name, file in files.items())
    found = make_stack(models=models)
    for name in (EMBEDDER, RERANKER):
        found.node.load(name, source=str(files[name]))
        wait_for(found, name)
    until(lambda: found.get(f"/v1/models/{SEER}").get("capabilities"))  # its node has looked
    return found


def wait_for(stack: Stack, name: str) -> Json:
    """The model's entry, once the gateway knows it as loaded."""
    entry: Json = until(lambda: (e := stack.get(f"/v1/models/{name}")).get("loaded") and e)
    return entry


def asked(*images: bytes | str, text: str = "What is it?", **more: Any) -> Json:
    """A chat request with images behind its text."""
    content: list[Json] = [{"type": "text", "text": text}, *(part(image) for image in images)]
    members: Json = {"model": SEER, "max_tokens": 4, "temperature": 0, "ignore_eos": True}
    return {"messages": [{"role": "user", "content": content}], **members, **more}


def answer(stack: Stack, body: Json, key: str = "sk-open") -> Json:
    with stack.client(key, timeout=60) as client:
        found = client.post(CHAT, json=body)
    assert found.status_code == 200, found.text
    out: Json = found.json()
    return out


def tokens(stack: Stack, body: Json) -> int:
    return int(answer(stack, body)["usage"]["prompt_tokens"])


def logprobs(stack: Stack, *images: bytes | str) -> list[float]:
    found = answer(stack, asked(*images, logprobs=True))
    return [token["logprob"] for token in found["choices"][0]["logprobs"]["content"]]


def refused(stack: Stack, path: str, body: Json, status: int = 400, key: str = "sk-open") -> Json:
    with stack.client(key, timeout=60) as client:
        found = client.post(path, json=body)
    assert found.status_code == status, found.text
    error: Json = found.json()["error"]
    return error
