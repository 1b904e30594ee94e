"""Named random streams: independent of each other, of names added, and of torch's global state."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.seeds import Streams

names = st.text(st.characters(categories=("Ll", "Nd"), include_characters="_"), min_size=1, max_size=12)
seeds = st.integers(0, 2**40)


def draws(streams: Streams, name: str, count: int = 4) -> list[float]:
    return torch.rand(count, generator=streams.generator(name)).tolist()


@settings(deadline=None, max_examples=200)
@given(seeds, st.sampled_from(["", "placebo"]), st.lists(names, min_size=2, max_size=20, unique=True))
def test_streams_are_distinct_by_name_and_seeds_fit_torch(seed, family, asked):
    streams = Streams(seed, family)
    numbers = [streams.number(name) for name in asked]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 2**63 for number in numbers)


@settings(deadline=None, max_examples=50)
@given(seeds, st.lists(names, min_size=2, max_size=6, unique=True))
def test_a_stream_does_not_depend_on_what_was_drawn_before(seed, asked):
    first, *others = asked
    alone = draws(Streams(seed), first)
    streams = Streams(seed)
    for name in others:
        draws(streams, name, 7)
    assert draws(streams, first) == alone


@settings(deadline=None, max_examples=100)
@given(st.sets(st.tuples(seeds, st.sampled_from(["", "placebo", "/compress0", "#1"])), min_size=2, max_size=20))
def test_seed_and_family_give_other_draws_of_one_name(pairs):
    numbers = {Streams(seed, family).number("order") for seed, family in pairs}
    assert len(numbers) == len(pairs)


def test_numbers_are_fixed_for_ever():
    """Records of one version stay comparable with those of the next: the derivation is part of the format."""
    assert Streams(0).number("init") == 8194569579164763991
    assert Streams(7, "placebo").number("order") == 7975295520179244451


def test_numbers_look_uniform():
    """Mean and spread over many seeds, as uniform draws would have them within four standard errors."""
    units = torch.tensor([Streams(seed).number("order") / 2**63 for seed in range(4000)], dtype=torch.float64)
    assert abs(float(units.mean()) - 0.5) < 4 * (1 / 12) ** 0.5 / 4000**0.5
    assert abs(float(units.var()) - 1 / 12) < 4 * (1 / 180) ** 0.5 / 4000**0.5  # var of (u - 1/2)^2 is 1/180


def test_neighbouring_seeds_and_names_are_uncorrelated():
    columns = [torch.rand(2000, generator=Streams(seed).generator(name)) for seed in (0, 1) for name in ("a", "b")]
    off_diagonal = torch.corrcoef(torch.stack(columns)).fill_diagonal_(0)
    assert float(off_diagonal.abs().max()) < 4.5 / 2000**0.5


def test_the_default_generator_is_seeded_within_and_restored_after():
    torch.manual_seed(5)
    expected = torch.rand(6).tolist()
    torch.manual_seed(5)
    before = torch.rand(3).tolist()
    with Streams(1).default_generator("init"):
        inside = torch.rand(3).tolist()
    after = torch.rand(3).tolist()
    assert before + after == expected
    assert inside == torch.rand(3, generator=Streams(1).generator("init")).tolist()


def test_the_default_generator_is_restored_after_an_error_too():
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="shape"), Streams(1).default_generator("init"):
        torch.rand(3).view(2)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_default_generator_nests():
    with Streams(1).default_generator("a"):
        expected = torch.rand(4).tolist()
    with Streams(1).default_generator("a"):
        first = torch.rand(2).tolist()
        with Streams(1).default_generator("b"):
            torch.rand(9)
        assert first + torch.rand(2).tolist() == expected


@pytest.mark.parametrize("used", [False, True])
def test_only_gpus_in_use_are_looked_at(monkeypatch, used):
    """A trial on the CPU of a machine with GPUs must not open a context on each of them."""
    read, written = [], []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: used)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: None)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: read.append(device) or torch.zeros(1))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: written.append(device))
    with Streams(1).default_generator("init"):
        assert written == []
    assert read == written == ([0, 1] if used else [])


def test_the_first_member_is_the_trial_itself_and_others_draw_anew():
    streams = Streams(3, "placebo")
    assert streams.member(0) is streams
    members = [streams, *(streams.member(index) for index in range(1, 30)), streams.member(1).member(1)]
    assert len({member.number("init") for member in members}) == len(members)
    assert all(member.seed == 3 for member in members)
