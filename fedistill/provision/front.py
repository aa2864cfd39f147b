"""The server's open port: it lets SuperNodes through to the SuperLink, and nothing else.

A SuperLink has one port for three APIs. The Fleet API authenticates SuperNodes by their keys; the
Control API, in Flower's open version, lets anyone who reaches it register keys and start runs. So
the SuperLink listens on loopback only, and this forwards `POST /v1/fleet/...` to it. Otherwise a
revoked site would register a new key by itself.
"""

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from fedistill.provision.project import Project, Workshop, address

_FLEET = re.compile(r"/v1/fleet/[a-z]+(-[a-z]+)*")
_OWN = frozenset({"host", "connection", "keep-alive", "te", "trailer", "upgrade", "date", "server"})
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_LIMITS = httpx.Limits(max_connections=1000)


def make_front(
    superlink: str,
    verify: ssl.SSLContext | bool = True,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Starlette:
    """The application that forwards.

    Args:
        superlink: `HOST:PORT` of the SuperLink.
        verify: Trusts the project's certificate authority.
        transport: How to reach the SuperLink; None for the network.
    """
    clients: list[httpx.AsyncClient] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(
            base_url=f"https://{superlink}",
            verify=verify,
            timeout=_TIMEOUT,
            limits=_LIMITS,
            trust_env=False,
            transport=transport,
        ) as client:
            clients.append(client)
            yield

    async def forward(request: Request) -> Response:
        # The path as it came: an encoded one may mean another to the SuperLink.
        path = request.scope["raw_path"].decode("ascii", "replace")
        if not _FLEET.fullmatch(path) or request.url.query:
            return PlainTextResponse("not found\n", status_code=404)
        (client,) = clients
        headers = [(name, value) for name, value in request.headers.raw if _passes(name)]
        outgoing = client.build_request("POST", path, headers=headers, content=request.stream())
        try:
            answer = await client.send(outgoing, stream=True)
        except httpx.TransportError:
            return PlainTextResponse("the SuperLink does not answer\n", status_code=503)
        response = StreamingResponse(_body(answer), status_code=answer.status_code)
        response.raw_headers = [(n, v) for n, v in answer.headers.raw if _passes(n.lower())]
        return response

    routes = [Route("/{path:path}", forward, methods=["POST"])]
    return Starlette(routes=routes, lifespan=lifespan)


def serve(workshop: Workshop, *, host: str) -> None:
    """Forward until a signal ends it.

    Raises:
        ProvisionError: the project cannot be read.
    """
    project = Project.load(workshop.project_file)
    verify = ssl.create_default_context(cafile=str(workshop.ca))
    uvicorn.run(
        make_front(address("127.0.0.1", project.superlink_port), verify),
        host=host,
        port=project.port,
        ssl_certfile=str(workshop.server_certificate),
        ssl_keyfile=str(workshop.server_key),
        server_header=False,
        access_log=False,
        log_level="warning",
    )


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


def _passes(name: bytes) -> bool:
    return name.decode("latin-1") not in _OWN
