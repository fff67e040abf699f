"""Which sources a node has, by its settings and environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.neuron.sources.rig import WEIGHTS, Stand

from helexa.core.errors import ModelNotFound, ServiceUnavailable
from helexa.core.logging import get_logger
from helexa.core.settings import SettingsError
from helexa.neuron.build.node import boot_models
from helexa.neuron.build.sources import cache_dir, make_sources
from helexa.neuron.settings import DefaultModel, NeuronSettings, SourceSettings
from helexa.neuron.sources.sources import Sources

pytestmark = pytest.mark.anyio


def made(environ: dict[str, str] | None = None, **settings: Any) -> Sources:
    return make_sources(NeuronSettings(**settings), get_logger(), environ or {})


async def test_several_schemes_at_once_and_one_of_them_the_default(
    stand: Stand, tmp_path: Path
) -> None:
    stand.write("org/m/m-Q8_0.gguf", WEIGHTS)
    store = tmp_path / "store" / "org" / "n"
    store.mkdir(parents=True)
    (store / "n-Q8_0.gguf").write_bytes(b"here")
    sources = made(
        default_source="mirror",
        sources={
            "hf": SourceSettings("http://127.0.0.1:9", cache_dir=tmp_path / "hf"),
            "mirror": SourceSettings(stand.hub.url, cache_dir=tmp_path / "mirror"),
            "store": SourceSettings(str(tmp_path / "store")),
        },
    )
    assert sources.schemes == ("builtin", "file", "hf", "mirror", "store")
    assert (await sources.describe("org/m")).scheme == "mirror"
    assert (await sources.describe("org/served", source="mirror:org/m")).repository == "org/m"
    assert (await sources.describe("store:org/n")).path == store / "n-Q8_0.gguf"
    assert (await sources.describe("helexa/spark")).scheme == "builtin"
    with pytest.raises(ServiceUnavailable, match="cannot be reached"):
        await sources.describe("hf:org/m")


async def test_a_token_is_read_from_the_variable_that_is_named(
    stand: Stand, tmp_path: Path
) -> None:
    stand.write("org/m/m-Q8_0.gguf", WEIGHTS)
    stand.hub.faults.gated, stand.hub.faults.token = {"org/m"}, "right"
    environ = {"MIRROR_KEY": "right"}
    source = SourceSettings(stand.hub.url, auth_env="MIRROR_KEY", cache_dir=tmp_path / "c")
    sources = made(environ, sources={"mirror": source})
    assert (await sources.describe("mirror:org/m")).quant == "Q8_0"


async def test_the_librarys_variables_are_honoured(stand: Stand, tmp_path: Path) -> None:
    stand.write("org/m/m-Q8_0.gguf", WEIGHTS)
    environ = {"HF_ENDPOINT": stand.hub.url, "HF_HUB_CACHE": str(tmp_path / "hub-cache")}
    path = await made(environ).locate("org/m")
    assert path.is_relative_to(tmp_path / "hub-cache")
    offline = made(environ | {"HF_HUB_OFFLINE": "1"})
    asked = len(stand.hub.served.requests)
    assert (await offline.describe("org/m")).path == path
    assert len(stand.hub.served.requests) == asked


async def test_a_plain_name_goes_to_hugging_face_unless_it_can_be_none(tmp_path: Path) -> None:
    sources = made({"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})
    with pytest.raises(ServiceUnavailable, match=r"https://huggingface\.co cannot be reached"):
        await sources.describe("org/m")
    with pytest.raises(ModelNotFound, match="neither a file here nor"):
        await sources.describe("bare")


@pytest.mark.parametrize(("scheme", "environ", "folder"), [
    ("hf", {"HF_HUB_CACHE": "/a"}, "/a"),
    ("hf", {"HF_HOME": "/b"}, "/b/hub"),
    ("hf", {"CACHE_DIRECTORY": "/var/cache/neuron"}, "/var/cache/neuron/hf"),
    ("hf", {"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
    ("mirror", {"XDG_CACHE_HOME": "/c", "HF_HOME": "/b"}, "/c/helexa/mirror"),
])  # fmt: skip
def test_fetched_files_are_kept_where_others_look_for_them(
    scheme: str, environ: dict[str, str], folder: str
) -> None:
    assert cache_dir(scheme, environ) == Path(folder)


@pytest.mark.parametrize(("settings", "words"), [
    ({"default_source": "hub"}, r"default_source 'hub' is none of builtin, file, hf"),
    ({"sources": {"mirror": SourceSettings()}}, r"sources\.mirror\.endpoint is missing"),
])  # fmt: skip
def test_settings_that_cannot_work_stop_the_start(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        made(**settings)


def test_boot_time_models_are_served_without_their_scheme() -> None:
    settings = NeuronSettings(default_models=[DefaultModel("hf:org/m", quant="Q8_0")])
    (model,) = boot_models(settings, made())
    assert (model.model_id, model.source, model.quant) == ("org/m", "hf", "Q8_0")


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["helexa/spark", ""], r"default_models\[1\]: model_id is empty"),
        (["hff:org/m"], r"default_models\[0\]: .* unknown source 'hff'"),
        (["org/m", "hf:org/m"], r"default_models\[1\]: org/m is there already"),
    ],
)
def test_a_boot_time_model_that_cannot_be_meant_stops_the_start(ids: list[str], said: str) -> None:
    settings = NeuronSettings(default_models=[DefaultModel(one) for one in ids])
    with pytest.raises(SettingsError, match=said):
        boot_models(settings, made())
