"""The written report: complete, self-contained, escaped, repeatable, and whole when parts are missing."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from advntk_dist.errors import RequestError
from advntk_dist.report import (
    Examples,
    KernelSpectrum,
    ReportInputs,
    TrainingHistory,
    extremes_of,
    write_report,
)
from advntk_dist.report.image_plots import examples_figure
from advntk_dist.report.run_plots import varpi_figure
from advntk_dist.report.style import DARK
from advntk_dist.report.write import NAMES, make_plots, render_page
from advntk_dist.results import schema, sealed
from tests.stored_results import under_one_attack
from tests.undrawn import drawn

Make = Callable[..., ReportInputs]


class Page(HTMLParser):
    """Tags with their attributes, text, and which tags are open too long or closed too often."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text, self.open, self.cells = "", list[str](), list[str]()
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in {"meta", "link", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in {"code", "td"}:
            self.cells.append(data)


def shown(inputs: ReportInputs) -> str:
    return render_page(inputs, make_plots(inputs))


def leaves(values: object) -> list[object]:
    if isinstance(values, dict):
        return [leaf for value in values.values() for leaf in leaves(value)]
    if isinstance(values, list):
        return [leaf for value in values for leaf in leaves(value)]
    return [values]


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / "report.html").read_text(encoding="utf-8"))


def test_every_value_of_results_is_in_the_text(page: Page, results: dict[str, Any]) -> None:
    # The rows of the nested table: a path, then its value.
    first = page.cells.index("dataset")
    rows = dict(zip(page.cells[first::2], page.cells[first + 1 :: 2], strict=True))
    found = [value for text in rows.values() for value in re.findall(r'[^\s\[\],"]+', text)]
    run = schema.RunResults.model_validate(results)
    expected = [leaf if isinstance(leaf, str) else json.dumps(leaf) for leaf in leaves(sealed.plain(run))]
    assert found == expected
    assert rows["methods.early_stopped.robust"] == "0.3903420523138833"
    assert rows["solver.passes.train"] == "812"


def test_differences_on_the_same_images_are_a_table(page: Page) -> None:
    assert "Adv-NTK − Early-stopped NTK" in page.text
    row = page.text[page.text.index("Adv-NTK − Early-stopped NTK") :].split("\n")[0]
    assert row == "Adv-NTK − Early-stopped NTK+0.8−0.2 to +1.8−2.2−5.3 to +0.8"


def test_radii_and_stages_are_as_they_were_meant(page: Page, make: Make, results: dict[str, Any]) -> None:
    for stage in ("Gram matrix3.81 s", "Attacked test images41.7 s", "Early stopping, on validation images21.5 s"):
        assert stage in page.text
    assert "Total2 min 45 s100%" in page.text
    results["attack"] |= {"radius": 8 / 255}
    for method in results["worst_case"]["methods"].values():
        method["max_perturbation"] = 0.0313725508749485  # 8/255 through float32
    inputs = make(results=results, facts=(("Started", "2026-01-02 03:04 UTC"), ("Data fingerprint", "0123abcd")))
    source = shown(inputs)
    page = Page(source)
    assert page.cells.count("8/255") == 3
    assert "Started2026-01-02 03:04 UTC" in page.text.replace("\n", "")
    assert "Data fingerprint0123abcd" in page.text.replace("\n", "")
    assert "Chance: 10.1% (one answer for all, the largest of 10 classes)." in page.text
    assert 'class="warnings"' not in source


def test_warnings_stand_under_the_headline(make: Make, results: dict[str, Any]) -> None:
    results["methods"]["early_stopped"]["t"] = results["curve"]["times"][0]
    page = shown(make(results=results))
    assert (
        page.index("</h1>") < page.index("is the edge of the grid, its shortest") < page.index('aria-label="Summary"')
    )


def test_tags_are_balanced_and_the_doctype_comes_first(page: Page, written: Path) -> None:
    assert page.open == []
    assert (written / "report.html").read_bytes().startswith(b"<!DOCTYPE html>")


def test_nothing_outside_the_page_is_requested(page: Page, written: Path) -> None:
    links = []
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "form", "base", "video", "audio"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "srcset", "href", "xlink:href", "data", "poster", "action", "background"}:
                if tag == "a":
                    links.append(value)
                elif not (tag == "use" and value.startswith("#")):
                    assert value.startswith("data:"), f"<{tag} {name}={value[:60]}>"
    assert links == ["https://arxiv.org/abs/2310.06112"]
    source = (written / "report.html").read_text(encoding="utf-8")
    assert "@import" not in source
    assert source.count("url(") == source.count("url(#")
    policy = [
        a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_figures_are_the_files_beside_the_page_with_their_data(written: Path) -> None:
    source = (written / "report.html").read_text(encoding="utf-8")
    identifiers: list[str] = []
    for name in NAMES:
        svg = (written / f"{name}.svg").read_text(encoding="utf-8")
        assert svg in source
        root = ElementTree.fromstring(svg)  # a whole file of its own
        title = root.find("{http://www.w3.org/2000/svg}title")
        assert title is not None
        assert root.get("role") == "img"
        assert len(title.text or "") > 20
        assert "matplotlib" not in svg.lower()  # no version, no date
        assert not re.search(r"20\d\d-\d\d", svg)
        assert svg.count("font-family: 'DejaVu Sans'") == svg.count("<text ")
        drawn_in = set(re.findall(r"(?:fill|stroke): (#\w+)", re.sub(r"(?s)<style>.*?</style>", "", svg)))
        assert drawn_in <= set(DARK), "colours that stay as they are on a dark page"
        identifiers += re.findall(r' id="([^"]*)"', svg)
        with (written / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            assert list(csv.DictReader(file))
    assert len(set(identifiers)) == len(identifiers), "figures of one page share identifiers"


def test_the_data_of_the_figures_are_those_of_the_run(make: Make, written: Path) -> None:
    def column(name: str, key: str) -> list[float]:
        with (written / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            return [float(row[key]) for row in csv.DictReader(file)]

    inputs = make()
    curve, limit = inputs.results.curve, inputs.results.methods["ntk"]
    assert column("degeneration", "robust") == [*(row.robust for row in curve.test), limit.robust]
    assert column("degeneration", "t") == [*curve.times, np.inf]
    assert (column("degeneration", "clean_low")[-1], column("degeneration", "clean_high")[-1]) == limit.clean_interval
    assert column("training", "loss") == list(inputs.training.loss)
    assert column("varpi", "varpi") == list(np.asarray(inputs.varpi))
    assert column("spectrum", "eigenvalue") == list(inputs.spectrum.eigenvalues)
    assert column("methods", "robust_low") == [m.robust_interval[0] for m in inputs.results.methods.values()]
    assert len(column("examples", "largest_difference")) == 6
    assert len(column("extremes", "varpi")) == 20


def test_page_says_how_to_cite_and_repeat(page: Page) -> None:
    assert "varpi" not in page.text[: page.text.index("Repeat this run")]
    for words in ("advntk run config.toml", "n_train = 1000", "Fu, Shaopeng and Wang, Di", "2310.06112", "ICLR 2024"):
        assert words in page.text


def test_rerun_changes_nothing_and_repairs_what_was_changed(
    make: Make, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make()
    with drawn():
        plots = make_plots(inputs)
    monkeypatch.setattr("advntk_dist.report.write.make_plots", lambda _: plots)
    write_report(inputs, tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == sorted(["report.html", *(f"{name}.{ending}" for name in NAMES for ending in ("svg", "csv"))])
    for name in files:
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes(), name
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files if name != "varpi.svg"}
    (tmp_path / "varpi.svg").write_bytes(b"cut off")
    write_report(inputs, tmp_path)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
    assert (tmp_path / "varpi.svg").read_bytes() == (written / "varpi.svg").read_bytes()


@pytest.mark.parametrize(
    ("ends", "scale", "labels"),
    [
        ((4e-4, 7e-3), "log", ["0.0005", "0.001", "0.002", "0.005"]),
        ((1e-5, 1.0), "log", ["10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "10⁻¹", "10⁰"]),
        ((0.9, 1.1), "linear", ["0.0", "1.0"]),
        ((0.0, 1.0), "linear", ["0.0", "1.0"]),
        ((0.0, 0.0), "linear", ["0.0", "1.0"]),
    ],
)
def test_times_that_differ_much_have_a_log_axis(ends: tuple[float, float], scale: str, labels: list[str]) -> None:
    figure = varpi_figure(np.linspace(*ends, 500), np.arange(500) % 3, ("a", "b", "c"))
    axis = figure.axes[-1].xaxis
    figure.canvas.draw()
    low, high = figure.axes[-1].get_xlim()
    shown = [
        label.get_text()
        for place, label in zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
        if low <= place <= high
    ]
    assert axis.get_scale() == scale
    assert [text for text in shown if text] == shown
    assert set(labels) <= set(shown)


HOSTILE = '</pre></style><script>alert(1)</script><img src="http://192.0.2.1/x">&"\'{{ 7 * 7 }}$\\frac{1}'


def test_hostile_strings_stay_text(make: Make, results: dict[str, Any]) -> None:
    results |= {"dataset": HOSTILE, "network": HOSTILE, "environment": {HOSTILE: HOSTILE}}
    results["attack"] |= {"name": HOSTILE, "norm": HOSTILE}
    results["methods"][HOSTILE] = dict(results["methods"]["ntk"])
    results |= under_one_attack(results["attack"], results["methods"], results["paired"])
    results["seconds"][HOSTILE] = 3.0
    examples = make().examples
    inputs = make(
        results=results,
        config_toml=HOSTILE,
        classes=(HOSTILE, "鳥 two\nlines", "", *"3456789"),
        examples=replace(examples, method=HOSTILE),
    )
    with drawn():
        plots = make_plots(inputs)
    page = Page(render_page(inputs, plots))
    assert page.open == []
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert all(value.startswith("data:") for tag, a in page.tags for name, value in a.items() if name == "src")
    assert page.text.count(HOSTILE) > 10


def test_colour_images_extreme_curves_and_many_classes(make: Make, results: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    images = random.uniform(-0.5, 0.5, (9, 32, 32, 3)).astype(np.float32)
    twins = np.clip(images + 8 / 255 * random.choice([-1, 1], images.shape), -0.5, 0.5).astype(np.float32)
    labels = np.arange(9)
    one = np.array([0.3])
    inputs = make(
        results=results | {"curve": results["curve"] | {key: results["curve"][key][:1] for key in ("times", "test")}},
        training=TrainingHistory(one, one, one, one, one),
        varpi=np.zeros(300),
        y_train=np.arange(300) % 100,
        classes=tuple(f"class number {index}" for index in range(100)),
        examples=Examples(images, twins, labels, labels, (labels + 1) % 9, "adv_ntk"),
        extremes=extremes_of(images, np.linspace(0, 1e-3, 9), labels, count=3),
        spectrum=KernelSpectrum(np.array([5.0]), np.array([0.1]), 300),
    )
    with drawn():
        plots = make_plots(inputs)
    captions = {name: plot.caption for name, plot in plots.items()}
    assert set(captions) == set(NAMES)
    assert "the attack turns 9 of 9 right answers" in captions["examples"]
    assert "magnified 15.9 times;" in captions["examples"]
    assert "300 are never trained on" in captions["varpi"]
    assert "Over 1 step of Adv-NTK" in captions["training"]


def test_captions_of_the_digits_run(make: Make, page: Page) -> None:
    examples = make().examples
    fooled = int(np.sum(examples.predicted_adversarial != examples.labels))
    assert 0 < fooled == len(examples.labels)  # one step of 0.2 fools a linear predictor on each
    assert f"the attack turns {fooled} of {fooled} right answers" in page.text
    assert "magnified 2.5 times (orange: brighter, grey: darker)" in page.text
    assert "class 9 gets the longest times" in page.text
    figure = examples_figure(examples, tuple(f"is {n}" for n in range(10)))
    found = [text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"]
    assert found == [f"is {label}" for label in examples.labels], "the true class over each example"


def test_folder_that_cannot_be_written_is_one_clear_error(make: Make, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    inputs = make()
    with pytest.raises(RequestError, match=r"report: cannot write to .*/file/run: Not a directory; choose a folder"):
        write_report(inputs, blocked / "run")


def test_interrupted_write_leaves_the_old_page_whole(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report.html"
    target.write_text("the old page")
    real = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.name == "report.html":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    inputs = make()
    with pytest.raises(RequestError, match="No space left on device"):
        write_report(inputs, tmp_path)
    assert target.read_text() == "the old page"
    assert len(list(tmp_path.iterdir())) == 2 * len(NAMES) + 1
