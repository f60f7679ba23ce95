"""Providers and scopes in words, for the people who are asked. A scope nobody described is shown as it is.

The words say what a scope lets somebody do, from the provider's own page about it.
"""

from __future__ import annotations

from collections.abc import Mapping

_NAMES: Mapping[str, str] = {
    "github": "GitHub",
    "linear": "Linear",
    "slack": "Slack",
    "oidc": "OpenID",
    "salesforce": "Salesforce",
    "stripe": "Stripe",
    "zendesk": "Zendesk",
}

_SCOPES: Mapping[str, Mapping[str, str]] = {
    # https://docs.github.com/en/rest/authentication/permissions-required-for-github-apps
    "github": {
        "contents:read": "Read the code of repositories",
        "contents:write": "Change the code of repositories",
        "issues:read": "Read issues and their comments",
        "issues:write": "Create and change issues, labels and comments",
        "metadata:read": "See which repositories there are",
        "pull_requests:read": "Read pull requests",
        "pull_requests:write": "Comment on pull requests and change them",
    },
    # https://linear.app/developers/oauth-2-0-authentication#scopes
    "linear": {
        "read": "Read what you can see in the workspace",
        "write": "Change what you can change in the workspace",
        "issues:create": "Create issues and their attachments",
        "comments:create": "Comment on issues",
    },
    # https://docs.slack.dev/reference/scopes
    "slack": {
        "channels:read": "See the public channels of the workspace",
        "chat:write": "Send messages",
    },
    # https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_tokens_scopes.htm
    "salesforce": {
        "api": "Read and change what you can read and change in Salesforce",
        "refresh_token": "Keep access while you are away",
    },
    # https://docs.stripe.com/keys#limit-access
    "stripe": {
        "subscriptions:read": "Read subscriptions and what was invoiced for them",
        "subscriptions:write": "Annotate subscriptions",
    },
    # https://developer.zendesk.com/documentation/api-basics/working-with-oauth/scopes/
    "zendesk": {
        "tickets:read": "Read tickets",
        "tickets:write": "Create tickets",
    },
    # https://openid.net/specs/openid-connect-core-1_0.html#ScopeClaims
    "oidc": {
        "openid": "See who you are",
        "profile": "See your name",
        "offline_access": "Keep access while you are away",
    },
}


def provider_name(provider: str) -> str:
    """What the provider calls itself."""
    return _NAMES.get(provider) or provider.replace("_", " ").title()


def scope_in_words(provider: str, scope: str) -> str | None:
    """What *scope* lets somebody do; None: nobody has described it."""
    return _SCOPES.get(provider, {}).get(scope)
