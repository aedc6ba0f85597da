"""Servers in processes of their own, and the models they serve in this one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from server_process import ServerProcess, Start, known_command, serve_command

from reward_hub.auto import AutoRM
from reward_hub.base import BaseRM
from reward_hub.models.remote_rm import RemoteRM, connect


@pytest.fixture
def serve_known() -> Iterator[Start]:
    """`serve_known(rm="batched", max_queue=8)` starts a server of a model of known scores."""
    started: list[ServerProcess] = []

    def start(**options: Any) -> ServerProcess:
        started.append(ServerProcess(known_command(**options)))
        return started[-1].start()

    yield start
    for server in started:
        if server.process is not None and server.process.poll() is None:
            server.kill()


@pytest.fixture(scope="session")
def known_server() -> Iterator[ServerProcess]:
    yield from _running(known_command())


@pytest.fixture(scope="session")
def orm_server() -> Iterator[ServerProcess]:
    yield from _running(serve_command("builtin/arithmetic-orm"))


@pytest.fixture(scope="session")
def prm_server() -> Iterator[ServerProcess]:
    yield from _running(serve_command("builtin/arithmetic-prm"))


def _running(command: list[str]) -> Iterator[ServerProcess]:
    server = ServerProcess(command).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def orm() -> Iterator[BaseRM]:
    """The model itself, in this process."""
    yield from _loaded("builtin/arithmetic-orm")


@pytest.fixture(scope="session")
def prm() -> Iterator[BaseRM]:
    yield from _loaded("builtin/arithmetic-prm")


def _loaded(name: str) -> Iterator[BaseRM]:
    with AutoRM.load(name) as rm:
        yield rm


@pytest.fixture
def remote_orm(orm_server: ServerProcess) -> Iterator[RemoteRM]:
    with connect(orm_server.address + "/v1") as rm:
        assert isinstance(rm, RemoteRM)
        yield rm


@pytest.fixture
def remote_prm(prm_server: ServerProcess) -> Iterator[RemoteRM]:
    with connect(prm_server.address) as rm:
        assert isinstance(rm, RemoteRM)
        yield rm


@pytest.fixture
def remote_known(known_server: ServerProcess) -> Iterator[RemoteRM]:
    with connect(known_server.address, max_retries=0) as rm:
        assert isinstance(rm, RemoteRM)
        yield rm
