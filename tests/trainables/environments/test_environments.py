from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainables import environments, plugins
from trainables.environments import Reference
from trainables.errors import UserError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("family", plugins.names("environments"))
def test_every_family_builds_all_its_ids_and_has_a_reference_or_says_that_there_is_none(family: str) -> None:
    for name in environments.families()[family]:
        env = environments.make(name)
        assert env.spec is not None
        assert env.spec.id == name.rpartition(":")[2]
        env.close()
        reference = environments.reference(name)
        if reference is None:
            assert "No reference returns" in str(plugins.load("environments", family).__doc__)
        else:
            assert reference.random < reference.expert
            assert family in reference.source
        assert environments.family_of(name) == family


@pytest.mark.parametrize(
    ("name", "random", "expert"),
    [
        ("HalfCheetah-v5", -280.178953, 12135.0),  # these three: D4RL's infos.py
        ("Hopper-v5", -20.272305, 3234.3),
        ("Walker2d-v5", 1.629008, 4592.3),
        ("Ant-v5", -325.6, 3879.7),
        ("Pendulum-v1", -1224.2, -138.0),
    ],
)
def test_reference_returns_are_those_that_were_published_or_measured(name: str, random: float, expert: float) -> None:
    """Written down a second time, as a wrong one would look like a better or worse score."""
    reference = environments.reference(name)
    assert reference is not None
    assert (reference.random, reference.expert) == (random, expert)


def test_normalized_score_is_d4rls() -> None:
    reference = environments.reference("Hopper-v5")
    assert reference is not None
    assert reference.normalize(-20.272305) == 0
    assert reference.normalize(3234.3) == pytest.approx(100)
    # D4RL's own formula on its own constants, for an array
    returns = np.array([[0.0, 1622.0]])
    np.testing.assert_allclose(reference.normalize(returns), 100 * (returns + 20.272305) / (3234.3 + 20.272305))
    assert Reference(10, 20, "here").normalize(15) == 50


def test_an_environment_without_a_file_has_no_reference_but_can_be_made() -> None:
    assert environments.reference("HumanoidStandup-v5") is None
    assert environments.observation_names("HumanoidStandup-v5", 348) is None
    assert not environments.UNKNOWN.known
    assert np.isnan(environments.UNKNOWN.normalize(np.ones(3))).all()
    environments.make("HumanoidStandup-v5").close()
    assert environments.reference("Swimmer-v5") is None, "it has a file, which says that there is none"


NAMED = ("ant", "halfcheetah", "hopper", "walker2d")
MUJOCO = [name for family in NAMED for name in environments.families()[family]]


@pytest.mark.parametrize("name", MUJOCO)
def test_observations_are_named_in_the_order_of_the_model(name: str) -> None:
    """A change of one joint's position or velocity changes the dimension that has its name, and no other."""
    import mujoco

    env: Any = environments.make(name).unwrapped
    size = env.observation_space.shape[0]
    names = environments.observation_names(name, size)
    assert names is not None
    assert len(names) == len(set(names)) == size
    base = env._get_obs().copy()
    checked = set()
    for joint in range(env.model.njnt):
        if env.model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
            continue
        title = env.model.joint(joint).name.removesuffix("_joint")
        for kind, place in (("", env.model.jnt_qposadr[joint]), (".velocity", env.model.jnt_dofadr[joint])):
            values = env.data.qvel if kind else env.data.qpos
            values[place] += 0.01
            changed = np.flatnonzero(env._get_obs() != base)
            values[place] -= 0.01
            assert [names[i] for i in changed] == ([] if title + kind == "rootx" else [title + kind])  # where it stands is not observed
            checked |= set(changed.tolist())
    free = {i for i, title in enumerate(names) if title.startswith("root.")}
    contact = {i for i, title in enumerate(names) if "torque" in title or "force" in title}
    assert checked | free | contact == set(range(size))
    assert len(contact) == (78 if name == "Ant-v5" else 0)
    env.close()


def test_ants_free_joint_and_contacts_are_named_in_the_order_of_the_model() -> None:
    env: Any = environments.make("Ant-v5").unwrapped
    names = environments.observation_names("Ant-v5", 105)
    assert names is not None
    for values, titles in ((env.data.qpos, ("x", "y", "z", "qw", "qx", "qy", "qz")), (env.data.qvel, ("vx", "vy", "vz", "wx", "wy", "wz"))):
        for place, title in enumerate(titles):
            before = env._get_obs().copy()
            values[place] += 0.01
            changed = np.flatnonzero(env._get_obs() != before)
            assert [names[i] for i in changed] == ([] if title in ("x", "y") else [f"root.{title}"])
    bodies = [env.model.body(i).name or "shin" for i in range(1, env.model.nbody)]
    before = env._get_obs().copy()
    for place, body in enumerate(bodies, 1):
        env.data.cfrc_ext[place, 4] = 0.5  # mujoco's spatial vectors: torque x y z, force x y z
        (changed,) = np.flatnonzero(env._get_obs() != before)
        before = env._get_obs().copy()
        assert names[changed].endswith(".force_y")
        assert names[changed].split("_")[0].split(".")[0] == ("torso" if body == "torso" else names[changed].split("_")[0])
    assert [title.split(".")[0] for title in names[27::6]][:4] == ["torso", "leg_1", "thigh_1", "shin_1"]
    env.close()


def test_settings_are_part_of_an_environments_name() -> None:
    text = environments.written("Ant-v5", {"include_cfrc_ext_in_observation": False})
    assert text == 'Ant-v5 {"include_cfrc_ext_in_observation": false}'
    assert environments.read(text) == ("Ant-v5", {"include_cfrc_ext_in_observation": False})
    assert environments.written("Ant-v5", {}) == "Ant-v5"
    env = environments.make(text)
    assert env.observation_space.shape == (27,)
    env.close()
    assert environments.reference(text) == environments.reference("Ant-v5"), "what is observed changes no return"
    assert environments.reference('Ant-v5 {"forward_reward_weight": 2.0}') is None
    assert environments.runner('Hopper-v5 {"frame_skip": 2}') is None
    assert environments.runner("Hopper-v5") is not None
    assert environments.observation_names(text, 27) is None


def test_pendulums_observation_is_named() -> None:
    assert environments.observation_names("Pendulum-v1", 3) == ("cos", "sin", "velocity")
    assert environments.observation_names("Pendulum-v1", 4) is None


OWN = """
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class Swing(PendulumEnv):
    def __init__(self, g=10.0, render_mode=None):
        super().__init__(render_mode, g)

gymnasium.register("Swing-v0", entry_point="own_swing:Swing", max_episode_steps=20, kwargs={"g": 3.0})
"""


def test_a_users_own_environment_is_imported_from_the_datasets_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a process that has not imported it; returns stand alone where no reference is known; settings go with the policy."""
    (tmp_path / "own_swing.py").write_text(OWN)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    record = (
        "import gymnasium, numpy as np, own_swing, sys\n"
        "from minari.data_collector import EpisodeBuffer\n"
        "from trainables.datasets import minari_write\n"
        "for name, g in (('own/swing/random-v0', 3.0), ('own/swing/heavy-v0', 30.0)):\n"
        "    env = gymnasium.make('Swing-v0', g=g)\n"
        "    env.action_space.seed(0)\n"
        "    episodes = []\n"
        "    for seed in range(4):\n"
        "        seen, steps = [env.reset(seed=seed)[0]], []\n"
        "        for _ in range(20):\n"
        "            action = env.action_space.sample()\n"
        "            o, r, *_ = env.step(action); seen.append(o); steps.append((action, r))\n"
        "        a, r = zip(*steps)\n"
        "        last = np.arange(20) == 19\n"
        "        episodes.append(EpisodeBuffer(observations=np.array(seen), actions=np.array(a), rewards=np.array(r),\n"
        "                                      terminations=last & False, truncations=last))\n"
        "    minari_write.write(name, env, {}, episodes)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", record], check=True, cwd=tmp_path)
    command = [sys.executable, "-m", "trainables", "--algorithm", "bc", "--updates", "4", "--evaluations", "1", "--episodes", "2"]
    unnamed = subprocess.run([*command, "--dataset", "own/swing/random-v0"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert unnamed.returncode == 2
    assert unnamed.stderr.count("\n") == 1
    assert "'own_swing:Swing-v0' is made by the module own_swing" in unnamed.stderr
    assert "--import own_swing" in unnamed.stderr
    command += ["--import", "own_swing"]
    done = subprocess.run([*command, "--dataset", "own/swing/random-v0"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"after 4 updates: return -\d+\n", done.stdout), "no normalized score is shown"
    heavy = [*command, "--dataset", "own/swing/heavy-v0", "--storage", "kept"]
    subprocess.run(heavy, cwd=tmp_path, check=True, capture_output=True)
    (policy,) = (tmp_path / "kept").rglob("policy.json")
    assert json.loads(policy.read_text())["environment"] == 'own_swing:Swing-v0 {"g": 30.0}'
    monkeypatch.delenv("PYTHONPATH")
    missing = subprocess.run([*command, "--dataset", "own/swing/random-v0"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "--import own_swing: it cannot be imported (ModuleNotFoundError: No module named 'own_swing')" in missing.stderr
    assert missing.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["HalfCheeta-v5", "HalfCheetah-v9", "no/such-v0", ""])
def test_a_wrong_id_is_one_line_with_the_nearest_ids(name: str) -> None:
    with pytest.raises(UserError) as caught:
        environments.make(name)
    assert "\n" not in str(caught.value)
    assert repr(name) in str(caught.value)
    assert "HalfCheetah-v5" in str(caught.value)


def test_asking_for_references_imports_no_gymnasium() -> None:
    program = "import sys, trainables.environments as e; e.reference('Hopper-v5'); sys.exit('gymnasium' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_environments_say_nothing_leave_no_file_and_start_no_process(tmp_path: Path) -> None:
    # Left to itself glfw, which gymnasium imports, starts a Python for each of its libraries, which a Ctrl-C ends in a traceback.
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "sys.addaudithook(lambda event, given: print(given) if event == 'subprocess.Popen' else None)\n"
        "from trainables import environments as e\n"
        "for ids in e.families().values():\n"
        "    for name in (each for each in ids if ':' not in each):\n"
        "        env = e.make(name); env.reset(seed=0); env.step(env.action_space.sample()); env.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
