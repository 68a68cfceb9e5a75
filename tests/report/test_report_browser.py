"""The report in a real browser: figures follow the colour scheme, nothing overflows, no errors."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advntk_dist.report import ReportInputs, write_report
from advntk_dist.report.write import NAMES
from advntk_dist.results import schema, sealed
from advntk_dist.storage.paths import local
from tests.stored_results import check, tier
from tests.undrawn import drawn

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Runs in a copy of the page only; the copy's policy lets this one script in and stays strict otherwise.
PROBE = """<script>
const found = {errors: []};
addEventListener('error', e => found.errors.push(String(e.message || e.target.outerHTML).slice(0, 200)), true);
addEventListener('securitypolicyviolation', e => found.errors.push(e.violatedDirective + ' ' + e.blockedURI));
addEventListener('load', () => {  // fires after every picture has loaded or failed
  for (const d of document.querySelectorAll('details')) d.open = true;
  const figures = [...document.querySelectorAll('figure svg')];
  found.figures = figures.map(f => f.getBoundingClientRect().width);
  found.grounds = figures.map(f => getComputedStyle(f.querySelector('path')).fill);
  found.inks = figures.map(f => getComputedStyle(f.querySelector('text')).fill);
  found.named = figures.every(f => f.matches('[role=img]') && f.querySelector('title').textContent.length > 20);
  found.viewport = innerWidth;
  found.page = document.documentElement.scrollWidth;
  const clipped = e => e.closest('.scroll, pre') !== null;
  found.outside = [...document.body.querySelectorAll('*')]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5 && !clipped(e)).map(e => e.outerHTML.slice(0, 80));
  found.surface = getComputedStyle(document.querySelector('figure')).backgroundColor;
  parent.document.title = 'found ' + JSON.stringify(found);
});
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on this machine (Debian package: chromium)")
    return path


def _look(browser: str, page: Path, tmp_path: Path, width: int, scheme: str) -> dict[str, Any]:
    """Open a page in a frame of some width; what the probe found, once nothing overflows and no error was met."""
    source = page.read_text(encoding="utf-8")
    policy = "style-src 'unsafe-inline'"
    assert policy in source
    probed = source.replace(policy, f"{policy}; script-src 'unsafe-inline'", 1).replace("</head>", f"{PROBE}</head>", 1)
    # A frame, since no window of Chromium is narrower than 500 pixels.
    harness = tmp_path / "harness.html"
    harness.write_text(
        '<!DOCTYPE html><meta charset="utf-8"><style>:root { color-scheme: light dark; }</style>'
        f'<iframe width="{width}" height="900" style="border: 0" srcdoc="{html.escape(probed)}"></iframe>',
        encoding="utf-8",
    )
    command = [
        browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000", "--hide-scrollbars",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}", "--enable-logging=stderr",
        "--dump-dom", harness.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    title = re.search(r"<title>found (\{.*?\})</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stdout[:500] + done.stderr[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(title[1]))
    assert found["errors"] == []
    assert "CONSOLE" not in done.stderr
    assert found["viewport"] == width
    assert found["page"] <= width
    assert found["outside"] == []
    return found


@pytest.mark.parametrize(
    ("width", "scheme", "surface"),
    [(390, "light", "rgb(255, 255, 255)"), (390, "dark", "rgb(27, 30, 36)"), (1280, "light", "rgb(255, 255, 255)")],
)
def test_page_in_chromium(browser: str, written: Path, tmp_path: Path, width: int, scheme: str, surface: str) -> None:
    found = _look(browser, written / "report.html", tmp_path, width, scheme)
    assert len(found["figures"]) == len(NAMES)
    assert all(300 < shown <= width for shown in found["figures"])
    assert found["named"]
    assert set(found["grounds"]) == {surface} == {found["surface"]}
    assert len(found["inks"]) == len(NAMES)
    assert all((sum(map(int, re.findall(r"\d+", ink))) > 384) == (scheme == "dark") for ink in found["inks"])


@pytest.fixture(scope="module")
def examined(make: Callable[..., ReportInputs], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with warnings, a tier and checks."""
    folder = tmp_path_factory.mktemp("examined")
    full = tier(["apgd-ce", "apgd-dlr-targeted", "square"], {"adv_ntk": 0.4}, tier="full", images=999)
    value = "0: 92.0%, 0.05: 79.5%, 0.1: 61.5%, 0.2: 27.5%, 0.3: 2.0%, 0.4: 0.0%, 0.8: 0.0%, 1: 0.0%"
    checked = check(("accuracy falls to 0 as the radius grows", False, value, "is 0"))
    sealed.write(folder / "evaluation" / "full.json", schema.TierResults, full)
    sealed.write(folder / "check.json", schema.CheckResults, checked)
    inputs = make()
    methods = dict(inputs.results.methods)
    methods["early_stopped"] = methods["early_stopped"].model_copy(update={"t": inputs.results.curve.times[0]})
    with drawn():
        return local(write_report(make(results=inputs.results.model_copy(update={"methods": methods})), folder))


@pytest.mark.parametrize("width", [390, 1280])
def test_checks_tiers_and_warnings_in_chromium(browser: str, examined: Path, tmp_path: Path, width: int) -> None:
    page = examined.read_text(encoding="utf-8")
    assert all(f'class="{name}"' in page for name in ("warnings", "checks", "methods", "pairs"))
    assert len(_look(browser, examined, tmp_path, width, "light")["figures"]) == len(NAMES)


@pytest.mark.parametrize("width", [390, 1280])
def test_comparison_in_chromium(browser: str, compared: Path, tmp_path: Path, width: int) -> None:
    found = _look(browser, compared, tmp_path, width, "light")
    assert len(found["figures"]) == 1
