"""deploy/ and docs/DEPLOY.md: valid, and the service is hardened alike wherever it runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = list(yaml.safe_load_all((ROOT / "deploy/kubernetes.yaml").read_text(encoding="utf-8")))
BY_KIND: dict[str, dict[str, Any]] = {one["kind"]: one for one in MANIFESTS}
# The oldest that is still maintained by somebody, and the newest whose schemas are at hand.
VERSIONS = ("1.29", kubernetes_validate.latest_version())


def docker_run(text: str) -> list[str]:
    """The words of the `docker run` in a text, its options one word each."""
    match = re.search(r"docker run (.*?[^\\])$", text, re.MULTILINE | re.DOTALL)
    assert match is not None
    return shlex.split(match[1].replace("\\\n", " "))


def options(words: list[str]) -> dict[str, str]:
    """Options of `docker run` with their values; "" for one without."""
    found = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            found[word] = "" if following.startswith("--") else following
    return found


README = docker_run((ROOT / "docs/DEPLOY.md").read_text(encoding="utf-8"))
UNIT = docker_run((ROOT / "deploy/cartwright.service").read_text(encoding="utf-8"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", BY_KIND)
def test_a_manifest_suits_the_schema(kind: str, version: str) -> None:
    kubernetes_validate.validate(BY_KIND[kind], version, strict=True)


def test_a_misspelt_field_would_be_seen() -> None:
    broken = {**BY_KIND["Service"], "spec": {**BY_KIND["Service"]["spec"], "selektor": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_pods_have_no_rights_and_probes_that_the_service_answers() -> None:
    pod = BY_KIND["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in
             ("startup", "readiness", "liveness")}  # fmt: skip
    assert paths == {"startup": "/ready", "readiness": "/ready", "liveness": "/health"}
    # Longer than a request may take, so that none is lost when a pod is exchanged.
    assert pod["terminationGracePeriodSeconds"] > 30
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["volumes"]}


def test_parts_of_the_manifests_find_each_other() -> None:
    labels = BY_KIND["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert BY_KIND["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert BY_KIND["Service"]["spec"]["selector"] == labels
    policy = BY_KIND["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    (container,) = BY_KIND["Deployment"]["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert port == {"name": "http", "containerPort": 8080}
    assert BY_KIND["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    assert policy["ingress"][0]["ports"] == [{"protocol": "TCP", "port": "http"}]


def test_nothing_goes_out() -> None:
    policy = BY_KIND["NetworkPolicy"]["spec"]
    assert policy["egress"] == [] and set(policy["policyTypes"]) == {"Ingress", "Egress"}


@pytest.mark.parametrize("words", [README, UNIT], ids=["line", "unit"])
def test_docker_run_is_hardened(words: list[str]) -> None:
    given = options(words)
    assert given["--user"] == "65532:65532" and given["--cap-drop"] == "ALL"
    assert given["--security-opt"] == "no-new-privileges"
    assert {"--read-only", "--init", "--memory", "--pids-limit"} <= set(given)
    assert given["--publish"].startswith("127.0.0.1:")
    assert given["--volume"].endswith(":/model.gguf:ro")
    assert words[-1] == "cartwright/serve:local"


def test_the_line_the_unit_and_the_project_say_the_same() -> None:
    line, unit = options(README), options(UNIT)
    alike = ("--user", "--tmpfs", "--memory", "--pids-limit", "--cap-drop", "--security-opt")
    assert {name: line[name] for name in alike} == {name: unit[name] for name in alike}
    project = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))
    (service,) = project["services"].values()
    assert service["user"] == line["--user"]
    assert service["tmpfs"] == [line["--tmpfs"]]
    assert service["mem_limit"] == line["--memory"]
    assert str(service["pids_limit"]) == line["--pids-limit"]
    assert service["cap_drop"] == ["ALL"] and service["read_only"] and service["init"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ports"][0].startswith("127.0.0.1:")
