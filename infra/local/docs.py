"""The local run's interactive documentation: /docs, to which / redirects, and /openapi.json. The API on AWS has neither."""

import json
from importlib import resources
from pathlib import Path

from werkzeug.wrappers import Response

# Found through the parent package: importing this one takes a tenth of a second.
_UI = resources.files("aws_lambda_powertools") / "event_handler" / "openapi" / "swagger_ui"

_DOCUMENT = Path(__file__).parents[1] / "openapi.json"

_FILES = {
    "/docs/swagger-ui.css": ("swagger-ui.min.css", "text/css"),
    "/docs/swagger-ui.js": ("swagger-ui-bundle.min.js", "text/javascript"),
}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Incident API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<style>
  /* Swagger UI's tables are wider than a phone's screen. */
  @media (max-width: 640px) {
    .swagger-ui .wrapper { padding: 0 8px; }
    .swagger-ui .response-col_links { display: none; }
    .swagger-ui table.responses-table, .swagger-ui table.parameters { table-layout: fixed; }
    .swagger-ui .response-col_status, .swagger-ui .parameters-col_name { width: 25%; min-width: 0; overflow-wrap: anywhere; }
  }
</style>
<div id="docs"></div>
<script src="/docs/swagger-ui.js"></script>
<script>
  SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#docs",
    deepLinking: true,
    displayRequestDuration: true,
    validatorUrl: null,
  });
</script>
</html>
"""

# The page loads nothing from other hosts, even if a later Swagger UI tries.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src 'self' data:",
    "Cache-Control": "no-cache",
}


def page(path: str) -> Response | None:
    """The response to a GET of this path, or None if it is not part of the documentation."""
    if path == "/":
        return Response(status=302, headers={"Location": "/docs"})
    if path in ("/docs", "/docs/"):
        return Response(_PAGE, content_type="text/html; charset=utf-8", headers=_HEADERS)
    if path == "/openapi.json":
        return Response(_document(), content_type="application/json", headers=_HEADERS)
    if path in _FILES:
        name, content_type = _FILES[path]
        return Response((_UI / name).read_bytes(), content_type=content_type, headers=_HEADERS)
    return None


def _document() -> str:
    """The contract of the local run: of this origin, and without access keys."""
    document = json.loads(_DOCUMENT.read_text())
    del document["components"]["securitySchemes"]
    for methods in document["paths"].values():
        for operation in methods.values():
            del operation["security"]
    return json.dumps(document | {"servers": [{"url": "/", "description": "The local run"}]}, ensure_ascii=False)
