"""A headless browser for tests of web pages."""

import shutil
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.support.ui import WebDriverWait


class Browser(Chrome):
    """Headless Chromium that reads the text of a page, including shadow DOM."""

    def text(self) -> str:
        """Return the text of the page."""
        script = """
            const inside = node => [...(node.shadowRoot?.childNodes ?? []), ...node.childNodes];
            const read = node => node.nodeType === 3 ? node.data :
                ["SCRIPT", "STYLE"].includes(node.nodeName) ? "" : inside(node).map(read).join(" ");
            return read(document.body);
        """
        return str(self.execute_script(script))

    def wait_for(self, words: str, seconds: float = 30) -> None:
        """Wait until the page contains this text."""
        WebDriverWait(self, seconds).until(lambda _: words in self.text(), f"the page does not contain {words!r}")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser of a test module, which imports this fixture, too."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not installed")
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    with Browser(options=options, service=ChromeService(driver)) as chrome:
        yield chrome


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """A new tab, without the settings of earlier tests."""
    first = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    chromium.set_window_size(1280, 900)
    chromium.get_log("browser")  # discards earlier messages
    yield chromium
    chromium.close()
    chromium.switch_to.window(first)
