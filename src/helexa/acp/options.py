"""The options of a session as the editor shows them: model, thinking, mode."""

from __future__ import annotations

from typing import Any

from helexa.acp.catalogue import Catalogue
from helexa.acp.permission import MODES
from helexa.acp.protocol.updates import mode_changed, options_changed
from helexa.acp.sessions.session import Saved

Json = dict[str, Any]


def modes(saved: Saved) -> Json:
    """The older form of the mode's picker."""
    return {
        "currentModeId": saved.mode,
        "availableModes": [
            {"id": mode, "name": name, "description": words} for mode, name, words in MODES
        ],
    }


def all_of(saved: Saved, catalogue: Catalogue) -> list[Json]:
    """Every option, whole."""
    return [_model(saved, catalogue), _thinking(saved), _mode(saved)]


def updates(saved: Saved, catalogue: Catalogue, changed: str) -> list[Json]:
    """What the editor is told when one has changed."""
    found = [options_changed(all_of(saved, catalogue))]
    return [mode_changed(saved.mode), *found] if changed == "mode" else found


def _model(saved: Saved, catalogue: Catalogue) -> Json:
    choices = [
        {"value": choice.selector, "name": choice.selector, "description": choice.described}
        for choice in catalogue.choices
    ]
    if saved.model not in {choice["value"] for choice in choices}:
        words = "not there now" if saved.model else "no endpoint has a model"
        choices.insert(0, {"value": saved.model, "name": saved.model or "none",
                           "description": words})  # fmt: skip
    return _select("model", "Model", "model", saved.model, choices)


def _thinking(saved: Saved) -> Json:
    choices = [
        {"value": "off", "name": "Off"},
        {"value": "on", "name": "On", "description": "The model thinks before it answers."},
    ]
    value = "on" if saved.thinking else "off"
    return _select("thinking", "Thinking", "thought_level", value, choices)


def _mode(saved: Saved) -> Json:
    choices = [{"value": mode, "name": name, "description": words} for mode, name, words in MODES]
    return _select("mode", "Mode", "mode", saved.mode, choices)


def _select(id_: str, name: str, category: str, value: str, choices: list[Json]) -> Json:
    return {
        "type": "select",
        "id": id_,
        "name": name,
        "category": category,
        "currentValue": value,
        "options": choices,
    }
