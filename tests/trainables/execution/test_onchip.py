"""The layout of the execution `onchip`, and its kernel as CUDA's compiler sees it, which needs no GPU."""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import cpp_extension

from tests.stacks import World, small_trial
from trainables.execution import onchip as execution
from trainables.execution._onchip_layout import Layout
from trainables.native import build, cuda, onchip
from trainables.pruning.mask_report import report_on
from trainables.tensors.mask import to_row
from trainables.tensors.mlp import MLP
from trainables.training.updates import Updates

CRITIC = MLP((23, 256, 256, 1), copies=2)
COMPILER = "nvidia-cuda-nvrtc"


def mask(spec: MLP, sparsity: float, members: int = 1) -> Tensor:
    made = torch.Generator().manual_seed(0)
    layers = [(torch.rand(members, spec.copies, o, i, generator=made) >= sparsity).float() for i, o in spec.layers]
    layers[-1][:] = 1  # no unit is dead
    return to_row(spec, layers)


def test_every_kept_weight_is_there_once_on_each_way() -> None:
    spec = MLP((5, 12, 9, 2), copies=2, extra={"log_std": 2})
    row = mask(spec, 0.6)[0].bool()
    layout = Layout(spec, row)
    assert len(set(layout.place)) == len(layout.place)
    assert set(layout.place) == set(np.flatnonzero(row[: spec.used]))
    for copy in layout.copies:
        ways = []
        for weights, rows, own in ((copy.forward, copy.units, "to"), (copy.backward, copy.inputs, "from")):
            assert len(weights) % 2 == 0
            assert len(set(rows["to"])) == len(rows)
            found = set()
            for each in rows:
                part = weights[2 * each["first"] : 2 * (each["first"] + each["pairs"])]
                kept = part[part["take"] != onchip.NONE]
                assert len(kept) >= len(part) - 1
                assert (kept[own] == each["to"]).all()
                found |= set(kept.tolist())
            assert sum(weights["take"] != onchip.NONE) == len(found)
            ways.append({weight for weight in found if weight[1] > 0})  # row 0, the bias's, has no way back
        assert ways[0] == ways[1]
        assert copy.height == 1 + sum(map(len, copy.order))


def test_structures_are_as_large_as_those_of_c(tmp_path: Path) -> None:
    """A field that is missing on one side would shift all that follow."""
    kinds = (onchip.Copy, onchip.Network, onchip.Instruction, onchip.Machine, onchip.Pass)
    checks = "".join(f'_Static_assert(sizeof({kind.__name__}) == {ctypes.sizeof(kind)}, "{kind.__name__}");\n' for kind in kinds)
    checks += f'_Static_assert(sizeof(Weight) == {onchip.WEIGHT.itemsize} && sizeof(Row) == {onchip.ROW.itemsize}, "lists");\n'
    checks += f'_Static_assert(TILE == {onchip.TILE} && DEPTH == {onchip.DEPTH} && PARTS == {onchip.PARTS}, "sizes");\n'
    names = [name.upper().removeprefix("LOGICAL_") for name in onchip.OPERATIONS]
    checks += f'_Static_assert({" && ".join(f"{name} == {code}" for code, name in enumerate(names))}, "operations");\n'
    for listed in (onchip.CODES, onchip.DRAWS):
        checks += f'_Static_assert({" && ".join(f"{name.upper()} == {code}" for code, name in enumerate(listed))}, "codes");\n'
    file = tmp_path / "check.c"
    file.write_text(f'#include "onchip.c"\n{checks}')
    build.subprocess.run(
        [*build.os.environ.get("CC", "cc").split(), "-std=gnu11", "-Wno-psabi", "-fsyntax-only", f"-I{build.NATIVE}", str(file)], check=True
    )


@pytest.mark.parametrize(
    ("sparsity", "capability", "fits"), [(0.95, 80, True), (0.98, 80, True), (0.9, 80, False), (0.9, 90, True), (0.5, 90, False)]
)
def test_what_fits_on_the_chip(sparsity: float, capability: int, fits: bool) -> None:
    layout = Layout(CRITIC, mask(CRITIC, sparsity)[0].bool())
    assert (layout.shared <= onchip.SHARED[capability]) == fits, layout.shared


def test_what_it_cannot_compute_has_a_name() -> None:
    assert execution.cannot(MLP((5, 8, 1), norm="after")) == "layer normalization"
    assert execution.cannot(MLP((5, *[4] * 8, 1))) == "more than 8 layers"
    assert not execution.cannot(CRITIC)


@cache
def compiler() -> ctypes.CDLL:
    files = importlib.metadata.files(COMPILER) or []  # of the extra [dev]
    # The compiler asks for its builtins by their name alone: they are found where they are loaded.
    names = (r"libnvrtc-builtins\.so\.[\d.]+", r"libnvrtc\.so\.\d+")
    return [ctypes.CDLL(str(next(file.locate() for file in files if re.fullmatch(name, file.name)))) for name in names][-1]


def compiled(capability: int) -> str:
    """What CUDA's compiler says about the kernel, as CUDA's assembler made it for a GPU of this kind."""
    nvrtc, program = compiler(), ctypes.c_void_p()
    options = [f"--gpu-architecture=sm_{capability}".encode(), b"--ptxas-options=-v"]
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), onchip.source().encode(), b"onchip.cu", 0, None, None) == 0
    status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert status == 0, log.value.decode()
    assert nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    assert size.value > 10_000
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return log.value.decode()


@pytest.mark.parametrize("capability", sorted(onchip.SHARED))
def test_it_compiles_for_gpus_and_keeps_to_registers(capability: int) -> None:
    said = compiled(capability)
    registers = int(re.search(r"Used (\d+) registers", said)[1])  # type: ignore[index]
    assert registers * onchip.THREADS <= 65536, said
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in said, said
    assert "bytes smem" not in said, f"all shared memory is asked for at the launch: {said}"


def test_a_gpu_whose_kernel_cannot_be_compiled_has_another_execution_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onchip, "missing", lambda device: "NVRTC is not there")
    made = World([small_trial("td3_bc", "snip", 0.5)], "onchip").start()
    assert made.agent.execution == "fused"
    report = report_on(made.masks, made.agent, 0, (), {}, "onchip")
    assert report.warnings[0][-1] == "execution 'onchip' has no kernel for this GPU (NVRTC is not there); 'fused' computes the stack"


def test_a_kernel_is_compiled_where_no_toolkit_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch asks for the toolkit's headers before it compiles anything."""
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    monkeypatch.setattr(torch.cuda, "_compile_kernel", lambda source, name: (source, name, cpp_extension.include_paths("cuda")))
    source, name, folders = cuda.compiled("source", "name")
    assert (source, name) == ("source", "name")
    assert folders
    assert cpp_extension.CUDA_HOME is None, "others that build with torch are to be told that there is no toolkit"


def test_a_stack_that_does_not_fit_is_computed_by_another_execution_which_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onchip, "room", lambda device: 20_000)
    fits, too_large = small_trial("td3_bc", "snip", 0.5), small_trial("td3_bc", hyper={"hidden": (64, 64)})
    assert World([fits], "onchip").start().agent.execution == "onchip"
    made = World([too_large], "onchip").start()
    assert made.agent.execution == "fused"
    report = report_on(made.masks, made.agent, 0, (), {}, "onchip")
    assert re.search(
        r"execution 'onchip' cannot compute \(5, 64, 64, 2\) with 4,674 weights: \d+ kB .*; 'fused' can$", report.warnings[0][-1]
    )
    made.resume(made.masks, made.rows(), made.counts())
    Updates(made.agent, made.data).run(0, 3)
