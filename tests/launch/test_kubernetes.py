"""The JobSet: what its fields decide, worked through case by case, and what a pod then sees."""

from __future__ import annotations

import re

import pytest

from multimed_jax.command import EXIT_PREEMPTED
from multimed_jax.environment import job_place
from tests.end_to_end.conftest import ROOT

yaml = pytest.importorskip("yaml", reason="PyYAML comes with other packages, not by itself")

FOLDER = ROOT / "launch" / "kubernetes"


@pytest.fixture(scope="module")
def jobset() -> dict:
    (found,) = yaml.safe_load_all((FOLDER / "train.yaml").read_text())
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    return found


def job_spec(jobset: dict) -> dict:
    (replicated,) = jobset["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    return replicated["template"]["spec"]


def container(jobset: dict) -> dict:
    (found,) = job_spec(jobset)["template"]["spec"]["containers"]
    return found


def job_failure(jobset: dict, code: int) -> str:
    """Why a Job fails whose container exits with a code, by the rules of Kubernetes."""
    for rule in job_spec(jobset)["podFailurePolicy"]["rules"]:
        codes = rule["onExitCodes"]
        assert codes["containerName"] == container(jobset)["name"]
        held = code in codes["values"]
        if held if codes["operator"] == "In" else not held:
            assert rule["action"] == "FailJob"
            return "PodFailurePolicy"
    assert job_spec(jobset)["backoffLimit"] == 0
    return "BackoffLimitExceeded"


def action(jobset: dict, reason: str) -> str:
    """What the JobSet does then: the first rule that names the reason."""
    policy = jobset["spec"]["failurePolicy"]
    for rule in policy["rules"]:
        if reason in rule["onJobFailureReasons"]:
            return rule["action"]
    return "RestartJobSet" if policy["maxRestarts"] else "FailJobSet"


@pytest.mark.parametrize("code", [1, 2, 134, 137, 143])
def test_any_other_exit_code_fails_the_run(jobset, code):
    assert action(jobset, job_failure(jobset, code)) == "FailJobSet"


def test_a_saved_stop_starts_all_pods_again(jobset):
    found = action(jobset, job_failure(jobset, EXIT_PREEMPTED))
    assert found == "RestartJobSetAndIgnoreMaxRestarts"


@pytest.mark.parametrize("reason", ["DeadlineExceeded", "FailedIndexes"])
def test_what_no_rule_names_fails_the_run(jobset, reason):
    assert action(jobset, reason) == "FailJobSet"


def test_pods_are_not_restarted_alone(jobset):
    assert job_spec(jobset)["template"]["spec"]["restartPolicy"] == "Never"
    assert job_spec(jobset)["completionMode"] == "Indexed"


@pytest.mark.parametrize("index", [0, 1])
def test_a_pod_finds_its_place(jobset, index):
    """The variables of the container, filled in as the kubelet does."""
    annotations = {
        "batch.kubernetes.io/job-completion-index": str(index),
        "jobset.sigs.k8s.io/coordinator": "multimed-workers-0-0.multimed",
    }
    environ: dict[str, str] = {}
    for variable in container(jobset)["env"]:
        if "value" in variable:
            value = re.sub(r"\$\((\w+)\)", lambda m: environ[m[1]], variable["value"])
        else:
            path = variable["valueFrom"]["fieldRef"]["fieldPath"]
            found = re.fullmatch(r"metadata\.annotations\['(.+)'\]", path)
            assert found
            value = annotations[found[1]]
        environ[variable["name"]] = value
    place = job_place(environ)
    assert place is not None
    assert (place.index, place.count) == (index, job_spec(jobset)["completions"])
    assert place.count == job_spec(jobset)["parallelism"]
    assert place.host == "multimed-workers-0-0.multimed"
    assert place.port in [port["containerPort"] for port in container(jobset)["ports"]]


def test_the_coordinator_is_process_0_and_can_be_resolved(jobset):
    spec = jobset["spec"]
    (replicated,) = spec["replicatedJobs"]
    expected = {"replicatedJob": replicated["name"], "jobIndex": 0, "podIndex": 0}
    assert spec["coordinator"] == expected
    assert spec["network"]["enableDNSHostnames"] and spec["network"]["publishNotReadyAddresses"]


def test_mounted_claims_exist_and_hold_what_the_command_names(jobset):
    documents = yaml.safe_load_all((FOLDER / "volumes.yaml").read_text())
    claims = {document["metadata"]["name"] for document in documents}
    volumes = job_spec(jobset)["template"]["spec"]["volumes"]
    named = {v["name"]: v["persistentVolumeClaim"] for v in volumes if "persistentVolumeClaim" in v}
    assert {claim["claimName"] for claim in named.values()} == claims
    mounts = {m["mountPath"]: m["name"] for m in container(jobset)["volumeMounts"]}
    assert set(mounts.values()) == {volume["name"] for volume in volumes}
    flags = dict(f.split("=", 1) for f in container(jobset)["command"] if f.startswith("--"))
    workdir = flags["--workdir"]
    assert mounts[flags["--config.data_dir"]] == "data"
    assert mounts["/" + workdir.split("/")[1]] == "runs"
    assert (ROOT / flags["--config"]).is_file()
    (probe,) = container(jobset)["livenessProbe"]["exec"]["command"][2:]
    assert f"{workdir}/heartbeats/process-$MULTIMED_PROCESS.json" in probe
