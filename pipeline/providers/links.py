"""Which URLs may be fetched without a key: the provider's own host, else public https. Nothing else.

A signed link comes from a server's answer, so it is input like any other. Its text is checked here
before anything is resolved, the addresses of its host before anything connects, and the connected
peer once more (`storage.py` asks `require_peer`), so that a name which resolves twice to different
addresses gains nothing. Only the host the user configured may be private, which is how a local
emulator works.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipeline.errors import ConfigError, Refused

_PORTS = {"http": 80, "https": 443}

# One grammar for the whole URL, so that no two parsers can disagree about its host: no user@, no
# backslash, no blank, nothing beyond ASCII.
_URL = re.compile(
    r"(?P<scheme>[a-z]+)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?:[/?#][!-~]*)?",
    re.IGNORECASE,
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address

Resolver = Callable[[str, int], Iterable[str]]


@dataclass(frozen=True)
class Origin:
    """Scheme, host (lower case, without brackets) and port of a URL."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin | None:
        """The origin of *url*, or None when it is not a plain http(s) address."""
        match = _URL.fullmatch(url)
        if match is None or (scheme := match["scheme"].lower()) not in _PORTS:
            return None
        return cls(scheme, match["host"].lower().strip("[]"), int(match["port"] or _PORTS[scheme]))

    @property
    def keeps_secrets(self) -> bool:
        """Whether a key may go there: by https, or by http without leaving the machine or its own network."""
        if self.scheme == "https" or self.host == "localhost":
            return True
        try:
            return not _public(self.host)
        except ValueError:  # a name; it may lead anywhere
            return False


def resolve(host: str, port: int) -> list[str]:
    """The addresses the system knows for *host*. Raises OSError when it knows none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label longer than DNS allows
        raise OSError(str(error)) from error
    return [str(entry[4][0]) for entry in found]


def without_query(url: str) -> str:
    """*url* as it may be shown: a signature lives in the query, a password before the `@`."""
    shown = re.split(r"[?#]", url, maxsplit=1)[0]
    return re.sub(r"//[^/]*@", "//", shown)[:200]


class LinkPolicy:
    """The rule for one provider, whose base URL the user configured."""

    def __init__(self, base_url: str, resolver: Resolver = resolve) -> None:
        base = Origin.of(base_url)
        if base is None:
            raise ConfigError(
                f"the base URL {without_query(base_url)!r} is not a plain http(s) address.",
                hint="write it like https://api.fireworks.ai, without a user name or query",
            )
        self.base = base
        self._resolver = resolver

    def require(self, url: str) -> None:
        """Raise Refused, saying why, unless *url* may be fetched; OSError when its host is unknown."""
        origin = Origin.of(url)
        if origin is None:
            raise self._refusal(url, "is not a plain http(s) link")
        if origin == self.base:
            return
        if origin.scheme != "https":
            raise self._refusal(url, "is not https")
        if origin.port != _PORTS["https"]:
            raise self._refusal(url, f"asks for port {origin.port}")
        for address in self._resolver(origin.host, origin.port):
            if not _public(address):
                raise self._refusal(url, f"leads to {address}, which is not a public address")

    def require_peer(self, host: str, port: int, address: str) -> None:
        """Raise Refused when the connection to *host* ended up at a private *address*."""
        if (host.lower().strip("[]"), port) != (self.base.host, self.base.port) and not _public(address):
            raise self._refusal(f"https://{host}", f"led to {address}, which is not a public address")

    def _refusal(self, url: str, reason: str) -> Refused:
        return Refused(
            f"a link of the service was not followed: it {reason} ({without_query(url)!a}).",
            kept=f"Nothing was sent there. Allowed are https links to public hosts, and {self.base.host} itself.",
            hint="if the link is right, ask the provider; if the service is your own, check its configured base URL",
        )


def _public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        # Forms that carry an IPv4 address are as public as what they carry.
        embedded = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            ip = embedded
    return ip.is_global and not ip.is_multicast
