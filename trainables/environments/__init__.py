"""Environments: one file per family, a module with

    IDS                             its gymnasium ids
    RANDOM_RETURN, EXPERT_RETURN    what the normalized scores 0 and 100 stand for; left out if unknown
    SOURCE                          optional: where the two come from; D4RL's constants otherwise
    EXTRA                           optional: the extra of the package `winnow-rl` that installs the module in IDS
    OBSERVATION_NAMES               optional: the names of the observation's dimensions, in order; an older id may have fewer
    TIME_LIMIT                      optional: the time steps after which gymnasium ends an episode; read without importing gymnasium
    RUNNER                          optional: then its v5 episodes are played without gymnasium's `step`, bit-equal, in half the time

`make` builds any id that gymnasium knows, or that a module registers which the user has named (_modules.py). An environment with settings
of its own is written as its id and a JSON object, `Ant-v4 {"use_contact_forces": true}`: this one text names the environment everywhere.
Two settings are not the environment's but what is put around it: `max_episode_steps`, and `additional_wrappers` (_wrappers.py).

Importing this package, and asking for a reference, imports no gymnasium: planning needs both at once.
"""

from __future__ import annotations

import difflib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from trainables import plugins, project
from trainables.environments import _wrappers
from trainables.environments._glfw import its_own_library
from trainables.environments._modules import environment_variables, import_for, name_modules, named_modules
from trainables.errors import UserError, one_line

if TYPE_CHECKING:
    import gymnasium


__all__ = ["environment_variables", "name_modules", "named_modules"]  # re-exported: the rest of the package is defined here


@dataclass(frozen=True)
class Reference:
    """Undiscounted returns that the normalized scores 0 and 100 stand for, and where the two numbers come from."""

    random: float
    expert: float
    source: str

    @property
    def known(self) -> bool:
        """Whether there are reference returns; without them every normalized score is nan."""
        return self.random < self.expert

    def normalize(self, returns: Any) -> Any:
        """Normalized score, 100 x (return - random) / (expert - random), of a number or an array of any shape (D4RL, Fu 2020)."""
        return 100.0 * (returns - self.random) / (self.expert - self.random)


# Settings that change what is observed, not what an episode returns. (Contact forces cost D4RL's Ant too, but its constants include that.)
OBSERVED = {"include_cfrc_ext_in_observation", "exclude_current_positions_from_observation", "use_contact_forces"}

TIME_LIMIT = "max_episode_steps"  # among the settings of an environment

# Settings that change a picture, not a return.
COSMETIC = {"render_mode", "width", "height", "camera_id", "camera_name", "default_camera_config", "max_geom", "visual_options"}

SCRIPT = "__main__"  # the module of what was recorded by the script that defines its environment
UNKNOWN = Reference(math.nan, math.nan, "none known")


@dataclass(frozen=True)
class Runner:
    """Gymnasium's planar runners (v5): the defaults of one, from its file in gymnasium/envs/mujoco.

    A runner is healthy while its height, its angle and every other state (positions and velocities but x) are strictly inside their
    ranges. It then gets `healthy_reward` at each time step; with `terminates` its episode ends when it is not.
    """

    control_cost: float
    healthy_reward: float = 0.0
    terminates: bool = False
    height: tuple[float, float] = (-inf, inf)
    angle: tuple[float, float] = (-inf, inf)
    state: tuple[float, float] | None = None
    velocity_limit: float | None = None  # of what is observed


def written(name: str, settings: Mapping[str, Any]) -> str:
    """An environment as one text: its id, and the keyword arguments it is made with as sorted JSON, where it has any."""
    return f"{name} {json.dumps(dict(settings), sort_keys=True)}" if settings else name


def read(environment: str) -> tuple[str, dict[str, Any]]:
    """Id and settings of a text that `written` gave; raises UserError for settings that are no JSON object."""
    name, _, text = environment.partition(" ")
    try:
        settings = json.loads(text or "{}")
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise UserError(f"settings {text!r} of the environment {name} are not a JSON object such as " + '{"use_contact_forces": true}')
    return name, settings


def families() -> dict[str, tuple[str, ...]]:
    """The gymnasium ids of each family that has a file; those of the project and of installed packages come first."""
    names = sorted(plugins.names("environments"), key=lambda name: plugins.ships("environments", name))
    return {name: tuple(plugins.load("environments", name).IDS) for name in names}


def family_of(environment: str) -> str | None:
    """`halfcheetah` for `HalfCheetah-v5`; None for an environment without a file.

    A file of the project counts, not ours, where both name the environment: its reference returns are the user's choice. So does the one
    that registers it, `environments.mine:Name-v0`."""
    bare, _ = read(environment)
    module, _, id = bare.rpartition(":")
    module = module.removeprefix(f"{project.PACKAGE}.")  # as data is named that this process has imported
    own = module.removeprefix("environments.") if module in _own_modules() else None
    return next((name for name, ids in families().items() if bare in ids or (name == own and id in ids)), None)


def reference(environment: str) -> Reference | None:
    """Random and expert returns of the environment's family; None if no file has them, or for settings that may change returns."""
    family, (_, settings) = family_of(environment), read(environment)
    if family is None or settings.keys() - OBSERVED - {_wrappers.KEY} or not _wrappers.neutral(settings.get(_wrappers.KEY, ())):
        return None
    module = plugins.load("environments", family)
    if not hasattr(module, "EXPERT_RETURN"):
        return None
    source = getattr(module, "SOURCE", "D4RL's constants")
    return Reference(float(module.RANDOM_RETURN), float(module.EXPERT_RETURN), f"{source} (environments/{family}.py)")


def observation_names(environment: str, size: int) -> tuple[str, ...] | None:
    """The names of the `size` dimensions of an observation; None if the environment has no file, or has more dimensions than it."""
    family = None if read(environment)[1].keys() - {TIME_LIMIT} else family_of(environment)
    names = () if family is None else tuple(getattr(plugins.load("environments", family), "OBSERVATION_NAMES", ()))
    return names[:size] if 0 < size <= len(names) else None


def runner(environment: str) -> Runner | None:
    """How to observe and reward a v5 environment straight from MuJoCo's state; None if its family's file has
    no RUNNER, and for an environment with settings of its own, but for its time limit."""
    family, (name, settings) = family_of(environment), read(environment)
    plain = name.endswith("-v5") and not settings.keys() - {TIME_LIMIT}
    return getattr(plugins.load("environments", family), "RUNNER", None) if family and plain else None


def declared(spec: Mapping[str, Any]) -> tuple[str, int | None]:
    """The environment of an EnvSpec's JSON as one text, and its time limit: wrappers and a limit that differ from its registration's and
    settings that differ from its defaults are part of the text, unless they change pictures only.

    It is `module:Name-v0`, so that it is registered first, where it is not gymnasium's own. Raises UserError where it cannot be made."""
    name = str(spec["id"])
    module = str(spec.get("entry_point") or "").partition(":")[0]
    package = module.partition(".")[0]
    if ":" not in name and package not in ("", "gymnasium"):
        name = f"{package if package in _declared_modules() else module}:{name}"
    settings = {kind: value for kind, value in (spec.get("kwargs") or {}).items() if kind not in COSMETIC}
    wrappers = _wrappers.listed(spec.get(_wrappers.KEY) or (), name)
    limit, registered = spec.get(TIME_LIMIT), _time_limit(name)
    if settings or wrappers or not registered:
        env = make(name)
        known, prior = env.spec, _wrappers.after(getattr(env.spec, _wrappers.KEY, ()), wrappers, name) if wrappers else []
        env.close()
        defaults = json.loads(json.dumps(known.kwargs if known else {}, default=str))
        settings = {kind: value for kind, value in settings.items() if kind not in defaults or defaults[kind] != value}
        settings |= {_wrappers.KEY: prior} if prior else {}
        registered = known.max_episode_steps if known else None
    if limit and limit != registered:
        settings[TIME_LIMIT] = int(limit)
    return written(name, settings), int(limit or registered or 0) or None


def flattened(environment: str) -> str:
    """The environment whose Dict observations are one vector: in gymnasium's FlattenObservation, on top of its other wrappers."""
    name, settings = read(environment)
    return written(name, settings | {_wrappers.KEY: [*settings.get(_wrappers.KEY, ()), _wrappers.FLATTEN]})


def _extra(environment: str, error: Exception) -> str | None:
    """What to install for the environment, where its module is missing."""
    family = family_of(environment)
    missing = isinstance(error, ModuleNotFoundError) or isinstance(error.__cause__, ModuleNotFoundError)
    return getattr(plugins.load("environments", family), "EXTRA", None) if family and missing else None


def _time_limit(environment: str) -> int | None:
    family = family_of(environment)
    return getattr(plugins.load("environments", family), "TIME_LIMIT", None) if family else None


def _declared_modules() -> set[str]:
    """The modules in the ids of files here, and a project's files: they may be imported without being named."""
    return {id.partition(":")[0] for ids in families().values() for id in ids if ":" in id} | _own_modules()


def _own_modules() -> set[str]:
    """A project's files as a script in it imports them, `environments.mine`: they may register what they describe."""
    return {f"environments.{name}" for name in project.files("environments")}


def in_this_process(environment: str) -> bool:
    """Whether nothing but this process can make the environment: it was registered in a notebook, or by the script that runs."""
    import gymnasium

    module, _, bare = read(environment)[0].rpartition(":")
    known = gymnasium.registry.get(bare) if module == SCRIPT else None
    return known is not None and (callable(known.entry_point) or str(known.entry_point).startswith(f"{SCRIPT}:"))


def make(environment: str, *, drawn: bool = False) -> gymnasium.Env[Any, Any]:
    """Build the environment without printing anything, with gymnasium's defaults except for the settings in its text (`written`).

    With `drawn`, its `render` returns pictures. The id `module:Name-v0` is registered by the module. Raises UserError for a module that
    nobody named, with the nearest ids for an id that gymnasium does not know or cannot build, and for settings or wrappers that cannot be
    made.
    """
    import gymnasium

    environment, settings = read(environment)
    wrappers = settings.pop(_wrappers.KEY, [])
    import_for(environment, _declared_modules())
    module, _, bare = environment.rpartition(":")
    if module == SCRIPT and bare in gymnasium.registry:  # recorded by the script that has registered it here, as the file of a sweep
        environment = bare
    try:
        with its_own_library(), warnings.catch_warnings():  # v4 ids announce that v5 exists; datasets recorded in v4 are evaluated in v4
            warnings.simplefilter("ignore")
            known = gymnasium.registry.get(environment.rpartition(":")[2])
            # Not every class takes a render_mode; one that is registered with a window is made without it.
            mode = {"render_mode": "rgb_array" if drawn else None} if drawn or (known and "render_mode" in known.kwargs) else {}
            try:
                env = gymnasium.make(environment, disable_env_checker=True, **(settings | mode))
            except TypeError:
                if not drawn:
                    raise
                env = gymnasium.make(environment, disable_env_checker=True, **settings)  # a class without render_mode may draw all the same
    except gymnasium.error.DependencyNotInstalled as error:
        raise UserError(f"environment {environment!r} needs a package that is not installed: {one_line(error)}") from None
    except (gymnasium.error.Error, ModuleNotFoundError, ImportError) as error:
        if module == SCRIPT:
            raise UserError(
                f"environment {bare!r} was registered by a script, which nothing else can import: declare it in the sweep's file "
                f'(`winnow run ./FILE.py`), or in a module (entry_point="my_envs:Class"), and record the data again'
            ) from None
        if extra := _extra(environment, error):
            raise UserError(
                f"environment {environment!r} needs a package that is not installed: pip install 'winnow-rl[{extra}]'"
            ) from None
        ours = [name for ids in families().values() for name in ids]
        near = difflib.get_close_matches(environment, [*gymnasium.registry], n=4, cutoff=0.5)
        choices = ", ".join(name for name in dict.fromkeys([*near, *ours]) if name != environment)
        others = "all others of gymnasium, and your own as module:Name-v0"
        raise UserError(f"no environment {environment!r} ({one_line(error)}); there are: {choices}, {others}") from None
    except Exception as error:  # an environment's code may raise anything
        given = f" with the settings {settings}" if settings else ""
        raise UserError(f"environment {environment!r} cannot be made{given}: {type(error).__name__}: {one_line(error)}") from None
    return _wrappers.put_on(env, wrappers, environment)
