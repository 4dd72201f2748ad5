"""A user at a browser: headless Chromium, driven over a pipe, signs in at a host and prints what it sees:

    oidc_browser.py URL USER
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

# Longer than anything takes on a busy machine.
LIMIT = 60


class Browser:
    """A page of Chromium (https://chromedevtools.github.io/devtools-protocol)."""

    def __init__(self, program, folder):
        commands, self.commands = os.pipe()
        self.answers, answers = os.pipe()
        # Chromium reads the commands from descriptor 3 and writes the answers to 4.
        line = 'exec "$0" "$@" 3<&%d 4>&%d' % (commands, answers)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        self.process = subprocess.Popen(
            ["sh", "-c", line, program, *arguments, "--user-data-dir=" + folder],
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


SEND = """fetch(%s, {method: %s, headers: Object.assign(
    {"content-type": "application/json"}, %s), body: %s}).then(reply => reply.status)"""


def send(browser, method, path, headers, body):
    arguments = tuple(json.dumps(argument) for argument in (path, method, headers))
    return browser.run(SEND % (*arguments, json.dumps(json.dumps(body)) if body else "undefined"))


def main():
    url, user = sys.argv[1:]
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        sys.exit("chromium is needed: a user signs in with it")
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(program, folder)
        try:
            browser.go(url + "/auth/sign-in?back=/auth/me")
            at_provider = browser.run("location.origin")
            browser.run("setTimeout(() => document.querySelector('button[value=%s]').click())" % user)
            browser.loaded()
            text = browser.run("document.body.innerText")
            me = json.loads(text)
            body = {"subject": "ben", "roles": ["clerk"]}
            csrf = {"kontor-csrf": me["csrf"]}
            print(json.dumps({
                "at_provider": at_provider,
                "back_at": browser.run("location.pathname"),
                "me": me,
                "seen_by_scripts": browser.run("document.cookie"),
                "without_csrf": send(browser, "POST", "/admin/tokens", {}, body),
                "with_wrong_csrf": send(browser, "POST", "/admin/tokens", {"kontor-csrf": "x"}, body),
                "with_csrf": send(browser, "POST", "/admin/tokens", csrf, body),
                "sign_out": send(browser, "POST", "/auth/sign-out", csrf, None),
                "after": browser.run("fetch('/auth/me').then(reply => reply.json())"),
            }))
        finally:
            browser.process.kill()
            browser.process.wait(LIMIT)


main()
