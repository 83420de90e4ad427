"""A cluster that can be reached from here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ClusterHandle:
    """Where a cluster answers.

    Attributes:
        name: what the person called it: the file's cluster_name, or the address.
        jobs_url: of its dashboard and job server, such as http://127.0.0.1:8265; when the head is
            another machine, the near end of a tunnel.
        token_file: holds the token that every request carries; None where the cluster has none.
        head: address of the head node, for messages.
    """

    name: str
    jobs_url: str
    token_file: Path | None
    head: str

    def headers(self) -> dict[str, str]:
        """Return the HTTP headers of a request."""
        if self.token_file is None:
            return {}
        return {"Authorization": f"Bearer {self.token_file.read_text().strip()}"}
