"""The report page in headless Chromium: what it drew, what it said on the console, how its tables sort."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)

# The page stands in a frame of the width in question; its errors are counted before any of its own scripts runs.
_LISTEN = """<script>
addEventListener("error", (event) => parent.failures.push(String(event.message)));
for (const name of ["error", "warn"]) console[name] = (...parts) => parent.failures.push(parts.join(" "));
</script>"""
_HARNESS = Path(__file__).parent / "data" / "look_at_page.html"


def look_at(page: Path, *, width: int, folder: Path) -> dict[str, Any]:
    """Load a page at a width in pixels and tell what is seen there."""
    assert CHROMIUM is not None
    text = page.read_text(encoding="utf-8").replace("<head>", f"<head>{_LISTEN}", 1)
    shown = json.dumps(text).replace("<", "\\u003c")
    harness = folder / f"look-{width}.html"
    harness.write_text(
        _HARNESS.read_text(encoding="utf-8").replace("WIDTH", str(width)).replace("PAGE", shown), encoding="utf-8"
    )
    told = subprocess.run(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=1500,1000",
            "--virtual-time-budget=20000",
            "--dump-dom",
            harness.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', told.stdout, re.DOTALL)
    assert found is not None, told.stderr[-2000:]
    looked: dict[str, Any] = json.loads(html.unescape(found[1]))
    return looked
