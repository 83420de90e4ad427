"""EC2 without Amazon: moto's server, and a host of this machine behind every running instance.

    with fake_ec2() as cloud:              # needs what tests.clusters.hosts needs, and moto
        file = cloud.cluster(tmp_path)     # the shipped aws.yaml with this cloud's names in it
        cloud.hosts.run("dcdctl", "cluster", "up", str(file), env=cloud.env)
        cloud.terminate_a_worker()

What it does not show: rights, quotas, images, spot prices.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clusters.cluster_file import SHIPPED
from tests.clusters.hosts import Lab, lab

NETWORK = "10.79"
PORT = 5000

_PREPARE = """
import boto3, json
ec2, iam, s3 = (boto3.client(name) for name in ("ec2", "iam", "s3"))
vpc = ec2.create_vpc(CidrBlock="10.79.0.0/16")["Vpc"]["VpcId"]
zone = "us-east-1a"
subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.79.128.0/20", AvailabilityZone=zone)
group = ec2.create_security_group(VpcId=vpc, GroupName="dcdctl", Description="nodes")
ec2.create_key_pair(KeyName="dcdctl-aws")
s3.create_bucket(Bucket="results")
profiles = {}
for name in ("head", "worker"):
    made = iam.create_instance_profile(InstanceProfileName=f"dcdctl-{name}")
    profiles[name] = made["InstanceProfile"]["Arn"]
print(json.dumps({
    "subnet": subnet["Subnet"]["SubnetId"],
    "group": group["GroupId"],
    "image": ec2.describe_images()["Images"][0]["ImageId"],
    "profiles": profiles,
}))
"""

_WATCH = """
import boto3, json, sys, time
ec2 = boto3.client("ec2")
while True:
    found = {}
    try:
        there = ec2.describe_instances()["Reservations"]
    except Exception:  # while a test has it refuse everybody
        time.sleep(0.5)
        continue
    for reservation in there:
        for one in reservation["Instances"]:
            found[one["InstanceId"]] = (
                one["State"]["Name"], one.get("PrivateIpAddress", ""),
                {t["Key"]: t["Value"] for t in one.get("Tags", [])}.get("ray-node-type", ""),
            )
    print(json.dumps(found), flush=True)
    time.sleep(0.5)
"""


@dataclass
class FakeEc2:
    """The cloud."""

    hosts: Lab
    names: dict[str, Any]
    env: dict[str, str]
    instances: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    seen: int = 0
    dead: bool = False
    """New instances run, and nobody answers on them."""

    def cluster(self, folder: Path, **changes: object) -> Path:
        """Write the shipped aws.yaml with this cloud's names in it, and a core for each node."""
        config = yaml.safe_load((SHIPPED / "aws.yaml").read_text())
        aws = folder / "aws"
        aws.mkdir()
        (aws / "config").write_text(
            f"[default]\nregion = us-east-1\nendpoint_url = {self.env['AWS_ENDPOINT_URL']}\n"
        )
        (aws / "credentials").write_text(
            "[default]\naws_access_key_id = none\naws_secret_access_key = none\n"
        )
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.hosts.key)}
        config["file_mounts"] |= {"~/.aws/config": str(aws / "config")}
        config["file_mounts"] |= {"~/.aws/credentials": str(aws / "credentials")}
        # `shutdown` would be this machine's own.
        config["setup_commands"] = [c for c in config["setup_commands"] if "shutdown" not in c]
        # A real node has its profile's rights; these have keys that nobody checks.
        export = " ".join(f"{key}={value}" for key, value in self.env.items())
        for key in ("head_start_ray_commands", "worker_start_ray_commands"):
            config[key] = [line.replace("export ", f"export {export} ") for line in config[key]]
        for name, kind in config["available_node_types"].items():
            node = kind["node_config"]
            role = "head" if name == "head" else "worker"
            kind["resources"] = {"CPU": 1}
            node |= {"ImageId": self.names["image"]}
            node["IamInstanceProfile"] = {"Arn": self.names["profiles"][role]}
            card = dict(node["NetworkInterfaces"][0])
            card |= {"SubnetId": self.names["subnet"], "Groups": [self.names["group"]]}
            node["NetworkInterfaces"] = [card]
        config |= changes
        path = folder / "aws.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False, width=1000))
        return path

    def running(self, kind: str = "") -> list[str]:
        """Return the running instances, of a node type."""
        return [
            name
            for name, (state, _, node) in self.instances.items()
            if state == "running" and (not kind or kind in node)
        ]

    def terminate_a_worker(self) -> str:
        """Have the cloud take a worker back; its host is unplugged."""
        name = self.running("worker")[0]
        code = f"import boto3; boto3.client('ec2').terminate_instances(InstanceIds=['{name}'])"
        self.hosts.run(sys.executable, "-c", code, env=self.env)
        return name


@contextmanager
def fake_ec2() -> Iterator[FakeEc2]:
    """Start the cloud, and end it with all its hosts."""
    with lab(0, network=NETWORK) as hosts:
        address = f"{NETWORK}.0.1"
        env = {
            "AWS_ENDPOINT_URL": f"http://{address}:{PORT}",
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        server = subprocess.Popen(
            hosts.words(sys.executable, "-m", "moto.server", "-H", address, "-p", str(PORT)),
            cwd=hosts.folder,
            env=os.environ | env | {"MOTO_EC2_LOAD_DEFAULT_AMIS": "true"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        watch = None
        try:
            names = _prepare(hosts, env)
            cloud = FakeEc2(hosts, names, env)
            watch = subprocess.Popen(
                hosts.words(sys.executable, "-c", _WATCH),
                cwd=hosts.folder,
                env=os.environ | env,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            threading.Thread(target=_follow, args=(cloud, watch), daemon=True).start()
            yield cloud
        finally:
            for process in (watch, server):
                if process is not None:
                    process.kill()
                    process.wait()


def _prepare(hosts: Lab, env: dict[str, str]) -> dict[str, Any]:
    end = time.monotonic() + 60
    while True:
        done = hosts.run(sys.executable, "-c", _PREPARE, env=env)
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            return found
        if time.monotonic() > end:
            raise RuntimeError(done.stdout)
        time.sleep(1)


def _follow(cloud: FakeEc2, watch: subprocess.Popen[str]) -> None:
    """Give each running instance a host at its address, and take it when the instance ends."""
    assert watch.stdout is not None
    for line in watch.stdout:
        found = {name: tuple(values) for name, values in json.loads(line).items()}
        for name, (state, address, _) in found.items():
            wanted = state == "running" and address and not cloud.dead
            if wanted and name not in cloud.hosts.hosts:
                cloud.hosts.add(name, address)
                cloud.seen += 1
            if state in ("terminated", "shutting-down", "stopped") and name in cloud.hosts.hosts:
                with suppress(KeyError, subprocess.CalledProcessError):
                    cloud.hosts.unplug(name)
        cloud.instances = found
