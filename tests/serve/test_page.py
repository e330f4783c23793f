"""The page as a person meets it: in a browser, by keyboard, on a phone, with a token."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser import Browser, browser  # noqa: F401
from tests.serve.running import Server, picture, serving

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "samples"
    folder.mkdir()
    for number in range(6):
        picture(number, 80, 120, number % 3).save(folder / f"{number}.jpg")
    return folder


@pytest.fixture
def shown(browser: Browser, model: Path, folder: Path) -> Iterator[Server]:  # noqa: F811
    """A server with samples, its page in the browser, which must complain of nothing."""
    with serving(model, "--samples", str(folder)) as running:
        browser.get(f"http://127.0.0.1:{running.port}")
        browser.wait_for("3 classes apart: blue, green, red")
        yield running
        problems = browser.get_log("browser")
        assert not problems, problems


def explained(browser: Browser) -> None:  # noqa: F811
    """Wait for the heat map."""
    script = "const map = document.getElementById('overlay'); return map.src && map.complete && map.naturalWidth > 0"
    WebDriverWait(browser, 30).until(lambda _: browser.execute_script(script))


def test_a_chosen_picture_is_classified_and_explained(browser: Browser, shown: Server, folder: Path) -> None:  # noqa: F811
    browser.find_element(By.ID, "file").send_keys(str(folder / "0.jpg"))
    explained(browser)
    wanted = shown.ask(body=(folder / "0.jpg").read_bytes(), kind="image/jpeg").json
    assert browser.find_element(By.ID, "verdict").text == wanted["class"] == "red"
    bars = browser.find_elements(By.CSS_SELECTOR, "#bars li")
    assert [bar.text.split("\n")[0] for bar in bars] == sorted(
        wanted["probabilities"], key=wanted["probabilities"].get, reverse=True
    )
    widths = [bar.find_element(By.CSS_SELECTOR, ".track span").rect["width"] for bar in bars]
    assert widths == sorted(widths, reverse=True) and widths[0] > 2 * widths[1]
    assert browser.find_element(By.ID, "uncertain").is_displayed() is (not wanted["confident"])
    assert "red" in browser.find_element(By.ID, "status").get_attribute("textContent"), "told to who does not see it"
    assert browser.find_element(By.ID, "overlay").get_attribute("alt").startswith("Heat map")


def test_a_sample_by_keyboard_on_a_phone(browser: Browser, shown: Server) -> None:  # noqa: F811
    metrics = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for _ in range(3):  # the file, the first sample, the second
        ActionChains(browser).send_keys(Keys.TAB).perform()
    assert browser.switch_to.active_element.accessible_name == "Sample 2"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    explained(browser)
    assert browser.find_element(By.ID, "verdict").text == "green"
    wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wider) <= 0
    for page in ("", "docs"):
        browser.get(f"http://127.0.0.1:{shown.port}/{page}")
        assert browser.execute_script(wider) <= 0, page


def test_nothing_comes_from_elsewhere_and_what_is_no_picture_is_told(
    browser: Browser,  # noqa: F811
    model: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with serving(model, PROJECT_TOKEN="s3cret") as running:
        browser.get(f"http://127.0.0.1:{running.port}")
        assert not browser.find_element(By.ID, "samples").is_displayed()
        browser.find_element(By.ID, "file").send_keys(str(tmp_path / "a.png"))
        browser.wait_for("asks for a token")
        WebDriverWait(browser, 10).until(lambda _: browser.switch_to.active_element.get_attribute("id") == "secret")
        browser.switch_to.active_element.send_keys("s3cret", Keys.ENTER)
        browser.wait_for("Cannot read the picture: not an image.")
        names = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert names and all(name.startswith((f"http://127.0.0.1:{running.port}/", "blob:")) for name in names)
        policy = running.ask("/").headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")


def test_an_answer_stays_where_no_heat_map_comes(browser: Browser, model: Path, folder: Path) -> None:  # noqa: F811
    with serving(model) as running:
        browser.get(f"http://127.0.0.1:{running.port}")
        browser.execute_cdp_cmd("Network.enable", {})
        browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*attribution=true*"]})
        browser.find_element(By.ID, "file").send_keys(str(folder / "0.jpg"))
        browser.wait_for("What it rests on could not be found out.")
        assert browser.find_element(By.ID, "verdict").text == "red"
        assert not browser.find_element(By.ID, "error").is_displayed()
