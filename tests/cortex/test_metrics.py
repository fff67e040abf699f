"""The gateway's metric names, and the port they are read from."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.cortex.exchange.rig import answers, fleet
from tests.relay.rig import until

from helexa.core.metrics import exposition
from helexa.cortex.metrics import CortexMetrics
from helexa.cortex.metrics_server import serve_metrics
from helexa.relay import books
from helexa.relay.process import watch_lag

CONTRACT = frozenset(
    """
requests_total request_errors_total cold_starts_total evictions_total prompt_tokens_total
completion_tokens_total cached_prompt_tokens_total request_duration_seconds
time_to_first_token_seconds inter_token_seconds tokens_per_second queue_seconds load_seconds
spend_tokens_total spend_prompt_tokens_total spend_completion_tokens_total grants_open
grants_tokens model_in_flight model_queue_depth model_rejections_total device_vram_used_mb
device_vram_free_mb device_utilization_pct device_temp_c ledger_drift_tokens
ledger_estimated_tokens_total discarded_tokens_total wasted_tokens_total
process_resident_memory_bytes open_streams event_loop_lag_seconds
""".split()  # noqa: SIM905 - reads as the contract does
)


def test_every_name_of_the_contract_is_there() -> None:
    metrics = CortexMetrics()
    names = {name.removeprefix("cortex_") for name in metrics.registry._families}
    assert names >= CONTRACT


def test_bundles_are_bound_once_and_carry_the_labels() -> None:
    metrics = CortexMetrics()
    bundle = metrics.placement("helexa/spark", "one")
    assert metrics.placement("helexa/spark", "one") is bundle
    assert metrics.key("acme", "k") is metrics.key("acme", "k")
    bundle.requests.inc()
    metrics.key("acme", "k").spend.inc(12)
    text = exposition(metrics.registry).decode()
    assert 'cortex_requests_total{model="helexa/spark",node="one"} 1\n' in text
    assert 'cortex_spend_tokens_total{account="acme",key="k"} 12\n' in text
    assert value(text, "cortex_process_resident_memory_bytes") > 1_000_000
    assert value(text, "cortex_process_open_fds") > 0


def value(text: str, name: str) -> float:
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


async def _get(port: int, head: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def test_prometheus_reads_its_own_port() -> None:
    async def run() -> list[bytes]:
        server = await serve_metrics(CortexMetrics().registry, "127.0.0.1", 0)
        try:
            return [
                await _get(server.port, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"),
                await _get(server.port, b"POST /metrics HTTP/1.1\r\nhost: x\r\n\r\n"),
                await _get(server.port, b"GET " + b"x" * 20_000),
            ]
        finally:
            await server.close()

    good, wrong, oversize = asyncio.run(run())
    head, _, body = good.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: %d" % len(body) in head
    assert list(text_string_to_metric_families(body.decode()))
    assert wrong.startswith(b"HTTP/1.1 404")
    assert oversize == b""


def test_loop_lag_is_measured() -> None:
    async def run() -> list[float]:
        seen: list[float] = []
        enough = asyncio.Event()

        def observe(lag: float) -> None:
            seen.append(lag)
            if len(seen) == 3:
                enough.set()

        task = asyncio.create_task(watch_lag(observe, 0.001))
        await enough.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return seen

    assert all(lag >= 0 for lag in asyncio.run(run()))


@pytest.mark.anyio
async def test_a_scrape_has_what_ended_just_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "DELAY_S", 3600.0)
    async with fleet(answers) as (gateway, _):
        exporter = await serve_metrics(gateway.parts.metrics.registry, "127.0.0.1", 0)
        name = 'cortex_requests_total{model="org/m",node="n0"}'
        for number in (1, 2):
            assert (await gateway.ask()).status == 200
            await until(lambda: not gateway.front.app.running)
            text = (await _get(exporter.port, b"GET /metrics HTTP/1.1\r\n\r\n")).decode()
            assert f"{name} {number}" in text.splitlines()
        await exporter.close()
