"""Two calls over HTTP to a server that fails the first one; the answer is transformed and kept."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import threading
from typing import Any, ClassVar

import zart_core as zart


@zart.step("lookup-zip", retry=zart.Retry.exponential(3, "1s"), timeout="1m")
def lookup_zip(port: int, zip: str) -> str:
    return str(get(port, f"/zip/{zip}")["city"])


@zart.step("find-breweries", retry=zart.Retry.exponential(3, "1s"))
def find_breweries(port: int, city: str) -> list[dict[str, str]]:
    return list(get(port, f"/breweries/{city}")["found"])


@zart.step("transform")
def transform(breweries: list[dict[str, str]]) -> list[str]:
    return sorted(f"{brewery['name']} ({brewery['type']})" for brewery in breweries)


@zart.workflow("brewery-finder", timeout="5m")
def brewery_finder(search: tuple[int, str]) -> zart.Flow[list[str]]:
    port, zip = search
    city = yield from lookup_zip(port, zip)
    breweries = yield from find_breweries(port, city)
    return (yield from transform(breweries))


def get(port: int, path: str) -> dict[str, Any]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path)
        with connection.getresponse() as answer:
            if answer.status != 200:
                raise ConnectionError(f"{path} is answered {answer.status}")
            return dict(json.load(answer))


ANSWERS = {
    "/zip/97209": {"city": "portland"},
    "/breweries/portland": {"found": [{"name": "Zwickl", "type": "micro"}, {"name": "Alt", "type": "pub"}]},
}


class Answering(http.server.BaseHTTPRequestHandler):
    """What the server does; its first answer is an error."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(503 if len(self.asked) == 1 else 200)
        self.end_headers()
        self.wfile.write(json.dumps(ANSWERS[self.path]).encode())

    def log_message(self, format: str, *args: object) -> None: ...


def main() -> None:
    with (
        http.server.HTTPServer(("127.0.0.1", 0), Answering) as server,
        zart.open("memory:", [brewery_finder]) as engine,
    ):
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        found = engine.run(brewery_finder, (server.server_port, "97209"))
        print(*found, "asked for:", *Answering.asked, sep="\n")
        server.shutdown()


if __name__ == "__main__":
    main()
