"""accept: signed deliveries into real web processes, beside Flask and Celery; then the same without a broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import update

from pipeline.tables import jobs
from tests.bench.figures import Sheet, percentile
from tests.bench.ground import KINDS, Ground, Ledger, Processes, listed, processor_time
from tests.bench.load import Load, deliveries, send
from tests.servers.process import free_port
from tests.servers.valkey import Valkey

CONNECTIONS = (16, 64)
WARM = 1.5  # seconds that are not measured: connections are opened and statements prepared
SECONDS = 2.5
AWAY = 2.0  # seconds of load while there is no broker, over the most connections
BROKER = "Valkey"
MOST = 4_000  # accepts a second for which there are requests


@dataclass(kw_only=True)
class Web:
    """A running web server under Gunicorn's real settings."""

    name: str
    port: int
    servers: Mapping[str, int]  # process ids, by what each is
    peer: str | None = None
    ledger: Ledger | None = None
    app: str = ""  # of `tests.bench.peer`

    def warm(self, *, connections: int) -> None:
        send(deliveries(int(MOST * WARM), self.port), self.port, connections=connections, seconds=WARM)
        self._forget()

    def load(self, seconds: float, *, connections: int) -> Load:
        requests = deliveries(int(MOST * seconds), self.port)
        before = self._processor_times()
        loaded = send(requests, self.port, connections=connections, seconds=seconds)
        after = self._processor_times()
        loaded.processor = {name: after[name] - before[name] for name in after}
        self._forget()
        return loaded

    def _forget(self) -> None:
        """Nobody works here: so that the next acceptance rings as this one did."""
        if self.ledger is not None:
            self.ledger.database.write(
                lambda c: c.execute(update(jobs).values(state="cancelled", rung_until=None)).rowcount
            )

    def _processor_times(self) -> dict[str, float]:
        return {name: processor_time(pid) for name, pid in self.servers.items()}


def measure(ground: Ground, rounds: int) -> Sheet:
    sheet = Sheet("accept: deliveries of 10 kB")
    with ground.ledgers(KINDS) as ledgers, ground.processes() as processes:
        webs: list[Web] = []
        for kind, ledger in ledgers.items():
            number = 1 if kind == "SQLite" else 2
            ledger.receive("http://127.0.0.1:1")
            count = f"{number} process{'es' if number > 1 else ''}"
            peer = f"Flask + Celery, {count}"
            webs.append(peer_on(processes, ledger, ground.broker, peer))
            webs.append(web_on(processes, ledger, ground.broker, peer))
            bare = f"Flask that only verifies, {count}"
            webs.append(peer_on(processes, ledger, ground.broker, bare, app="bare", peer=peer))
        for web in webs:
            web.warm(connections=CONNECTIONS[-1])
        for number in range(rounds):
            for connections in CONNECTIONS:
                for web in _in_turn(webs, number):
                    at = f", {connections} connections"
                    loaded = web.load(SECONDS, connections=connections)
                    _add(sheet, web.name + at, loaded, peer=web.peer and web.peer + at)
        ground.broker.kill()
        webs = [web for web in webs if web.app != "bare"]  # which has no broker
        for web in webs:
            web.servers = {name: pid for name, pid in web.servers.items() if name != BROKER}
        for number in range(rounds):
            for web in _in_turn(webs, number):
                here = f"{web.name}, {CONNECTIONS[-1]} connections" if web.ledger is not None else None
                _add(sheet, f"{web.name}, no broker", web.load(AWAY, connections=CONNECTIONS[-1]), peer=here)
        ground.broker.restart()
    sheet.notes.append("No worker runs. The peer has no ledger: what its broker loses is lost (see *lost*).")
    return sheet


def _in_turn(webs: Sequence[Web], number: int) -> Sequence[Web]:
    """Whoever goes first finds the machine otherwise than whoever follows."""
    return webs if number % 2 == 0 else webs[::-1]


def _add(sheet: Sheet, name: str, load: Load, *, peer: str | None) -> None:
    sheet.add(name, load.rate, "/s", peer=peer)
    if load.accepted:
        sheet.add(f"{name}, p50", percentile(load.accepted, 0.5) * 1000, "ms", peer=peer and f"{peer}, p50")
        sheet.add(f"{name}, p99", percentile(load.accepted, 0.99) * 1000, "ms", peer=peer and f"{peer}, p99")
        for what, seconds in load.processor.items():
            sheet.add(f"{name}, processor of {what}", seconds / len(load.accepted) * 1000, "ms each")
    if load.refused or not load.accepted:
        sheet.add(f"{name}, refused or unanswered", load.refused + load.unanswered, "")


def web_on(processes: Processes, ledger: Ledger, broker: Valkey, peer: str) -> Web:
    """Start the web process of the Procfile."""
    port = free_port()
    environment = ledger.environment(ASWHOM_LISTEN=f"127.0.0.1:{port}", ASWHOM_BROKER_URL=broker.url)
    pid = processes.serve(listed("web").command, environment, f"http://127.0.0.1:{port}/readyz")
    servers = {"the web": pid, BROKER: broker.pid}
    if ledger.kind == "PostgreSQL":
        servers["the database"] = ledger.ground.cluster.pid
    return Web(name=f"Aswhom, {ledger.kind}", port=port, servers=servers, peer=peer, ledger=ledger)


def peer_on(
    processes: Processes, ledger: Ledger, broker: Valkey, name: str, *, app: str = "app", peer: str | None = None
) -> Web:
    """Start an application of `tests.bench.peer`, under the very Gunicorn settings of *ledger*'s web process."""
    port = free_port()
    environment = ledger.environment(ASWHOM_LISTEN=f"127.0.0.1:{port}", PEER_BROKER_URL=broker.url)
    command = [word.replace("deploy.wsgi:app", f"tests.bench.peer:{app}") for word in listed("web").command]
    pid = processes.serve(command, environment, f"http://127.0.0.1:{port}/")
    servers = {"the web": pid, BROKER: broker.pid}
    return Web(name=name, port=port, servers=servers, peer=peer, app=app)
