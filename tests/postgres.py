"""Debian's PostgreSQL for tests: installed where it is missing, with its own folder and port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from server.workers.worker import free_port
from tests.packages import need

INITDB = "/usr/lib/postgresql/*/bin/initdb"
START_SECONDS = 60.0
USER = "postgres"
"""It does not run as root."""


class Server:
    """A PostgreSQL server on loopback that trusts everybody."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._port, self._numbers = free_port(), count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._options: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._options = {"user": USER, "group": USER, "extra_groups": []}
            shutil.chown(folder, USER, USER)
        initdb = [programs / "initdb", "-D", folder / "data", "--auth=trust", "-N", "-E", "UTF8"]
        command = [*initdb, f"--username={USER}"]
        subprocess.run(command, check=True, capture_output=True, **self._options)

    def start(self) -> None:
        """Answer, at the port of before if there was one."""
        settings = ["fsync=off", "listen_addresses=127.0.0.1", "unix_socket_directories="]
        flags = [flag for setting in settings for flag in ("-c", setting)]
        command = [self._programs / "postgres", "-D", self._folder / "data", *flags]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-p", str(self._port)], stdout=log, stderr=log, **self._options
            )
        self._until_up(self._process)

    def stop(self) -> None:
        """End all sessions, and then itself."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)

    def kill(self) -> None:
        """As when its machine loses power; `start` recovers what it held."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def url(self, database: str, password: str = "") -> str:
        return f"postgresql://{USER}:{password}@127.0.0.1:{self._port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"trivium_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def _until_up(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._execute("SELECT 1")
                return
            except psycopg.OperationalError:
                log = (self._folder / "log").read_text()
                assert process.poll() is None, log
                assert time.monotonic() < deadline, log
                time.sleep(0.1)


@contextmanager
def postgres_server() -> Iterator[Server]:
    """A new server; it is gone afterwards, with all that it holds."""
    programs = Path(need("postgresql", INITDB)).parent
    with tempfile.TemporaryDirectory(prefix="trivium-postgres-") as folder:
        server = Server(programs, Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()
