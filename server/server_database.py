"""The database of a server's folder: opened as it is, never made anew.

`fedqana server init` makes it. Were an absent one made later, say because a disk is not mounted,
all sites would be unknown to it.
"""

from common.errors import DatabaseUnreachable
from server.history.engine import Database
from server.history.membership import Membership, open_membership
from server.history.store import History, open_history
from server.server_settings import ServerFolder


def open_members(folder: ServerFolder) -> Membership:
    """The members of a server; DatabaseUnreachable where its database is gone."""
    return open_membership(_url(folder), create=False)


def open_runs(folder: ServerFolder) -> History:
    """The runs of a server; DatabaseUnreachable where its database is gone."""
    return open_history(_url(folder), create=False)


def _url(folder: ServerFolder) -> str:
    url = folder.database_url()
    database = Database(url)
    try:
        if not database.exists():
            raise DatabaseUnreachable(
                f"this server's database {database.shown} is gone; mount its disk, or restore it "
                "from a backup"
            )
    finally:
        database.close()
    return url
