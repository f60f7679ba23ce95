"""Startup of every entry point: settings, logs and metrics first, the runtime later."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import re
import signal
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from deploy import build, celery_environment, logs
from deploy.core_dumps import keep_memory_private
from deploy.environment import celerys_or_refuse, name_connections
from deploy.posix_signals import handling
from deploy.settings import Settings, load
from identity.errors import LedgerDamaged, Misconfigured, Unavailable

if TYPE_CHECKING:
    from pipeline.authoring.registry import Registry
    from pipeline.broker.celery import App
    from pipeline.runtime import Runtime

log = logging.getLogger(__name__)
T = TypeVar("T")

_NUMBERED = re.compile(r"worker-([1-9]|10)")
EX_CONFIG = 78  # from sysexits.h; tells a supervisor not to start the process again
LOOK_AGAIN = timedelta(seconds=2)


def settings_or_exit() -> Settings:
    """Return the settings, or print their faults and exit."""
    return _or_exit(load)


def celerys_or_exit() -> list[str]:
    """Return Celery's own variables that are ignored, for a module `celery` loads. Exit if one must be refused."""
    celery_environment.take_no_options()
    return _or_exit(celerys_or_refuse)


def workflows_or_exit(settings: Settings) -> Registry:
    """Return the workflows and tools, or print why they cannot be loaded and exit."""
    return _or_exit(lambda: workflows(settings))


def fit_or_exit(settings: Settings) -> None:
    """Check that keys can be read and workflows loaded, or print why not and exit."""
    _or_exit(settings.runtime)
    workflows_or_exit(settings)


def _or_exit(read: Callable[[], T]) -> T:
    try:
        return read()
    except Misconfigured as fault:
        sys.stderr.write(f"aswhom: {fault}\n")
        raise SystemExit(EX_CONFIG) from None


def set_up(
    process: str,
    settings: Settings,
    *,
    is_ready: Callable[[], bool],
    listed: str | None = None,
    is_well: Callable[[], bool] = lambda: True,
) -> None:
    """Name *process* in its logs and database connections, and serve its metrics on the port of *listed*, if given.

    *is_ready* tells whether settings, keys, workflows and the ledger were found good. The memory is made private first,
    because it holds passwords already and will hold keys.
    """
    keep_memory_private()
    logs.configure(process, format=settings.log_format, level=settings.log_level)
    name_connections(process)
    build.show()
    serve_metrics(listed or process, settings, is_well=is_well, is_ready=is_ready)


def listed_as(name: str, queues: Collection[str]) -> str:
    """Return a Celery worker's entry in the process list. It is found by its queues, because its name may be anything.

    A numbered name (`worker-2`) counts only as `aswhom up` assigns it: elsewhere the number may be a host's or a pod's.
    """
    if set(queues) == {"revocations"}:
        return "revocations"
    return name if _NUMBERED.fullmatch(name) else "worker"


def tell_raised(settings: Settings) -> None:
    """Log that the grace is raised above its setting, because a call may take longer."""
    given, taken = settings.task_grace, settings.limits().grace
    if given is not None and given < taken:
        log.warning(
            "ASWHOM_TASK_GRACE (%g s) is shorter than a call may take (ASWHOM_SEND_WITHIN, ASWHOM_CALL_DEADLINE): it "
            "is taken as %g s. Unset it, or set it to that at least",
            given.total_seconds(),
            taken.total_seconds(),
            extra={"action": "grace.raised"},
        )


def tell_ignored(names: Sequence[str]) -> None:
    """Log which of Celery's own variables are set and have no effect."""
    if names:
        log.warning(
            "not heeded, and left to the code of workflows: %s. Aswhom is set by ASWHOM_ variables alone",
            ", ".join(names),
            extra={"action": "celery.ignored"},
        )


def spare_what_is_loaded() -> None:
    """Exempt everything loaded so far from garbage collection, since it lives as long as the process.

    These are some 140,000 objects. A collection that visits them stops every thread for a tenth of a second, including
    threads that hold locks.
    """
    gc.collect()
    gc.freeze()


def serve_metrics(
    process: str, settings: Settings, *, is_well: Callable[[], bool], is_ready: Callable[[], bool]
) -> None:
    """Answer Prometheus and health probes on the port of *process*.

    If the port is taken, the process works without it and keeps trying: the port's owner may be about to end, and a
    supervisor that gets no answer to its probes would end this process, and then the next.
    """
    from pipeline.exposition import serve

    port = settings.metrics_port(process)
    if not port:
        return

    def fault() -> OSError | OverflowError | None:
        try:
            serve(port, host=settings.metrics_host, is_well=is_well, is_ready=is_ready)
        except (OSError, OverflowError) as error:  # OverflowError: the number is no port
            return error
        return None

    def ask_again() -> None:
        pause = threading.Event()
        while fault() is not None:
            pause.wait(LOOK_AGAIN.total_seconds())

    if (error := fault()) is None:
        return
    log.error(
        "no metrics from %s, and no answer at /healthz: %s:%d cannot be had (%s). Set ASWHOM_%s_METRICS_PORT to a free "
        "port, or, where nothing probes it, to 0 for none",
        process,
        settings.metrics_host,
        port,
        getattr(error, "strerror", None) or error,
        process.partition("-")[0].upper(),
        extra={"action": "metrics.unserved"},
    )
    if isinstance(error, OSError):
        threading.Thread(target=ask_again, name="metrics-port", daemon=True).start()


def workflows(settings: Settings) -> Registry:
    """Return the workflows and tools of ASWHOM_WORKFLOWS, or of all installed packages. Raise Misconfigured."""
    from pipeline.authoring.registry import Registry

    modules = settings.workflows
    if not modules:
        found = [
            point
            for group in ("aswhom.workflows", "aswhom.tools")
            for point in importlib.metadata.entry_points(group=group)
        ]
        modules = tuple(sorted({point.module for point in found}))
    folder = str(settings.workflows_dir)
    if settings.workflows and folder not in sys.path:
        sys.path.append(folder)  # last: a file there must not shadow a module of ours
    return Registry.load(modules)


def celery_app(settings: Settings, registry: Registry) -> App:
    """Return the Celery application of a process that rings, works or is beat. It opens nothing yet."""
    from deploy.shared_redis import tell_of_another
    from pipeline.broker.celery import make_celery
    from pipeline.broker.ring import CeleryRing
    from pipeline.runtime import Runtime

    def opened() -> Runtime:
        opens = settings.runtime(app.listed)
        few = replace(opens.database, writes_at_once=settings.worker_writes)
        runtime = of_its_tables(Runtime(replace(opens, database=few), registry, CeleryRing(app)))
        tell_of_another(settings, runtime)
        return runtime

    app = make_celery(settings.broker(), opened, limits=settings.limits())
    return app


def open_runtime(settings: Settings, process: str | None = None) -> Runtime:
    """Open the runtime of *process*, or of a command if None. Not for Celery workers. Call it after any fork.

    Raise Misconfigured.
    """
    from pipeline.broker.ring import CeleryRing
    from pipeline.runtime import Runtime

    registry = workflows(settings)
    return Runtime(settings.runtime(process), registry, CeleryRing(celery_app(settings, registry)))


def of_its_tables(runtime: Runtime) -> Runtime:
    """Return *runtime* once its ledger is fit for a process that moves jobs. Wait for a ledger that is unavailable.

    Raise Misconfigured for tables of another version (every statement would fail, and jobs would die of it), for a
    ledger that was restored without its sequence, and for secrets sealed by other keys. The web does not check this: it
    stays unready (`/readyz`) until the ledger fits.
    """
    from identity.sealed.proven_keys import LOOKED_THROUGH, prove
    from pipeline.ledger.numbering import behind
    from pipeline.ledger.revision import misfit, revision_of

    database = runtime.database
    with ExitStack() as failing:
        failing.callback(runtime.close)
        if said := misfit(_awaited(lambda: revision_of(database))) or _awaited(lambda: database.read(behind)):
            raise Misconfigured(said)
        _awaited(lambda: database.read(lambda c: prove(c, runtime.vault, among=LOOKED_THROUGH)))
        failing.pop_all()
    return runtime


def wait_for_ledger(settings: Settings, *, tell: Callable[[str], None]) -> None:
    """Return once the ledger's server answers, since it may start later than we do. Raise Misconfigured."""
    from pipeline.db.database import open_database
    from pipeline.ledger.revision import revision_of

    if settings.on_sqlite:
        return
    with closing(open_database(settings.database())) as database:
        _awaited(lambda: revision_of(database), tell=tell)


def _log_that_it_waits(why: str) -> None:
    log.warning(why, extra={"action": "ledger.awaited"})


def _awaited(read: Callable[[], T], *, tell: Callable[[str], None] = _log_that_it_waits) -> T:
    """Return the result of *read*, once the ledger's server answers."""
    pause = threading.Event()
    # Usually nothing handles these signals yet. Celery's beat does, but would only create its scheduler and wait here.
    with handling((signal.SIGTERM, signal.SIGINT), _leave):
        while True:
            try:
                return read()
            except LedgerDamaged as damaged:
                raise Misconfigured(str(damaged)) from damaged  # no waiting: this process would not see a restore
            except Unavailable as away:
                tell(f"the ledger is waited for: {away}")
            pause.wait(LOOK_AGAIN.total_seconds())


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Exit cleanly, because no work was begun."""
    raise SystemExit(0)
