"""The report in a real browser: nothing leaves the page, everything is drawn, hostile text is only text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from report_kit import EVIL, Made, closed, hostile_run, make, open_book

from pipeline.report.theme import DARK, LIGHT

pytestmark = [
    pytest.mark.heavy,  # where there is a browser, it takes as long as a tenth of the fast tests
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM} on this machine"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = hostile_run(tmp_path_factory.mktemp("hostile"))
    made.report()
    made.overview()
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture(params=["report", "overview"])
def page(request: pytest.FixtureRequest, made: Made) -> Path:
    return made.paths.report_html if request.param == "report" else made.run.index_html


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_asked_for_and_nothing_complains(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.requests == [page.absolute().as_uri()]
    assert browser.messages == []
    assert browser.run("document.documentElement.scrollWidth") <= width, "the page itself must not scroll sideways"
    assert browser.run("getComputedStyle(document.body).backgroundColor") == rgb((DARK if dark else LIGHT)["paper"])


def test_the_policy_stops_what_should_get_in(browser: Browser, page: Path, tmp_path: Path) -> None:
    """Had an answer escaped its quotation, it could still neither run nor load anything."""
    broken = tmp_path / "broken.html"
    evil = (
        "<script>document.title = 'OWNED'</script>"
        "<img src='https://evil.example/x.png' onerror=\"document.title = 'OWNED'\">"
    )
    broken.write_text(page.read_text().replace("<main", f"{evil}<main"))
    browser.open(broken)
    assert browser.run("document.title") != "OWNED"
    assert browser.requests == [broken.absolute().as_uri()]
    assert browser.blocked == ["https://evil.example/x.png"]
    assert any("Content Security Policy" in message for message in browser.messages)


def test_all_figures_are_drawn(browser: Browser, page: Path) -> None:
    browser.open(page)
    figures: list[dict[str, Any]] = browser.run(
        """[...document.querySelectorAll('figure.drawing')].map(f => {
             const svg = f.querySelector('svg'), box = svg.getBoundingClientRect();
             const marks = [...svg.querySelectorAll('path, use, text')].filter(m => m.getBoundingClientRect().width);
             const texts = [...svg.querySelectorAll('text')].map(t => getComputedStyle(t).fill);
             return {width: box.width, height: box.height, marks: marks.length, texts: texts.length,
                     colours: [...new Set(texts)], rows: f.querySelectorAll('tbody tr').length}})"""
    )
    assert figures
    for figure in figures:
        assert figure["width"] > 400
        assert figure["height"] > 100
        assert figure["marks"] > 10
        assert figure["texts"] > 3
        assert figure["rows"] > 0
        assert set(figure["colours"]) <= {rgb(colour) for colour in LIGHT.values()}


@pytest.mark.parametrize("width", [1280, 400])
def test_no_label_is_cut_off(browser: Browser, tmp_path: Path, width: int) -> None:
    """Names of trials stuck out of the figure on the left, where nobody can scroll to."""
    made = make(
        tmp_path,
        items=[
            *map(closed, range(8)),
            *(open_book(n, dataset=f"a_data_set_with_a_long_name_{n % 2}") for n in range(8)),
        ],
        models=("lab/llama-v3p1-8b-instruct-and-more",),
        treatments=("treatment", "another_very_long_treatment_na"),
        temperatures=(0, 0.7),
    )
    made.report()
    made.overview()
    for page in (made.paths.report_html, made.run.index_html):
        browser.open(page, width=width)
        browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        cut = browser.run(
            """[...document.querySelectorAll('figure.drawing')].flatMap(f => {
                 const box = f.querySelector('svg').getBoundingClientRect();
                 return [...f.querySelectorAll('svg text')].filter(t => {
                   const r = t.getBoundingClientRect();
                   return r.left < box.left - 1 || r.right > box.right + 1}).map(t => t.textContent)})"""
        )
        assert cut == [], page.name


def test_hostile_answers_are_text(browser: Browser, made: Made) -> None:
    browser.open(made.paths.report_html)
    shown: list[str] = browser.run("[...document.querySelectorAll('pre')].map(p => p.textContent)")
    for payload in EVIL[:5]:
        assert any(payload in text for text in shown)
    tags: list[str] = browser.run("[...new Set([...document.querySelectorAll('*')].map(e => e.localName))]")
    assert not {"script", "img", "iframe", "object", "embed", "form", "base", "h4", "image"} & set(tags)
    assert browser.run("document.querySelectorAll('h1').length") == 1
    links: list[str] = browser.run("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert all(link.startswith("#") for link in links)


def test_the_keyboard_reaches_everything(browser: Browser, made: Made) -> None:
    browser.open(made.paths.report_html)
    reached = []
    for _ in range(40):
        for kind in ("rawKeyDown", "keyUp"):
            browser.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(browser.run("document.activeElement.localName"))
    assert reached[0] == "a", "the first stop skips to the content"
    assert {"a", "summary", "div"} <= set(reached)
    scrolled = browser.run("document.querySelectorAll('.scroll:not([tabindex]), pre:not([tabindex])').length")
    assert scrolled == 0, "what scrolls can be scrolled by keyboard"


def test_it_prints(browser: Browser, made: Made) -> None:
    browser.open(made.paths.report_html, dark=True)
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF")
    browser.send("Emulation.setEmulatedMedia", media="print")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == rgb(LIGHT["paper"])
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    browser.send("Emulation.setEmulatedMedia", media="")


def test_figures_stand_alone(browser: Browser, made: Made) -> None:
    for path in sorted(made.paths.figures.iterdir()):
        browser.open(path, dark=True)
        assert browser.requests == [path.absolute().as_uri()]
        assert browser.messages == []
        assert browser.run("getComputedStyle(document.querySelector('text')).fill") in {rgb(c) for c in DARK.values()}


def rgb(colour: str) -> str:
    """#0b5c8a as the browser names it."""
    return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"
