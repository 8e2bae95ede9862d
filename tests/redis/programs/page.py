"""The examples of docs/web.md, in their order, with the server's port: those of Django and Flask."""

import sys
from typing import Any

port, *blocks = sys.argv[1:]
for block in blocks:
    code = compile(block.replace(":6379", f":{port}"), "web.md", "exec")
    names: dict[str, Any] = {"__name__": "page"}
    exec(code, names)
    if "CACHES" in names:
        import django
        from django.conf import settings

        given = {name: value for name, value in names.items() if name.isupper()}
        settings.configure(
            SECRET_KEY="x", INSTALLED_APPS=["django.contrib.sessions"], USE_TZ=True, **given
        )
        django.setup()
