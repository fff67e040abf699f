"""What earlier loads taught."""

from __future__ import annotations

from pathlib import Path

from helexa.neuron.registry.experience import MOST, Experience, Lesson


def test_lessons_are_remembered_by_the_next_life(tmp_path: Path) -> None:
    path = tmp_path / "experience.json"
    Experience(path).learn("m", correction=1.2, load_secs=3.0)
    Experience(path).learn("m", prefill_tok_s=900.0)
    assert Experience(path).of("m") == Lesson(1.2, 3.0, 900.0)
    assert Experience(path).of("other") == Lesson()


def test_a_damaged_file_of_lessons_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "experience.json"
    path.write_bytes(b"{broken")
    lessons = Experience(path)
    assert lessons.of("m") == Lesson()
    lessons.learn("m", load_secs=1.0)
    assert Experience(path).of("m").load_secs == 1.0


def test_lessons_are_bounded_and_the_oldest_is_forgotten(tmp_path: Path) -> None:
    lessons = Experience(tmp_path / "experience.json")
    for number in range(MOST + 3):
        lessons.learn(f"m{number}", load_secs=float(number))
    assert lessons.of("m0") == Lesson()
    assert lessons.of("m3").load_secs == 3.0


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_lesson(tmp_path: Path) -> None:
    lessons = Experience(tmp_path / "missing" / "experience.json")
    lessons.learn("m", load_secs=1.0)
    assert lessons.of("m").load_secs == 1.0
