"""Every overlay, rendered: valid objects that fit each other, the server and its settings."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from router.vllm_plugin.endpoints import TriviumEndpoints
from server.api.routes import api_router
from server.processes.listening import SHUTDOWN_SECONDS
from server.settings import Settings
from server.workers.draining import END_SECONDS
from tests.deploy.files import (
    DEPLOY,
    check_command,
    check_variables,
    commands_in,
    documents,
    expert_manifest,
    load,
    series_in,
    series_of_ours,
    series_of_vllm,
    worker_of,
)

FOLDER = DEPLOY / "kubernetes"
MANY = FOLDER / "overlays" / "many-nodes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
VERSION = "1.34"
"""Of the schemas; the objects need nothing newer than 1.27."""
SECRET_KEYS = {"database-password", "admin-key", "metrics-key"}
VLLM_PATHS = {"/health", "/v1/models"}
Object = dict[str, Any]


@dataclass(frozen=True)
class Cluster:
    """The objects of one overlay."""

    objects: tuple[Object, ...]

    def of(self, *kinds: str) -> list[Object]:
        return [o for o in self.objects if o["kind"] in kinds]

    def one(self, kind: str, name: str) -> Object:
        (found,) = [o for o in self.of(kind) if o["metadata"]["name"] == name]
        return found

    @property
    def workloads(self) -> list[Object]:
        return self.of("Deployment", "StatefulSet", "Job")

    def selected(self, labels: dict[str, str]) -> list[Object]:
        """Workloads whose pods have the labels."""
        found = []
        for workload in self.workloads:
            own = workload["spec"]["template"]["metadata"]["labels"]
            if labels.items() <= own.items():
                found.append(workload)
        return found


def pod(workload: Object) -> Object:
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def containers(workload: Object) -> list[Object]:
    return [*pod(workload).get("initContainers", ()), *pod(workload)["containers"]]


def ports(workload: Object) -> dict[str, int]:
    return {p["name"]: p["containerPort"] for c in containers(workload) for p in c.get("ports", ())}


def variables(container: Object) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in container.get("env", ())}


def probes(container: Object) -> Iterator[Object]:
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert name in container, f"{container['name']} has no {name}"
        yield container[name]


@pytest.fixture(scope="module", params=OVERLAYS)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    if shutil.which("kubectl") is None:
        pytest.fail("rendering the overlays needs kubectl 1.27 or newer: install it")
    command = ["kubectl", "kustomize", str(FOLDER / "overlays" / request.param)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr, f"kustomize warns: {ran.stderr}"
    return Cluster(tuple(yaml.safe_load_all(ran.stdout)))


def test_the_overlays() -> None:
    assert OVERLAYS == ["many-nodes", "one-gpu-node"]


def test_objects_are_valid(cluster: Cluster) -> None:
    for item in cluster.objects:
        kubernetes_validate.validate(item, VERSION, strict=True)
        if item["kind"] != "Namespace":
            assert item["metadata"]["namespace"] == "trivium"


def test_an_invalid_object_would_be_found(cluster: Cluster) -> None:
    wrong = json.loads(json.dumps(cluster.one("Deployment", "orchestrator")))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


def test_selectors_match_pods_and_ports_are_theirs(cluster: Cluster) -> None:
    for workload in cluster.of("Deployment", "StatefulSet"):
        assert workload in cluster.selected(workload["spec"]["selector"]["matchLabels"])
    for budget in cluster.of("PodDisruptionBudget"):
        assert len(cluster.selected(budget["spec"]["selector"]["matchLabels"])) == 1
    for service in cluster.of("Service"):
        (workload,) = cluster.selected(service["spec"]["selector"])
        for port in service["spec"]["ports"]:
            assert ports(workload)[port["targetPort"]] == port["port"]
    for stateful in cluster.of("StatefulSet"):
        cluster.one("Service", stateful["spec"]["serviceName"])


def test_network_policies_let_through_what_is_needed_and_deny_the_rest(cluster: Cluster) -> None:
    deny = cluster.one("NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    into: dict[str, set[str]] = {}
    for policy in cluster.of("NetworkPolicy"):
        selector = policy["spec"]["podSelector"].get("matchLabels")
        if selector is None:
            continue
        targets = cluster.selected(selector)
        assert targets, policy["metadata"]["name"]
        for rule in policy["spec"].get("ingress", ()):
            for target in targets:
                for port in rule["ports"]:
                    assert port["port"] in ports(target).values()
                peers = rule.get("from")
                who = into.setdefault(target["metadata"]["name"], set())
                who |= {"all"} if peers is None else _names(cluster, peers)
    assert into == {
        "orchestrator": {"all"},
        "meta": {"orchestrator", "monitoring"},
        "arithmetic": {"orchestrator", "monitoring"},
        "postgres": {"orchestrator"},
    }


def _names(cluster: Cluster, peers: list[Object]) -> set[str]:
    names = set()
    for peer in peers:
        if "namespaceSelector" in peer:
            names.add(peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"])
        else:
            found = cluster.selected(peer["podSelector"]["matchLabels"])
            names |= {workload["metadata"]["name"] for workload in found}
    return names


def test_pods_have_no_rights_and_write_only_to_volumes(cluster: Cluster) -> None:
    for workload in cluster.workloads:
        security = pod(workload)["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod(workload)["automountServiceAccountToken"] is False
        for container in containers(workload):
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            places = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert "/tmp" in places
            image, _, tag = container["image"].rpartition(":")
            assert image
            assert tag != "latest"
            if image.startswith("trivium/"):
                assert security["runAsUser"] == 10001
            if container["name"] in ("orchestrator", "vllm"):
                assert "/var/cache/trivium" in places
        mounted = {m["name"] for c in containers(workload) for m in c["volumeMounts"]}
        claims = workload["spec"].get("volumeClaimTemplates", ())
        volumes = {v["name"] for v in (*pod(workload)["volumes"],)}
        assert mounted == volumes | {claim["metadata"]["name"] for claim in claims}


def test_settings_secrets_and_commands_are_known(cluster: Cluster) -> None:
    maps = {item["metadata"]["name"] for item in cluster.of("ConfigMap")}
    for workload in cluster.workloads:
        for container in containers(workload):
            check_variables(variables(container))
            for entry in container.get("env", ()):
                secret = entry.get("valueFrom", {}).get("secretKeyRef")
                assert secret is None or (secret["name"], secret["key"] in SECRET_KEYS) == (
                    *("trivium", True),
                )
            if container.get("command", ["", ""])[0] == "sh":
                scripts = commands_in(container["args"][0])
                assert scripts
                for words in scripts:
                    check_command(words)
            elif container["image"].startswith("trivium/"):
                check_command(container["args"])
        for volume in pod(workload)["volumes"]:
            assert "configMap" not in volume or volume["configMap"]["name"] in maps


def test_probes_ask_what_there_is(cluster: Cluster) -> None:
    ours = {route.path for route in api_router().routes}  # type: ignore[attr-defined]
    (orchestrator,) = pod(cluster.one("Deployment", "orchestrator"))["containers"]
    paths = [probe["httpGet"]["path"] for probe in probes(orchestrator)]
    assert paths == ["/livez", "/livez", "/health"]
    assert set(paths) <= ours
    plugin = Recorder()
    TriviumEndpoints().attach_router(plugin)  # type: ignore[arg-type]
    for name, known in (("meta", VLLM_PATHS | plugin.paths), ("arithmetic", VLLM_PATHS)):
        (workload,) = cluster.selected({"app.kubernetes.io/name": name})
        (vllm,) = pod(workload)["containers"]
        assert {probe["httpGet"]["path"] for probe in probes(vllm)} <= known
    (database,) = pod(cluster.one("StatefulSet", "postgres"))["containers"]
    assert all("exec" in probe for probe in probes(database))


class Recorder:
    """Takes the place of an application, and notes paths."""

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def add_api_route(self, path: str, endpoint: object, methods: list[str]) -> None:
        self.paths.add(path)


def test_an_orchestrator_may_finish_its_answers(cluster: Cluster) -> None:
    workload = cluster.one("Deployment", "orchestrator")
    (container,) = pod(workload)["containers"]
    drain = float(variables(container)["TRIVIUM_DRAIN_SECONDS"])
    word, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert word == "sleep"
    needed = float(seconds) + drain + END_SECONDS + SHUTDOWN_SECONDS
    assert pod(workload)["terminationGracePeriodSeconds"] >= needed
    assert workload["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_orchestrators_know_the_meta_workers_by_their_names(cluster: Cluster) -> None:
    (container,) = pod(cluster.one("Deployment", "orchestrator"))["containers"]
    urls = json.loads(variables(container)["TRIVIUM_META_URLS"])
    assert Settings(meta_urls=urls).meta_bases == tuple(urls)
    hosts = [urlsplit(url).netloc for url in urls]
    assert hosts == [f"meta-{number}.meta:8000" for number in range(len(hosts))]
    service = cluster.one("Service", "meta")["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True
    scalers = {h["metadata"]["name"]: h["spec"] for h in cluster.of("HorizontalPodAutoscaler")}
    stateful = cluster.one("StatefulSet", "meta")["spec"]
    most = scalers["meta"]["maxReplicas"] if scalers else stateful["replicas"]
    assert len(hosts) == most


def test_the_expert_is_registered_where_it_is_served(cluster: Cluster) -> None:
    manifest = expert_manifest(FOLDER / "base" / "experts" / "arithmetic.yaml")
    worker = worker_of(manifest)
    (base,) = map(urlsplit, worker.bases)
    service = cluster.one("Service", str(base.hostname))["spec"]
    assert worker.each_address
    assert service["clusterIP"] == "None", "every pod is a replica"
    (container,) = pod(cluster.one("Deployment", "arithmetic"))["containers"]
    assert container["args"][:3] == ["worker", "expert", worker.model]


# ---------------------------------------------------------------- autoscaling


def test_autoscalers_go_by_metrics_that_there_are() -> None:
    rules = load(MANY / "prometheus-adapter.yaml")["rules"]["custom"]
    known = series_of_ours() | series_of_vllm()
    for rule in rules:
        assert series_in(rule["seriesQuery"]) <= known
    offered = {rule["name"]["as"] for rule in rules}
    scalers = documents(MANY / "autoscaling.yaml")
    asked = {m["pods"]["metric"]["name"] for s in scalers for m in s["spec"]["metrics"]}
    assert asked == offered
    for scaler in scalers:
        assert scaler["spec"]["minReplicas"] >= 2


def test_autoscalers_and_fixed_numbers_do_not_quarrel() -> None:
    many = Cluster(tuple(documents(MANY / "workers-on-gpus.yaml")))
    targets = {s["spec"]["scaleTargetRef"]["name"] for s in documents(MANY / "autoscaling.yaml")}
    assert {w["metadata"]["name"] for w in many.workloads} == targets
    assert all(workload["spec"]["replicas"] is None for workload in many.workloads)


def test_prometheus_keeps_pods_by_labels_that_they_have() -> None:
    jobs = {job["job_name"]: job for job in load(MANY / "prometheus.yaml")["scrape_configs"]}
    base = Cluster(
        tuple(item for path in (FOLDER / "base").glob("*.yaml") for item in documents(path))
    )
    for job, label, served in (
        ("trivium", "app.kubernetes.io/name", {"orchestrator"}),
        ("trivium-workers", "trivium/role", {"meta", "arithmetic"}),
    ):
        rules = jobs[job]["relabel_configs"]
        meta = "__meta_kubernetes_pod_label_" + label.translate(str.maketrans("./", "__"))
        (value,) = [r["regex"] for r in rules if r["source_labels"] == [meta] and "regex" in r]
        assert {w["metadata"]["name"] for w in base.selected({label: value})} == served
        assert {r.get("target_label") for r in rules} >= {"namespace", "pod"}
