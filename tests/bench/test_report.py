from __future__ import annotations

from pathlib import Path

from tests.bench.made import run

from helexa.bench.build import report
from helexa.bench.report.text import to_html, to_markdown
from helexa.bench.store.store import Store


def loads(path: Path, model: str = "m") -> Path:
    """Loads that took 49.66 s, and 58.43 s with the next build."""
    store = Store(path)
    for at, build, load in ((1.0, "1.0+aaa", 49_660.0), (100.0, "1.1+bbb", 58_430.0)):
        store.add_many(
            run(at + i, build=build, model=model, scenario="cold", load_ms=load + i)
            for i in range(8)
        )
    store.close()
    return path


def test_figures_of_a_report_are_written_as_people_write_them(tmp_path: Path) -> None:
    told = to_markdown(report(loads(tmp_path / "bench.sqlite")))
    assert "load_ms 49,660 → 58,430 (+17.7 %" in told
    assert "| 58,430 (58,430 to 58,440) |" in told
    assert "e+" not in told


def test_a_page_of_a_report_is_marked_up_and_takes_names_for_names(tmp_path: Path) -> None:
    page = to_html(report(loads(tmp_path / "bench.sqlite", model="<b>m</b>")))
    assert "build <code>1.1+bbb</code>" in page
    assert "<strong>slower</strong>" in page
    assert "<b>m" not in page
    assert "`" not in page
