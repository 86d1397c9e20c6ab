"""A headless Chromium for the tests, driven by its DevTools protocol."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Tab:
    """One page. `wrong`: what it put on the console as errors; `asked`: the addresses that it wanted, where Network is enabled."""

    def __init__(self, socket: websocket.WebSocket):
        self.socket, self.number, self.events = socket, 0, []
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters) -> dict:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while (said := json.loads(self.socket.recv())).get("id") != self.number:
            self.events.append(said)
        assert "error" not in said, (method, said)
        return said["result"]

    def open(self, path: Path, **device) -> None:
        """Load a file at a width of the window in pixels, with `dark` as the system's wish or not."""
        self.size(**device)
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        end = time.monotonic() + 60
        while not self.run("document.readyState === 'complete' && location.protocol === 'file:'"):
            assert time.monotonic() < end, "the page did not load within a minute"
            time.sleep(0.1)

    def size(self, width: int = 1400, height: int = 1000, *, dark: bool = False) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def run(self, expression: str):
        """The value of an expression of JavaScript, awaited, as of a click of the user."""
        done = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                **({"text": key} if len(key) == 1 and kind == "keyDown" else {}),
            )

    @property
    def wrong(self) -> list[dict]:
        self.run("0")
        return [event for event in self.events if event["method"] == "Runtime.exceptionThrown"
                or (event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] in ("error", "warning"))
                or (event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] in ("error", "warning"))]  # fmt: skip

    @property
    def asked(self) -> set[str]:
        self.run("0")
        return {
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        }

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Tab]:
    """A browser with its profile in `folder`, ended afterwards."""
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "about:blank",
    ]
    environment = dict(os.environ) | {"HOME": str(folder)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        port, end = folder / "DevToolsActivePort", time.monotonic() + 60
        while not (port.is_file() and len(lines := port.read_text(encoding="utf-8").splitlines()) == 2):
            assert process.poll() is None, "chromium ended at its start"
            assert time.monotonic() < end, "chromium did not start within a minute"
            time.sleep(0.1)
        address = f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        browser = websocket.create_connection(address, timeout=120, suppress_origin=True)
        tab = _of(browser, "Target.createTarget", url="about:blank")["targetId"]
        _of(
            browser, "Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]
        )
        socket = websocket.create_connection(
            f"ws://127.0.0.1:{lines[0]}/devtools/page/{tab}", timeout=120, suppress_origin=True
        )
        yield Tab(socket)
        socket.close()
        browser.close()
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _of(socket: websocket.WebSocket, method: str, **parameters) -> dict:
    socket.send(json.dumps({"id": 1, "method": method, "params": parameters}))
    while (said := json.loads(socket.recv())).get("id") != 1:
        pass
    return said["result"]
