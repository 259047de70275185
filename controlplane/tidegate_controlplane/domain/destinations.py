"""Where a webhook may lead: which URLs, and which addresses behind their names. Pure.

A name is judged by every address it resolves to, so the table below is of addresses. It follows
IANA's registries of special-purpose addresses (RFC 6890). Addresses that carry an IPv4 address
inside (mapped, NAT64, 6to4, Teredo) are judged by that one too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

from yarl import URL

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOT_PUBLIC: dict[Network, str] = {
    ip_network(text): name
    for text, name in {
        "0.0.0.0/8": "this host",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "shared by a carrier",
        "127.0.0.0/8": "loopback",
        "169.254.0.0/16": "link-local",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "reserved for protocols",
        "192.0.2.0/24": "for documentation",
        "192.88.99.0/24": "a 6to4 relay",
        "192.168.0.0/16": "private",
        "198.18.0.0/15": "for benchmarks",
        "198.51.100.0/24": "for documentation",
        "203.0.113.0/24": "for documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
        "::/128": "this host",
        "::1/128": "loopback",
        "::ffff:0:0/96": "IPv4-mapped",
        "64:ff9b::/96": "NAT64",
        "64:ff9b:1::/48": "NAT64",
        "2001::/23": "reserved for protocols",
        "2001:db8::/32": "for documentation",
        "2002::/16": "6to4",
        "3fff::/20": "for documentation",
        "fc00::/7": "private",
        "fe80::/10": "link-local",
        "fec0::/10": "site-local",
        "ff00::/8": "multicast",
    }.items()
}
_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All that IANA has given out of IPv6."""

_METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Google, Azure, Oracle, DigitalOcean
        "169.254.170.2",  # AWS, of containers
        "169.254.170.23",
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure, in public space
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",
        "fd20:ce::254",  # Google
    )
)
"""Where clouds hand out credentials: refused whatever is allowed."""

_NAT64 = IPv6Network("64:ff9b::/96")
_NUMERIC_LABEL = re.compile(r"(\d+|0[xX][0-9a-fA-F]*)")
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")


@dataclass(frozen=True)
class Rules:
    """What the settings allow."""

    http: bool
    ports: Sequence[int]
    networks: Sequence[Network]
    """Not public, and allowed all the same."""
    buckets: Sequence[str]


@dataclass(frozen=True)
class HttpDestination:
    url: URL
    host: str
    """A name in ASCII, or an address."""
    port: int


@dataclass(frozen=True)
class BucketDestination:
    """Each event becomes an object under the prefix."""

    bucket: str
    prefix: str


Destination = HttpDestination | BucketDestination


class ForbiddenDestination(ValueError):
    """A webhook may not lead there; the message says why, and what may be done."""


def destination(url: str, rules: Rules) -> Destination:
    """What `url` names; ForbiddenDestination when its form alone forbids it.

    A host that is an address is judged here; a name only once it is resolved (`check_address`).
    """
    if any(character.isspace() or not character.isprintable() for character in url):
        raise ForbiddenDestination("url: it has a space or a control character; write it as %20")
    scheme = url.partition(":")[0].lower()
    if scheme == "s3":
        return _bucket(url, rules)
    if scheme != "https" and not (scheme == "http" and rules.http):
        raise ForbiddenDestination(
            f"url: {scheme[:16]!r} is not allowed; begin with https:// or s3://"
        )
    return _http(url, rules)


def check_address(address: Address, networks: Sequence[Network]) -> None:
    """Raise ForbiddenDestination unless a webhook may connect to `address`."""
    embedded = _embedded(address)
    if _METADATA & {address, embedded}:
        raise ForbiddenDestination(f"url: {address} is a cloud's metadata service; never allowed")
    if embedded is not None:
        check_address(embedded, networks)
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            return  # the connection is to the IPv4 address
    if any(address in network for network in networks):
        return
    if kind := _kind(address):
        raise ForbiddenDestination(
            f"url: {address} is {kind}, not public; use a public address, or have the network "
            "listed in the setting webhooks.allow_networks"
        )


def _http(url: str, rules: Rules) -> HttpDestination:
    try:
        parsed, authority = URL(url), urlsplit(url).netloc
        port = parsed.port
    except ValueError as error:
        raise ForbiddenDestination(f"url: it cannot be read: {error}") from None
    if "@" in authority:
        raise ForbiddenDestination("url: it has a user or password; the signature authenticates us")
    if parsed.raw_fragment:
        raise ForbiddenDestination("url: it has a #fragment, which is never sent; leave it out")
    if port not in rules.ports:
        allowed = ", ".join(map(str, rules.ports))
        raise ForbiddenDestination(
            f"url: port {port} is not allowed; use one of {allowed}, or have it listed in the "
            "setting webhooks.ports"
        )
    host = parsed.raw_host or ""
    if (address := _literal(host)) is not None:
        check_address(address, rules.networks)
    return HttpDestination(parsed, host, port or 0)


def _literal(host: str) -> Address | None:
    """The address that `host` is, None when it is a name.

    Other spellings of an address (`2130706433`, `0177.1`, `0x7f.0.0.1`) are refused: a resolver
    would read them as one. What ends in a number is never a name (WHATWG URL, "ends in a number").
    """
    if "%" in host:
        raise ForbiddenDestination(f"url: the host {host[:64]!r} has a zone or an escape")
    try:
        return ip_address(host)
    except ValueError:
        pass
    last = host.rstrip(".").rpartition(".")[2]
    if _NUMERIC_LABEL.fullmatch(last):
        raise ForbiddenDestination(
            f"url: the host {host[:64]!r} spells an address unusually; write four decimal numbers"
        )
    if not _HOST.fullmatch(host):
        raise ForbiddenDestination(f"url: {host[:64]!r} is not a host")
    return None


def _bucket(url: str, rules: Rules) -> BucketDestination:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ForbiddenDestination(f"url: it cannot be read: {error}") from None
    if parts.query or parts.fragment or "@" in parts.netloc or not parts.netloc:
        raise ForbiddenDestination("url: expected s3://bucket/prefix/, and nothing after it")
    if parts.netloc not in rules.buckets:
        raise ForbiddenDestination(
            f"url: the bucket {parts.netloc[:64]!r} is not allowed; have it listed in the setting "
            "limits.s3_buckets"
        )
    prefix = parts.path.strip("/")
    if any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
        raise ForbiddenDestination(f"url: {prefix[:64]!r} is not a prefix of plain names")
    return BucketDestination(parts.netloc, prefix)


def _kind(address: Address) -> str | None:
    for network, name in _NOT_PUBLIC.items():
        if address in network:
            return name
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return "reserved"
    return None


def _embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address to which a packet for this one may be carried."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
