"""EC2, asked before `ray up` does: credentials, region, and whether what a file names is there.

Questions that these credentials may not ask are left to `ray up`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from clusters.cluster_file import RayFile

CONNECT_S, ANSWER_S = 5, 15

_REFUSED = {
    "InvalidClientTokenId": "the access key is not known to AWS; check AWS_ACCESS_KEY_ID or the "
    "profile",
    "AuthFailure": "AWS does not accept the access key; check AWS_ACCESS_KEY_ID and its secret",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY or the profile",
    "ExpiredToken": "the session token has expired; get new credentials (aws sso login)",
    "ExpiredTokenException": "the session token has expired; get new credentials (aws sso login)",
    "RequestExpired": "the session token has expired, or this machine's clock is wrong",
    "OptInRequired": "this account has not enabled the region; enable it, or name another",
}
_MAY_NOT = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")


@dataclass(frozen=True)
class Machine:
    """An instance that costs money.

    Attributes:
        name: its id.
        kind: head or worker.
        address: on which it is reached.
    """

    name: str
    kind: str
    address: str


def aws_faults(cluster: RayFile) -> list[str]:
    """Return what keeps a cluster from coming up on EC2, a sentence each."""
    try:
        import boto3
        import botocore  # noqa: F401
    except ImportError:
        return ["provider aws needs `pip install boto3`"]
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    from botocore.parsers import ResponseParserError

    try:
        if boto3.Session().get_credentials() is None:
            return [_NO_CREDENTIALS]
        return list(_faults(cluster))
    except NoCredentialsError:
        return [_NO_CREDENTIALS]
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        why = _REFUSED.get(code, f"AWS refuses ({code}); check the credentials and the region")
        return [f"provider.region={_region(cluster)!r}: {why}"]
    except (BotoCoreError, ResponseParserError, ValueError) as error:
        return [_unreachable(cluster, error)]


_NO_CREDENTIALS = (
    "no credentials for AWS were found; set AWS_PROFILE (after aws sso login) or "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; they never go into the file"
)


def machines(cluster: RayFile) -> list[Machine]:
    """Return the instances of a cluster that are not terminated; it has to be one of AWS.

    Raises:
        botocore's errors.
    """
    ec2 = client("ec2", _region(cluster))
    asked = [
        {"Name": "tag:ray-cluster-name", "Values": [cluster.name]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]
    found = []
    inside = cluster.config["provider"].get("use_internal_ips")
    for page in ec2.get_paginator("describe_instances").paginate(Filters=asked):
        for reservation in page["Reservations"]:
            for one in reservation["Instances"]:
                tags = {tag["Key"]: tag["Value"] for tag in one.get("Tags", [])}
                address = one.get("PrivateIpAddress" if inside else "PublicIpAddress", "")
                kind = tags.get("ray-node-type", "node")
                found.append(Machine(str(one["InstanceId"]), kind, str(address)))
    return found


def client(service: str, region: str) -> Any:
    """Return a client that does not wait for long."""
    import boto3
    from botocore.config import Config

    quick = Config(
        connect_timeout=CONNECT_S, read_timeout=ANSWER_S, retries={"total_max_attempts": 2}
    )
    return boto3.client(service, region_name=region, config=quick)


def _region(cluster: RayFile) -> str:
    return str(cluster.config["provider"]["region"])


def _unreachable(cluster: RayFile, error: Exception) -> str:
    region = _region(cluster)
    name = type(error).__name__
    if name == "ProfileNotFound":
        return f"{str(error).rstrip('.')}; correct AWS_PROFILE, or make the profile: aws configure"
    import boto3

    known = {one for kind in ("aws", "aws-cn", "aws-us-gov") for one in _regions(boto3, kind)}
    if known and region not in known:
        near = difflib.get_close_matches(region, sorted(known), 1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        return f"provider.region={region!r} is no region of AWS{meant}"
    return (
        f"EC2 in provider.region={region!r} does not answer ({name}); check the network, a proxy, "
        "and AWS_ENDPOINT_URL"
    )


def _regions(boto3: Any, partition: str) -> list[str]:
    return list(boto3.Session().get_available_regions("ec2", partition))


def _faults(cluster: RayFile) -> Iterator[str]:
    region = _region(cluster)
    ec2 = client("ec2", region)
    provider = cluster.config["provider"]
    yield from _zones(ec2, provider)
    seen: set[tuple[str, str]] = set()
    for kind, node_type in cluster.config["available_node_types"].items():
        node = node_type.get("node_config") or {}
        at = f"available_node_types.{kind}.node_config"
        yield from _parameters(ec2, at, node)
        for key, value in _named(node):
            if (key, value) not in seen:
                seen.add((key, value))
                yield from _is_there(ec2, f"{at}.{key}", key, value, region)


def _zones(ec2: Any, provider: Mapping[str, Any]) -> Iterator[str]:
    wanted = provider.get("availability_zone")
    answer = ec2.describe_availability_zones  # the first question: credentials, region, network
    there = [str(zone["ZoneName"]) for zone in answer()["AvailabilityZones"]]
    names = [one.strip() for one in str(wanted or "").split(",") if one.strip()]
    for name in names:
        if name not in there:
            yield (
                f"provider.availability_zone={name!r} is none of {provider['region']} "
                f"({', '.join(there)})"
            )


def _parameters(ec2: Any, at: str, node: Mapping[str, Any]) -> Iterator[str]:
    """Yield keys of node_config that RunInstances does not know."""
    shape = ec2.meta.service_model.operation_model("RunInstances").input_shape
    known = [*shape.members, "SubnetIds"]
    for key in node:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            yield f"{at}.{key} is no parameter of EC2's RunInstances{meant}"


def _named(node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a node's settings name: parameter and value."""
    for key in ("InstanceType", "ImageId", "KeyName"):
        if node.get(key):
            yield key, str(node[key])
    cards = node.get("NetworkInterfaces") or []
    for subnet in [*(node.get("SubnetIds") or []), *(c.get("SubnetId") for c in cards)]:
        if subnet:
            yield "SubnetId", str(subnet)
    groups = [group for card in cards for group in card.get("Groups") or []]
    for group in [*(node.get("SecurityGroupIds") or []), *groups]:
        yield "SecurityGroupId", str(group)
    profile = node.get("IamInstanceProfile") or {}
    if name := profile.get("Name") or str(profile.get("Arn") or "").rpartition("/")[2]:
        yield "IamInstanceProfile", str(name)


def _is_there(ec2: Any, at: str, key: str, value: str, region: str) -> Iterator[str]:
    """Yield a sentence where what is named is not there."""
    from botocore.exceptions import ClientError

    questions: dict[str, Callable[[], Any]] = {
        "InstanceType": lambda: ec2.describe_instance_types(InstanceTypes=[value]),
        "ImageId": lambda: ec2.describe_images(ImageIds=[value])["Images"][0],
        "KeyName": lambda: ec2.describe_key_pairs(KeyNames=[value]),
        "SubnetId": lambda: ec2.describe_subnets(SubnetIds=[value])["Subnets"][0],
        "SecurityGroupId": lambda: ec2.describe_security_groups(GroupIds=[value]),
        "IamInstanceProfile": lambda: client("iam", region).get_instance_profile(
            InstanceProfileName=value
        ),
    }
    try:
        questions[key]()
    except IndexError:
        yield f"{at}={value!r} does not exist in {region}; name one that does"
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        if code in _MAY_NOT:
            return
        if key == "InstanceType" or "NotFound" in code or "Malformed" in code or "NoSuch" in code:
            yield f"{at}={value!r} does not exist in {region} ({code}); name one that does"
            return
        with suppress(KeyError):
            yield f"{at}={value!r}: {_REFUSED[code]}"
            return
        raise
