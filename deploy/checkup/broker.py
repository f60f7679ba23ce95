"""Checks the broker and the Redis of locks and budgets: reachable, writable, and never evicting."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from deploy.checkup.finding import Finding, Subject, ok, unknown, wrong
from deploy.installation import Installation
from deploy.shared_redis import another, marks, open_redis
from identity.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from pipeline.broker.celery import BrokerSettings

_OLDEST = (6, 2)
_BRIEFLY = timedelta(seconds=10)


def _policy(client: Redis) -> str | None:
    """Return its maxmemory-policy, or None if CONFIG is forbidden, as at hosting providers."""
    try:
        found: str | None = client.config_get("maxmemory-policy").get("maxmemory-policy")
    except ResponseError:
        return None
    return found


def _refusal(client: Redis, prefix: str) -> str | None:
    """Return why it takes no writes, and the remedy, or None if it does."""
    key = f"{prefix}doctor:{secrets.token_hex(8)}"
    try:
        client.set(key, "", px=_BRIEFLY)
        client.delete(key)
    except ReadOnlyError:
        return "it is a replica: let its URL (ASWHOM_BROKER_URL, ASWHOM_REDIS_URL) lead to the primary"
    except OutOfMemoryError:
        return "its memory is full: raise its maxmemory"
    except ResponseError as error:
        if str(error).startswith("MISCONF"):
            return "it cannot save what it is given: make room on its disk, and see its log"
        return f"{type(error).__name__}: {error}"
    return None


def broker(at: Installation) -> Iterator[Finding]:
    """Check the broker, and the Redis of the locks if it is another."""
    prefix, ours = at.settings.key_prefix, _ours(at)
    alone = "" if at.settings.redis() else "; refreshes are serialized by the ledger"
    if (url := at.settings.broker_redis()) is not None:
        own = "is `aswhom up` running, which starts it?"
        yield from _server(Subject.BROKER, url, prefix, ours, own if at.settings.embedded else "see ASWHOM_BROKER_URL")
    elif (settings := at.settings.broker()).is_redis:
        yield unknown(Subject.BROKER, f"behind Sentinel, so it is not looked at{alone}")
    else:
        yield _rabbitmq(settings, alone)
    if at.settings.redis_url is not None:
        yield from _server(
            Subject.LOCKS, at.settings.redis_url.get_secret_value(), prefix, ours, "see ASWHOM_REDIS_URL"
        )


def _rabbitmq(settings: BrokerSettings, alone: str) -> Finding:
    """Look for the queues and their consumers, without making any. If all exist, declare them as a worker does."""
    from amqp.exceptions import AMQPError
    from kombu import Connection
    from kombu.exceptions import OperationalError

    options = settings.publisher_options()
    with Connection(settings.url, connect_timeout=3, transport_options=options) as connection:
        try:
            consumers = {queue.name: _consumers(connection, queue.name) for queue in settings.queues()}
            if missing := [name for name, number in consumers.items() if number is None]:
                says = f"reachable, and no worker has declared {', '.join(missing)} yet: is one running?"
                return unknown(Subject.BROKER, f"{says} If one is, see the vhost in ASWHOM_BROKER_URL")
            with connection.channel() as channel:
                for queue in settings.queues():
                    queue(channel).declare()
            version = connection.connection.server_properties.get("version")
        except AMQPError as error:
            return wrong(Subject.BROKER, f"reachable, and refuses what every worker asks for: {error}")
        except (OperationalError, OSError) as error:
            return wrong(Subject.BROKER, f"not reachable ({type(error).__name__}): see ASWHOM_BROKER_URL")
    if idle := [name for name, number in consumers.items() if not number]:
        return wrong(Subject.BROKER, f"reachable, and no worker takes from {', '.join(idle)}: is one running?")
    return ok(Subject.BROKER, f"reachable, and workers take from every queue (RabbitMQ {version}){alone}")


def _consumers(connection: Any, queue: str) -> int | None:
    """Return how many workers take from a queue of RabbitMQ, or None if it does not exist."""
    from amqp.exceptions import NotFound

    try:
        with connection.channel() as channel:  # RabbitMQ closes the channel that asks for a missing queue
            return int(channel.queue_declare(queue, passive=True).consumer_count)
    except NotFound:
        return None


def _ours(at: Installation) -> list[str]:
    """Return the installation's marks; none if the ledger or the key is unavailable, which other checks report."""
    try:
        key = at.signer.public_key()
        return at.read(lambda c: marks(c, key))
    except (Misconfigured, Unavailable):
        return []


def _server(what: Subject, url: str, prefix: str, ours: list[str], where: str) -> Iterator[Finding]:
    client = open_redis(url)
    try:
        policy = _policy(client)
        version = str(client.info("server").get("redis_version", "0"))
        memory = client.info("memory")
        in_cluster = bool(client.info("cluster").get("cluster_enabled"))
        refusal = _refusal(client, prefix)
        shared = another(client, prefix, ours) if ours and refusal is None else None
    except RedisError as error:
        yield wrong(what, f"not reachable ({type(error).__name__}): {where}")
        return
    finally:
        client.close()
    if refusal is not None:
        yield wrong(what, f"reachable, and takes no writes: {refusal}")
    elif policy is None:
        yield unknown(what, "reachable; it does not let its maxmemory-policy be read, which must be noeviction")
    elif policy != "noeviction":
        yield wrong(what, f"its maxmemory-policy is {policy}: it may drop messages and locks; set it to noeviction")
    else:
        yield ok(what, f"reachable, and never evicts (speaks as Redis {version})")
    if shared is not None:
        yield wrong(what, shared)
    if in_cluster:  # a worker reads several queues in one command, and their keys lie in different slots
        yield wrong(
            what, "it runs in cluster mode, which is not supported: take one primary, with replicas if you like"
        )
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        yield wrong(Subject.VERSIONS, f"the Redis of {what} speaks as Redis {version}: use 6.2 or later")
    used, most = int(memory["used_memory"]), int(memory.get("maxmemory", 0))
    if most and used > most * 0.9:
        yield wrong(what, f"{used * 100 // most} % of its maxmemory are used, and a full one takes nothing: raise it")
