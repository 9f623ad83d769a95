"""The files of the metrics: in memory unless they are to be elsewhere, and where there is no room for them calls go on.

prometheus_client maps these files into memory: who touches a page of one that the disk has no room for is killed by a SIGBUS.
"""

import os
import re
import signal
from pathlib import Path

import pytest

from accounts.models import Tenant
from gateway.models import ModelAlias
from tests import processes
from tests.e2e import small_disk
from tests.e2e.conftest import Stand, await_configuration, publish

MEMORY = Path("/dev/shm")
DISK_BYTES = 5 * 1024 * 1024
TENANTS = 40  # each with series of its own: some pages of a file


def test_without_room_for_metrics_calls_go_on_and_are_counted_once_there_is(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "disk"
    small_disk.mount(folder, DISK_BYTES, tmp_path=tmp_path, monkeypatch=monkeypatch)
    tenants = [Tenant.objects.create(slug=f"tenant-{number}-{'x' * 32}", name=f"Tenant {number}") for number in range(TENANTS)]
    for tenant in tenants:
        ModelAlias.objects.create(tenant=tenant, name="general", deployment=stand.deployment)
    secrets = [stand.issue(tenant, name="ci")[1] for tenant in tenants]
    publish()
    with processes.gateway(tmp_path / "gateway", PROMETHEUS_MULTIPROC_DIR=str(folder / "metrics")) as stand.gateway:
        await_configuration(stand)
        disk, workers = small_disk.Disk(folder, stand.gateway), stand.gateway.workers()
        disk.fill()
        answers = [stand.post(secret=secret).status_code for secret in secrets]
        told = '"event":"metrics_not_written"'
        stand.until(lambda: any(told in line for line in stand.gateway.lines()), "nobody is told")
        assert answers == [200] * TENANTS
        assert stand.get("/metrics").status_code == 200
        assert stand.gateway.workers() == workers
        assert sum(told in line for line in stand.gateway.lines()) == 1

        disk.make_room()
        shown = [f'outcome="completed",status="200",tenant="{tenant.slug}"}} 1.0' for tenant in tenants]
        stand.until(lambda: all(one in stand.get("/metrics").text for one in shown), "calls are not counted")
        assert stand.gateway.workers() == workers


@pytest.mark.skipif(not MEMORY.is_dir(), reason="no folder in memory here")
def test_their_files_are_in_memory_and_go_with_the_gateway_that_was_told_no_other_place(stand: Stand, tmp_path: Path) -> None:
    with processes.gateway(tmp_path / "gateway", PROMETHEUS_MULTIPROC_DIR="") as stand.gateway:
        (before,) = stand.gateway.workers()
        (folder,) = folders_of(before)
        os.kill(stand.gateway.process.pid, signal.SIGHUP)
        stand.until(lambda: before not in stand.gateway.workers() != [], "the worker is not another one")
        await_configuration(stand)
        (after,) = stand.gateway.workers()
        assert folders_of(after) == {folder}
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def folders_of(worker: int) -> set[Path]:
    """In memory, of the files that it has mapped."""
    mapped = re.findall(rf"{MEMORY}/sekisho-metrics-[^/]+", Path(f"/proc/{worker}/maps").read_text())
    return set(map(Path, mapped))
