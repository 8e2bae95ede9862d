"""browse: a store to look at in a browser."""

from __future__ import annotations

import webbrowser

from tilekv.browse.server import Browser
from tilekv.cli.options import Opening


def browse_store(uri: str, port: int, opened: bool, opening: Opening) -> int:
    """Serve read-only pages until it is interrupted; with `opened` in the user's browser, too.

    Returns
    -------
    int
        The exit code, 0: an interrupt is how it ends.
    """
    with opening.to_read(uri) as db, Browser(db, port) as server:
        print(server.url, flush=True)
        if opened:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
