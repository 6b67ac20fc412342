from __future__ import annotations

import pytest
from sqlalchemy import select

from trimtab.config import Settings
from trimtab.errors import ConflictError, InvalidInputError, NotFoundError, RefusedError, UnauthorizedError
from trimtab.serving.access import Tokens, access_for, check_binding, is_loopback, token_hashes
from trimtab.serving.schema import tokens_table
from trimtab.workspace import Workspace


def test_a_token_opens_until_it_is_revoked_and_is_stored_only_as_a_hash(any_workspace: Workspace) -> None:
    tokens = Tokens(any_workspace)
    token = tokens.create("ann")
    with any_workspace.read() as connection:
        access = access_for(Settings(), "0.0.0.0", token_hashes(connection))
        stored = str(connection.execute(select(tokens_table)).all())
    assert token not in stored
    assert access.allows(f"Bearer {token}")
    assert access.allows(f"bearer  {token} ")
    for wrong in (None, "", token, f"Basic {token}", f"Bearer {token}x", "Bearer ", "Bearer é"):
        assert not access.allows(wrong)
    tokens.revoke("ann")
    tokens.revoke("ann")
    with any_workspace.read() as connection:
        assert not access_for(Settings(), "0.0.0.0", token_hashes(connection)).allows(f"Bearer {token}")
    (record,) = tokens.list()
    assert record.revoked_at is not None
    assert record.created_by == "tester"


def test_a_token_has_a_name_of_its_own(workspace: Workspace) -> None:
    tokens = Tokens(workspace)
    tokens.create("ann")
    with pytest.raises(ConflictError, match="already a token 'ann'"):
        tokens.create("ann")
    with pytest.raises(InvalidInputError):
        tokens.create(" ")
    with pytest.raises(NotFoundError, match="Did you mean 'ann'"):
        tokens.revoke("anna")


def test_beyond_loopback_nothing_is_bound_without_a_token() -> None:
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        with pytest.raises(RefusedError, match="trimtab token create"):
            check_binding(host, access_for(Settings(), host, ()))
        check_binding(host, access_for(Settings(token="secret"), host, ()))
    for host in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"):
        assert is_loopback(host)
        check_binding(host, access_for(Settings(), host, ()))


def test_on_loopback_a_token_is_demanded_only_if_the_settings_name_one() -> None:
    assert access_for(Settings(), "127.0.0.1", ["00"]).allows(None)
    access = access_for(Settings(token="secret"), "127.0.0.1", ())
    access.check("Bearer secret")
    with pytest.raises(UnauthorizedError, match="wants a token"):
        access.check(None)
    with pytest.raises(UnauthorizedError, match="not known"):
        access.check("Bearer other")
