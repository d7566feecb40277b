"""The interactive documentation of the local run in a real browser, and what browsers of other origins may do."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from subprocess import DEVNULL, PIPE, Popen

import httpx
import pytest

from tests.conftest import LocalRun

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
FLAGS += ["disable-component-update", "disable-sync", "window-size=1280,1600"]


class Browser:
    """Chromium, over the WebDriver protocol (https://www.w3.org/TR/webdriver2)."""

    def __init__(self, driver: str, profile: object) -> None:
        self._http = httpx.Client(base_url=driver, timeout=60)
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "timeouts": {"implicit": 20_000}}
        self._session = ""
        self._session = f"/session/{self.ask('/session', capabilities={'alwaysMatch': wanted})['sessionId']}"

    def ask(self, path: str, **body: object) -> dict[str, str]:
        response = self._http.post(self._session + path, json=body)
        assert response.is_success, response.text
        value: dict[str, str] = response.json()["value"]
        return value

    def close(self) -> None:
        self._http.delete(self._session).raise_for_status()
        self._http.close()

    def find(self, css: str) -> str:
        """Wait for an element and return its path."""
        (found,) = self.ask("/element", using="css selector", value=css).values()
        return f"/element/{found}"

    def click(self, css: str) -> None:
        self.ask(f"{self.find(css)}/click")

    def read(self, css: str) -> str:
        return str(self._http.get(f"{self._session}{self.find(css)}/text").json()["value"])

    def run(self, script: str, *args: str) -> object:
        """Run a script and return its result, or that of its promise."""
        value: object = self.ask("/execute/sync", script=script, args=args)
        return value


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser with a new profile."""
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


# ---- the documentation


def try_out(browser: Browser, operation: str, id: str | None = None) -> tuple[str, str]:
    """Execute an operation with its example body; return the status and the body that the page shows."""
    block = f"#operations-incidents-{operation}"
    browser.click(f"{block} .opblock-summary-control")
    browser.click(f"{block} .try-out__btn")
    if id:
        browser.ask(f"{browser.find(f'{block} tr[data-param-name=id] input')}/value", text=id)
    browser.click(f"{block} .execute")
    response = f"{block} .live-responses-table tr.response"
    return browser.read(f"{response} .response-col_status"), browser.read(f"{response} .highlight-code code")


@pytest.mark.slow
def test_try_it_out_creates_and_updates_incidents_without_internet(browser: Browser, api: httpx.Client) -> None:
    browser.ask("/url", url=f"{api.base_url}/docs")
    status, body = try_out(browser, "create_incident")
    (created,) = api.get("/incidents").json()
    assert (status.split()[0], json.loads(body)) == ("201", created)

    status, body = try_out(browser, "update_incident", created["id"])
    changed = api.get(f"/incidents/{created['id']}").json()
    assert (status.split()[0], json.loads(body)) == ("200", changed)
    assert changed["status"] == "in_progress"

    loaded = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert isinstance(loaded, list)
    assert f"{api.base_url}/openapi.json" in loaded
    assert [url for url in loaded if not url.startswith((f"{api.base_url}/", "data:"))] == []


@pytest.mark.slow
def test_the_page_fits_a_phone(browser: Browser, api: httpx.Client) -> None:
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


def test_the_root_redirects_to_the_page(api: httpx.Client) -> None:
    response = api.get("/")
    assert (response.status_code, response.headers["Location"]) == (302, "/docs")
    assert api.get("/docs").status_code == 200


def test_the_local_document_needs_no_access_key(api: httpx.Client) -> None:
    response = api.get("/openapi.json")
    document = response.json()
    assert response.headers["Content-Type"] == "application/json"
    assert [server["url"] for server in document["servers"]] == ["/"]
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert not any("security" in each for each in (document, *operations))
    assert "On AWS, every request needs an access key" in document["info"]["description"]
    assert api.post("/docs").status_code == 404


# ---- pages of other origins

PREFLIGHT = {"Origin": "https://ops.example", "Access-Control-Request-Method": "PATCH"}


def test_only_allowed_origins_get_cors_headers(run_local: Callable[..., LocalRun]) -> None:
    api = run_local("--parameters", "AllowedOrigins=https://Ops.example").client
    response = api.options("/incidents/9999", headers=PREFLIGHT)
    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (204, "https://ops.example")
    assert response.headers["Vary"] == "Origin"  # else a cache would give another origin this response
    assert response.headers["Access-Control-Allow-Methods"] == "GET,POST,PATCH"
    # Pages can read the gateway's own errors, too.
    assert api.get("/nothing", headers=PREFLIGHT).headers["Access-Control-Allow-Origin"] == "https://ops.example"
    elsewhere = api.options("/incidents", headers=PREFLIGHT | {"Origin": "https://elsewhere.example"})
    assert not any(name.startswith("access-control") for name in elsewhere.headers)


def test_by_default_there_are_no_cors_headers(api: httpx.Client) -> None:
    assert api.options("/incidents", headers=PREFLIGHT).status_code == 404
    assert not any(name.startswith("access-control") for name in api.get("/incidents", headers=PREFLIGHT).headers)


def test_links_and_locations_keep_the_base_path(run_local: Callable[..., LocalRun]) -> None:
    domain = "DomainName=api.example CertificateArn=arn:aws:acm:eu-central-1:123456789012:certificate/1"
    api = run_local("--parameters", f"{domain} BasePath=v1").client
    assert str(api.base_url).endswith("/v1/")
    created = [api.post("/incidents/", json={"description": "x", "source": "partner"}) for _ in range(2)]
    location = created[0].headers["Location"]
    assert location == f"/v1/incidents/{created[0].json()['id']}"
    following = api.get("/incidents?limit=1").links["next"]["url"]
    assert api.get(following).json() == [created[0].json()]
    for path, status in {location: 200, "/incidents": 404, "/v1": 404, "/v11/incidents": 404}.items():
        assert api.get(api.base_url.join(path)).status_code == status, path
