"""What `--cluster` may name, and the sentence for what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusters.cluster_file import SHIPPED, Existing, RayFile, read_cluster
from tasks.errors import ClusterError

ONPREM = """
cluster_name: lab
provider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2]}
auth: {ssh_user: ray}
"""
AWS = (SHIPPED / "aws.yaml").read_text()


def test_an_address_needs_no_file() -> None:
    found = read_cluster("http://127.0.0.1:8265/")
    assert isinstance(found, Existing)
    assert found.address == "http://127.0.0.1:8265"


def test_a_file_may_name_a_cluster_that_stands(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("address: https://ray.example:443\ntoken_file: /secrets/token\n")
    assert read_cluster(str(path)) == Existing("https://ray.example:443", Path("/secrets/token"))


def test_a_cluster_file_of_rays_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(ONPREM)
    found = read_cluster(str(path))
    assert isinstance(found, RayFile)
    assert (found.name, found.provider) == ("lab", "local")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("address: [", "is not YAML in line"),
        ("- a", "holds no settings"),
        ("address: 10.0.0.1:8265", "is no http address"),
        ("address: http://a\ntoken_fil: b", "token_fil is not known; did you mean 'token_file'"),
        (ONPREM.replace("cluster_name", "cluster_nam"), "did you mean 'cluster_name'"),
        (ONPREM.replace("local", "loca"), r"provider.type='loca' is not known.* mean 'local'"),
        ("cluster_name: a\nprovider: {type: aws}", "auth is missing"),
        ("cluster_name: a\nprovider: aws\nauth: {}", "provider='aws' has to hold keys"),
        ("", "holds no settings"),
        (ONPREM + "addres: http://a", "did you mean 'address'"),
        (ONPREM.replace("head_ip", "head_pi"), "provider.head_pi is not known; .* 'head_ip'"),
        (ONPREM.replace("worker_ips: [10.0.0.2]", "x: 1"), "provider.x is not known; known are"),
        (ONPREM.replace(", worker_ips: [10.0.0.2]", ""), "provider.worker_ips is missing"),
        (ONPREM.replace("[10.0.0.2]", "10.0.0.2"), "provider.worker_ips='10.0.0.2' .* type array"),
        (ONPREM.replace("ssh_user", "ssh_usr"), "auth.ssh_usr is not known; .* 'ssh_user'"),
        (ONPREM.replace("{ssh_user: ray}", "{}"), "auth.ssh_user is missing"),
        (ONPREM + "max_workers: two", "max_workers='two' has to be of type integer"),
        (ONPREM + "available_node_types: {a: {resources: {}, node_config: {}}}", "is not for prov"),
        (AWS.replace("region: us-east-1 ", "regoin: us "), "provider.regoin .* 'region'"),
        (AWS.replace("  region: us-east-1 ", "  # "), "provider.region is missing"),
        (AWS.replace("head_node_type: head", "head_node_type: haed"), "='haed' is none .* 'head'"),
        (
            AWS.replace("    min_workers", "    min_worker", 1),
            "head.min_worker is .* 'min_workers'",
        ),
        (AWS.replace("resources: {CPU: 4}", "# "), "available_node_types.head: resources is miss"),
        (AWS.replace("{CPU: 4}", "{CPU: four}"), "head.resources.CPU='four' has to be of type int"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ClusterError, match=words) as caught:
        read_cluster(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="neither a file nor an http address"):
        read_cluster(str(tmp_path / "none.yaml"))
