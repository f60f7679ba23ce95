"""The world of sales, billing and support: one organization per tenant at each provider."""

import secrets
import string
from collections.abc import Mapping
from typing import Any

SALESFORCE_SCOPES = ["api", "refresh_token"]
STRIPE_PERMISSIONS = ["invoices:read", "subscriptions:read", "subscriptions:write"]
ZENDESK_SCOPES = ["tickets:read", "tickets:write"]
PLAN_CENTS = 4_900
BILLS = (
    ("Paper & Pens", "480.00"),
    ("Steel Works", "12500.00"),
    ("Night Cleaning", "960.50"),
    ("Crane Hire", "7400.00"),
    ("A Whole Building", "980000.00"),
)
SUBSCRIPTIONS = 7  # per tenant; more than the smallest page, so that lists have several pages


def salesforce(url: str, people: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return a connected app for all organizations, each with an opportunity per user."""
    return {
        "url": url,
        "client_id": "3MVG9" + secrets.token_hex(20),
        "client_secret": secrets.token_hex(32),
        "organizations": [_sales(tenant, names) for tenant, names in people.items()],
    }


def _sales(tenant: str, names: tuple[str, ...]) -> dict[str, Any]:
    users = [{"id": _id("005"), "name": name, "email": f"{name}@{tenant}.example"} for name in names]
    return {
        "id": _id("00D"),
        "tenant": tenant,
        "users": users,
        "opportunities": [
            {
                "id": _id("006"),
                "name": f"{user['name'].capitalize()}'s opportunity",
                "stage": "Prospecting",
                "amount": 10_000.0,
                "owner": user["id"],
            }
            for user in users
        ],
    }


def stripe(url: str, tenants: tuple[str, ...]) -> dict[str, Any]:
    """Return an account per tenant, whose restricted key reads subscriptions and invoices and annotates the former."""
    return {
        "url": url,
        "accounts": [
            {
                "id": f"acct_{_letters(16)}",
                "tenant": tenant,
                "restricted_key": f"rk_test_{_letters(32)}",
                "permissions": STRIPE_PERMISSIONS,
                "subscriptions": [_subscription(number) for number in range(SUBSCRIPTIONS)],
            }
            for tenant in tenants
        ],
    }


def _subscription(number: int) -> dict[str, Any]:
    """Return a subscription. Every third one was invoiced for one seat too few."""
    seats = number + 1
    return {
        "id": f"sub_{_letters(24)}",
        "customer": f"cus_{_letters(14)}",
        "unit_amount": PLAN_CENTS,
        "quantity": seats,
        "invoiced": PLAN_CENTS * (seats - 1 if number % 3 == 2 else seats),
    }


def zendesk(url: str, tenants: tuple[str, ...]) -> dict[str, Any]:
    """Return a help desk per tenant, with the token of its own application."""
    return {
        "url": url,
        "desks": [
            {"subdomain": tenant, "token": secrets.token_hex(32), "scopes": ZENDESK_SCOPES, "application": "aswhom"}
            for tenant in tenants
        ],
    }


def invoices(url: str, tenants: tuple[str, ...], authority: str) -> dict[str, Any]:
    """Return a service that only accepts capabilities, and its credentials at their issuer."""
    return {
        "url": url,
        "authority": authority,
        "audience": url,
        "audience_id": "invoices",
        "audience_secret": f"awr_{secrets.token_urlsafe(32)}",
        "tenants": [
            {
                "tenant": tenant,
                "invoices": [
                    {"id": f"inv_{1000 + number}", "vendor": vendor, "amount": amount, "currency": "EUR"}
                    for number, (vendor, amount) in enumerate(BILLS, start=1)
                ],
            }
            for tenant in tenants
        ],
    }


def _id(prefix: str) -> str:
    """Return a Salesforce id: eighteen letters and digits, the first three of which name the type."""
    return prefix + _letters(15)


def _letters(number: int) -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(number))
