"""Tests of the report in a browser, on desktop and phone screens."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from project.callbacks.test_summary import as_text
from project.cli import main
from project.interface import ImageInput
from tests.browser import Browser, browser, chromium  # noqa: F401
from tests.report.made import made_run

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def chrome(browser: Browser) -> Iterator[Browser]:  # noqa: F811
    """A browser without network access that fails the test on console errors."""
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["http://*", "https://*"]})
    yield browser
    problems = browser.get_log("browser")
    assert not problems, problems


def show(chrome: Browser, page: Path, width: int = 1280) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 800}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    chrome.get(page.resolve().as_uri())


def overflow(chrome: Browser) -> int:
    """Return the number of pixels by which the page is wider than the screen."""
    script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(chrome.execute_script(script))


def column(chrome: Browser, number: int) -> list[str]:
    cells = chrome.find_elements(By.CSS_SELECTOR, f"#classes tbody tr > :nth-child({number})")
    return [cell.text for cell in cells]


@pytest.fixture
def run(here: Path) -> Path:
    """A run with twelve classes, sample images and a long class name."""
    import torch

    pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8).numpy()
    image = as_text(ImageInput(32, 32).render(pixels))["image"]
    run = made_run(here / "logs" / "run" / "version_0", 12, 1200)
    facts: dict[str, Any] = json.loads((run / "test.json").read_text())
    paths = [f"class {number % 12:03d}/{number:06d}.jpg" for number in range(12)]
    facts["samples"] = {
        kind: [{"path": path, "image": image} for path in paths] for kind in ("mistakes", "uncertain", "sample")
    }
    long = "a class with a name that is far too long for any table or phone to hold in one line"
    for file, text in {
        "test.json": json.dumps(facts),
        "test_predictions.csv": (run / "test_predictions.csv").read_text(),
    }.items():
        (run / file).write_text(text.replace("class 003", long))
    main(["report", str(run)])
    return run


def test_column_headings_sort(chrome: Browser, run: Path) -> None:
    show(chrome, run / "report.html")
    chrome.wait_for("Misclassified images")
    recall = chrome.find_element(By.XPATH, "//table[@id='classes']//button[.='recall']")
    for order, reverse in (("ascending", False), ("descending", True)):
        recall.click()
        values = [float(cell.split()[0]) for cell in column(chrome, 5)]
        assert len(values) == 12 and values == sorted(values, reverse=reverse)
        assert recall.find_element(By.XPATH, "..").get_attribute("aria-sort") == order
    chrome.find_element(By.XPATH, "//table[@id='classes']//button[.='class']").click()
    assert column(chrome, 1)[0].startswith("a class with") and column(chrome, 1)[1:] == sorted(column(chrome, 1)[1:])


def test_pages_fit_the_screen_width(chrome: Browser, run: Path, here: Path) -> None:
    other = made_run(here / "another run with a long name", 12, 1200, 0.7)
    many = made_run(here / "many", 1000, 5000)
    main(["report", str(run), str(other)])
    main(["report", str(many)])
    for page in (run / "report.html", here / "comparison.html", many / "report.html"):
        for width in (320, 390, 1280):
            show(chrome, page, width)
            assert overflow(chrome) <= 0, (page, width)


def test_images_are_large_enough_and_have_alt_text(chrome: Browser, run: Path) -> None:
    for width in (375, 1280):
        show(chrome, run / "report.html", width)
        images = chrome.find_elements(By.CSS_SELECTOR, ".images img")
        assert len(images) == 36
        assert all(image.size["width"] >= 100 and image.get_attribute("alt") for image in images)
        loaded = "return [...document.images].every(image => image.complete && image.naturalWidth > 0)"
        assert chrome.execute_script(loaded)
    charts = chrome.find_elements(By.CSS_SELECTOR, "svg[role=img]")
    assert charts and all(chart.accessible_name for chart in charts)


def test_nothing_is_loaded_from_the_network(chrome: Browser, run: Path) -> None:
    show(chrome, run / "report.html")
    loaded = chrome.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert not [name for name in loaded if not name.startswith("data:")]
    links = chrome.find_elements(By.CSS_SELECTOR, "[src], [href]")
    assert all((link.get_attribute("src") or link.get_attribute("href")).startswith("data:") for link in links)


def test_contrast_in_light_and_dark_mode(chrome: Browser, run: Path) -> None:
    show(chrome, run / "report.html")
    script = """
        const level = color => {
            const parts = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
                .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
            return .2126 * parts[0] + .7152 * parts[1] + .0722 * parts[2];
        };
        const background = level(getComputedStyle(document.documentElement).backgroundColor);
        return [".lead", ".muted", "thead th", "tbody td", "figcaption", ".tiles dt", ".tiles dd"].map(name => {
            const text = level(getComputedStyle(document.querySelector(name)).color);
            return (Math.max(text, background) + .05) / (Math.min(text, background) + .05);
        });
    """
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        assert min(chrome.execute_script(script)) >= 4.5, "contrast required by WCAG AA"
