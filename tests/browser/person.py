"""A person at a browser of her own: what she does at the providers' pages, and what she sees."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Request, expect

from identity.secret import Secret
from tests.browser.pictures import PICTURES
from tests.waiting import PATIENCE

AXE = "async (options) => (await axe.run(options)).violations"
# Rules of WCAG 2.2 that axe-core leaves off unless asked.
RULES = {"rules": {"target-size": {"enabled": True}, "label-content-name-mismatch": {"enabled": True}}}
FITS = "document.documentElement.scrollWidth <= innerWidth"
# The text spacing that a reader may set, as WCAG 1.4.12 says.
SPACED = """() => {
    const spaced = new CSSStyleSheet();
    const text = "line-height: 1.5 !important; letter-spacing: .12em !important; word-spacing: .16em !important";
    spaced.replaceSync(`* { ${text} } p { margin-bottom: 2em !important }`);
    document.adoptedStyleSheets = [spaced];
    const fits = document.documentElement.scrollWidth <= innerWidth;
    document.adoptedStyleSheets = [];
    return fits;
}"""


class Person:
    """One browser profile with one tab. Whatever its console complains about is kept."""

    def __init__(self, browser: Browser, axe: str, shots: Path, **context: Any) -> None:
        self._context = browser.new_context(**{"viewport": {"width": 900, "height": 900}, **context})
        self._context.set_default_timeout(PATIENCE * 1000)
        self._axe = axe
        self._shots = shots
        self.complaints: list[str] = []
        self.pictured: list[str] = []
        self.callbacks: list[str] = []  # the addresses the provider sent this browser back to
        self.tab = self.open_tab()

    def open_tab(self) -> Page:
        """Another tab of the same browser."""
        tab = self._context.new_page()
        tab.on("console", lambda said: self._heard(said.type, said.text))
        tab.on("request", self._asked)
        return tab

    def goes_to(self, link: str) -> None:
        self.tab.goto(link)

    def goes_on(self) -> None:
        """From the link's page to the provider's."""
        self.tab.get_by_role("button", name="Continue to").click()
        self.tab.wait_for_url(lambda url: "/connect/" not in url)

    def signs_in(self, login: str, *, decides: str = "Allow", back: str = "/connect/result/") -> None:
        """At the sandbox's consent page."""
        self.tab.get_by_label("Sign in as").select_option(login)
        self.tab.get_by_role("button", name=decides).click()
        self.comes_back(back)

    def answer_for(self, login: str) -> str:
        """The address to which the sandbox would send this browser back, which then does not go there."""
        form = self.tab.evaluate("Object.fromEntries(new FormData(document.forms[0]))")
        decided = {**form, "user": login, "decision": "allow"}
        answer = self._context.request.post(
            self.tab.evaluate("document.forms[0].action"), form=decided, max_redirects=0
        )
        return answer.headers["location"]

    def signs_in_at_oidc(self, login: str, *, back: str = "**/connect/result/**") -> None:
        """At npm's oidc-provider: its login page, then its consent page."""
        self.tab.locator('[name="login"]').fill(login)
        self.tab.locator('[name="password"]').fill("anything")
        self.tab.locator('button[type="submit"]').click()
        self.tab.locator('input[name="prompt"][value="consent"]').wait_for(state="attached")
        self.tab.locator('button[type="submit"]').click()
        self.tab.wait_for_url(back)

    def comes_back(self, to: str = "/connect/result/") -> None:
        # Asked again and again: a second click aborts the way that the first one began, and `wait_for_url` with it.
        expect(self.tab).to_have_url(re.compile(re.escape(to)))
        self.tab.wait_for_load_state()

    def connects(self, link: str, login: str, *, decides: str = "Allow") -> None:
        """The whole way."""
        self.goes_to(link)
        self.goes_on()
        self.signs_in(login, decides=decides)

    @property
    def heading(self) -> str:
        return self.tab.get_by_role("heading", level=1).inner_text()

    @property
    def text(self) -> str:
        return self.tab.locator("main").inner_text()

    def finds_it_accessible(self, name: str) -> None:
        """axe-core has nothing to say, by day and by night, which differ, and nothing runs over the edge of a screen
        of 320 px, which is 1280 px at 400 %.
        """
        grounds: set[str] = set()
        for scheme in ("light", "dark"):
            self.tab.emulate_media(color_scheme=scheme)
            grounds.add(self.tab.evaluate("getComputedStyle(document.body).backgroundColor"))
            self.tab.evaluate(self._axe)
            found = [(one["id"], one["nodes"][0]["html"]) for one in self.tab.evaluate(AXE, RULES)]
            assert found == [], (name, scheme)
            self.looks(f"{name}-{scheme}")
        assert len(grounds) == 2, (name, grounds)
        self.tab.set_viewport_size({"width": 320, "height": 700})
        assert self.tab.evaluate(FITS), name
        assert self.tab.evaluate(SPACED), name
        self.looks(f"{name}-narrow")
        self.tab.set_viewport_size({"width": 900, "height": 900})

    def is_signed_in(self, token: Secret, *, at: str) -> None:
        """The console at *at* gave this browser that session before."""
        self._context.add_cookies([{"name": "aswhom-console", "value": token.reveal(), "url": at}])

    def presses(self, key: str) -> None:
        self.tab.keyboard.press(key)

    @property
    def focused(self) -> str:
        """What has the keyboard: its text on one line, or its label."""
        said: str = self.tab.evaluate("(it => it.labels?.[0]?.innerText || it.innerText || '')(document.activeElement)")
        return " ".join(said.split())

    def reaches(self, name: str) -> None:
        """By the Tab key, as far as the whole page if need be."""
        for _ in range(100):
            if self.focused == name:
                return
            self.presses("Tab")
        raise AssertionError(f"the Tab key does not lead to {name!r}")

    def chooses(self, name: str, *, leads_to: str) -> None:
        """A link or a button, by the Tab key and Enter."""
        self.reaches(name)
        self.presses("Enter")
        self.tab.wait_for_url(leads_to)

    def types(self, text: str, *, into: str) -> None:
        """Into a field, which the Tab key reaches by its label; what is typed at a list chooses of it."""
        self.reaches(into)
        self.tab.keyboard.type(text)

    def pictures(self, name: str) -> None:
        """What a document shows: `make pictures` copies it to docs/images."""
        assert name == PICTURES[len(self.pictured)]
        self.pictured.append(name)
        self.tab.emulate_media(color_scheme="light")
        self.tab.screenshot(path=self._shots.parent / f"{name}.png")

    def looks(self, name: str) -> None:
        """Keep what is seen now."""
        self.tab.screenshot(path=f"{self._shots}-{name}.png", full_page=True)

    def leave(self) -> None:
        self.looks("last")
        self._context.close()

    def _heard(self, kind: str, text: str) -> None:
        if kind == "error" and "status of" not in text:  # a page that says no has a status that says so
            self.complaints.append(text)

    def _asked(self, request: Request) -> None:
        if "/connect/callback/" in request.url:
            self.callbacks.append(request.url)
