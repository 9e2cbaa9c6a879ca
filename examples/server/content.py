"""What the server answers.

One rule holds for all of it: an answer depends on the seed and on the request, and on nothing
else. The server keeps no state, so that every program gets the same data, the same delays and
the same injected errors whichever loop it runs on and however often it has run before. That is
why a program that tries again says so (`attempt=1`), and a poller says what it has seen (`since=`).

Query parameters understood by every path: `delay=` milliseconds before the answer, `fail=` the
percentage of addresses that answer 503 while `attempt=` (0 by default) is 0.
"""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from collections.abc import Callable
from urllib.parse import parse_qs

from .protocol import Answer, make_answer
from .site import Site

ORDERS_PER_PAGE = 20
MAX_CACHED = 50_000
# Items and jobs answered from the cache from the start: else the first loop to be timed would pay.
PREPARED = 4_000
KIB = 1024

Query = dict[str, str]


class Content:
    """Everything there is to ask for, made from one seed."""

    def __init__(self, seed: int = 2024, *, pages: int = 160, files: int = 96) -> None:
        self.seed = seed
        self._site = Site(seed, pages)
        self._cache: dict[bytes, Answer] = {}
        self._not_found = json_answer({"error": "not found"}, status=404)
        block = random.Random(seed).randbytes(4 * KIB * KIB)
        self._files = dict(cut_files(seed, files, block))
        self._routes: dict[str, Callable[[str, Query], Answer]] = {
            "health": lambda rest, query: json_answer({"status": "ok"}),
            "api/items": self._item,
            "api/jobs": self._job,
            "api/feeds": self._feed,
            "api/orders": self._orders,
            "services": self._service,
            "site": self._page,
            "files": self._file,
        }
        self._manifest = json_answer(
            {
                "files": [
                    {"name": name, "size": len(view), "sha256": hashlib.sha256(view).hexdigest()}
                    for name, view in self._files.items()
                ]
            }
        )

        for number in range(PREPARED):
            for path in ("items", "jobs"):
                self.answer(b"GET", f"/api/{path}/{number}".encode(), b"")

    def answer(self, method: bytes, target: bytes, body: bytes) -> Answer:
        """The answer to one request: an `Answerer` for the protocol."""
        if method == b"GET":
            cached = self._cache.get(target)
            if cached is None:
                cached = self._make(target.decode("latin-1"))
                if len(self._cache) >= MAX_CACHED:
                    self._cache.clear()
                self._cache[target] = cached
            return cached
        if method == b"POST" and target == b"/api/ledger":
            return ledger_entry(body)
        return json_answer({"error": "method not allowed"}, status=405)

    def _make(self, target: str) -> Answer:
        path, _, query_text = target.partition("?")
        query = {name: values[-1] for name, values in parse_qs(query_text).items()}
        try:
            delay = int(query.get("delay", "0")) / 1000
            percent = int(query.get("fail", "0"))
            attempt = int(query.get("attempt", "0"))
        except ValueError:
            return json_answer({"error": "delay, fail and attempt are numbers"}, status=400)
        if attempt == 0 and self._draw("fail", path) % 100 < percent:
            return json_answer({"error": "injected"}, status=503)._replace(delay=delay)
        try:
            answer = self._route(path.strip("/"), query)
        except ValueError:
            answer = json_answer({"error": "bad number"}, status=400)
        return answer._replace(delay=answer.delay + delay) if delay else answer

    def _route(self, path: str, query: Query) -> Answer:
        if path == "":
            return json_answer({"paths": [*self._routes, "api/ledger (POST)"]})
        if path == "files":
            return self._manifest
        for prefix, route in self._routes.items():
            if path == prefix:
                return route("", query)
            if path.startswith(prefix + "/"):
                return route(path[len(prefix) + 1 :], query)
        return self._not_found

    def _draw(self, *parts: object) -> int:
        """A number that is the same for the same seed and parts, and looks drawn at random."""
        return zlib.crc32(":".join(map(str, (self.seed, *parts))).encode())

    def _item(self, rest: str, query: Query) -> Answer:
        number = int(rest)
        return json_answer(
            {
                "id": number,
                "name": f"item {number}",
                "cents": 100 + self._draw("price", number) % 9900,
                "stock": self._draw("stock", number) % 40,
                "tags": [f"tag{self._draw('tag', number, i) % 12}" for i in range(3)],
            }
        )

    def _job(self, rest: str, query: Query) -> Answer:
        number = int(rest)
        return json_answer({"job": number, "result": self._draw("job", number)})

    def _feed(self, rest: str, query: Query) -> Answer:
        """Events after `since`: none, one or several; now and then the feed is out of order."""
        since = int(query.get("since", "0"))
        attempt = int(query.get("attempt", "0"))
        draw = self._draw("feed", rest, since)
        # One place in sixteen is out of order, for one or two attempts.
        if draw % 16 == 0 and attempt < 1 + draw // 16 % 2:
            return json_answer({"error": "try later"}, status=503)
        count = 1 + draw % 4
        events = [{"id": since + i, "text": f"{rest} {since + i}"} for i in range(count)]
        return json_answer({"events": events, "next": since + count})

    def _orders(self, rest: str, query: Query) -> Answer:
        page = int(query.get("page", "0"))
        first = page * ORDERS_PER_PAGE
        orders = [
            {
                "order": number,
                "item": self._draw("ordered", number) % 1000,
                "quantity": 1 + self._draw("quantity", number) % 5,
            }
            for number in range(first, first + ORDERS_PER_PAGE)
        ]
        return json_answer({"page": page, "orders": orders})

    def _service(self, rest: str, query: Query) -> Answer:
        """One service of the dashboard; payments dies for ticks 3 to 6 of every ten."""
        tick = int(query.get("tick", "0"))
        if rest == "orders":
            return json_answer({"open": 40 + self._draw("open", tick) % 20})
        if rest == "stock":
            return json_answer({"low": self._draw("low", tick) % 7}, delay=0.002)
        if rest == "payments":
            if 3 <= tick % 10 <= 6:
                return Answer(None, b"")
            return json_answer({"cents": self._draw("paid", tick) % 100_000})
        return self._not_found

    def _page(self, rest: str, query: Query) -> Answer:
        number = int(rest or "0")
        page = self._site.page(number)
        if page is None:
            return make_answer(404, "text/html; charset=utf-8", b"<h1>No such page</h1>")
        return make_answer(200, "text/html; charset=utf-8", page)

    def _file(self, rest: str, query: Query) -> Answer:
        view = self._files.get(rest)
        if view is None:
            return self._not_found
        return make_answer(200, "application/octet-stream", view)


def json_answer(value: object, *, status: int = 200, delay: float = 0.0) -> Answer:
    """`value` as JSON."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return make_answer(status, "application/json", body, delay=delay)


def ledger_entry(body: bytes) -> Answer:
    """Add up a posted batch `[{"cents": …}, …]`, so that the sender can check its own sum."""
    try:
        rows = json.loads(body)
        cents = sum(int(row["cents"]) for row in rows)
    except (ValueError, TypeError, KeyError):
        return json_answer({"error": "a list of objects with cents, please"}, status=400)
    return json_answer({"accepted": len(rows), "cents": cents})


def cut_files(seed: int, count: int, block: bytes) -> list[tuple[str, memoryview]]:
    """`count` files of 64 KiB to 2 MiB: views into `block`, so that nothing is kept twice."""
    rng = random.Random(seed + 1)
    whole = memoryview(block)
    files = []
    for number in range(count):
        size = 64 * KIB * 2 ** rng.randrange(6) + rng.randrange(KIB)
        start = rng.randrange(len(block) - size)
        files.append((f"part-{number:03}.bin", whole[start : start + size]))
    return files
