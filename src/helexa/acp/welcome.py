"""What an editor is shown when a session opens, beside what was said in it."""

from __future__ import annotations

import contextlib

from helexa.acp.catalogue import Catalogue, NoModel
from helexa.acp.commands import COMMANDS
from helexa.acp.live import Live
from helexa.acp.protocol.updates import commands, plan, usage


async def greet(live: Live, catalogue: Catalogue) -> None:
    """The commands, the rules that were read, and what of the endpoints is not as configured."""
    await live.editor.update(commands(COMMANDS))
    if live.rules.names:
        await live.show.note(f"Read the workspace's rules: {', '.join(live.rules.names)}")
    for name, why in catalogue.down.items():
        await live.show.note(f"The endpoint {name} is skipped: {why}")
    for name, model in catalogue.absent.items():
        await live.show.note(f"The endpoint {name} does not list its default model {model}.")


async def show_standing(live: Live, catalogue: Catalogue) -> None:
    """The plan, and how full the window is, of a session that comes back."""
    saved = live.saved
    if saved.plan:
        await live.editor.update(plan(saved.plan))
    if saved.used:
        with contextlib.suppress(NoModel):
            context = catalogue.find(saved.model).context
            await live.editor.update(usage(saved.used, context, saved.spent_usd))
