"""The interactive documentation of the local run, in a real browser."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

import httpx
import pytest

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
FLAGS += ["disable-component-update", "disable-sync", "window-size=1280,1600"]

TAB, ENTER = "\ue004", "\ue007"
"""Keys, as WebDriver names them."""


class Browser:
    """Chromium, over WebDriver's own protocol (https://www.w3.org/TR/webdriver2)."""

    def __init__(self, driver: str, profile: Path) -> None:
        self._http = httpx.Client(base_url=driver, timeout=60)
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"user-data-dir={profile}"]}
        asked = {"goog:chromeOptions": options, "timeouts": {"implicit": 20_000}}
        self._session = ""
        self._session = f"/session/{self.ask('/session', capabilities={'alwaysMatch': asked})['sessionId']}"

    def ask(self, path: str, **body: object) -> dict[str, str]:
        response = self._http.post(self._session + path, json=body)
        assert response.is_success, response.text
        value: dict[str, str] = response.json()["value"]
        return value

    def close(self) -> None:
        self._http.delete(self._session).raise_for_status()
        self._http.close()

    def find(self, css: str) -> str:
        """The path of an element, which is waited for."""
        (found,) = self.ask("/element", using="css selector", value=css).values()
        return f"/element/{found}"

    def click(self, css: str) -> None:
        self.ask(f"{self.find(css)}/click")

    def read(self, css: str) -> str:
        return str(self._http.get(f"{self._session}{self.find(css)}/text").json()["value"])

    def press(self, key: str) -> None:
        """Press a key and let it go, on whatever has the focus."""
        keys = [{"type": action, "value": key} for action in ("keyDown", "keyUp")]
        self.ask("/actions", actions=[{"type": "key", "id": "keyboard", "actions": keys}])

    def run(self, script: str) -> object:
        value: object = self.ask("/execute/sync", script=script, args=[])
        return value


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that has been nowhere."""
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("chromium and chromedriver are not installed (Debian: apt install chromium chromium-driver)")
    with Popen([CHROMEDRIVER, "--port=0"], stdout=PIPE, stderr=DEVNULL, text=True) as driver:
        try:
            assert driver.stdout
            port = next(found[1] for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line)))
            browser = Browser(f"http://127.0.0.1:{port}/", tmp_path_factory.mktemp("profile"))
            yield browser
            browser.close()
        finally:
            driver.terminate()


def try_out(browser: Browser, operation: str, id: str | None = None) -> tuple[str, str]:
    """Execute an operation with the body that its form suggests; return the status and the body that the page shows."""
    block = f"#operations-incidents-{operation}"
    browser.click(f"{block} .opblock-summary-control")
    browser.click(f"{block} .try-out__btn")
    if id:
        browser.ask(f"{browser.find(f'{block} tr[data-param-name=id] input')}/value", text=id)
    browser.click(f"{block} .execute")
    answer = f"{block} .live-responses-table tr.response"
    return browser.read(f"{answer} .response-col_status"), browser.read(f"{answer} .highlight-code code")


@pytest.mark.slow
def test_try_it_out_creates_and_updates_incidents(browser: Browser, api: httpx.Client) -> None:
    browser.ask("/url", url=f"{api.base_url}/docs")
    status, body = try_out(browser, "create_incident")
    (created,) = api.get("/incidents").json()
    assert (status.split()[0], json.loads(body)) == ("201", created)

    status, body = try_out(browser, "update_incident", created["id"])
    changed = api.get(f"/incidents/{created['id']}").json()
    assert (status.split()[0], json.loads(body)) == ("200", changed)
    assert changed["status"] == "in_progress"


@pytest.mark.slow
def test_the_page_is_usable_from_the_keyboard(browser: Browser, api: httpx.Client) -> None:
    browser.ask("/url", url=f"{api.base_url}/docs")
    block = "#operations-incidents-create_incident"
    for control in (".opblock-summary-control", ".try-out__btn", ".execute"):
        css = f"{block} {control}"
        browser.find(css)
        for _ in range(50):
            browser.press(TAB)
            if browser.run(f"return document.activeElement.matches({json.dumps(css)})"):
                break
        browser.press(ENTER)
    assert browser.read(f"{block} .live-responses-table tr.response .response-col_status").startswith("201")
    assert len(api.get("/incidents").json()) == 1


@pytest.mark.slow
def test_the_page_fits_a_telephone(browser: Browser, api: httpx.Client) -> None:
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.ask("/goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=screen)
    browser.ask("/url", url=f"{api.base_url}/docs")
    browser.read("#operations-incidents-list_incidents")
    operations = browser.run("return [...document.querySelectorAll('.opblock')].map(each => each.id)")
    assert isinstance(operations, list)
    for operation in operations:
        browser.click(f"#{operation} .opblock-summary-control")
        browser.read(f"#{operation} .responses-table")
        assert browser.run("return document.documentElement.scrollWidth") == 390


def test_the_root_leads_to_the_page(api: httpx.Client) -> None:
    response = api.get("/")
    assert (response.status_code, response.headers["Location"]) == (302, "/docs")
    assert api.get("/docs").status_code == 200


@pytest.mark.slow
def test_the_page_needs_no_network(browser: Browser, api: httpx.Client) -> None:
    browser.ask("/url", url=f"{api.base_url}/docs")
    browser.read("#operations-incidents-list_incidents")
    asked = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert isinstance(asked, list)
    assert f"{api.base_url}/openapi.json" in asked
    assert [url for url in asked if not url.startswith((f"{api.base_url}/", "data:"))] == []


def test_the_local_document_needs_no_access_key(api: httpx.Client) -> None:
    response = api.get("/openapi.json")
    document = response.json()
    assert response.headers["Content-Type"] == "application/json"
    assert [server["url"] for server in document["servers"]] == ["/"]
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert not any("security" in each for each in (document, *operations))
    assert "On AWS, every request needs an access key" in document["info"]["description"]
    assert api.post("/docs").status_code == 404
