"""Kubernetes without a cluster: what is asked of one, and what its answers mean."""

from __future__ import annotations

import importlib.util
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from palestra.sandbox import kubernetes_claims as claims
from palestra.sandbox import kubernetes_cluster as cluster
from palestra.sandbox import kubernetes_injection as injection
from palestra.sandbox import kubernetes_lease as leases
from palestra.sandbox import kubernetes_pod as pods
from palestra.sandbox import kubernetes_reaper as reaper
from palestra.sandbox import kubernetes_status as status
from palestra.sandbox.base import BoxSpec
from palestra.sandbox.inbox import ORPHANED
from palestra.sandbox.kubernetes_agent import LATER
from palestra.sandbox.kubernetes_api import ApiFault, refused
from palestra.sandbox.kubernetes_life import Pods
from palestra.sandbox.limits import Limits
from palestra.sandbox.owner import Owner

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OWNER = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "name": "l", "uid": "u"}

Breaches = Callable[[Mapping[str, Any]], Iterable[str]]


def plan(**settings: Any) -> pods.Plan:
    spec = settings.pop("spec", BoxSpec(labels={"run": "tiny-0", "task": "a/b c"}))
    return pods.Plan(spec, "docker.io/library/python@sha256:" + "0" * 64, **settings)


def box(**settings: Any) -> dict[str, Any]:
    return pods.pod("palestra-1", plan(**settings), owners=[OWNER], now=1000.0)


def test_a_box_meets_the_restricted_level_and_leaves_nothing_open(breaches: Breaches) -> None:
    spec = box()["spec"]
    assert list(breaches(spec)) == []
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    assert (spec["restartPolicy"], spec["shareProcessNamespace"]) == ("Never", False)
    assert (spec["dnsPolicy"], spec["dnsConfig"]) == ("None", {"nameservers": ["127.0.0.1"]})
    [container] = spec["containers"]
    assert container["env"] == [] and "ports" not in container
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert set(container["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}
    assert container["stdin"] is container["stdinOnce"] is True


def test_a_box_with_an_agent_meets_it_too_and_shares_only_what_it_cannot_write_to(
    breaches: Breaches,
) -> None:
    spec = box(digest="0" * 64, reserve=0.5)["spec"]
    assert list(breaches(spec)) == [] and spec["shareProcessNamespace"] is False
    [init], [agent, alone] = spec["initContainers"], spec["containers"]
    users = {one["name"]: one["securityContext"].get("runAsUser") for one in [init, agent, alone]}
    user = pods.user("palestra-1")
    assert users == {"inject": user // 2, "agent": user // 2, pods.CONTAINER: None}
    assert spec["securityContext"]["runAsUser"] == user and user // 2 < 1_000_000_000
    mounts = {
        one["name"]: {mount["name"]: mount.get("readOnly", False) for mount in one["volumeMounts"]}
        for one in [init, agent, alone]
    }
    link, code = "palestra-link", "palestra-code"
    assert mounts["inject"] == {code: False}
    assert mounts["agent"] == {code: True, link: False}
    assert mounts[pods.CONTAINER] == {"work": False, "tmp": False, "shm": False, link: True}
    assert all(one["stdin"] is False and one["args"] == [] for one in [agent, alone])
    assert (agent["resources"]["requests"]["cpu"], agent["resources"]["limits"]["cpu"]) == (
        *("250m", "500m"),
    )
    assert agent["resources"]["limits"]["memory"] == agent["resources"]["requests"]["memory"]


def test_an_agent_is_told_the_digest_of_a_token_and_never_the_token() -> None:
    token = secrets.token_urlsafe(32)
    found = box(digest=injection.digest(token))
    [agent, _] = found["spec"]["containers"]
    assert agent["command"][-1] == injection.digest(token) != injection.digest(token + "=")
    assert token not in json.dumps(found)


def test_every_other_pod_of_ours_meets_it_too(breaches: Breaches) -> None:
    job = cluster.reaper("n", image="python")["spec"]["jobTemplate"]["spec"]
    daemon = cluster.prepull("n", ["python", "b"])["spec"]
    template = claims.template("t", plan(digest=LATER), owners=[])["spec"]["podTemplate"]
    for owner in (job, daemon):
        assert list(breaches(owner["template"]["spec"])) == []
    assert list(breaches(template["spec"])) == []


@pytest.mark.parametrize(
    ("change", "breach"),
    [
        ({"hostPID": True}, "hostPID"),
        ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "volume"),
        ({"securityContext": {"runAsNonRoot": True}}, "seccomp"),
    ],
)
def test_the_check_of_the_level_sees_breaches(
    change: dict[str, Any], breach: str, breaches: Breaches
) -> None:
    assert any(found.startswith(breach) for found in breaches({**box()["spec"], **change}))


def test_folders_are_in_memory_and_leave_some() -> None:
    memory = 1 << 30
    spec = box(spec=BoxSpec(limits=Limits(memory=memory, tmp=1 << 20)))["spec"]
    sizes = {one["name"]: int(one["emptyDir"]["sizeLimit"]) for one in spec["volumes"]}
    assert all(one["emptyDir"]["medium"] == "Memory" for one in spec["volumes"])
    assert sizes["tmp"] == 1 << 20 and sum(sizes.values()) < memory * 3 // 4
    mounts = {one["name"]: one["mountPath"] for one in spec["containers"][0]["volumeMounts"]}
    assert mounts == {"work": "/workspace", "tmp": "/tmp", "shm": "/dev/shm"}


def test_no_two_boxes_share_a_user() -> None:
    users = {pods.user(f"palestra-{number}") for number in range(1000)}
    assert len(users) == 1000 and min(users) >= 1_000_000_000 and max(users) < 2**31 - 1
    context = box()["spec"]["securityContext"]
    assert {context[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {
        pods.user("palestra-1")
    }


def test_names_time_and_choices_arrive() -> None:
    found = box(pull="missing", runtime="gvisor", account="box", priority="low", machine="aarch64")
    spec = found["spec"]
    assert found["metadata"]["ownerReferences"] == [OWNER]
    assert found["metadata"]["labels"][pods.EXPIRES] == "4600"
    assert spec["activeDeadlineSeconds"] > 3600
    assert spec["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert box()["spec"]["containers"][0]["imagePullPolicy"] == "Never"
    assert spec["containers"][0]["image"].endswith("@sha256:" + "0" * 64)
    chosen = [spec[f"{name}Name"] for name in ("runtimeClass", "serviceAccount", "priorityClass")]
    assert chosen == ["gvisor", "box", "low"]
    assert spec["nodeSelector"]["kubernetes.io/arch"] == "arm64"
    assert "runtimeClassName" not in box()["spec"]


def test_any_label_can_be_told_and_selected_by() -> None:
    labels = {"run": "tiny-0", "task": "a/b c", "é": "", "long": "x" * 100}
    found = box(spec=BoxSpec(labels=labels))
    assert pods.told(found) == labels
    selectors = pods.selectors(labels)
    assert selectors.items() <= found["metadata"]["labels"].items()
    assert selectors["palestra.box/run"] == "tiny-0" and len(set(selectors)) == 4
    assert all(len(value) <= 63 for value in selectors.values())
    assert pods.selectors({"task": "a/b c"}) != pods.selectors({"task": "a/b_c"})


def test_boxes_that_differ_do_not_stand_for_each_other() -> None:
    other = [
        plan(runtime="kata"),
        plan(cpus=2.0),
        plan(spec=BoxSpec(limits=Limits(pids=1))),
        plan()._replace(image="b"),
    ]
    assert len({pods.shape(one) for one in [plan(), *other]}) == 5
    assert pods.shape(plan()) == pods.shape(plan(spec=BoxSpec(labels={"run": "other"})))


def answer(state: Mapping[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    """A Pod as the API server shows it."""
    statuses = [{"name": pods.CONTAINER, "state": state}] if state is not None else []
    metadata = {"name": "palestra-1", "uid": "u", **rest.pop("metadata", {})}
    return {
        "metadata": metadata,
        "spec": rest.pop("spec", {"nodeName": "n"}),
        "status": {"phase": "Pending", "containerStatuses": statuses, **rest},
    }


NEVER = {"reason": "ErrImageNeverPull", "message": "not present"}
STARTED_NOT = {"reason": "StartError", "message": 'exec: "python3": executable file not found'}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return answer({"waiting": {"reason": reason, "message": message}})


@pytest.mark.parametrize(
    ("found", "stage"),
    [
        (waiting("ErrImageNeverPull", "not present"), "image"),
        (waiting("ImagePullBackOff", "Back-off pulling"), "image"),
        (waiting("ImagePullBackOff", "429 toomanyrequests: limit"), "queue"),
        (waiting("InvalidImageName"), "image"),
        (waiting("CreateContainerConfigError", "runAsNonRoot"), "start"),
        (waiting("RunContainerError", 'exec: "python3": executable file not found'), "image"),
        (answer({"terminated": {"reason": "StartError", "message": "no python3"}}), None),
        (
            answer({"terminated": {"reason": "StartError", "message": "python3"}}, phase="Failed"),
            "image",
        ),
        (answer({"terminated": {"reason": "Error", "message": ""}}, phase="Failed"), "start"),
        (answer(phase="Failed", reason="UnexpectedAdmissionError"), "start"),
        (answer(metadata={"deletionTimestamp": "t"}), "start"),
        (waiting("ContainerCreating"), None),
        (waiting("ErrImagePull", "a first try may be followed by a better one"), None),
        (answer(spec={}), None),
        (
            answer(initContainerStatuses=[{"name": "inject", "state": {"waiting": NEVER}}]),
            "image",
        ),
        (
            answer(
                {"waiting": {"reason": "PodInitializing"}},
                initContainerStatuses=[{"name": "inject", "state": {"terminated": STARTED_NOT}}],
                phase="Failed",
            ),
            "image",
        ),
    ],
)
def test_what_keeps_a_box_from_starting(found: dict[str, Any], stage: str | None) -> None:
    error = status.obstacle(found)
    assert (error.stage if error else None) == stage


def test_being_late_has_a_reason() -> None:
    conditions = [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes: cpu"}]
    unscheduled = status.late(answer(spec={}, conditions=conditions), [], 60.0)
    assert unscheduled.stage == "schedule" and "0/1 nodes: cpu" in str(unscheduled)
    events = [{"reason": "Scheduled"}, {"reason": "FailedMount", "message": "no volume"}]
    stuck = status.late(waiting("ContainerCreating"), events, 60.0)
    assert stuck.stage == "start" and "no volume" in str(stuck)
    pulling = status.late(waiting("ContainerCreating"), [{"reason": "Pulling"}], 60.0)
    assert pulling.stage == "image"


FULL_NODE = "The node was low on resource: ephemeral-storage. Container box was using 100Ki"


@pytest.mark.parametrize(
    ("found", "gone", "by_us", "oom"),
    [
        (None, True, True, False),
        (answer(metadata={"uid": "another"}), True, True, False),
        (answer(metadata={"deletionTimestamp": "t"}), True, True, False),
        (answer(phase="Failed", reason="Evicted", message="The node was low on memory"), *"TTF"),
        (answer(phase="Failed", reason="Evicted", message=FULL_NODE), *"TTF"),
        (answer(phase="Failed", reason="Evicted", message="emptyDir limit exceeds"), *"TFF"),
        (answer({"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}), *"TTF"),
        (answer({"terminated": {"exitCode": 255, "reason": "Unknown"}}), *"TTF"),
        (answer(phase="Failed", reason="DeadlineExceeded"), *"TTF"),
        (answer({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), *"TFT"),
        (answer({"terminated": {"exitCode": 137, "reason": "Error"}}), *"TFF"),
        (answer({"terminated": {"exitCode": ORPHANED, "reason": "Error"}}), *"FFF"),
    ],
)
def test_whose_doing_an_end_was(
    found: dict[str, Any] | None, gone: object, by_us: object, oom: object
) -> None:
    fate = status.fate(found, "u")
    assert fate is not None
    told = [word in (True, "T") for word in (gone, by_us, oom)]
    assert [fate.gone, fate.by_us, fate.oom] == told


def test_a_box_runs_once_its_agent_does() -> None:
    box, agent = ({"name": name, "state": {"running": {}}} for name in (pods.CONTAINER, "agent"))
    late = {"name": "agent", "state": {"waiting": {"reason": "PodInitializing"}}}
    assert status.running(answer(phase="Running", containerStatuses=[agent, box]))
    assert not status.running(answer(phase="Running", containerStatuses=[late, box]))
    assert not status.running(answer(phase="Pending"))


def test_the_end_of_a_box_is_not_that_of_its_agent() -> None:
    agent = {"name": "agent", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
    box = {
        "name": pods.CONTAINER,
        "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
    }
    assert status.fate(answer(containerStatuses=[agent, box]), "u").oom  # type: ignore[union-attr]
    running = {"name": pods.CONTAINER, "state": {"running": {}}}
    assert status.fate(answer(containerStatuses=[agent, running], phase="Running"), "u") is None


def test_a_lease_that_cannot_be_removed_keeps_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = datetime.now(UTC) - timedelta(hours=1)
    items = [leases.lease(name, stale) for name in ("a", "b", "c")]

    def call(method: str, path: str) -> dict[str, object]:
        if method == "DELETE" and path.endswith("driver-b"):
            raise OSError("403")
        return {"items": items}

    monkeypatch.setattr(reaper, "call", call)
    with pytest.raises(SystemExit) as ended:
        reaper.main("boxes")
    said = capsys.readouterr()
    assert (ended.value.code, said.out.split()) == (1, ["palestra-driver-a", "palestra-driver-c"])
    assert said.err == "palestra-driver-b: 403\n"


def test_a_running_box_has_no_fate() -> None:
    assert status.fate(answer({"running": {}}, phase="Running"), "u") is None


@pytest.mark.parametrize(
    ("code", "message", "stage"),
    [
        (403, 'pods "x" is forbidden: exceeded quota: boxes, used: pods=2', "quota"),
        (403, "maximum memory usage per Container is 1Gi, but limit is 2Gi", "quota"),
        (403, 'violates PodSecurity "restricted:latest": runAsNonRoot', "permission"),
        (403, 'User "x" cannot create resource "pods"', "permission"),
        (401, "Unauthorized", "permission"),
        (404, 'namespaces "x" not found', "start"),
        (429, "too many requests", "queue"),
        (422, "spec.containers: Required value", "start"),
    ],
)
def test_refusals_have_a_stage(code: int, message: str, stage: str) -> None:
    for text in (json.dumps({"kind": "Status", "message": message}), message.encode()):
        fault = refused(code, text)
        assert (fault.stage, fault.status) == (stage, code) and message in str(fault)


@pytest.mark.parametrize("code", [404, 409])
@pytest.mark.parametrize("leaving", [True, False])
def test_a_pod_that_goes_while_it_is_looked_at_is_made_anew(
    code: int, leaving: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = plan(spec=BoxSpec(key="k"))
    old = answer(metadata={"labels": {pods.SHAPE: pods.shape(given)}})
    old["metadata"] |= {"deletionTimestamp": "t"} if leaving else {}
    answers = iter([ApiFault("start", "", 409), old, ApiFault("start", "", code), answer()])
    asked = []

    class Server:
        def now(self, method: str, path: str, body: object = None) -> dict[str, Any]:
            asked.append(method)
            found = next(answers)
            if isinstance(found, ApiFault):
                raise found
            return found

    monkeypatch.setattr(leases.Heart, "owner", lambda _: OWNER)
    made = Pods(Server()).made("palestra-1", given)  # type: ignore[arg-type]
    assert made.ours and asked == ["POST", "GET", "DELETE" if leaving else "PATCH", "POST"]


def test_a_driver_lives_while_it_renews_its_lease() -> None:
    found = leases.lease("1", NOW)
    assert leases.alive(found, NOW + timedelta(seconds=leases.STALE_S))
    assert not leases.alive(found, NOW + timedelta(seconds=leases.STALE_S + 1))
    dead = Owner(pid=Owner.me().pid, started=1, host=Owner.me().host)
    found["spec"]["holderIdentity"] = str(dead)
    assert not leases.alive(found, NOW), "its process is gone, which we can see on this machine"
    found["spec"]["holderIdentity"] = "whatever"
    assert leases.alive(found, NOW)


def test_a_box_lives_while_one_of_its_drivers_does() -> None:
    made = {"metadata": {"ownerReferences": [{"uid": "a"}, {"uid": "b"}]}}
    assert leases.owned(made, ["b"]) and not leases.owned(made, ["c"])
    assert leases.owned({"metadata": {}}, [])


def test_the_reaper_waits_longer_than_a_lease_lasts() -> None:
    found = leases.lease("1", datetime.now(UTC))
    assert -leases.STALE_S <= reaper.silence(found) < 0
    found = leases.lease("1", datetime.now(UTC) - timedelta(seconds=leases.STALE_S + 500))
    assert reaper.silence(found) > reaper.GRACE_S


def test_accounts_may_do_what_they_need_and_nothing_else() -> None:
    roles = {one["metadata"]["name"]: one for one in cluster.access("n") if one["kind"] == "Role"}
    assert {one["kind"] for one in cluster.access("n")} == {"ServiceAccount", "Role", "RoleBinding"}
    allowed = {
        (resource, verb)
        for rule in roles[cluster.REAPER_ACCOUNT]["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert allowed == {("leases", "list"), ("leases", "delete")}
    driver = json.dumps(roles[cluster.DRIVER_ACCOUNT])
    assert "*" not in driver and "secrets" not in driver and "nodes" not in driver


def test_policies_let_nothing_through() -> None:
    policy = cluster.network_policy("n")["spec"]
    assert (policy["podSelector"], policy["ingress"], policy["egress"]) == ({}, [], [])
    assert policy["policyTypes"] == ["Ingress", "Egress"]


def test_only_drivers_are_let_in_and_only_to_agents() -> None:
    policy = cluster.agent_network("n")["spec"]
    assert policy["podSelector"] == {"matchLabels": {pods.BOX: "1"}}
    [rule] = policy["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": injection.PORT}]
    # Both in one entry: in two, either of them would be enough.
    [drivers] = rule["from"]
    assert set(drivers) == {"namespaceSelector", "podSelector"}
    assert all(one == {"matchLabels": {injection.DRIVES: "1"}} for one in drivers.values())
    assert "egress" not in policy and policy["policyTypes"] == ["Ingress"]


def test_the_manifests_of_the_folder_are_up_to_date() -> None:
    pages = _maker().pages()
    folder = ROOT / "deploy/k8s"
    assert {path.name for path in folder.glob("*.yaml")} == set(pages)
    assert {name: (folder / name).read_text() for name in pages} == pages, "run deploy/k8s/make.py"
    maker = _maker()
    assert maker.TEMPLATE.read_text() == maker.template(), "run deploy/k8s/make.py"


def test_claims_are_warm_offline_and_end() -> None:
    made = claims.template("t", plan(digest=LATER), owners=[OWNER])
    template = made["spec"]
    rule = injection.agent_ingress()
    assert template["networkPolicy"] == {"ingress": [rule], "egress": []}
    alone = claims.template("t", plan(), owners=[OWNER])["spec"]
    assert alone["networkPolicy"] == {"ingress": [], "egress": []}
    assert template["networkPolicyManagement"] == "Managed"
    assert template["envVarsInjectionPolicy"] == "Disallowed"
    assert "activeDeadlineSeconds" not in template["podTemplate"]["spec"]
    pool = claims.warm_pool("p", template="t", boxes=3, owners=[OWNER])
    assert (pool["spec"]["replicas"], pool["spec"]["sandboxTemplateRef"]) == (3, {"name": "t"})
    assert pool["metadata"]["ownerReferences"] == made["metadata"]["ownerReferences"] == [OWNER]
    made = claims.claim("c", plan(spec=BoxSpec(ttl=0.0)), pool="p", owner=OWNER, now=0.0)
    assert made["apiVersion"] == "extensions.agents.x-k8s.io/v1beta1"
    assert "env" not in made["spec"] and "volumeClaimTemplates" not in made["spec"]
    assert made["spec"]["lifecycle"] == {
        "shutdownPolicy": "Delete",
        "shutdownTime": "1970-01-01T00:00:00Z",
        "ttlSecondsAfterFinished": 60,
    }
    assert made["metadata"]["ownerReferences"] == [OWNER]


def test_the_pod_of_a_claim_is_known_for_a_box_of_its_driver() -> None:
    given = plan(digest=LATER)
    claim = claims.claim("c", given, pool="p", owner=OWNER, now=1000.0)
    template = claims.template("t", given, owners=[])["spec"]["podTemplate"]["metadata"]
    added = claim["spec"]["additionalPodMetadata"]
    assert template["labels"].keys().isdisjoint(added["labels"]), "a claim must not change any"
    assert pods.BOX not in template["labels"], "until it is claimed it is nobody's box"
    pod = {"metadata": {**added, "ownerReferences": [{"uid": "that of its Sandbox"}]}}
    assert claims.claim_of(pod) == "c" and claims.claim_of(box()) == ""
    assert leases.drivers(pod) == [OWNER] == leases.drivers(box())
    assert pods.told(pod) == given.spec.labels
    assert pod["metadata"]["labels"].items() <= box()["metadata"]["labels"].items()


def test_a_warm_box_waits_for_its_driver_and_no_longer_than_a_week() -> None:
    spec = claims.template("t", plan(digest=LATER), owners=[])["spec"]["podTemplate"]["spec"]
    [agent, alone] = spec["containers"]
    assert agent["stdin"] is agent["stdinOnce"] is True and agent["command"][-1] == LATER
    assert alone["stdin"] is False and int(alone["command"][-2]) > 7 * 24 * 3600


@pytest.mark.parametrize(
    ("kinds", "there"),
    [
        (["SandboxTemplate", "SandboxWarmPool", "SandboxClaim"], True),
        (["SandboxTemplate", "SandboxClaim"], False),
        (ApiFault("start", "the server could not find the requested resource", 404), False),
    ],
)
def test_a_cluster_without_the_kinds_of_claims_has_no_warm_pools(
    kinds: list[str] | ApiFault, there: bool
) -> None:
    assert claims.installed(serving(kinds)) is there


def test_a_cluster_that_does_not_say_which_kinds_it_has_is_no_cluster_without_them() -> None:
    with pytest.raises(ApiFault):
        claims.installed(serving(ApiFault("permission", "Unauthorized", 401)))


def serving(kinds: list[str] | ApiFault) -> Any:
    def now(method: str, path: str) -> dict[str, Any]:
        if isinstance(kinds, ApiFault):
            raise kinds
        return {"resources": [{"kind": kind} for kind in kinds]}

    return SimpleNamespace(now=now)


def test_a_claim_is_ready_when_it_has_a_box() -> None:
    ready = {"type": "Ready", "status": "True", "reason": "R", "message": "m"}
    named = {"name": "s"}
    assert claims.ready({"status": {"conditions": [ready], "sandbox": named}})
    late = {**ready, "status": "False"}
    for found in (
        {},
        {"status": {"conditions": [ready]}},
        {"status": {"conditions": [late], "sandbox": named}},
    ):
        assert not claims.ready(found)
    assert claims.reason({"status": {"conditions": [late]}}) == "R: m"
    assert "nothing" in claims.reason({})


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make", ROOT / "deploy/k8s/make.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
