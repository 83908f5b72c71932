from __future__ import annotations

import math

import pytest
import torch

from trainables.tensors import native_ops, streams
from trainables.tensors.streams import Streams, key_of, philox, words

# Random123's kat_vectors for philox4x32-10: counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def hexadecimal(text: str) -> list[torch.Tensor]:
    return [torch.tensor([int(word, 16)]) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_philox_gives_the_known_answers(counter: str, key: str, result: str) -> None:
    assert [int(word) for word in philox(hexadecimal(counter), hexadecimal(key))] == [int(word) for word in hexadecimal(result)]


def test_words_are_philox_of_lane_and_update() -> None:
    late = 2**32 + 5  # an update beyond 32 bits has its own draws
    drawn = words([7, 8], "noise", late, 1, 6)
    assert drawn.shape == (1, 2, 6)
    for member, seed in enumerate((7, 8)):
        key = [torch.tensor([word]) for word in key_of(seed, "noise")]
        for place in range(6):
            counter = [torch.tensor([word]) for word in (place // 4, 5, 1, 0)]
            assert int(drawn[0, member, place]) == int(philox(counter, key)[place % 4])
    assert not torch.equal(drawn, words([7, 8], "noise", 5, 1, 6))


def draw(kind: str, where: Streams, purpose: str = "x") -> torch.Tensor:
    if kind == "integers":
        return where.integers(purpose, 15, 1000)
    return getattr(where, kind)(purpose, 3, 5)


KINDS = ("uniform", "normal", "integers")


@pytest.mark.parametrize("kind", KINDS)
def test_an_updates_draw_does_not_depend_on_history(kind: str) -> None:
    updates = [0, 1, 62, 63, 64, 65, 127, 128, 12_345, 3]  # both sides of the borders of a block, and back
    walked = Streams([3, 4])
    seen = {}
    for update in updates:
        walked.update = update
        draw(kind, walked, "another")
        seen[update] = draw(kind, walked).clone()
    for update in updates:
        fresh = Streams([3, 4])
        fresh.update = update
        assert torch.equal(draw(kind, fresh), seen[update])
    assert len({tuple(value.flatten().tolist()) for value in seen.values()}) == len(updates)


@pytest.mark.parametrize("kind", KINDS)
def test_a_first_draw_is_made_for_one_update_and_a_long_one_for_few(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {}
    for words_at_most in (30, 15, 10**6):
        monkeypatch.setattr(streams, "BLOCK_WORDS", words_at_most)
        made: list[int] = []
        where = Streams([3, 4])
        monkeypatch.setattr(where, "_block", lambda *given, own=where._block, made=made: made.append(given[3]) or own(*given))
        for update in range(12):
            where.update = update
            found = draw(kind, where)
            assert torch.equal(short.setdefault(update, found), found)
        assert made == {30: [1, *[2] * 6], 15: [1] * 12, 10**6: [1, 8, 64]}[words_at_most]


@pytest.mark.parametrize("kind", KINDS)
def test_c_and_torch_draw_the_same_numbers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_c = Streams([3, 4])
    assert in_c._native, "the kernels are compiled where the tests run"
    in_torch = Streams([3, 4])
    monkeypatch.setattr(in_torch, "_native", False)
    one, other = draw(kind, in_c), draw(kind, in_torch)
    if kind == "normal":  # torch's logarithms, sines and cosines have other last bits
        torch.testing.assert_close(one, other, rtol=2e-6, atol=1e-6)
    else:
        assert torch.equal(one, other)


def test_normals_are_those_of_their_uniforms() -> None:
    keys = torch.tensor([key_of(seed, "noise") for seed in (3, 4)])
    wanted = streams.to_normal(native_ops.uniform(keys, 5, 9, 150).double())
    torch.testing.assert_close(native_ops.normal(keys, 5, 9, 150).double(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_members_draw_does_not_depend_on_its_stack_mates(kind: str) -> None:
    together = draw(kind, Streams([5, 0, 17, 5]))
    assert together.shape == ((4, 15) if kind == "integers" else (4, 3, 5))
    for member, seed in enumerate((5, 0, 17, 5)):
        assert torch.equal(together[member], draw(kind, Streams([seed]))[0])
    assert not torch.equal(together[0], together[1])


def test_purposes_seeds_phases_and_kinds_are_apart() -> None:
    where = Streams([0])
    drawn = [
        where.uniform("a", 8),
        where.uniform("b", 8),
        Streams([1]).uniform("a", 8),
        Streams([0], phase="calibration/").uniform("a", 8),
        where.normal("a", 8),  # the same purpose and count as the first
        where.integers("a", 8, 10).float(),
        where.integers("a", 8, 100_000).float(),
    ]
    assert len({tuple(value.flatten().tolist()) for value in drawn}) == len(drawn)
    assert float(where.integers("a", 8, 10).max()) < 10


def test_a_seed_and_a_purpose_cannot_be_confused() -> None:
    assert len({key_of(seed, purpose) for seed in range(50) for purpose in ("a", "b", "1/a", "11")}) == 200


COUNT = 200_000


def test_uniform_moments_and_open_ends() -> None:
    drawn = Streams([0, 1]).uniform("u", COUNT)
    assert drawn.dtype == torch.float32
    for row in drawn.double():
        assert 0 < row.min() < 1e-4
        assert 1 - 1e-4 < row.max() < 1
        assert abs(row.mean() - 1 / 2) < 4 * (1 / 12 / COUNT) ** 0.5
        assert abs(row.var() - 1 / 12) < 4 * (1 / 180 / COUNT) ** 0.5
        assert abs((row[1:] * row[:-1]).mean() - 1 / 4) < 5e-3
    assert abs(torch.corrcoef(drawn)[0, 1]) < 4 / COUNT**0.5
    extremes = streams.to_uniform(torch.tensor([0, 2**32 - 1]))
    assert extremes[0] > 0
    assert extremes[1] < 1


def test_normals_are_box_muller_of_pairs_of_words() -> None:
    drawn = words([0], "n", 0, 1, 1000)[0, 0]
    u, v = (((drawn >> 9).double() + 0.5) / 2**23).reshape(-1, 2).T
    radius = (-2 * u.log()).sqrt()
    wanted = torch.stack([radius * (2 * math.pi * v).cos(), radius * (2 * math.pi * v).sin()], 1).flatten()
    assert (Streams([0]).normal("n", 1000)[0] - wanted).abs().max() < 1e-5


def test_normal_moments() -> None:
    drawn = Streams([0, 1]).normal("n", COUNT).double()
    assert torch.isfinite(drawn).all()
    for row in drawn:
        assert abs(row.mean()) < 4 / COUNT**0.5
        assert abs(row.var() - 1) < 4 * (2 / COUNT) ** 0.5
        assert abs((row**3).mean()) < 4 * (15 / COUNT) ** 0.5
        assert abs((row**4).mean() - 3) < 4 * (96 / COUNT) ** 0.5
        assert abs((row[::2] * row[1::2]).mean()) < 4 / (COUNT / 2) ** 0.5  # the two of a Box-Muller pair
        assert row.abs().max() > 4
    assert abs(torch.corrcoef(drawn)[0, 1]) < 4 / COUNT**0.5
    assert torch.isfinite(streams.to_normal(streams.to_uniform(torch.tensor([0, 0, 2**32 - 1, 2**32 - 1])))).all()


@pytest.mark.parametrize("below", [1, 2, 7, 1000])
def test_integers_cover_their_range_evenly(below: int) -> None:
    drawn = Streams([0]).integers("i", COUNT, below)
    assert drawn.dtype == torch.int64
    counts = torch.bincount(drawn[0], minlength=below)
    assert len(counts) == below
    expected = COUNT / below
    assert (counts - expected).abs().max() < 5 * expected**0.5
    assert int(streams.to_integers(torch.tensor([2**32 - 1]), below)) == below - 1


def test_odd_counts_are_the_beginning_of_even_ones() -> None:
    assert torch.equal(Streams([0]).normal("n", 7), Streams([0]).normal("n", 8)[:, :7])
