"""Deficit round robin: turns by tokens, whatever the requests cost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from helexa.neuron.admission.rounds import QUANTUM, Rounds


def ring(*principals: str) -> Rounds:
    rounds = Rounds()
    for principal in principals:
        rounds.join(principal)
    return rounds


def serve(rounds: Rounds, who: list[str], price: dict[str, int], turns: int) -> dict[str, int]:
    """``who`` always wait; each turn is charged as soon as it was given."""
    spent = dict.fromkeys(who, 0)
    for _ in range(turns):
        chosen = rounds.order(who, who)[0]
        rounds.seated(chosen)
        rounds.charge(chosen, price[chosen])
        spent[chosen] += price[chosen]
    return spent


def test_equal_requests_take_turns() -> None:
    rounds = ring("a", "b")
    turns = []
    for _ in range(6):
        chosen = rounds.order(["a", "b"], ["a", "b"])[0]
        rounds.seated(chosen)
        rounds.charge(chosen, 1000)
        turns.append(chosen)
    assert turns == ["a", "b"] * 3


@given(prices=st.lists(st.integers(1, 20_000), min_size=2, max_size=5))
def test_whoever_always_waits_gets_the_same_tokens(prices: list[int]) -> None:
    price = {f"p{n}": amount for n, amount in enumerate(prices)}
    rounds = ring(*price)
    spent = serve(rounds, list(price), price, 400)
    assert max(spent.values()) - min(spent.values()) <= QUANTUM + 2 * max(prices)


def test_an_absent_principal_saves_nothing_up() -> None:
    rounds = ring("a", "b")
    serve(rounds, ["a"], {"a": 5000}, 50)
    assert rounds.deficit("b") <= QUANTUM


def test_a_debt_waits_for_its_debtor_and_fades() -> None:
    rounds = ring("a", "b")
    rounds.charge("a", 2000)
    rounds.leave("a")
    assert rounds.deficit("a") == -2000
    serve(rounds, ["b"], {"b": 1000}, 20)
    assert rounds.deficit("a") == 0
    rounds.leave("a")
    assert len(rounds) == 1


def test_debtors_that_never_return_are_bounded() -> None:
    rounds = Rounds()
    for n in range(5000):
        rounds.charge(f"p{n}", 10**6)
        rounds.leave(f"p{n}")
    assert len(rounds) <= 4097
