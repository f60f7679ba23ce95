"""Names of providers and descriptions of scopes, for people who consent. Undescribed scopes are shown as they are.

A description says what a scope permits, according to the provider's own page.
"""

from __future__ import annotations

from collections.abc import Mapping

from identity.providers import PROFILES

_SCOPES: Mapping[str, Mapping[str, str]] = {
    # https://developer.atlassian.com/cloud/jira/platform/scopes-for-oauth-2-3LO-and-forge-apps/
    "atlassian": {
        "read:me": "See your profile",
        "read:jira-user": "See who works in Jira",
        "read:jira-work": "Read projects and issues in Jira",
        "write:jira-work": "Create and change issues, comments and work logs in Jira",
        "offline_access": "Keep access while you are away",
    },
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
    # https://developers.google.com/identity/protocols/oauth2/scopes
    "google": {
        "openid": "See who you are",
        "email": "See your email address",
        "profile": "See your name and picture",
        "https://www.googleapis.com/auth/calendar.readonly": "Read your calendars",
        "https://www.googleapis.com/auth/calendar.events": "Read and change the events in your calendars",
        "https://www.googleapis.com/auth/drive.readonly": "See and download all your files in Drive",
        "https://www.googleapis.com/auth/gmail.readonly": "Read your mail and its settings",
        "https://www.googleapis.com/auth/gmail.send": "Send mail as you",
    },
    # https://linear.app/developers/oauth-2-0-authentication#scopes
    "linear": {
        "read": "Read what you can see in the workspace",
        "write": "Change what you can change in the workspace",
        "issues:create": "Create issues and their attachments",
        "comments:create": "Comment on issues",
    },
    # https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_tokens_scopes.htm
    "salesforce": {
        "api": "Read and change through the API what you can in Salesforce",
        "id": "See who you are",
        "openid": "See who you are",
        "profile": "See your name",
        "email": "See your email address",
        "refresh_token": "Keep access while you are away",
        "offline_access": "Keep access while you are away",
    },
    # https://docs.slack.dev/reference/scopes
    "slack": {
        "channels:read": "See the public channels of the workspace",
        "chat:write": "Send messages",
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
    """Return the provider's name for people."""
    if (profile := PROFILES.get(provider)) is not None:
        return profile.title
    return provider.replace("_", " ").title()


def scope_in_words(provider: str, scope: str) -> str | None:
    """Return the description of *scope*, or None."""
    return _SCOPES.get(provider, {}).get(scope)
