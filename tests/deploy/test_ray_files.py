"""Ray's files: Serve and the application can read them, and pods are as closed as others."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from server.ray import application
from server.ray.application import Arguments
from server.settings import Settings
from tests.deploy.files import DEPLOY
from tests.deploy.test_kubernetes import VERSION

KUBERAY = DEPLOY / "kubernetes" / "kuberay"
Object = dict[str, Any]


def service() -> Object:
    found: Object = yaml.safe_load((KUBERAY / "rayservice.yaml").read_text(encoding="utf-8"))
    return found


def serve_configs() -> dict[str, Object]:
    return {
        "ray/serve.yaml": yaml.safe_load((DEPLOY / "ray" / "serve.yaml").read_text("utf-8")),
        "rayservice.yaml": yaml.safe_load(service()["spec"]["serveConfigV2"]),
    }


@pytest.mark.parametrize("name", serve_configs())
def test_serve_and_the_application_take_the_configuration(name: str) -> None:
    config = serve_configs()[name]
    ServeDeploySchema.model_validate(config)
    (app,) = config["applications"]
    module, _, attribute = app["import_path"].partition(":")
    assert module == application.__name__
    assert callable(getattr(application, attribute))
    arguments = Arguments.model_validate(app["args"])
    assert arguments.name == app["name"]
    names = {name.removeprefix("TRIVIUM_").lower() for name in arguments.environment}
    assert names <= set(Settings.model_fields)
    assert arguments.settings().keys_required


def groups() -> list[Object]:
    cluster = service()["spec"]["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_ray_is_the_one_that_is_tested() -> None:
    assert service()["spec"]["rayClusterConfig"]["rayVersion"] == version("ray")


@pytest.mark.parametrize("group", groups(), ids=lambda group: group.get("groupName", "head"))
def test_pods_are_valid_and_closed(group: Object) -> None:
    template = group["template"]
    labels = template["metadata"]["labels"]
    metadata = {"name": "ray", "namespace": "trivium"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
    kubernetes_validate.validate(deployment, VERSION, strict=True)
    pod = template["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    # KubeRay's autoscaler, which runs beside the head, asks the API server for nodes.
    assert pod.get("automountServiceAccountToken", True) == ("groupName" not in group)
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["image"].startswith("trivium/ray:")
        assert container["resources"]["limits"]["memory"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_only_nodes_reach_each_other() -> None:
    (policy,) = yaml.safe_load_all((KUBERAY / "network.yaml").read_text(encoding="utf-8"))
    kubernetes_validate.validate(policy, VERSION, strict=True)
    chosen = policy["spec"]["podSelector"]["matchLabels"]
    assert all(chosen == group["template"]["metadata"]["labels"] for group in groups())
    anyone = [rule for rule in policy["spec"]["ingress"] if "from" not in rule]
    assert [port["port"] for rule in anyone for port in rule["ports"]] == [8000]
