"""``python -m helexa.neuron.sources.fetching.worker --model NAME``, started by a node.

Reads one ``Job`` from stdin and writes an ``Event`` per line to stdout. It ends with the node.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

import msgspec

from helexa.neuron.engines import lifeline
from helexa.neuron.sources.fetching.job import (
    DownloadError,
    Event,
    Failed,
    FileJob,
    Finished,
    Job,
    Told,
)
from helexa.neuron.sources.fetching.transfer import bring


class Worker:
    """Works through a job.

    Args:
        job: What to bring.
        out: Descriptor that events are written to, a line each.
    """

    def __init__(self, job: Job, out: int) -> None:
        self._job = job
        self._out = out
        self._encode = msgspec.json.Encoder().encode
        self._done: dict[str, int] = {}
        self._last = ""
        self._over = threading.Event()

    def run(self) -> Event:
        """Bring everything and report meanwhile; the last event."""
        telling = threading.Thread(target=self._tell, name="tell", daemon=True)
        telling.start()
        try:
            self._bring(self._job.first)
            self._bring(self._job.then)
            last: Event = Finished()
        except DownloadError as error:
            last = error.failed
        self._over.set()
        telling.join()
        self._send(Told(sum(self._done.values()), self._last))
        self._send(last)
        return last

    def _bring(self, files: Iterable[FileJob]) -> None:
        pool = ThreadPoolExecutor(self._job.at_once, "file")
        running: list[Future[None]] = [pool.submit(self._one, file) for file in files]
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        failed = next((e for f in done if (e := f.exception()) is not None), None)
        if failed is not None:
            pool.shutdown(wait=False, cancel_futures=True)
            raise failed
        pool.shutdown()

    def _one(self, file: FileJob) -> None:
        def tell(done: int) -> None:
            self._done[file.name], self._last = done, file.name

        bring(file, self._job, tell)

    def _tell(self) -> None:
        before = None
        while not self._over.wait(self._job.every_s):
            told = Told(sum(list(self._done.values())), self._last)
            if told != before:
                self._send(told)
            before = told

    def _send(self, event: Event) -> None:
        line = self._encode(event) + b"\n"
        os.write(self._out, line)


def main() -> None:
    """Bring, report, end."""
    out = os.dup(1)
    os.set_inheritable(out, False)
    os.dup2(2, 1)
    job = msgspec.convert(lifeline.receive(), Job)
    lifeline.watch()
    last = Worker(job, out).run()
    # Threads of other files may still be reading; nothing of them is wanted any more.
    os._exit(1 if isinstance(last, Failed) else 0)


if __name__ == "__main__":
    main()
