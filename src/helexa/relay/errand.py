"""Run a coroutine on the caller's stack: a task without the event loop in between.

An ``asyncio.Task`` costs a turn of the loop to start and another one per wake-up, and a turn of
the loop costs more than relaying a token. An ``Errand`` starts when it is made and goes on where
its ``Signal`` fires, inside whatever read or close fired it. ::

    Errand(coroutine) ─▶ runs ─▶ await Signal ─▶ (fire) ─▶ runs on ─▶ ends
                           └──▶ await future of asyncio (woken by the loop, as usual)

What it runs must be ready for that: no state may be half-changed where a signal is fired.
``asyncio.timeout`` and friends need a task; wrap what uses them in ``loop.create_task``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Signal:
    """Fires once; one errand waits for it. Has the part of a future's interface that is used."""

    __slots__ = ("_error", "_fired", "waiter")

    def __init__(self) -> None:
        self._fired = False
        self._error: BaseException | None = None
        self.waiter: Callable[[], None] | None = None

    def done(self) -> bool:
        """It has fired."""
        return self._fired

    def set_result(self, _result: None) -> None:
        """Fire: whoever waits goes on before this returns."""
        self._fired = True
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter()

    def set_exception(self, error: BaseException) -> None:
        """Fire with an exception."""
        self._error = error
        self.set_result(None)

    def __await__(self) -> Generator[Signal, None, None]:
        if not self._fired:
            yield self
        if self._error is not None:
            raise self._error


class Errand:
    """Runs ``coroutine`` from now on; ``cancel`` it like a task."""

    __slots__ = ("_cancelling", "_coroutine", "_running", "_waiting", "done")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self._waiting: Signal | asyncio.Future[Any] | None = None
        self._cancelling = False
        self._running = False
        self.done = False
        self._step()

    def cancel(self) -> None:
        """Raise ``CancelledError`` where the coroutine waits; at once if it waits for a signal."""
        if self.done or self._cancelling:
            return
        self._cancelling = True
        waiting = self._waiting
        if self._running:
            return  # from inside: its next wait is its end
        if isinstance(waiting, Signal):
            waiting.waiter = None
            self._step()
        elif waiting is not None:
            waiting.cancel()

    def _woken(self, _future: asyncio.Future[Any]) -> None:
        self._waiting = None
        self._step(from_future=True)

    def _step(self, *, from_future: bool = False) -> None:
        """Run to the next wait."""
        coroutine = self._coroutine
        self._running = True
        try:
            # A cancelled future raises by itself; after a signal we raise.
            if self._cancelling and not from_future:
                waiting = coroutine.throw(asyncio.CancelledError())
            else:
                waiting = coroutine.send(None)
            while self._cancelling and isinstance(waiting, Signal):
                waiting = coroutine.throw(asyncio.CancelledError())
        except StopIteration:
            self.done = True
        except asyncio.CancelledError:
            self.done = True
        except Exception as error:  # noqa: BLE001  # as a task would: reported, never raised
            self.done = True
            asyncio.get_running_loop().call_exception_handler(
                {"message": "an errand raised", "exception": error}
            )
        else:
            self._waiting = waiting
            if isinstance(waiting, Signal):
                waiting.waiter = self._step
            else:
                self._wait_for(waiting)
        finally:
            self._running = False

    def _wait_for(self, future: asyncio.Future[Any] | None) -> None:
        if future is None:  # a bare yield, as of ``asyncio.sleep(0)``
            asyncio.get_running_loop().call_soon(self._step)
            return
        future._asyncio_future_blocking = False  # noqa: SLF001  # as tasks do it
        future.add_done_callback(self._woken)
        if self._cancelling:
            future.cancel()


async def in_task(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of ``coroutine``, run in a task unless we are in one already."""
    if asyncio.current_task() is not None:
        return await coroutine
    return await asyncio.get_running_loop().create_task(coroutine)
