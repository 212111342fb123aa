"""Where workers may be: checked when an expert is registered, and again at every connection.

The second check looks at the address that is being connected to, so that a name which resolves
to another address later (DNS rebinding), a redirect, or an expert stored before the settings
were changed reaches nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from server.errors import BadRequest, Forbidden, Unprocessable

Network = IPv4Network | IPv6Network

PRIVATE_NETWORKS: tuple[Network, ...] = (
    ip_network("127.0.0.0/8"),
    ip_network("::1/128"),
    ip_network("10.0.0.0/8"),
    ip_network("172.16.0.0/12"),
    ip_network("192.168.0.0/16"),
    ip_network("fc00::/7"),
)
METADATA = frozenset(
    ip_address(address)
    for address in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16")
)
"""Where clouds hand out credentials, besides the link-local 169.254.169.254 and fe80::/10."""

log = logging.getLogger(__name__)


class Addresses:
    """The networks that workers may be in, and what is the operator's own."""

    def __init__(self, networks: Sequence[Network], own_urls: Sequence[str] = ()) -> None:
        """`own_urls`: workers that the operator named in the settings; they may be anywhere."""
        self._networks = tuple(networks)
        self._own_hosts = {host for url in own_urls if (host := _host(url))}
        self._own_addresses = set(self._own_hosts)

    def permits(self, address: str) -> bool:
        """Whether a worker may be at an IP address.

        Link-local addresses and METADATA only if a network of such addresses alone is listed:
        `0.0.0.0/0` does not mean them.
        """
        ip = ip_address(address)
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if ip.is_unspecified or ip.is_multicast:
            return False
        return any(ip in network and _means(network, ip) for network in self._networks)

    async def check_url(self, url: str, param: str) -> None:
        """See that `url` can be a worker's base URL. `param` is the field it comes from.

        Raises BadRequest, Unprocessable for a name without an address, and Forbidden.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise BadRequest("a worker's URL begins with http:// or https://", param=param)
        if parts.username is not None or parts.query or parts.fragment or "#" in url or "?" in url:
            raise BadRequest(
                "a worker's URL has no user, query or fragment; it ends in /v1", param=param
            )
        for address in await _resolve(parts.hostname, param):
            if not self.permits(address):
                raise Forbidden(
                    f"{parts.hostname} is at {address}, and workers may not be there; networks"
                    " where they may be are listed in TRIVIUM_WORKER_NETWORKS",
                    param=param,
                )

    def connector(self, keep_seconds: float) -> aiohttp.TCPConnector:
        """For an aiohttp session: connects to permitted addresses only, and uses no connection that
        was idle for more than `keep_seconds`."""
        return aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=keep_seconds,
            resolver=_Resolver(self),
            socket_factory=self._open,
        )

    async def connect(self, host: str, port: int) -> socket.socket:
        """A socket connected to the first permitted address that answers. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.learn_own(host, [str(info[4][0]) for info in found])
        last = OSError(errno.EADDRNOTAVAIL, f"{host} has no address")
        for info in found:
            try:
                return await _connected(self._open(info), info[4])
            except OSError as error:
                last = error
        raise last

    def learn_own(self, host: str, addresses: Sequence[str]) -> None:
        """Take note of what a name resolved to, if it is the operator's own worker's."""
        if host in self._own_hosts:
            self._own_addresses.update(addresses)

    def _open(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one address of `getaddrinfo`'s form. Raises PermissionError."""
        family, kind, protocol, _, where = info
        address = str(where[0])
        if address not in self._own_addresses and not self.permits(address):
            log.warning(
                "refused to connect to a worker at %s: TRIVIUM_WORKER_NETWORKS lists where workers"
                " may be",
                address,
            )
            raise PermissionError(errno.EACCES, f"no worker may be at {address}")
        return socket.socket(family=family, type=kind, proto=protocol)


class _Resolver(AbstractResolver):
    """aiohttp's own, which tells an `Addresses` what it finds."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses, self._inner = addresses, aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        self._addresses.learn_own(host, [result["host"] for result in found])
        return found

    async def close(self) -> None:
        await self._inner.close()


async def _connected(opened: socket.socket, address: Any) -> socket.socket:
    """Raises OSError; then the socket is closed."""
    try:
        opened.setblocking(False)
        await asyncio.get_running_loop().sock_connect(opened, address)
    except BaseException:
        opened.close()
        raise
    return opened


def _means(network: Network, ip: IPv4Address | IPv6Address) -> bool:
    """Whether listing `network` is enough for `ip`, which is in it."""
    if ip.is_link_local:
        return network.is_link_local
    return ip not in METADATA or network.num_addresses == 1


def _host(url: str) -> str | None:
    return urlsplit(url).hostname


async def _resolve(host: str, param: str) -> list[str]:
    """Every address of a name. Raises Unprocessable."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Unprocessable(
            f"the name {host!r} has no address; is it right?", param=param
        ) from None
    return [str(entry[4][0]) for entry in found]
