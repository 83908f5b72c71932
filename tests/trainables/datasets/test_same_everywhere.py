"""A recording has the same bits on every processor: its policy's products, and the data under an id."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.arm import array, emulated, told
from trainables.datasets.collect import policy
from trainables.datasets.collect.record import record
from trainables.datasets.table import load_table
from trainables.native import build

SHAPES = [(3, 17, 128), (1, 128, 128), (2, 128, 6), (2, 128, 3), (2, 11, 128), (2, 49, 29), (1, 60, 1), (2, 17, 3), (1, 51, 3), (1, 55, 12)]

Array = npt.NDArray[np.float32]


def numbers(rows: int, inputs: int, outputs: int) -> tuple[Array, Array]:
    rng = np.random.default_rng([rows, inputs, outputs])
    return rng.standard_normal((rows, inputs), np.float32), rng.standard_normal((inputs, outputs), np.float32)


def rounded_once(a: Any, b: Any, c: Any) -> np.float32:
    """a b + c, exact and then rounded; through float64, which these numbers do not bring to a tie."""
    return np.float32(float(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))))


def chain(x: Array, w: Array) -> np.float32:
    total = np.float32(0)
    for a, b in zip(x, w, strict=True):
        total = rounded_once(a, b, total)
    return total


def plain(x: Array, w: Array) -> Array:
    """One row times w, by the rule that is written at the top of rows.c."""
    inputs, outputs = w.shape
    made = np.empty(outputs, np.float32)
    for column in range(outputs):
        v, total = w[:, column], np.float32(0)
        if inputs <= 48 or (outputs != 3 and column >= outputs // 4 * 4):
            total = chain(x, v)
        elif outputs == 3:
            fours = inputs // 4 * 4
            for i in range(0, fours, 2):
                total += rounded_once(v[i], x[i], v[i + 1] * x[i + 1])
            for i in range(fours, inputs):
                total = rounded_once(v[i], x[i], total)
        else:
            apart = column < outputs // 4 * 4 % 16  # the first 4, 8 or 12 columns
            for i in range(0, inputs, 8):
                part, weights = x[i : i + 8], v[i : i + 8]
                total += chain(part[::2], weights[::2]) + chain(part[1::2], weights[1::2]) if apart else chain(part, weights)
        made[column] = total
    return made


@pytest.mark.parametrize("shape", SHAPES)
def test_a_policys_product_adds_in_the_order_that_is_written_down(shape: tuple[int, int, int]) -> None:
    assert policy.why_not_exact() == ""
    x, w = numbers(*shape)
    np.testing.assert_array_equal(policy.product(x, w), np.stack([plain(row, w) for row in x]))
    np.testing.assert_array_equal(policy.product(x[0], w), plain(x[0], w))
    np.testing.assert_allclose(policy.product(x, w), x @ w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", [name for name, needs in build.NEEDS.items() if needs <= build._features()])
def test_it_has_the_same_bits_with_every_instruction_set(level: str) -> None:
    rows = build._loaded(level).winnow_rows
    rows.argtypes, rows.restype = build.library().winnow_rows.argtypes, None
    for shape in SHAPES:
        x, w = numbers(*shape)
        made = np.empty((shape[0], shape[2]), np.float32)
        rows(*shape, x.ctypes.data, w.ctypes.data, made.ctypes.data)
        np.testing.assert_array_equal(made, policy.product(x, w))


@emulated
def test_it_has_the_same_bits_on_arm(tmp_path: Path) -> None:
    lines, wanted = ['#include "rows.c"', "#include <stdio.h>"], []
    calls = []
    for number, shape in enumerate(SHAPES):
        x, w = numbers(*shape)
        wanted += policy.product(x, w).ravel().tolist()
        for name, held in (("x", x), ("w", w)):
            lines.append(array("float", f"{name}{number}", held.ravel()))
        calls.append(f"winnow_rows({', '.join(map(str, shape))}, x{number}, w{number}, y);")
        calls.append(f'for (int i = 0; i < {shape[0] * shape[2]}; i++) printf("%a\\n", y[i]);')
    program = "\n".join([*lines, "static float y[1000];", "int main(void) {", *calls, "return 0; }"])
    assert told(program, tmp_path) == wanted


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="another MuJoCo and libm round otherwise")
@pytest.mark.parametrize(
    ("dataset", "content"),
    [
        ("winnow/halfcheetah/medium-v1", "1ab06716f844"),
        ("winnow/walker2d/expert-v1", "097c70a0e2a6"),
        ("winnow/hopper/medium-v0", "f1767aacdcfa"),
        ("winnow/hopper/random-v0", "61e75a1769cc"),
    ],
)
def test_the_data_under_an_id_are_the_same_on_every_processor(
    dataset: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    record(dataset, 2000)
    assert load_table(dataset).hash.startswith(content)


def test_without_a_compiler_a_recording_says_that_its_bits_are_this_processors(tmp_path: Path) -> None:
    env = os.environ | {"CC": "no-such-cc", "WINNOW_CACHE": str(tmp_path / "cache"), "MINARI_DATASETS_PATH": str(tmp_path / "minari")}
    command = [sys.executable, "-m", "trainables.datasets.collect", "record", "winnow/hopper/medium-v0", "--transitions", "300"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "warning: the last bits of a recording, and so its hash, depend on this processor: no C compiler 'no-such-cc'" in done.stderr
    assert "recorded, 300 transitions" in done.stdout
