from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.core.settings import Loaded, Secret, SettingsError, convert, load


class Gateway(msgspec.Struct, frozen=True):
    listen: str = "0.0.0.0:31313"
    max_body_mb: Annotated[int, msgspec.Meta(ge=1)] = 64
    tls_cert: Path | None = None


class Node(msgspec.Struct, frozen=True):
    name: str
    endpoint: str
    ca: Path | None = None


class Settings(msgspec.Struct, frozen=True):
    gateway: Gateway = Gateway()
    neurons: tuple[Node, ...] = ()
    names: list[str] = []
    strategy: Literal["lru", "priority"] = "lru"
    secret: Secret | None = None
    engines: dict[str, dict[str, object]] = {}
    label: str = ""


def read(
    text: str | None = None,
    *,
    tmp: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    reserved: frozenset[str] = frozenset(),
) -> Loaded[Settings]:
    path = None
    if text is not None:
        assert tmp is not None
        path = tmp / "cortex.toml"
        path.write_text(text)
    return load(
        Settings,
        prefix="CORTEX_",
        path=path,
        default_path=Path("/nonexistent/cortex.toml"),
        flags=flags or {},
        environ=environ or {},
        reserved=reserved,
    )


def refusal(text: str, tmp: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        read(text, tmp=tmp)
    return str(caught.value)


def test_defaults_hold_and_a_missing_default_file_is_a_warning_that_names_it() -> None:
    loaded = read()
    assert loaded.value == Settings()
    assert loaded.path is None
    assert loaded.warnings == (
        "no settings file at /nonexistent/cortex.toml; running on defaults and the environment",
    )


def test_a_relative_path_is_beside_the_file_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = """
label = "no/path"
[gateway]
tls_cert = "tls/cert.pem"
[[neurons]]
name = "a"
endpoint = "b"
ca = "/whole/ca.pem"
"""
    loaded = read(text, tmp=tmp_path).value
    assert loaded.gateway.tls_cert == tmp_path / "tls/cert.pem"
    assert loaded.neurons[0].ca == Path("/whole/ca.pem")
    assert loaded.label == "no/path"
    given = {"CORTEX_GATEWAY__TLS_CERT": "cert.pem"}
    assert read(text, tmp=tmp_path, environ=given).value.gateway.tls_cert == elsewhere / "cert.pem"


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    text = '[gateway]\nlisten = "1:1"\nmax_body_mb = 2\ntls_cert = "~/x.pem"'
    environ = {"CORTEX_GATEWAY__LISTEN": "2:2", "CORTEX_GATEWAY__MAX_BODY_MB": "3"}
    flags = {"gateway.listen": "3:3", "gateway.max_body_mb": None}
    loaded = read(text, tmp=tmp_path, environ=environ, flags=flags)
    assert loaded.value.gateway == Gateway("3:3", 3, Path("~/x.pem").expanduser())
    assert loaded.warnings == ()


def test_a_default_file_that_exists_is_read(tmp_path: Path) -> None:
    default = tmp_path / "cortex.toml"
    default.write_text('label = "from file"')
    loaded = load(Settings, prefix="CORTEX_", path=None, default_path=default, flags={}, environ={})
    assert (loaded.value.label, loaded.path) == ("from file", default)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gateway]\nlisten_on = 1", "unknown key `gateway.listen_on`; did you mean listen?"),
        ("[gatewey]", "unknown key `gatewey`; did you mean gateway?"),
        ("[[neurons]]\nname='a'\nendpoint='b'\nhost=1", "unknown key `neurons[0].host`"),
        ("[gateway]\nzzz = 1", "; known: listen, max_body_mb, tls_cert"),
        ("[gateway]\nlisten = 3", "`gateway.listen` must be text in quotes, not 3"),
        (
            "[gateway]\nmax_body_mb = 0",
            "`gateway.max_body_mb` must be a whole number of at least 1",
        ),
        ("[gateway]\nmax_body_mb = '64'", 'must be a whole number, not "64"'),
        ("[gateway]\nmax_body_mb = '64m'", 'not "64m"; leave the unit away, docs/reference'),
        ("[[neurons]]\nname = 'a'", "`neurons[0]` has no `endpoint`; add it"),
        ("[neurons]\nname = 'a'", "`neurons` may be there several times; write [[neurons]]"),
        (
            "strategy = 'mru'",
            '`strategy` must be one of "lru", "priority", not "mru"; did you mean',
        ),
        ("strategy = 'LRU'", 'did you mean "lru"?'),
        ("strategy = 3", '`strategy` must be one of "lru", "priority", not 3'),
        ("label = true", "`label` must be text in quotes, not true"),
        ("names = [1]", "`names[0]` must be text in quotes, not 1"),
        ("gateway = 3", "`gateway` must be a table"),
        ("[engines]\na = 1", "`engines.a` must be a table"),
        ("[gateway\n", "is not valid TOML"),
        ("[gateway]\nlisten = localhost", "(at line 2, column 10); text goes in quotes"),
        ("[gateway]\nlisten = 0.0.0.0:1", "text goes in quotes, and true and false in small"),
        ("a = " + "[" * 100_000, "is nested too deeply"),
    ],
)
def test_what_cannot_be_used_is_refused_by_file_and_path(
    tmp_path: Path, text: str, words: str
) -> None:
    message = refusal(text, tmp_path)
    assert message.startswith(str(tmp_path / "cortex.toml"))
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    [
        "secret = 31415926",
        "secret = ['31415926']",
        "secret = { key = '31415926' }",
        "gateway = '31415926'",
        "neurons = ['31415926']",
        "neurons = { key = '31415926' }",
        "[[neurons]]\nendpoint = { key = '31415926' }",
        "names = 'sk-31415926'",
        "[gateway]\nmax_body_mb = 'sk-31415926'",
    ],
)
def test_what_may_be_a_secret_is_not_shown(tmp_path: Path, text: str) -> None:
    assert "31415926" not in refusal(text, tmp_path)


def test_a_key_of_a_free_table_that_may_be_a_secret_is_not_shown() -> None:
    class Engine(msgspec.Struct):
        env: dict[str, str]

    with pytest.raises(SettingsError) as caught:
        convert({"env": {"API_KEY": 31415926}}, Engine, "neuron.toml")
    assert str(caught.value) == "neuron.toml: `env.API_KEY` must be text in quotes"


def test_a_named_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "cortex.toml"
    with pytest.raises(SettingsError, match="there is no such file"):
        load(Settings, prefix="X_", path=missing, default_path=missing, flags={}, environ={})


def test_a_named_folder_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load(Settings, prefix="X_", path=tmp_path, default_path=tmp_path, flags={}, environ={})


def test_an_unknown_name_in_the_environment_is_one_warning() -> None:
    loaded = read(environ={"CORTEX_GATEWAY__LISTN": "x", "CORTEX_CLAMP": "1", "OTHER": "y"})
    assert loaded.warnings[1:] == (
        "CORTEX_CLAMP in the environment is unknown and ignored",
        (
            "CORTEX_GATEWAY__LISTN in the environment is unknown and ignored; "
            "did you mean CORTEX_GATEWAY__LISTEN?"
        ),
    )
    assert (
        len(read(environ={"CORTEX_CLAMP": "1"}, reserved=frozenset({"CORTEX_CLAMP"})).warnings) == 1
    )


def test_the_environment_speaks_numbers_lists_tables_and_plain_text() -> None:
    value = read(
        environ={
            "CORTEX_NEURONS": '[{"name": "a", "endpoint": "b"}]',
            "CORTEX_NAMES": "a, b",
            "CORTEX_ENGINES__LLAMACPP__SLOTS": "4",
            "CORTEX_ENGINES__LLAMACPP__FLASH": "true",
            "CORTEX_LABEL": "12345",
            "CORTEX_SECRET": "99",
            "CORTEX_GATEWAY__TLS_CERT": "/etc/x.pem",
        }
    ).value
    assert value.neurons == (Node("a", "b"),)
    assert value.names == ["a", "b"]
    assert value.engines == {"llamacpp": {"slots": 4, "flash": True}}
    assert value.label == "12345"
    assert value.secret is not None
    assert value.secret.reveal() == "99"
    assert value.gateway.tls_cert == Path("/etc/x.pem")


def test_a_variable_that_does_not_fit_its_key_is_refused_by_name() -> None:
    with pytest.raises(
        SettingsError,
        match=r"CORTEX_GATEWAY__MAX_BODY_MB in the environment: must be a whole number",
    ):
        read(environ={"CORTEX_GATEWAY__MAX_BODY_MB": "many"})


def test_a_secret_shows_itself_nowhere() -> None:
    value = read(environ={"CORTEX_SECRET": "hunter"}).value
    assert value.secret == Secret("hunter")
    assert value.secret != Secret("other")
    assert len({Secret("a"), Secret("a")}) == 1
    assert "hunter" not in f"{value!r} {value.secret} {value.secret!r}"
    assert not Secret("")


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])))
def test_any_text_in_the_environment_reaches_a_text_key_or_is_refused(text: str) -> None:
    value = read(environ={"CORTEX_LABEL": text}).value
    assert isinstance(value.label, str)
