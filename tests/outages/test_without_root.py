"""The tests beside this one for people who are not root: in a namespace where they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

UNSHARE = ("unshare", "--map-root-user", "--mount")


def test_the_others_pass_in_a_namespace_of_their_own(postgres_admin_url: str) -> None:
    if os.geteuid() == 0 and "MIAOD_TEST_NAMESPACE" not in os.environ:
        pytest.skip("root needs no namespace: the tests beside this one have run")
    if "MIAOD_TEST_NAMESPACE" in os.environ:
        pytest.skip("this is the namespace")
    try:
        subprocess.run([*UNSHARE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"neither root nor namespaces of users, so nothing can be mounted: {error}")
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        + ["-m", "not slow", str(Path(__file__).parent)],
        env={
            **os.environ,
            "MIAOD_TEST_NAMESPACE": "1",
            "MIAOD_TEST_POSTGRES_URL": postgres_admin_url,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
