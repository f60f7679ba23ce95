"""Cookies out of reach of scripts and cross-site forms and, under TLS, of plain HTTP and subdomains."""

from __future__ import annotations

from datetime import timedelta

from flask import request
from werkzeug.wrappers import Response

from webhooks.settings import WebSettings


class Cookie:
    """One cookie of a browser."""

    def __init__(self, settings: WebSettings, name: str) -> None:
        self._secure = settings.secure
        self._name = f"__Host-aswhom-{name}" if settings.secure else f"aswhom-{name}"  # RFC 6265bis §4.1.3.2

    def sent(self) -> str:
        """Return its value in the current request, or ""."""
        return request.cookies.get(self._name, "")

    def set(self, response: Response, value: str, *, lasts: timedelta) -> None:
        """Set the cookie in the browser."""
        # Lax: a provider's redirect back is a cross-site navigation. Forms carry a token, or say where they come from.
        response.set_cookie(self._name, value, max_age=lasts, secure=self._secure, httponly=True, samesite="Lax")

    def clear(self, response: Response) -> None:
        response.delete_cookie(self._name, secure=self._secure, httponly=True, samesite="Lax")
