import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from fedistill.provision.front import make_front

SEEN: list[httpx.Request] = []


class Superlink(httpx.AsyncBaseTransport):
    """Answers everything, as an open Control API does."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        SEEN.append(request)
        if request.url.path == "/v1/fleet/pull-object":
            raise httpx.ConnectError("down", request=request)
        headers = {"content-type": "application/x-protobuf", "server": "behind"}
        body = (await request.aread())[::-1]

        async def stream() -> AsyncIterator[bytes]:
            yield body[:7]
            yield body[7:]

        return httpx.Response(418, content=stream(), headers=headers)


class Front:
    """A client of the front."""

    def request(self, method: str, path: str, **options: object) -> httpx.Response:
        async def ask() -> httpx.Response:
            app = make_front("127.0.0.1:9093", transport=Superlink())
            transport = httpx.ASGITransport(app)
            url = httpx.URL("https://front").copy_with(raw_path=path.encode())
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=transport) as client,
            ):
                return await client.request(method, url, **options)

        return asyncio.run(ask())

    def post(self, path: str, **options: object) -> httpx.Response:
        return self.request("POST", path, **options)


@pytest.fixture
def front() -> Front:
    SEEN.clear()
    return Front()


def test_a_fleet_call_goes_through_whole_and_its_answer_comes_back(front: Front) -> None:
    headers = {"flwr-node-public-key": "k", "connection": "close", "host": "front:9092"}
    answer = front.post("/v1/fleet/pull-messages", content=b"abc" * 100_000, headers=headers)
    assert (answer.status_code, answer.content) == (418, b"cba" * 100_000)
    assert answer.headers["content-type"] == "application/x-protobuf"
    assert "server" not in answer.headers
    (request,) = SEEN
    assert str(request.url) == "https://127.0.0.1:9093/v1/fleet/pull-messages"
    assert request.headers["flwr-node-public-key"] == "k"
    assert request.headers["host"] == "127.0.0.1:9093"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/health",
        "/v1/control/register-node",
        "/v1/runtime/push-messages",
        "/v1/fleet",
        "/v1/fleet/",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/pull-messages?x=1",
        "/v1/fleet/a/../../control/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/fleet/..%2fcontrol%2flist-runs",
        "/v1/%66leet/pull-messages",
        "//v1/fleet/pull-messages",
        "/v1/fleet/pull-messages%0a",
        "/V1/FLEET/pull-messages",
    ],
)
def test_nothing_else_goes_through(front: Front, path: str) -> None:
    assert front.post(path).status_code == 404
    assert SEEN == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_only_posts_go_through(front: Front, method: str) -> None:
    assert front.request(method, "/v1/fleet/pull-messages").status_code == 405
    assert SEEN == []


def test_a_superlink_that_is_down_is_no_error_of_the_front(front: Front) -> None:
    assert front.post("/v1/fleet/pull-object").status_code == 503
