"""A dataset's spaces, from its metadata or its environment, as flat vectors.

A Dict of Boxes (a maze's `observation`, `achieved_goal`, `desired_goal`) becomes one vector: its parts one after the other, each row by
row, Dicts within it likewise. The order is that of the space, as in gymnasium's FlattenObservation: alphabetical, since gymnasium sorts a
Dict's keys, unless it was declared in an order of its own. The environment is played through FlattenObservation, so table, evaluation,
export and rollout see the same vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables import environments
from trainables.errors import UserError, one_line

DISCRETE = ("Discrete", "MultiDiscrete", "MultiBinary")
Path = tuple[str, ...]
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Flat:
    """Bounds [n] of a flat vector; `parts` are the keys of a Dict's Boxes and their sizes, in order, none for a plain Box."""

    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]
    parts: tuple[tuple[Path, int], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """`desired_goal 0`, `achieved_goal.kettle 3`: a name for each number of a Dict; none for a plain Box."""
        return tuple(f"{'.'.join(path)} {index}" for path, size in self.parts for index in range(size))

    def vectors(self, held: Any) -> Array:
        """Observations as they are stored, an array or nested mappings of arrays [T, ...], as [T, n]."""
        if not self.parts:
            return np.asarray(held)
        columns = []
        for path, _ in self.parts:
            part = held
            for key in path:
                part = part[key]
            columns.append(np.asarray(part).reshape(len(part), -1))
        return np.concatenate(columns, axis=1)


def flat(dataset: str, environment: str, kind: str, given: Mapping[str, Any] | None) -> Flat:
    """The `kind` ("observation" or "action") space from the metadata's JSON, or from the environment if that has none.

    Raises UserError for what is neither a flat Box nor, as observations, a Dict of Boxes, and for a space that lacks a part."""
    try:
        return _flat(dataset, environment, kind, given)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        why = f"it has no {error.args[0]}" if isinstance(error, KeyError) else one_line(error)
        raise UserError(f"dataset {dataset!r}: its {kind} space in metadata.json is wrong: {why}") from None


def _flat(dataset: str, environment: str, kind: str, given: Mapping[str, Any] | None) -> Flat:
    given = given or described(getattr(environments.make(environment), f"{kind}_space"))
    if given.get("type") == "Dict" and kind == "observation":
        boxes = list(_boxes(dataset, given))
        low, high = (np.concatenate([_side(box, side).reshape(-1) for _, box in boxes]) for side in ("low", "high"))
        return Flat(low, high, tuple((path, int(np.prod(box["shape"]))) for path, box in boxes))
    if given.get("type") != "Box" or len(given["shape"]) != 1:
        if kind == "action":
            refuse_discrete(dataset, given)
        what = f"{given.get('type')} {given.get('shape', '')}".strip()
        raise UserError(f"dataset {dataset!r}: its {kind} space is {what}; only flat Box spaces can be trained on")
    if kind == "action" and not str(given.get("dtype", "float32")).startswith("float"):
        raise UserError(f"dataset {dataset!r}: its actions are {given['dtype']}; only those of floating-point numbers can be trained on")
    return Flat(_side(given, "low"), _side(given, "high"))


def refuse_discrete(dataset: str, actions: Mapping[str, Any] | None) -> None:
    """Raise UserError, with the reason, for a space of discrete actions."""
    if actions and actions.get("type") in DISCRETE:
        raise UserError(
            f"dataset {dataset!r}: its actions are discrete ({actions['type']}), and all algorithms here learn policies of continuous "
            f"actions: the actor's output is an action, scaled to the action box (docs/decisions/024-discrete-actions.md)"
        )


def from_arrow(column: Any) -> Any:
    """A column of an Arrow table as an array [T, ...], and one of structures as mappings of such, as `Flat.vectors` takes them."""
    import pyarrow

    held = column.combine_chunks() if isinstance(column, pyarrow.ChunkedArray) else column
    if pyarrow.types.is_struct(held.type):
        return {field.name: from_arrow(held.field(field.name)) for field in held.type}
    flat = held.flatten() if pyarrow.types.is_fixed_size_list(held.type) else held
    values = flat.to_numpy(zero_copy_only=False)
    return values if flat is held else values.reshape(len(held), -1)


def described(space: Any) -> dict[str, Any]:
    """A gymnasium space as Minari writes it into a dataset's metadata."""
    if hasattr(space, "spaces") and isinstance(space.spaces, Mapping):
        return {"type": "Dict", "subspaces": {name: described(part) for name, part in space.spaces.items()}}
    return {"type": type(space).__name__, "shape": space.shape, "low": getattr(space, "low", 0), "high": getattr(space, "high", 0)}


def _boxes(dataset: str, space: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for name, part in space["subspaces"].items():
        if part.get("type") == "Dict":
            yield from _boxes(dataset, part, (*path, name))
        elif part.get("type") == "Box":
            yield (*path, name), part
        else:
            where = ".".join((*path, name))
            raise UserError(f"dataset {dataset!r}: {where} of its observation space is {part.get('type')}; only Boxes can be flattened")


def _side(box: Mapping[str, Any], side: str) -> npt.NDArray[np.float32]:
    return np.broadcast_to(np.asarray(box[side], np.float32), tuple(box["shape"])).copy()
