"""The security list that a cluster file is held against: a line for each point that is not met."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from clusters.cluster_file import read_config

# What a secret looks like: an AWS key, a private key, a GitHub or Hugging Face token, a password.
_SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|hf_[A-Za-z0-9]{20,}|(?i:secret_access_key|password|passwd|auth_token)\s*[=:]\s*[\"']?[^\s~/\"'$]"
    r"|RAY_AUTH_TOKEN\s*="
)
_PLACEHOLDERS = re.compile(
    r"198\.51\.100\.|0123456789abcdef0|123456789012|change-me|change-bucket|my-project|"
    r"registry\.example"
)


def check_file(path: Path) -> list[str]:
    """Hold a cluster file against the security list.

    Args:
        path: a file that `--cluster` takes, or a RayJob of KubeRay.

    Returns:
        What is not met, a sentence each; nothing where all is.

    Raises:
        ClusterError: the file cannot be read.
    """
    return list(problems(read_config(path), path.read_text()))


def problems(config: Mapping[str, Any], text: str = "") -> Iterator[str]:
    """Yield what a cluster file does not meet."""
    written = text or yaml.safe_dump(dict(config))
    if found := _SECRETS.search(written):
        yield f"it holds a secret ({found[0][:12]}...): keep it in a file, or in your cloud's store"
    if "laptop" in config:
        return
    if "address" in config:
        if config.get("insecure_without_token"):
            yield "insecure_without_token is true: whoever reaches the cluster can run code there"
        if not re.match(r"https:|http://(127\.|localhost|\[::1\])", str(config["address"])):
            yield "address is plain http to another machine: the token travels readable"
        return
    if config.get("kind") == "RayJob":
        yield from _kuberay(config, written)
        return
    yield from _ray_file(config)
    kind = str((config.get("provider") or {}).get("type"))
    if kind in ("aws", "gcp"):
        yield from _cloud(config)
    if kind == "aws":
        yield from _aws(config)
    if kind == "gcp":
        yield from _gcp(config)


def unfilled(text: str) -> list[str]:
    """Return the lines of a shipped file in which an example's value still stands."""
    return [
        f"line {number}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        if not line.lstrip().startswith("#") and _PLACEHOLDERS.search(line)
    ]


def _ray_file(config: Mapping[str, Any]) -> Iterator[str]:
    for kind, start in (("head", "ray start --head"), ("worker", "ray start --address")):
        commands = "\n".join(map(str, config.get(f"{kind}_start_ray_commands") or ()))
        lines = [line for line in commands.splitlines() if start in line]
        if not lines or not all("RAY_AUTH_MODE=token" in line for line in lines):
            yield (
                f"{kind}_start_ray_commands: `{start}` without RAY_AUTH_MODE=token, so that node "
                "takes code from whoever reaches it"
            )
        if not lines or not all(_no_telemetry(line) for line in lines):
            yield f"{kind}_start_ray_commands: telemetry is on; add --disable-usage-stats"
        if kind == "head" and not all("--dashboard-host=127.0.0.1" in line for line in lines):
            yield "head_start_ray_commands: the dashboard is not on --dashboard-host=127.0.0.1"
    mounts = [str(target) for target in config.get("file_mounts") or ()]
    if not any(target.endswith(".ray/auth_token") for target in mounts):
        yield "file_mounts: no ~/.ray/auth_token, so the nodes have no token"
    commands = "\n".join(str(line) for key in _COMMANDS for line in config.get(key) or ())
    if not re.search(r"chmod 0?600 \S*auth_token", commands):
        yield "setup_commands: the token is not made readable by its owner alone (chmod 600)"
    if not re.search(r"shutdown -h \+\d+|sleep \d+; ray stop", commands):
        yield "no maximum lifetime (`shutdown -h +MINUTES`): a forgotten node runs for ever"
    if not config.get("idle_timeout_minutes"):
        yield "idle_timeout_minutes is missing: an idle worker is never stopped"


_COMMANDS = ("setup_commands", "head_setup_commands", "worker_setup_commands") + (
    *("head_start_ray_commands", "worker_start_ray_commands", "initialization_commands"),
)


def _no_telemetry(line: str) -> bool:
    return "--disable-usage-stats" in line or "RAY_USAGE_STATS_ENABLED=0" in line


def _cloud(config: Mapping[str, Any]) -> Iterator[str]:
    provider = config["provider"]
    if provider.get("use_internal_ips") is not True:
        yield "provider.use_internal_ips is not true: nodes are reached on public addresses"
    if provider.get("cache_stopped_nodes") is not False:
        yield "provider.cache_stopped_nodes is not false: stopped nodes keep their disks, and cost"
    if "max_workers" not in config:
        yield "max_workers is missing: nothing bounds the bill"


def _nodes(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, kind in (config.get("available_node_types") or {}).items():
        yield str(name), kind.get("node_config") or {}


def _aws(config: Mapping[str, Any]) -> Iterator[str]:
    profiles: dict[str, str] = {}
    for name, node in _nodes(config):
        at = f"available_node_types.{name}.node_config"
        cards = node.get("NetworkInterfaces") or []
        if any(card.get("AssociatePublicIpAddress") is not False for card in cards):
            yield f"{at}: AssociatePublicIpAddress is not false on every card"
        elif not cards and not node.get("SubnetIds"):
            yield f"{at}: no subnet is named, so Ray takes one that may be public"
        if not all(card.get("Groups") for card in cards) or not (
            cards or node.get("SecurityGroupIds")
        ):
            yield f"{at}: no security group is named; Ray makes one that takes SSH from 0.0.0.0/0"
        if (node.get("MetadataOptions") or {}).get("HttpTokens") != "required":
            yield f"{at}: MetadataOptions.HttpTokens is not required (IMDSv2)"
        disks = [disk.get("Ebs") or {} for disk in node.get("BlockDeviceMappings") or []]
        if not disks or not all(disk.get("Encrypted") is True for disk in disks):
            yield f"{at}: a volume is not Encrypted: true"
        profile = node.get("IamInstanceProfile") or {}
        profiles[name] = str(profile.get("Arn") or profile.get("Name") or "")
        if not profiles[name]:
            yield f"{at}: no IamInstanceProfile; Ray makes one with rights over all of EC2 and S3"
        if not node.get("TagSpecifications"):
            yield f"{at}: no TagSpecifications, so nobody knows whose node it is"
        if node.get("InstanceInitiatedShutdownBehavior") != "terminate" and not _spot(node):
            yield f"{at}: InstanceInitiatedShutdownBehavior is not terminate: an ended node stays"
    head = str(config.get("head_node_type"))
    if any(profiles.get(head) == own and own for name, own in profiles.items() if name != head):
        yield "head and workers share one instance profile: workers could start and stop machines"
    opened = (config["provider"].get("security_group") or {}).get("IpPermissions") or []
    if any("0.0.0.0/0" in str(rule) or "::/0" in str(rule) for rule in opened):
        yield "provider.security_group lets in 0.0.0.0/0"


def _spot(node: Mapping[str, Any]) -> bool:
    """Say whether it is a spot node: it is terminated, and AWS refuses the setting."""
    return (node.get("InstanceMarketOptions") or {}).get("MarketType") == "spot"


def _gcp(config: Mapping[str, Any]) -> Iterator[str]:
    accounts: dict[str, str] = {}
    for name, node in _nodes(config):
        at = f"available_node_types.{name}.node_config"
        cards = node.get("networkInterfaces") or []
        if not cards or any(card.get("accessConfigs") for card in cards):
            yield f"{at}: networkInterfaces with accessConfigs, or none: a public address"
        own = [str(account.get("email")) for account in node.get("serviceAccounts") or []]
        accounts[name] = own[0] if own else ""
        if not own:
            yield f"{at}: no serviceAccounts; Ray makes one with rights over the project"
        if not node.get("labels"):
            yield f"{at}: no labels, so nobody knows whose node it is"
    head = str(config.get("head_node_type"))
    if any(accounts.get(head) == own and own for name, own in accounts.items() if name != head):
        yield "head and workers share one service account: workers could start and stop machines"


def _kuberay(config: Mapping[str, Any], text: str) -> Iterator[str]:
    spec = config.get("spec") or {}
    cluster = spec.get("rayClusterSpec") or {}
    groups = {"head": cluster.get("headGroupSpec") or {}}
    groups |= {str(g.get("groupName")): g for g in cluster.get("workerGroupSpecs") or []}
    for name, group in groups.items():
        pod = ((group.get("template") or {}).get("spec")) or {}
        for box in pod.get("containers") or []:
            if (box.get("securityContext") or {}).get("allowPrivilegeEscalation") is not False:
                yield f"{name}: securityContext.allowPrivilegeEscalation is not false"
        if not (pod.get("securityContext") or {}).get("runAsNonRoot"):
            yield f"{name}: securityContext.runAsNonRoot is not true"
    head = groups["head"]
    # The container that submits the job, and the operator, know the token from there alone.
    if (cluster.get("authOptions") or {}).get("mode") != "token":
        yield "rayClusterSpec.authOptions.mode is not token: whoever reaches a pod runs code there"
    if head.get("serviceType", "ClusterIP") != "ClusterIP":
        yield "head: serviceType is not ClusterIP: it is reachable from outside"
    if not spec.get("shutdownAfterJobFinishes") or not spec.get("activeDeadlineSeconds"):
        yield "no end: set shutdownAfterJobFinishes and activeDeadlineSeconds (maximum lifetime)"
    if "hostNetwork: true" in text or "privileged: true" in text:
        yield "a pod has hostNetwork or is privileged"
