"""How trials are trained: device, stacks and checkpoints. None of it changes what a trial is. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from service.terminal import clock
from trainables import plugins, project
from trainables.errors import UserError, unknown

DEVICES = ("auto", "all", "cpu", "cuda")
KEEP = ("all", "final", "curves")
PRIORITIES = {"high": 1, "normal": 0, "low": -1}
HEAVIEST = 1000.0
HOURS = ("max_hours", "max_core_hours", "max_gpu_hours")
KINDS = {"int": "an integer", "float": "a number", "bool": "a boolean", "str": "a string"}  # types of options, in words


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """One value from the command line to the worker, and stored with the sweep. None: as many as fit.

    Raises UserError for a value that makes no sense.
    """

    device: str = "auto"
    execution: str = "auto"
    stack_size: int | None = None  # trials trained as one model, at most
    max_concurrent: int | None = None  # stacks at a time, at most
    gpu_fraction: float | None = None  # share of a GPU per stack, None: as its throughput says; bookkeeping, not isolation
    checkpoint_every: int = 5_000  # updates
    tf32: bool = False
    pin: bool = False  # with every device: trials that are compared train on one kind
    stalled_after: float | None = None  # seconds of silence after which a worker is ended and its trials are tried again; None: never
    max_hours: float | None = None  # a run ends at a checkpoint when it has taken so long, None: never; so it is with the next three
    max_core_hours: float | None = None  # of the cores that its stacks held
    max_gpu_hours: float | None = None  # of the shares of GPUs that its stacks held
    until: str | None = None  # a time of day, by this machine's clock or with its distance from UTC
    weight: float = 1.0  # of this sweep's share of a cluster that several sweeps use
    priority: str = "normal"  # there: a higher one gets what it wants before others get anything
    keep: str = "all"  # of finished trials: all, no checkpoints (final), or, once MLflow has them, no policies and masks either (curves)
    imports: tuple[str, ...] = ()  # modules that register environments; no other is imported for one

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise unknown("device", self.device, DEVICES)
        if self.execution not in executions():
            raise unknown("execution", self.execution, executions())
        if self.keep not in KEEP:
            raise unknown("choice of --keep", self.keep, KEEP)
        if self.priority not in PRIORITIES:
            raise unknown("priority", self.priority, tuple(PRIORITIES))
        if not 0 < self.weight <= HEAVIEST:
            raise UserError(f"{flag('weight')} {self.weight:g} is outside (0, {HEAVIEST:g}]")
        for name in ("stack_size", "max_concurrent", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{flag(name)} {value} is less than 1")
        if self.stalled_after is not None and not self.stalled_after > 0:
            raise UserError(f"{flag('stalled_after')} {self.stalled_after:g} is not above 0")
        for name in HOURS:
            if (hours := getattr(self, name)) is not None and not 0 < hours < float("inf"):
                raise UserError(f"{flag(name)} {hours:g} is not a positive number of hours")
        if self.until is not None:
            clock.check(self.until)
        if self.gpu_fraction is not None and not 0 < self.gpu_fraction <= 1:
            raise UserError(f"{flag('gpu_fraction')} {self.gpu_fraction} is outside (0, 1]")

    def words(self) -> list[str]:
        """As they are typed: `--device=cpu`; defaults are left out, but for those of which the project has another."""
        ours = project.settings().get("defaults", {})
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        usual = {field.name: field.default for field in fields(self)}
        changed = {name: value for name, value in values.items() if value != usual[name] or (name in ours and value is not None)}
        modules = changed.pop("imports", ())
        words = [_word(name, value) for name, value in changed.items()]
        return words + [f"--import={module}" for module in modules]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainingOptions:
        """Options that this code does not know, of a later version, are left out."""
        known = {field.name: value[field.name] for field in fields(cls) if field.name in value}
        return cls(**known | {"imports": tuple(known.get("imports", ()))})


def checked(given: Mapping[str, Any], source: str, more: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Options from a file or from Python, by name; raises UserError, which names their `source`, for another one or a wrong kind. `more`
    may be given, too: the kind by name."""
    kinds = {field.name: str(field.type).partition(" |")[0] for field in fields(TrainingOptions) if field.name != "imports"} | dict(more)
    for name, value in given.items():
        if name not in kinds:
            raise unknown(f"option{source}", name, sorted(kinds))
        kind = type(value).__name__
        if kind != kinds[name] and (kind, kinds[name]) != ("int", "float"):
            raise UserError(f"{source.removeprefix(' in ')}: {name} = {value!r} is not {KINDS[kinds[name]]}".removeprefix(": "))
    return dict(given)


def executions() -> tuple[str, ...]:
    return ("auto", *plugins.names("execution"))


def _word(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return flag(name) if value else f"--no-{flag(name).removeprefix('--')}"
    return f"{flag(name)}={value}"


def flag(name: str) -> str:
    """`stack_size` -> `--stack-size`."""
    return f"--{name.replace('_', '-')}"
