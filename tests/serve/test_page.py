"""Tests of the web page in a browser: upload, keyboard, phone size, access token and errors."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser import Browser, browser, chromium  # noqa: F401
from tests.serve.running import Server, make_image, serving

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    for number in range(6):
        make_image(number, 80, 120, number % 3).save(folder / f"{number}.jpg")
    return folder


@pytest.fixture
def shown(browser: Browser, model: Path, folder: Path) -> Iterator[Server]:  # noqa: F811
    """A server with samples and its page in the browser, which must log no errors."""
    with serving(model, "--samples", str(folder)) as running:
        browser.get(f"http://127.0.0.1:{running.port}")
        browser.wait_for("3 classes (blue, green, red)")
        yield running
        problems = browser.get_log("browser")
        assert not problems, problems


def wait_for_heat_map(browser: Browser) -> None:  # noqa: F811
    """Wait until the heat map is shown."""
    script = "const map = document.getElementById('overlay'); return map.src && map.complete && map.naturalWidth > 0"
    WebDriverWait(browser, 30).until(lambda _: browser.execute_script(script))


def test_an_uploaded_image_is_classified_and_explained(browser: Browser, shown: Server, folder: Path) -> None:  # noqa: F811
    browser.find_element(By.ID, "file").send_keys(str(folder / "0.jpg"))
    wait_for_heat_map(browser)
    expected = shown.ask(body=(folder / "0.jpg").read_bytes(), kind="image/jpeg").json
    assert browser.find_element(By.ID, "prediction").text == expected["class"] == "red"
    bars = browser.find_elements(By.CSS_SELECTOR, "#bars li")
    assert [bar.text.split("\n")[0] for bar in bars] == sorted(
        expected["probabilities"], key=expected["probabilities"].get, reverse=True
    )
    widths = [bar.find_element(By.CSS_SELECTOR, ".track span").rect["width"] for bar in bars]
    assert widths == sorted(widths, reverse=True) and widths[0] > 2 * widths[1]
    assert browser.find_element(By.ID, "uncertain").is_displayed() is (not expected["confident"])
    assert "red" in browser.find_element(By.ID, "status").get_attribute("textContent"), "announced by screen readers"
    assert browser.find_element(By.ID, "overlay").get_attribute("alt").startswith("Heat map")


def test_a_sample_by_keyboard_on_a_phone(browser: Browser, shown: Server) -> None:  # noqa: F811
    metrics = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for _ in range(3):  # file input, first example, second example
        ActionChains(browser).send_keys(Keys.TAB).perform()
    assert browser.switch_to.active_element.accessible_name == "Example 2"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    wait_for_heat_map(browser)
    assert browser.find_element(By.ID, "prediction").text == "green"
    wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wider) <= 0
    for page in ("", "docs"):
        browser.get(f"http://127.0.0.1:{shown.port}/{page}")
        assert browser.execute_script(wider) <= 0, page


def test_errors_are_shown_and_nothing_is_loaded_from_other_hosts(
    browser: Browser,  # noqa: F811
    model: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "a.png").write_bytes(b"not an image")
    with serving(model, PROJECT_TOKEN="s3cret") as running:
        browser.get(f"http://127.0.0.1:{running.port}")
        assert not browser.find_element(By.ID, "samples").is_displayed()
        browser.find_element(By.ID, "file").send_keys(str(tmp_path / "a.png"))
        browser.wait_for("requires an access token")
        WebDriverWait(browser, 10).until(lambda _: browser.switch_to.active_element.get_attribute("id") == "secret")
        browser.switch_to.active_element.send_keys("s3cret", Keys.ENTER)
        browser.wait_for("Cannot read the file: not an image.")
        names = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert names and all(name.startswith((f"http://127.0.0.1:{running.port}/", "blob:")) for name in names)
        policy = running.ask("/").headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")


def test_the_prediction_stays_if_the_heat_map_fails(browser: Browser, model: Path, folder: Path) -> None:  # noqa: F811
    with serving(model) as running:
        browser.get(f"http://127.0.0.1:{running.port}")
        browser.execute_cdp_cmd("Network.enable", {})
        browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*attribution=true*"]})
        browser.find_element(By.ID, "file").send_keys(str(folder / "0.jpg"))
        browser.wait_for("The heat map could not be computed.")
        assert browser.find_element(By.ID, "prediction").text == "red"
        assert not browser.find_element(By.ID, "error").is_displayed()
