"""One POST to a receiver, to an address that was checked.

The name is resolved once, by `CheckedResolver`, every address is judged, and the connection goes to
one of exactly these; so a name that changes its mind between check and use gains nothing. Redirects
are not followed, the environment's proxies and credentials are not used, and no more than the first
bytes of the answer are read.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from tidegate_controlplane.domain.destinations import (
    HttpDestination,
    Network,
    check_address,
)

ANSWER_BYTES = 1024
"""Of an answer, kept for whoever looks at the delivery; the rest is never read."""
MAX_HEADER_BYTES = 8190
RESOLVING_THREADS = 16

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name."""


@dataclass(frozen=True)
class Answered:
    status_code: int
    retry_after: str | None
    start: bytes
    """At most ANSWER_BYTES of the body."""


class Unreachable(Exception):
    """No answer came; the message says why."""


class SystemNames:
    """The machine's own resolver, in threads of its own: a slow name server blocks nobody else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVING_THREADS, thread_name_prefix="webhook-names")

    async def look_up(self, host: str, port: int) -> Sequence[str]:
        """Raises OSError."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(address[0]) for *_, address in found]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class CheckedResolver(AbstractResolver):
    """Finds the addresses of a name; raises ForbiddenDestination when one is not allowed."""

    def __init__(self, look_up: LookUp, networks: Sequence[Network]) -> None:
        self._look_up = look_up
        self._networks = networks

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = [ip_address(text) for text in await self._look_up(host, port)]
        if not found:
            raise OSError(f"{host} has no address")
        for address in found:
            check_address(address, self._networks)
        kinds = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=kinds[address.version],
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in dict.fromkeys(found)
            if family in (socket.AF_UNSPEC, kinds[address.version])
        ]

    async def close(self) -> None:
        """It holds nothing."""


class Receivers:
    """Every receiver that is spoken to over HTTP. Made inside the event loop."""

    def __init__(self, look_up: LookUp, networks: Sequence[Network], timeout_s: float) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=CheckedResolver(look_up, networks),
                use_dns_cache=False,
                force_close=True,
                limit=0,
            ),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            trust_env=False,
        )
        self._timeout_s = timeout_s

    async def post(
        self, destination: HttpDestination, headers: Mapping[str, str], body: bytes
    ) -> Answered:
        """Raises ForbiddenDestination, and Unreachable when no answer came in time."""
        try:
            async with self._session.post(
                destination.url, data=body, headers=headers, allow_redirects=False
            ) as response:
                return Answered(
                    response.status,
                    response.headers.get("retry-after"),
                    await _start(response),
                )
        except TimeoutError:
            raise Unreachable(f"no answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"no answer: {_words(error)}") from error

    async def close(self) -> None:
        await self._session.close()


async def _start(response: aiohttp.ClientResponse) -> bytes:
    """What it says first; one that stops in the middle has answered all the same."""
    start = b""
    try:
        while len(start) < ANSWER_BYTES:
            piece = await response.content.read(ANSWER_BYTES - len(start))
            if not piece:
                break
            start += piece
    except (aiohttp.ClientError, OSError):
        return start
    return start


def _words(error: Exception) -> str:
    """What went wrong, without an address or a path of ours."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not valid for it"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return os.strerror(number) if number else "it cannot be connected to"
    return str(error)[:200] or type(error).__name__
