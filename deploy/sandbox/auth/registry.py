"""Client registrations and people known to the authorization server, read from the world."""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Client:
    client_id: str
    client_secret: str | None  # None: any is accepted
    provider: str
    redirect_uris: tuple[str, ...] | None  # None: any
    grants: frozenset[str]
    access_seconds: int
    scopes: frozenset[str] | None  # scopes it may request; None: any
    organization: str | None  # Linear: the organization of a client_credentials client

    def knows(self, secret: str) -> bool:
        return self.client_secret is None or hmac.compare_digest(self.client_secret.encode(), secret.encode())

    def may_return_to(self, uri: str) -> bool:
        return uri != "" if self.redirect_uris is None else uri in self.redirect_uris

    def may_ask(self, scopes: tuple[str, ...]) -> bool:
        return self.scopes is None or self.scopes.issuperset(scopes)


@dataclass(frozen=True, kw_only=True)
class Person:
    """A person who can consent. *name* is the GitHub login or the name at another provider."""

    provider: str
    id: str
    name: str
    tenant: str
    organization: str | None  # the person's organization at Linear or Salesforce
    aliases: frozenset[str]


class Registry:
    def __init__(
        self, clients: Iterable[Client], people: Sequence[Person], organizations: Mapping[str, str] | None = None
    ) -> None:
        self.clients = {client.client_id: client for client in clients}
        self.people = people
        self.organizations = organizations or {}

    @classmethod
    def of_world(cls, world: dict[str, Any]) -> Self:
        linear, sales = world["linear"], world["salesforce"]
        organizations = {row["id"]: row["url_key"] for row in linear["organizations"]}
        return cls(
            map(_client, world["auth"]["clients"]),
            [*_github_people(world["github"]), *_linear_people(linear), *_sales_people(sales)],
            organizations | {row["id"]: row["tenant"] for row in sales["organizations"]},
        )

    def client(self, client_id: str, provider: str) -> Client | None:
        client = self.clients.get(client_id)
        return client if client and client.provider == provider else None

    def person(self, provider: str, reference: str) -> Person | None:
        """Return the person with the name, id or e-mail *reference* at *provider*."""
        return next((who for who in self.of(provider) if reference in who.aliases), None)

    def of(self, provider: str) -> list[Person]:
        return [who for who in self.people if who.provider == provider]


def _client(row: dict[str, Any]) -> Client:
    return Client(
        client_id=row["client_id"],
        client_secret=row["client_secret"],
        provider=row["provider"],
        redirect_uris=tuple(row["redirect_uris"]),
        grants=frozenset(row["grants"]),
        access_seconds=row["access_seconds"],
        scopes=frozenset(row["scopes"]),
        organization=row.get("organization"),
    )


def _github_people(github: dict[str, Any]) -> list[Person]:
    return [
        Person(
            provider="github",
            id=str(row["id"]),
            name=row["login"],
            tenant=row["account"],
            organization=None,
            aliases=frozenset({str(row["id"]), row["login"]}),
        )
        for row in github["users"]
    ]


def _linear_people(linear: dict[str, Any]) -> list[Person]:
    return [
        Person(
            provider="linear",
            id=row["id"],
            name=row["name"],
            tenant=organization["url_key"],
            organization=organization["id"],
            aliases=frozenset({row["id"], row["name"], row["email"]}),
        )
        for organization in linear["organizations"]
        for row in organization["users"]
    ]


def _sales_people(salesforce: dict[str, Any]) -> list[Person]:
    return [
        Person(
            provider="salesforce",
            id=row["id"],
            name=row["name"],
            tenant=organization["tenant"],
            organization=organization["id"],
            aliases=frozenset({row["id"], row["name"], row["email"]}),
        )
        for organization in salesforce["organizations"]
        for row in organization["users"]
    ]
