"""A page of headless Chromium, driven over a pipe (https://chromedevtools.github.io/devtools-protocol)."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

# Longer than anything takes on a busy machine.
LIMIT = 60
# The exit code that says so. common/oidc.rs has it too.
NO_BROWSER = 77
PROGRAMS = ["chromium", "chromium-browser", "google-chrome"]


class Browser:
    def __init__(self, *flags):
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if not program:
            sys.exit(NO_BROWSER)
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        commands, self.commands = os.pipe()
        self.answers, answers = os.pipe()
        # Chromium reads the commands from descriptor 3 and writes the answers to 4.
        line = 'exec "$0" "$@" 3<&%d 4>&%d' % (commands, answers)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", *flags]
        self.process = subprocess.Popen(
            ["sh", "-c", line, program, *arguments, "--user-data-dir=" + self.folder.name],
            pass_fds=(commands, answers),
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self.rest, self.number, self.session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        self.call("Page.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(LIMIT)
        self.folder.cleanup()

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        answer = self.until(lambda found: found.get("id") == self.number)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def until(self, wanted):
        while True:
            while b"\0" not in self.rest:
                more = os.read(self.answers, 1 << 16)
                if not more:
                    raise RuntimeError("the browser has ended")
                self.rest += more
            message, self.rest = self.rest.split(b"\0", 1)
            found = json.loads(message)
            if wanted(found):
                return found

    def loaded(self):
        self.until(lambda found: found.get("method") == "Page.loadEventFired")

    def go(self, url):
        self.call("Page.navigate", url=url)
        self.loaded()

    def run(self, script):
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")
