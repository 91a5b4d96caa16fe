"""The notebooks as people use them: in JupyterLab, Run All Cells; its document is read, not the page.

Skipped where there is no browser, but not with SYNPREP_BROWSER=required. SYNPREP_SCREENSHOTS names a folder
for pictures of the pages in the light and the dark theme.
"""

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import NOTEBOOKS, PROJECT, copy_project

pytestmark = pytest.mark.browser

SECONDS = 300  # that any one step may take on a slow machine
FOLDERS = (
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_DATA_DIR",
    "JUPYTER_RUNTIME_DIR",
    "JUPYTERLAB_SETTINGS_DIR",
    "JUPYTERLAB_WORKSPACES_DIR",
    "IPYTHONDIR",
)
NO_NEWS = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}

HAS_STARTED = "() => window.jupyterapp?.shell.currentWidget"
NOTICE_THE_END = """() => window.jupyterapp.commands.commandExecuted.connect((_, command) => {
    if (command.id === "notebook:run-all-cells") command.result.finally(() => { window.hasRun = true; });
})"""
OPEN = """path => {
    window.hasRun = false;
    window.jupyterapp.commands.execute("docmanager:open", { path });
}"""
IS_READY = """path => {
    const context = window.jupyterapp.shell.currentWidget?.context;
    return context?.path === path && context.isReady
        && context.sessionContext.session?.kernel?.status === "idle";
}"""
CLEAR = "() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')"
DOCUMENT = "() => JSON.stringify(window.jupyterapp.shell.currentWidget.content.model.toJSON())"
CLOSE = """async () => {
    const widget = window.jupyterapp.shell.currentWidget;
    await widget.context.sessionContext.shutdown();
    widget.dispose();  // unlike close, asks for no saving
}"""
CHANGE_THEME = "theme => { window.jupyterapp.commands.execute('apputils:change-theme', { theme }); }"
HAS_THEME = """theme => document.body.dataset.jpThemeName === theme
    && !document.querySelector("#jupyterlab-splash")"""
SHOW_WHOLE = """() => {
    const { shell } = window.jupyterapp;
    shell.collapseLeft();
    const notebook = shell.currentWidget.content;
    notebook.notebookConfig = { ...notebook.notebookConfig, windowingMode: "none" };
}"""
TO_TOP = """() => {
    const cells = [...document.querySelectorAll(".jp-Notebook .jp-Cell")];
    cells[0].scrollIntoView();
    return cells.at(-1).getBoundingClientRect().bottom;
}"""


def unavailable(what):
    """Skip; or fail, where the browser tests must run."""
    (pytest.fail if os.environ.get("SYNPREP_BROWSER") == "required" else pytest.skip)(what)


@pytest.fixture(scope="module")  # not longer: nbval starts event loops of its own
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("Playwright is missing: pip install playwright")
    if not (chromium := shutil.which("chromium")):
        unavailable("Chromium is missing: install the package chromium of your system")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, timeout=1000 * SECONDS)
        context = browser.new_context(viewport={"width": 1400, "height": 1000})
        context.set_default_timeout(1000 * SECONDS)
        yield context
        browser.close()


@pytest.fixture(scope="module")
def jupyterlab(browser, tmp_path_factory):
    """The page of a JupyterLab with a copy of the project and nobody's settings."""
    folder = tmp_path_factory.mktemp("jupyterlab")
    copy_project(folder / "project")
    labconfig = folder / "JUPYTER_CONFIG_DIR" / "labconfig"
    labconfig.mkdir(parents=True)
    (labconfig / "page_config.json").write_text(json.dumps(NO_NEWS))
    token = secrets.token_hex(16)
    with open(folder / "log", "w") as log:
        server = start_jupyterlab(folder, token, log)
    try:
        page = browser.new_page()
        page.goto(f"{wait_for_url(server, folder)}lab?reset&token={token}")
        page.wait_for_function(HAS_STARTED)
        page.evaluate(NOTICE_THE_END)
        yield page
    finally:
        stop(server)


def start_jupyterlab(folder, token, log):
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": 0,
        "ServerApp.allow_root": True,
        "ServerApp.root_dir": folder / "project",
        "LabApp.expose_app_in_browser": True,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", *(f"--{k}={v}" for k, v in options.items())],
        env={**os.environ, "JUPYTER_TOKEN": token, **{name: str(folder / name) for name in FOLDERS}},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def wait_for_url(server, folder):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and server.poll() is None:
        for path in (folder / "JUPYTER_RUNTIME_DIR").glob("jpserver-*.json"):
            with contextlib.suppress(json.JSONDecodeError):  # half written
                return json.loads(path.read_text())["url"]
        time.sleep(0.05)
    raise RuntimeError("JupyterLab did not start:\n" + (folder / "log").read_text()[-3000:])


def stop(server):
    """End the server and whatever it has started; kernels have sessions of their own."""
    if server.poll() is None:
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        server.terminate()
        for process in psutil.wait_procs(processes, timeout=20)[1]:
            process.kill()
    server.wait()


@pytest.fixture(scope="module", params=[path.stem for path in NOTEBOOKS])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def page(jupyterlab, name):
    """The page with a notebook in which all cells have run."""
    path = f"notebooks/{name}.ipynb"
    jupyterlab.evaluate(OPEN, path)
    jupyterlab.wait_for_function(IS_READY, arg=path)
    jupyterlab.evaluate(CLEAR)  # what is read later is new
    jupyterlab.get_by_role("menuitem", name="Run", exact=True).click()
    jupyterlab.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    jupyterlab.wait_for_function("() => window.hasRun")
    if folder := os.environ.get("SYNPREP_SCREENSHOTS"):
        take_screenshots(jupyterlab, Path(folder), name)
    yield jupyterlab
    jupyterlab.evaluate(CLOSE)


def take_screenshots(page, folder, name):
    page.evaluate(SHOW_WHOLE)
    for theme in ("Dark", "Light"):
        page.evaluate(CHANGE_THEME, f"JupyterLab {theme}")
        page.wait_for_function(HAS_THEME, arg=f"JupyterLab {theme}")
        page.set_viewport_size({"width": 1400, "height": int(page.evaluate(TO_TOP)) + 50})
        page.evaluate(TO_TOP)
        page.screenshot(path=folder / f"{name}_{theme.lower()}.png")


@pytest.fixture
def cells(page):
    """The code cells of JupyterLab's document."""
    return code_cells(page.evaluate(DOCUMENT))


def code_cells(text):
    return [cell for cell in nbformat.reads(text, 4).cells if cell.cell_type == "code"]


@pytest.fixture
def stored(name):
    return code_cells((PROJECT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))


def kinds(cell):
    """What a cell shows: stdout, stderr, error, text/html, image/png ..."""
    return {kind for out in cell.outputs for kind in out.get("data", [out.get("name", out.output_type)])}


def lines(cells):
    return "".join(out.get("text", "") for cell in cells for out in cell.outputs).splitlines()


def test_every_cell_ran_once_in_order(cells):
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_no_cell_shows_an_error_or_a_warning(cells):
    assert [cell.outputs for cell in cells if kinds(cell) & {"error", "stderr"}] == []


def test_every_cell_shows_what_the_stored_one_shows(cells, stored):
    """Pictures where there are pictures, tables where there are tables."""
    assert [kinds(cell) for cell in cells] == [kinds(cell) for cell in stored]


def test_progress_ends_in_one_quiet_line(cells, stored):
    quiet = [line for line in lines(cells) if line.endswith(": done")]
    assert quiet == [line for line in lines(stored) if line.endswith(": done")]
    assert [line for line in lines(cells) if "%|" in line] == []


@pytest.mark.parametrize("name", ["inspect"], indirect=True, scope="module")
def test_the_slider_of_inspect_changes_the_picture(page):
    """By keyboard; the picture is in the same cell."""
    from playwright.sync_api import expect

    slider = page.get_by_role("slider")
    picture = page.locator(".jp-CodeCell", has=slider).first.locator(".jupyter-widgets img").first
    before = picture.get_attribute("src")
    slider.first.focus()
    page.keyboard.press("ArrowRight")
    expect(picture).not_to_have_attribute("src", before, timeout=30_000)
    picture.evaluate("image => image.decode()")  # fails for what is no picture
