"""The shipped cluster files meet the security list; each point is seen where it is missing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from clusters.cluster_file import SHIPPED, RayFile, read_cluster
from clusters.security import check_file, problems, unfilled
from tasks.errors import ClusterError

FILES = sorted(path.name for path in SHIPPED.glob("*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_what_is_shipped_is_secure(name: str) -> None:
    assert check_file(SHIPPED / name) == []


def test_the_files_that_are_named_are_there() -> None:
    assert {"laptop", "existing", "onprem", "aws", "gcp", "kuberay"} == {n[:-5] for n in FILES}
    assert (SHIPPED / "slurm.sh.j2").is_file()


@pytest.mark.parametrize("name", ["onprem.yaml", "aws.yaml", "gcp.yaml"])
def test_ray_files_are_rays_own_format(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    found = read_cluster(name)
    assert isinstance(found, RayFile)
    config = copy.deepcopy(found.config)
    if name != "onprem.yaml":  # Ray fills in the rest of a local one before it looks
        validate_config(prepare_config(config))


def test_examples_are_told_from_values() -> None:
    lines = unfilled((SHIPPED / "aws.yaml").read_text())
    assert any("subnet-0123456789abcdef0" in line for line in lines)
    assert not any("CPU: 8" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "words"),
    [("laptop.yaml", "leave --cluster out"), ("kuberay.yaml", "kubectl apply")],
)
def test_files_that_are_not_for_cluster_say_what_they_are_for(name: str, words: str) -> None:
    with pytest.raises(ClusterError, match=words):
        read_cluster(name)


def head(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["available_node_types"]["head"]["node_config"]
    return found


def without_token(config: dict[str, Any]) -> None:
    lines = config["worker_start_ray_commands"]
    config["worker_start_ray_commands"] = [one.replace("RAY_AUTH_MODE=token", "") for one in lines]


BROKEN: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("aws.yaml", without_token, "without RAY_AUTH_MODE=token"),
    ("aws.yaml", lambda c: c["provider"].update(use_internal_ips=False), "public addresses"),
    ("aws.yaml", lambda c: head(c).pop("MetadataOptions"), "IMDSv2"),
    (
        "aws.yaml",
        lambda c: head(c)["BlockDeviceMappings"][0]["Ebs"].update(Encrypted=False),
        "not Encrypted",
    ),
    (
        "aws.yaml",
        lambda c: head(c)["NetworkInterfaces"][0].update(AssociatePublicIpAddress=True),
        "AssociatePublicIpAddress",
    ),
    (
        "aws.yaml",
        lambda c: c["available_node_types"]["gpu"]["node_config"].update(
            IamInstanceProfile=head(c)["IamInstanceProfile"]
        ),
        "share one instance profile",
    ),
    ("aws.yaml", lambda c: head(c).pop("TagSpecifications"), "TagSpecifications"),
    ("aws.yaml", lambda c: c.pop("max_workers"), "nothing bounds the bill"),
    (
        "aws.yaml",
        lambda c: c["provider"].update(
            security_group={"IpPermissions": [{"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]}
        ),
        "lets in 0.0.0.0/0",
    ),
    ("aws.yaml", lambda c: c["auth"].update(note="AKIAABCDEFGHIJKLMNOP"), "holds a secret"),
    ("onprem.yaml", lambda c: c["file_mounts"].clear(), "no token"),
    ("onprem.yaml", lambda c: c.pop("idle_timeout_minutes"), "idle_timeout_minutes"),
    ("existing.yaml", lambda c: c.update(address="http://10.0.0.1:8265"), "travels readable"),
    ("existing.yaml", lambda c: c.update(insecure_without_token=True), "can run code"),
]


@pytest.mark.parametrize(("name", "change", "words"), BROKEN, ids=[words for *_, words in BROKEN])
def test_each_point_is_seen(
    name: str, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    config = copy.deepcopy(yaml.safe_load((SHIPPED / name).read_text()))
    change(config)
    assert any(words in line for line in problems(config)), list(problems(config))


def allowed(name: str) -> list[tuple[str, str]]:
    """Return what a shipped policy allows: action and resource."""
    policy = json.loads((SHIPPED / name).read_text())
    found = []
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        actions, resources = (
            [value] if isinstance(value, str) else value
            for value in (statement["Action"], statement["Resource"])
        )
        found += [(action, resource) for action in actions for resource in resources]
    return found


def test_workers_may_read_photos_and_nothing_else() -> None:
    rights = allowed("aws-worker-policy.json")
    assert {action for action, _ in rights} == {"s3:GetObject", "s3:ListBucket"}
    assert all("CHANGE-DATA-BUCKET" in resource for _, resource in rights)


def test_the_head_writes_results_alone_and_ends_its_own_workers_alone() -> None:
    policy = json.loads((SHIPPED / "aws-head-policy.json").read_text())
    rights = allowed("aws-head-policy.json")
    assert not [right for right in rights if right[0].endswith("*")]
    written = {
        resource for action, resource in rights if action in ("s3:PutObject", "s3:DeleteObject")
    }
    assert written == {"arn:aws:s3:::CHANGE-BUCKET/CHANGE-PREFIX/*"}
    for statement in policy["Statement"]:
        if "ec2:TerminateInstances" in statement["Action"]:
            assert "aws:ResourceTag/ray-cluster-name" in statement["Condition"]["StringEquals"]
        if statement["Resource"] == "*":
            assert "Condition" in statement
    assert {action for action, _ in rights if action.startswith("iam:")} == {"iam:PassRole"}
