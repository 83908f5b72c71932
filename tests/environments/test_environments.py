from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trainables import environments, registry
from trainables.environments import Reference
from trainables.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("family", registry.names("environments"))
def test_every_family_builds_all_its_ids_and_has_a_reference(family: str) -> None:
    for name in environments.families()[family]:
        env = environments.make(name)
        assert env.spec is not None
        assert env.spec.id == name
        env.close()
        reference = environments.reference(name)
        assert reference is not None
        assert reference.random < reference.expert
        assert family in reference.source
        assert environments.family_of(name) == family


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
    assert environments.reference("Pendulum-v1") is None
    environments.make("Pendulum-v1").close()


@pytest.mark.parametrize("name", ["HalfCheeta-v5", "HalfCheetah-v9", "no/such-v0", "nomodule:Thing-v0", ""])
def test_a_wrong_id_is_one_line_with_the_nearest_ids(name: str) -> None:
    with pytest.raises(UserError) as caught:
        environments.make(name)
    assert "\n" not in str(caught.value)
    assert repr(name) in str(caught.value)
    assert "HalfCheetah-v5" in str(caught.value)


def test_asking_for_references_imports_no_gymnasium() -> None:
    program = "import sys, trainables.environments as e; e.reference('Hopper-v5'); sys.exit('gymnasium' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_environments_say_nothing_and_leave_no_file(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from trainables import environments as e\n"
        "for ids in e.families().values():\n"
        "    for name in ids:\n"
        "        env = e.make(name); env.reset(seed=0); env.step(env.action_space.sample()); env.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
