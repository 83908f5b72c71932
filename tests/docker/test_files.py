"""The files of docker/ against the schemas of what reads them; no container engine is needed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from service.cli.parser import parser
from service.cluster.job import EXCLUDES
from service.storage import paths

from .twin import ROOT, read

DOCKER = ROOT / "docker"
GIVEN = dict.fromkeys(("RAY_AUTH_TOKEN", "POSTGRES_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "given")
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
CLUSTER = yaml.safe_load((DOCKER / "cluster.yaml").read_text())
AUTOSCALING = yaml.safe_load((DOCKER / "autoscaling.yaml").read_text())
CONFIG, CLAIM, RAYJOB = yaml.safe_load_all((DOCKER / "rayjob.yaml").read_text())
KUBERNETES = kubernetes_validate.latest_version()
# The fields of KubeRay's ray.io/v1 that are used, as in ray-operator/apis/ray/v1 of github.com/ray-project/kuberay; their kinds of value.
FIELDS: dict[str, dict[str, type]] = {
    "spec": {
        "entrypoint": str, "backoffLimit": int, "shutdownAfterJobFinishes": bool, "ttlSecondsAfterFinished": int, "rayClusterSpec": dict,
    },
    "cluster": {"rayVersion": str, "authOptions": dict, "headGroupSpec": dict, "workerGroupSpecs": list},
    "autoscaling": {
        "rayVersion": str, "authOptions": dict, "enableInTreeAutoscaling": bool, "autoscalerOptions": dict, "headGroupSpec": dict,
        "workerGroupSpecs": list,
    },
    "autoscaler": {"version": str, "upscalingMode": str, "idleTimeoutSeconds": int},
    "head": {"rayStartParams": dict, "template": dict},
    "worker": {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "rayStartParams": dict, "template": dict},
}  # fmt: skip


def groups() -> list[dict[str, Any]]:
    clusters = RAYJOB["spec"]["rayClusterSpec"], AUTOSCALING["spec"]
    return [group for cluster in clusters for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_the_dockerfile_has_no_fault_that_hadolint_knows() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint
    done = subprocess.run([hadolint, str(DOCKER / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_pinned_and_not_root() -> None:
    assert DOCKERFILE.count("\nFROM ") == 2
    build, runtime = DOCKERFILE.split("\nFROM ")[1:]
    installs = re.findall(r"pip install (.*)", build)
    assert len(installs) == 3
    assert all("--constraint constraints.txt" in line or "--no-deps" in line for line in installs)
    assert installs[0].endswith("torch")  # first, from its own index
    assert "pip install" not in runtime
    assert re.search(r"^USER 1000$", runtime, re.MULTILINE)
    assert "gcc" in runtime
    assert {"rsync", "openssh-client"} <= set(re.findall(r"[\w-]+", runtime)), "what Ray's cluster launcher calls in the container"


def test_a_login_shell_of_the_image_finds_its_programs(tmp_path: Path) -> None:
    """Ray's cluster launcher runs `ray` in one, which begins with Debian's PATH and then reads what is in profile.d."""
    (line,) = re.findall(r'echo "(.*)" > /etc/profile\.d/winnow\.sh', DOCKERFILE)
    (tmp_path / "winnow.sh").write_text(line.replace("\\$", "$"))
    words = ["sh", "-c", f". {tmp_path}/winnow.sh; echo $PATH"]
    found = subprocess.run(words, env={"PATH": "/usr/local/bin:/usr/bin:/bin"}, capture_output=True, text=True, check=True).stdout
    assert found.split(":")[0] == "/opt/winnow/bin"


def test_the_image_gets_what_it_copies_and_nothing_else() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert sorted(kept) == sorted(
        ["LICENSE", "README.md", "constraints.txt", "docker/buckets.py", "pyproject.toml", *(name.rstrip("*") for name in packages)]
    )
    assert all((ROOT / name).exists() for name in kept)


def test_compose_is_of_the_compose_specification() -> None:
    found = compose_spec.PyCompose.from_json(json.dumps(read(GIVEN)))
    found.validate()  # names that are used are defined
    assert {"head", "worker", "worker-gpu", "mlflow", "postgres", "objects"} <= set(found.service_names())


def test_a_wrong_key_would_be_found() -> None:
    wrong = read(GIVEN)
    wrong["services"]["head"]["comand"] = ["ray"]
    with pytest.raises(ValueError, match="comand"):
        compose_spec.PyCompose.from_json(json.dumps(wrong))


def test_compose_starts_with_nobodys_secrets() -> None:
    for missing in GIVEN:
        with pytest.raises(KeyError, match=missing):
            read({name: value for name, value in GIVEN.items() if name != missing})
    names = {line.split("=")[0]: line.split("=")[1] for line in (DOCKER / "env.example").read_text().splitlines() if "=" in line[:40]}
    assert {name for name in GIVEN if not names[name]} == set(GIVEN) - {"AWS_ACCESS_KEY_ID"}


def test_the_images_cuda_is_that_of_the_compiler_that_tests_use() -> None:
    """torch asks for one version of it: another in the constraints, and nobody could install torch's CUDA builds."""
    torch = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]["worker-gpu"]["build"]["args"]["TORCH"]
    pinned = re.search(r"^nvidia-cuda-nvrtc==(\d+)\.(\d+)\.", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert torch == f"cu{pinned[1]}{pinned[2]}"


def test_compose_services_wait_for_what_they_need_and_are_watched() -> None:
    services = read(GIVEN)["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] == ("service_completed_successfully" if needed == "buckets" else "service_healthy")
            assert needed == "buckets" or "healthcheck" in services[needed]
        assert name == "buckets" or service["healthcheck"]["test"][0] == "CMD"
        assert "curl" not in service.get("healthcheck", {}).get("test", []), "neither our image nor MinIO's has it"
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert not service.get("privileged")
        assert not service["image"].endswith(":latest")
    assert services["worker"]["profiles"] == ["cpu"]
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    assert services["worker"]["deploy"]["replicas"] == 2
    assert not any(word.startswith("--num-cpus") for word in services["worker-gpu"]["command"]), "a stack for each GPU needs as many cores"


def test_compose_says_who_may_speak_to_whom() -> None:
    services = read(GIVEN)["services"]
    for name in ("head", "worker", "worker-gpu"):
        environment = services[name]["environment"]
        assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN"]) == ("token", "given")
        assert re.fullmatch(paths.S3, environment["WINNOW_STORAGE"])
    assert "--allowed-hosts=mlflow:5000,localhost:*,127.0.0.1:*" in services["mlflow"]["command"]
    assert services["head"]["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert services["mlflow"]["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    bucket = services["head"]["environment"]["WINNOW_STORAGE"].split("/")[2]
    assert {bucket, "mlflow"} == set(services["buckets"]["command"][2:])


@pytest.mark.parametrize("resource", [CONFIG, CLAIM], ids=["ConfigMap", "PersistentVolumeClaim"])
def test_kubernetes_own_resources(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, KUBERNETES, strict=True)


@pytest.mark.parametrize("group", groups(), ids=["head", "cpu", "gpu", "autoscaling head", "spot"])
def test_the_pods(group: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": group["template"]["spec"]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    (container,) = pod["spec"]["containers"]
    assert {"readinessProbe", "livenessProbe"} <= set(container)
    assert [source[kind]["name"] for source in container["envFrom"] for kind in source] == [CONFIG["metadata"]["name"], "winnow"]
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_the_rayjob() -> None:
    assert (RAYJOB["apiVersion"], RAYJOB["kind"]) == ("ray.io/v1", "RayJob")
    cluster = RAYJOB["spec"]["rayClusterSpec"]
    found = {"spec": [RAYJOB["spec"]], "cluster": [cluster], "head": [cluster["headGroupSpec"]], "worker": cluster["workerGroupSpecs"]}
    for kind, values in found.items():
        for value in values:
            assert {name: type(part) for name, part in value.items()} == FIELDS[kind]
    assert cluster["authOptions"] == {"mode": "token"}
    assert f"ray=={cluster['rayVersion']} " in (ROOT / "constraints.txt").read_text()
    assert all(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in cluster["workerGroupSpecs"])
    assert "nvidia.com/gpu" in cluster["workerGroupSpecs"][1]["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_the_autoscaling_cluster_goes_down_to_no_worker_on_spot_nodes() -> None:
    assert (AUTOSCALING["apiVersion"], AUTOSCALING["kind"]) == ("ray.io/v1", "RayCluster")
    cluster = AUTOSCALING["spec"]
    (spot,) = cluster["workerGroupSpecs"]
    found = {"autoscaling": cluster, "autoscaler": cluster["autoscalerOptions"], "head": cluster["headGroupSpec"], "worker": spot}
    for kind, value in found.items():
        assert {name: type(part) for name, part in value.items()} == FIELDS[kind]
    assert cluster["enableInTreeAutoscaling"]
    assert (cluster["autoscalerOptions"]["version"], cluster["autoscalerOptions"]["upscalingMode"]) == ("v2", "Default")
    assert (spot["replicas"], spot["minReplicas"]) == (0, 0)
    assert cluster["rayVersion"] == RAYJOB["spec"]["rayClusterSpec"]["rayVersion"]
    assert cluster["authOptions"] == {"mode": "token"}
    head, worker = (group["template"]["spec"] for group in (cluster["headGroupSpec"], spot))
    assert (head["restartPolicy"], worker["restartPolicy"]) == ("Never", "Never")
    assert "spot" in worker["nodeSelector"].values()
    assert not {"nodeSelector", "tolerations"} & head.keys(), "drivers are on the head"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    jobs = RAYJOB["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert {name: head["containers"][0][name] for name in ("image", "envFrom", "volumeMounts", "readinessProbe")} == {
        name: jobs[name] for name in ("image", "envFrom", "volumeMounts", "readinessProbe")
    }
    assert {volume["persistentVolumeClaim"]["claimName"] for volume in worker["volumes"] if "persistentVolumeClaim" in volume} == {
        CLAIM["metadata"]["name"]
    }


def test_what_the_autoscaling_file_says_to_type_is_a_command() -> None:
    (line,) = [line[1:].split() for line in (DOCKER / "autoscaling.yaml").read_text().splitlines() if line.startswith("#   winnow submit")]
    parsed = parser().parse_args(line[1:])
    assert (parsed.sweep, parsed.device, parsed.max_concurrent) == ("mujoco_sparsity", "cpu", 128)


def test_the_cluster_launcher_takes_its_file() -> None:
    validate_config(prepare_config(CLUSTER))
    assert CLUSTER["auth"]["ssh_private_key"], "without it the head cannot start the workers"
    options = CLUSTER["docker"]["run_options"]
    assert "--env=RAY_AUTH_MODE=token" in options
    (token,) = CLUSTER["file_mounts"]
    assert f"--env=RAY_AUTH_TOKEN_PATH={token}" in options


def test_all_of_them_set_the_same_for_a_sweep() -> None:
    compose = set(read(GIVEN)["services"]["head"]["environment"])
    secret = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    token = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
    assert set(CONFIG["data"]) | secret | token == compose
    launcher = {option.split("=")[1] for option in CLUSTER["docker"]["run_options"] if option.startswith("--env=")}
    assert (launcher - {"RAY_AUTH_TOKEN_PATH"}) | secret | {"RAY_AUTH_TOKEN"} == compose


def flags(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def test_every_flag_is_one_that_its_program_has() -> None:
    from ray.scripts.scripts import start

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.cli import server
    ray, mlflow = ({flag for option in program.params for flag in option.opts} for program in (start, server))
    services = read(GIVEN)["services"]
    for name in ("head", "worker", "worker-gpu"):
        assert flags(services[name]["command"]) <= ray
    assert flags(services["mlflow"]["command"]) <= mlflow
    assert {f"--{name}" for group in groups() for name in group["rayStartParams"]} <= ray
    for commands in (CLUSTER["head_start_ray_commands"], CLUSTER["worker_start_ray_commands"]):
        assert flags(commands[1].split()) <= ray


def test_the_secrets_are_neither_committed_nor_uploaded_with_a_job() -> None:
    done = subprocess.run(["git", "check-ignore", "--quiet", "docker/.env"], cwd=ROOT, check=False)
    assert done.returncode in (0, 128)  # 128: not a checkout
    assert "/docker/.env" in (ROOT / ".gitignore").read_text().splitlines()  # what Ray's upload heeds, too
    assert "/docker" in EXCLUDES
