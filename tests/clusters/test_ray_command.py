"""The line of Ray's output that says most."""

from __future__ import annotations

import pytest

from clusters.ray_command import reason


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            "one\n\x1b[31mPermission denied (publickey)\x1b[0m\ntwo\n",
            "Permission denied (publickey)",
        ),
        ("Waiting\n    SSH still not available\n", "SSH still not available"),
        (
            "SSH still not available (timed out)\n"
            "  Full command is `ssh -o ExitOnForwardFailure=yes root@10.0.0.1 uptime`\n",
            "SSH still not available (timed out)",
        ),
        (" !\n", "it said nothing"),
    ],
)
def test_the_line_that_says_most(output: str, said: str) -> None:
    assert reason(output) == said
