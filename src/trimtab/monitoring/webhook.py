"""The webhook: posts alerts to the one URL that the settings name, at least once each, in order.

What was delivered is remembered as a position in the journal, so a process that dies between posting and
remembering posts one alert again, and none is lost. Receivers tell repetitions by the entry's number.
"""

from __future__ import annotations

import logging

import httpx
import msgspec
from sqlalchemy import func, select

from trimtab.digest import digest_json
from trimtab.monitoring.schema import deliveries_table as deliveries
from trimtab.store import journal
from trimtab.store.database import Transaction
from trimtab.store.journal import Entry
from trimtab.store.schema import journal_table
from trimtab.store.upsert import upsert
from trimtab.workspace import Workspace

TIMEOUT_SECONDS = 5.0
BATCH = 50

_log = logging.getLogger(__name__)


class Webhook:
    """Delivers alerts to the setting `webhook`; does nothing where it is not set.

    A URL is told of what happens after it was first seen here, not of all that ever was.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._url = workspace.settings.webhook
        self._channel = f"webhook {digest_json(self._url)}"

    def deliver(self) -> int:
        """Post what is due, and answer how much of it was taken; stops at the first failure, to go on from
        there next time. Called outside of any transaction."""
        if self._url is None:
            return 0
        delivered = 0
        with httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False, follow_redirects=False) as client:
            for entry in self._due():
                if not self._post(client, entry):
                    break
                self._remember(entry.seq)
                delivered += 1
        return delivered

    def _due(self) -> list[Entry]:
        with self._workspace.read() as connection:
            after = connection.execute(
                select(deliveries.c.delivered).where(deliveries.c.channel == self._channel)
            ).scalar_one_or_none()
            if after is not None:
                return list(journal.entries(connection, after=after, kind="alert", limit=BATCH))
            newest = connection.execute(select(func.max(journal_table.c.seq))).scalar_one() or 0
        self._remember(newest)
        return []

    def _post(self, client: httpx.Client, entry: Entry) -> bool:
        assert self._url is not None
        body = msgspec.json.encode(
            {
                "id": entry.seq,
                "event": entry.action,
                "alert": entry.name,
                "at": entry.at,
                "reason": entry.reason,
                "details": entry.details,
            }
        )
        try:
            response = client.post(self._url, content=body, headers={"Content-Type": "application/json"})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            _log.warning("the webhook could not be told of entry %s, and will be again: %s", entry.seq, error)
            return False
        if not response.is_success:
            _log.warning(
                "the webhook answered %s to entry %s, and will be told again", response.status_code, entry.seq
            )
        return response.is_success

    def _remember(self, seq: int) -> None:
        def work(tx: Transaction) -> None:
            upsert(
                tx,
                deliveries,
                [{"channel": self._channel, "delivered": seq}],
                keys=["channel"],
                where=lambda new: deliveries.c.delivered < new.delivered,
            )

        self._workspace.write(work)
