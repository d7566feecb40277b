"""The local run in a real browser: its interactive documentation, and a page of another origin."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import TYPE_CHECKING

import httpx
import pytest
from werkzeug.wrappers import Response

from tests.conftest import LocalRun

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

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

    def run(self, script: str, *args: str) -> object:
        """What a script returns; a promise is waited for."""
        value: object = self.ask("/execute/sync", script=script, args=args)
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


CONSOLE = """
    const api = arguments[0], json = {"Content-Type": "application/json"};
    const report = {description: "x", source: "operator"};
    const send = (path, method, body, headers) =>
        fetch(api + path, {method, headers: {...json, ...headers}, body: JSON.stringify(body)});
    return (async () => {
        const created = await send("/incidents", "POST", report, {"Idempotency-Key": "1", Authorization: "Bearer x"});
        const again = await send("/incidents", "POST", report, {"Idempotency-Key": "1"});
        await send("/incidents", "POST", report);
        const page = await fetch(api + "/incidents?limit=1");
        const next = page.headers.get("Link").match(/<(.*)>/)[1];
        const second = await (await fetch(new URL(next, page.url))).json();
        const etag = created.headers.get("ETag");
        const changed = await send(created.headers.get("Location"), "PATCH", {status: "closed"}, {"If-Match": etag});
        const unchanged = await fetch(api + created.headers.get("Location"),
            {headers: {"If-None-Match": changed.headers.get("ETag")}, cache: "no-store"});
        const {id, status} = await changed.json();
        return [again.headers.get("Idempotent-Replayed"), second[0].id === id, status, unchanged.status];
    })();
"""
"""What the page of a console would do, with every header of the contract."""


@pytest.fixture
def origin(serve: Callable[["WSGIApplication"], str]) -> str:
    """Another origin than the API's, with an empty page."""
    return serve(Response("<title>console</title>", content_type="text/html"))


@pytest.mark.slow
def test_a_page_of_an_allowed_origin_can_do_everything(
    browser: Browser, run_local: Callable[..., LocalRun], origin: str
) -> None:
    api = run_local("--parameters", f"AllowedOrigins=https://ops.example,{origin}").client
    browser.ask("/url", url=origin)
    assert browser.run(CONSOLE, str(api.base_url).rstrip("/")) == ["true", True, "closed", 304]


@pytest.mark.slow
@pytest.mark.parametrize("parameters", ["", "AllowedOrigins=https://ops.example"])
def test_a_page_of_another_origin_can_do_nothing(
    browser: Browser, run_local: Callable[..., LocalRun], origin: str, parameters: str
) -> None:
    api = run_local("--parameters", parameters).client
    browser.ask("/url", url=origin)
    refused = 'return fetch(arguments[0]).then(() => "read", () => "refused")'
    assert browser.run(refused, f"{api.base_url}incidents") == "refused"


PREFLIGHT = {"Origin": "https://ops.example", "Access-Control-Request-Method": "PATCH"}


def test_preflight_is_answered_for_allowed_origins_alone(run_local: Callable[..., LocalRun]) -> None:
    api = run_local("--parameters", "AllowedOrigins=https://ops.example").client
    response = api.options("/incidents/9999", headers=PREFLIGHT)
    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (204, "https://ops.example")
    assert response.headers["Access-Control-Allow-Methods"] == "GET,POST,PATCH"
    # The gateway's own errors can be read as well.
    assert api.get("/nothing", headers=PREFLIGHT).headers["Access-Control-Allow-Origin"] == "https://ops.example"
    elsewhere = api.options("/incidents", headers=PREFLIGHT | {"Origin": "https://elsewhere.example"})
    assert not any(name.startswith("access-control") for name in elsewhere.headers)


def test_without_allowed_origins_nothing_speaks_of_them(api: httpx.Client) -> None:
    assert api.options("/incidents", headers=PREFLIGHT).status_code == 404
    assert not any(name.startswith("access-control") for name in api.get("/incidents", headers=PREFLIGHT).headers)


def test_below_a_base_path_links_and_locations_keep_it(run_local: Callable[..., LocalRun]) -> None:
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
