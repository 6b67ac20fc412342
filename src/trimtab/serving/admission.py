"""Who may pass a port: its tokens, and who can reach it. Apart from `access`, for who has no store open."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from trimtab.config import Settings
from trimtab.errors import RefusedError, UnauthorizedError


class Access:
    """Checks the `Authorization` header of requests to one port. Immutable: made anew when tokens change."""

    def __init__(self, hashes: Iterable[str], *, required: bool) -> None:
        self.hashes = frozenset(hashes)
        self.required = required
        self._hashes = [bytes.fromhex(each) for each in sorted(self.hashes)]

    def allows(self, authorization: str | None) -> bool:
        """Whether a request with this header may pass; takes the same time whichever token is tried."""
        if not self.required:
            return True
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        given = hashlib.sha256(token.strip().encode()).digest()
        found = False
        for known in self._hashes:
            found |= hmac.compare_digest(given, known)
        return found

    def check(self, authorization: str | None) -> None:
        """Raise UnauthorizedError unless the request may pass."""
        if not self.allows(authorization):
            raise UnauthorizedError(
                "This address wants a token." if not authorization else "This token is not known.",
                hint="Send the header 'Authorization: Bearer TOKEN'; make one with `trimtab token create`.",
            )


def hash_token(token: str) -> str:
    """How a token is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def access_for(settings: Settings, host: str, stored: Iterable[str]) -> Access:
    """The rule for a port on `host`: a token is demanded beyond loopback, and wherever the settings name
    one. `stored` are the hashes out of the metadata store."""
    hashes = set(stored)
    if settings.token is not None:
        hashes.add(hash_token(settings.token.get_secret_value()))
    return Access(hashes, required=settings.token is not None or not is_loopback(host))


def check_binding(host: str, access: Access) -> None:
    """Raise RefusedError if a port on `host` would be open to others with no token to ask for."""
    if not is_loopback(host) and not access.hashes:
        raise RefusedError(
            f"Listening on {host} is refused: others can reach it, and there is no token to ask them for.",
            hint="Set TRIMTAB_TOKEN, or make one with `trimtab token create`, or listen on 127.0.0.1.",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`; a name other than "localhost" counts as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_origin(host: str, origin: str | None) -> None:
    """Raise RefusedError for a request that a web page of somebody else's may have sent: one that reached
    this machine under another name (DNS rebinding), or whose origin is another than this port."""
    if not _names_this_machine(host) or (origin and origin.partition("://")[2] != host):
        raise RefusedError(
            "This port answers only requests made on this machine, to this machine.",
            hint="Call it as 127.0.0.1, or set TRIMTAB_TOKEN and send it.",
        )


@lru_cache(maxsize=256)
def _names_this_machine(host: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:  # half an IPv6 address
        return False
