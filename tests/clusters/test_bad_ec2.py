"""EC2 that cannot be used: a sentence each, within a minute, and no instance left.

pytest -m hosts tests/clusters/test_bad_ec2.py      # root; about 4 minutes
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clusters.fake_ec2 import FakeEc2, fake_ec2
from tests.clusters.hosts import can_start

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(bool(can_start()), reason=can_start() or "no reason"),
]

Config = dict[str, Any]
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture(scope="module")
def cloud() -> Iterator[FakeEc2]:
    with fake_ec2() as made:
        yield made


def provider(**changes: str) -> Callable[[Config], object]:
    return lambda config: config["provider"].update(changes)


def head(**changes: object) -> Callable[[Config], object]:
    return lambda config: config["available_node_types"]["head"]["node_config"].update(changes)


def card(**changes: object) -> Callable[[Config], object]:
    def change(config: Config) -> None:
        node = config["available_node_types"]["head"]["node_config"]
        node["NetworkInterfaces"][0].update(changes)

    return change


PROFILE = {"Arn": "arn:aws:iam::123456789012:instance-profile/none"}

NAMED: dict[str, tuple[Callable[[Config], object], str]] = {
    "region": (provider(region="us-est-1"), "provider.region='us-est-1' is no region of AWS; did"),
    "another region": (
        provider(region="eu-west-1"),
        "provider.availability_zone='us-east-1a' is none of eu-west-1 (eu-west-1a",
    ),
    "zone": (provider(availability_zone="us-east-1z"), "availability_zone='us-east-1z' is none of"),
    "image": (head(ImageId="ami-00000000000000000"), "ImageId='ami-00000000000000000' does not ex"),
    "type": (head(InstanceType="m7i.xlarg"), "InstanceType='m7i.xlarg' does not exist in us-east"),
    "key pair": (head(KeyName="none"), "KeyName='none' does not exist"),
    "subnet": (card(SubnetId="subnet-0aaaaaaaaaaaaaaaa"), "SubnetId='subnet-0aaaaaaaaaaaaaaaa' do"),
    "group": (card(Groups=["sg-0aaaaaaaaaaaaaaaa"]), "SecurityGroupId='sg-0aaaaaaaaaaaaaaaa' do"),
    "profile": (head(IamInstanceProfile=PROFILE), "IamInstanceProfile='none' does not exist"),
    "parameter": (head(InstanceTyp="m7i.xlarge"), "InstanceTyp is no parameter of EC2's RunInstan"),
}


def refused(cloud: FakeEc2, path: Path, env: dict[str, str], *words: str) -> str:
    """Run `cluster up`, which must fail within a minute; return its sentence."""
    started = time.monotonic()
    ended = cloud.hosts.run("dcdctl", "cluster", "up", str(path), *words, env=env, timeout=240)
    took = time.monotonic() - started
    said = [line for line in ended.stdout.splitlines() if line.startswith("error: ")]
    assert ended.returncode == 7, ended.stdout
    assert len(said) == 1, ended.stdout
    assert took < (60 if not words else 150), f"{took:.0f} s"
    assert gone(cloud)
    return said[0]


def gone(cloud: FakeEc2) -> bool:
    """Say whether no instance is left, once the watcher has looked."""
    end = time.monotonic() + 20
    time.sleep(1)
    while cloud.running() and time.monotonic() < end:
        time.sleep(0.5)
    return not cloud.running()


@pytest.mark.parametrize("name", NAMED)
def test_what_is_not_there(name: str, cloud: FakeEc2, tmp_path: Path) -> None:
    change, words = NAMED[name]
    path = cloud.cluster(tmp_path)
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config, sort_keys=False, width=1000))
    assert words in refused(cloud, path, cloud.env)


def test_no_credentials(cloud: FakeEc2, tmp_path: Path) -> None:
    env = {k: v for k, v in cloud.env.items() if k not in KEYS}
    env |= {"AWS_SHARED_CREDENTIALS_FILE": "/nowhere", "AWS_CONFIG_FILE": "/nowhere"}
    path = cloud.cluster(tmp_path)
    assert "no credentials for AWS were found; set AWS_PROFILE" in refused(cloud, path, env)
    env |= {"AWS_PROFILE": "nobody"}
    assert "profile (nobody) could not be found" in refused(cloud, path, env)


def test_wrong_keys(cloud: FakeEc2, tmp_path: Path) -> None:
    """Here moto asks for rights as IAM does."""
    switch = (
        "import sys, urllib.request as r; a, b = sys.argv[1:]; t = {'Content-Type': 'text/plain'};"
        "r.urlopen(r.Request(a, b.encode(), t)).read()"
    )
    where = f"{cloud.env['AWS_ENDPOINT_URL']}/moto-api/reset-auth"
    path = cloud.cluster(tmp_path)
    switched = cloud.hosts.run(sys.executable, "-c", switch, where, "0")
    assert switched.returncode == 0, switched.stdout
    try:
        said = refused(cloud, path, cloud.env)
    finally:
        cloud.hosts.run(sys.executable, "-c", switch, where, "1000000000")
    assert "AWS does not accept the access key; check AWS_ACCESS_KEY_ID" in said


def test_nobody_at_the_endpoint(cloud: FakeEc2, tmp_path: Path) -> None:
    env = cloud.env | {"AWS_ENDPOINT_URL": "http://10.79.0.77:5000"}
    said = refused(cloud, cloud.cluster(tmp_path), env)
    assert "EC2 in provider.region='us-east-1' does not answer" in said


def test_a_head_that_never_answers_is_ended(cloud: FakeEc2, tmp_path: Path) -> None:
    cloud.dead = True
    try:
        path = cloud.cluster(tmp_path)
        said = refused(cloud, path, cloud.env, "--deadline", "30")
    finally:
        cloud.dead = False
    assert "was not done in 30 s; it last said: SSH still not available" in said
    assert "what was started is down again" in said
    assert "head" in str(cloud.instances), "an instance was started"


def test_ctrl_c_names_the_instance_that_stays_up(cloud: FakeEc2, tmp_path: Path) -> None:
    cloud.dead = True
    path = cloud.cluster(tmp_path)
    try:
        process = subprocess.Popen(
            cloud.hosts.words("dcdctl", "cluster", "up", str(path)),
            cwd=tmp_path,
            env=os.environ
            | cloud.env
            | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        end = time.monotonic() + 120
        while not cloud.running():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.5)
        (name,) = cloud.running()
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=120)[0]
    finally:
        cloud.dead = False
    assert f"still up: {name} (head " in said
    assert f"dcdctl cluster down {path}" in said
    down = cloud.hosts.run("dcdctl", "cluster", "down", str(path), env=cloud.env)
    assert down.returncode == 0, down.stdout
    assert gone(cloud)
