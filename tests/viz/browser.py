"""A real Chromium for tests of pages, spoken to over a pipe in the DevTools protocol; it needs no package.

    with Browser() as browser:
        page = browser.open(path)
        page.run("document.title")
        page.press("ArrowRight")
        page.screenshot("page.png")
        assert not page.problems    # console errors, exceptions, and requests for anything but the file
"""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars "
         "--remote-debugging-pipe").split()
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9, "Enter": 13, " ": 32}


def chromium():
    """Where a Chromium is, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


class Browser:
    """A headless Chromium with a profile of its own, which goes away with it."""

    def __enter__(self):
        self.profile = tempfile.mkdtemp()
        to_read, self.to_write = os.pipe()
        self.from_read, from_write = os.pipe()

        def pipes():  # the browser reads from descriptor 3 and writes to 4
            source, target = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, from_write))  # out of their way
            os.dup2(source, 3), os.dup2(target, 4)

        self.process = subprocess.Popen([chromium(), *FLAGS, f"--user-data-dir={self.profile}"], preexec_fn=pipes,
                                        close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read), os.close(from_write)
        self.buffer, self.count, self.events = b"", 0, []
        return self

    def __exit__(self, *exception):
        try:
            self.send("Browser.close")
            self.process.wait(10)
        except (OSError, RuntimeError, TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.to_write), os.close(self.from_read)
        shutil.rmtree(self.profile, ignore_errors=True)

    def send(self, method, session=None, **params):
        """Ask the browser for something and wait for its answer."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.to_write, json.dumps(message).encode() + b"\0")
        number = self.count
        while True:
            answer = self.receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def receive(self):
        while b"\0" not in self.buffer:
            piece = os.read(self.from_read, 1 << 16)
            if not piece:
                raise RuntimeError("the browser is gone")
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path, width=1200, height=900, dark=False):
        """Load a page from disk in a new tab."""
        return Tab(self, Path(path).resolve().as_uri(), width, height, dark)


class Tab:
    """A page in the browser."""

    def __init__(self, browser, address, width, height, dark):
        self.browser, self.address = browser, address
        target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)
        self.send("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"}])
        self.send("Page.navigate", url=address)
        for _ in range(200):
            if self.run("location.href !== 'about:blank' && document.readyState") == "complete":
                break
            time.sleep(0.05)

    def send(self, method, **params):
        return self.browser.send(method, self.session, **params)

    def run(self, expression):
        """What a JavaScript expression gives on the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", details).get("description"))
        return answer["result"].get("value")

    def wait(self, condition, seconds=20):
        """Wait until a JavaScript expression is true."""
        for _ in range(int(seconds / 0.05)):
            if self.run(condition):
                return
            time.sleep(0.05)
        raise TimeoutError(f"after {seconds} seconds it is still not true that {condition}")

    def press(self, key, times=1):
        """Press a key of the keyboard, as a person does."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        code = {"windowsVirtualKeyCode": KEYS[key]} if key in KEYS else {}
        for _ in range(times):
            self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **code, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, **code)

    def write(self, selector, text):
        """Replace what stands in a field by typing."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.run(f"document.querySelector({json.dumps(selector)}).select()")
        self.send("Input.insertText", text=text)

    def screenshot(self, path, height=None):
        """A picture (.png or .webp) of the whole page, also of what is below the window; or of its first pixels."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {**size, "height": height or size["height"], "scale": 1}
        image = self.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip, format=path.suffix[1:])
        path.write_bytes(base64.b64decode(image["data"]))

    def flaws(self):
        """What somebody who does not see well, or has no mouse, would stumble over: a list of sentences."""
        return self.run((Path(__file__).parent / "flaws.js").read_text())

    @property
    def problems(self):
        """Errors in the console, exceptions, and requests for anything but the page itself."""
        self.run("0")
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            about = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(about["exceptionDetails"].get("exception", {}).get("description", "exception"))
            elif event["method"] == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
                found.append(f"console: {about['args']}")
            elif event["method"] == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
                found.append(f"log: {about['entry']['text']}")
            elif event["method"] == "Network.requestWillBeSent":
                address = about["request"]["url"]
                if address != self.address and not address.startswith("data:"):
                    found.append(f"request: {address}")
        return found
