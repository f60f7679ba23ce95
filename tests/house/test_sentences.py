"""Sentences are for people: nothing that decides reads one. What it goes by has a column, or a field, of its own."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("deploy", "identity", "pipeline", "webhooks")

#: How sentences are named here. What is named `outcome` or `why` may also be of a closed set: that is compared.
SENTENCES = frozenset({"error", "fault", "keepalive_error", "last_error", "outcome", "paused_reason", "reason", "why"})
COMPARED = SENTENCES - {"outcome", "why"}
REFRESHES = "identity/refresh/"  # whose intents have their outcome in words
#: How a text is taken apart, or looked into.
READING = frozenset(
    {"contains", "endswith", "find", "ilike", "index", "like", "not_like", "partition", "regexp_match", "removeprefix"}
    | {"removesuffix", "rpartition", "split", "startswith"}
)
BY_PATTERN = frozenset({"finditer", "findall", "fullmatch", "match", "search"})
WRITTEN_ELSEWHERE = "it is written elsewhere, and changes there alone"
AS_IT_WAS = "only whether it is still the same is asked, so that it is not told, or written, again"
TO_BE_READ = "it is shortened, or put together with its like, for people"
#: (file, what it reads): why it may.
ALLOWED = {
    ("deploy/checkup/broker.py", "str(error)"): WRITTEN_ELSEWHERE,  # by Redis, whose error begins with its code
    ("deploy/checkup/providers.py", "why"): WRITTEN_ELSEWHERE,  # by OpenSSL, in the words that it has no code for
    ("deploy/demo/evidence.py", "answer['reason']"): "the demonstration holds an answer to what was promised",
    ("deploy/demo/telling.py", "str(row['reason'])"): TO_BE_READ,
    ("identity/connect/callback.py", "error"): WRITTEN_ELSEWHERE,  # RFC 6749, §4.1.2.1: a code
    ("identity/shared_by_redis.py", "str(error)"): WRITTEN_ELSEWHERE,  # by Redis, likewise
    ("pipeline/duties/housekeeping.py", "error"): AS_IT_WAS,
    ("pipeline/schedules/beat.py", "error"): AS_IT_WAS,
    ("pipeline/schedules/slots.py", "fault"): AS_IT_WAS,
    ("pipeline/schedules/slots.py", "row.fault"): AS_IT_WAS,
    ("webhooks/health.py", "str(error)"): AS_IT_WAS,
}


def _bare(node: ast.expr) -> ast.expr:
    """Without what does not change that it is a sentence: `x or ""`, `str(x)`, `x.lower()`."""
    match node:
        case ast.BoolOp(values=[first, *_]) | ast.Call(func=ast.Name(id="str"), args=[first]):
            return _bare(first)
        case ast.Call(func=ast.Attribute(value=inner, attr="lower" | "casefold" | "strip")):
            return _bare(inner)
    return node


def _name(node: ast.expr) -> str:
    match _bare(node):
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=str(name))):
            return name
    return ""


def _is_member(node: ast.expr) -> bool:
    """Whether it is one of a closed set: `Name.MEMBER`."""
    match node:
        case ast.Attribute(value=ast.Name(id=name), attr=attr):
            return name[:1].isupper() and attr.isupper()
    return False


def _read(tree: ast.Module, file: str = "") -> Iterator[str]:
    """The sentences that are read, as the source names them."""
    compared = COMPARED | {"outcome"} if file.startswith(REFRESHES) else COMPARED
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=read, attr=how)) if how in READING and _name(read) in SENTENCES:
                yield ast.unparse(read)
            case ast.Call(func=ast.Attribute(attr=how), args=given) if how in BY_PATTERN:
                yield from (ast.unparse(read) for read in given if _name(read) in SENTENCES)
            case ast.Call(func=ast.Attribute(value=read, attr="in_" | "not_in")) if _name(read) in compared:
                yield ast.unparse(read)
            case ast.Compare(left=left, ops=ops, comparators=others):
                yield from _compared([left, *others], ops, compared)


def _compared(sides: list[ast.expr], ops: list[ast.cmpop], compared: frozenset[str]) -> Iterator[str]:
    if any(isinstance(op, ast.In | ast.NotIn) for op in ops):  # a part of it, or whether it is one of several
        looked_into = [side for side in sides[1:] if isinstance(sides[0], ast.Constant | ast.JoinedStr)]
        found = [one for one in looked_into if _name(one) in SENTENCES]
        found += [one for one in sides[:1] if _name(one) in compared]
    elif any(isinstance(op, ast.Eq | ast.NotEq) for op in ops):
        found = [] if any(map(_is_member, sides)) else [one for one in _parts(sides) if _name(one) in compared]
    else:
        found = []
    yield from (ast.unparse(one) for one in found)


def _parts(sides: list[ast.expr]) -> Iterator[ast.expr]:
    """Yield what is compared: of a tuple, each of its elements."""
    for side in sides:
        yield from side.elts if isinstance(side, ast.Tuple | ast.List) else (side,)


def _files() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            # A migration reads once what an earlier version wrote; the sandbox plays upstreams, in their words.
            if not name.startswith(("pipeline/migrations/versions/", "deploy/sandbox/")):
                yield name, ast.parse(path.read_text())


def test_no_sentence_for_people_decides_anything() -> None:
    assert {(file, read) for file, tree in _files() for read in _read(tree, file)} == set(ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "account.reason.startswith(BEGINS)",
        '(account.reason or "").startswith(BEGINS)',
        "accounts.c.reason.startswith(BEGINS, autoescape=True)",
        "latest.c.reason.contains(UNLISTED)",
        "intents.c.outcome.like('overtaken%')",
        "reason.removesuffix(told)",
        "row['reason'].removeprefix(told)",
        "row.error != NOT_SENT",
        "(row.status, row.error) == said",
        "'not public' in why",
        "str(error).lower() == 'gone'",
        "row.error in (NOT_SENT, LATE)",
        "intent.outcome in WANT_PERSON",
        "columns.outcome.in_(sorted(WANT_PERSON))",
        "row.outcome == OVERTAKEN",
        "CODE.search(str(error))",
        "re.match(CODE, row.error)",
    ],
)
def test_a_sentence_that_decides_is_noticed(source: str) -> None:
    assert list(_read(ast.parse(source), REFRESHES))


@pytest.mark.parametrize(
    "source",
    [
        "row.outcome == DeliveryOutcome.SIGNAL",
        "session.outcome == CONNECTED",
        "row.error is None",
        "account.reconnect_cause is ReconnectCause.PERSON",
        "why in (TooWide.DEPTH, TooWide.LIFETIME)",
        "name.startswith('x')",
    ],
)
def test_what_is_of_a_closed_set_may_decide(source: str) -> None:
    assert not list(_read(ast.parse(source)))
